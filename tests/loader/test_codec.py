"""The record codec against TensorFlow's own serialization."""

import numpy as np
import pytest
import tensorflow as tf

from scenefeed.loader.codec import TENSOR_DTYPES, RecordEncoder, decode_batch, varint
from scenefeed.loader.spec import DatasetError, Feature

FEATURES = {
    "image": Feature((4, 4, 2), "float32", "image", "tensor", bands=("VV", "VH")),
    "water": Feature((4, 4), "int16", "mask", "tensor"),
    "angle": Feature((), "float32", "value", "scalar"),
    "kind": Feature((), "int64", "class", "scalar"),
    "scene_id": Feature((), "string", "text", "scalar"),
    "row": Feature((), "int64", "int", "scalar"),
    "col": Feature((), "int64", "int", "scalar"),
}


def some_values(rng, **fixed):
    return {
        "image": rng.normal(size=(4, 4, 2)).astype("float32"),
        "water": rng.integers(-1, 2, (4, 4)).astype("int16"),
        "angle": float(np.float32(rng.normal())),
        "kind": int(rng.integers(0, 9)),
        "scene_id": f"scène-{rng.integers(0, 10 ** int(rng.integers(1, 9)))}",
        "row": int(rng.integers(0, 2**31)) >> int(rng.integers(0, 31)),
        "col": int(rng.integers(0, 2**31)) >> int(rng.integers(0, 31)),
        **fixed,
    }


def ours(values, encode=None):
    raw = {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in values.items()}
    return (encode or RecordEncoder(FEATURES))(raw)


def theirs(values):
    t = tf.train
    features = {}
    for name, v in values.items():
        if isinstance(v, np.ndarray):
            content = t.BytesList(value=[tf.io.serialize_tensor(v).numpy()])
            features[name] = t.Feature(bytes_list=content)
        elif isinstance(v, str):
            features[name] = t.Feature(bytes_list=t.BytesList(value=[v.encode()]))
        elif isinstance(v, float):
            features[name] = t.Feature(float_list=t.FloatList(value=[v]))
        else:
            features[name] = t.Feature(int64_list=t.Int64List(value=[v]))
    return t.Example(features=t.Features(feature=features)).SerializeToString(deterministic=True)


def test_records_are_byte_for_byte_what_tensorflow_writes():
    rng = np.random.default_rng(3)
    encode = RecordEncoder(FEATURES)
    for _ in range(50):
        values = some_values(rng)
        assert ours(values, encode) == theirs(values)
        assert ours(some_values(rng, **values), encode) == theirs(values)


def test_zeros_keep_their_signs_and_equal_values_their_records():
    rng = np.random.default_rng(4)
    encode = RecordEncoder(FEATURES)
    for angle in (0.0, -0.0, 0.0, 1.0, -1.0, float("nan"), 1.0):
        for kind in (0, 1, 0):
            values = some_values(rng, angle=angle, kind=kind)
            assert ours(values, encode) == theirs(values)


@pytest.mark.parametrize("dtype", TENSOR_DTYPES)
@pytest.mark.parametrize("shape", [(3, 5, 2), (1, 1, 1), (2, 300)])
def test_tensors_are_byte_for_byte_serialize_tensor(dtype, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    feature = {"x": Feature(shape, dtype, "image", "tensor")}
    record = RecordEncoder(feature)({"x": array.tobytes()})
    parsed = tf.train.Example.FromString(record).features.feature["x"].bytes_list.value[0]
    assert parsed == tf.io.serialize_tensor(array).numpy()


def gather_from(payloads):
    joined = np.frombuffer(b"".join(payloads) + bytes(4096), np.uint8)
    starts = np.cumsum([0, *map(len, payloads)])[:-1]
    return lambda at, n: np.stack([joined[p : p + n] for p in at]), starts


def test_a_batch_decodes_to_what_was_encoded():
    rng = np.random.default_rng(4)
    values = [some_values(rng) for _ in range(64)]
    gather, starts = gather_from([theirs(v) for v in values])
    found = decode_batch(gather, starts, FEATURES, list(FEATURES))
    for name in FEATURES:
        expected = [v[name] for v in values]
        assert np.array_equal(found[name], np.array(expected, found[name].dtype)), name


def test_only_wanted_features_are_decoded():
    gather, starts = gather_from([ours(some_values(np.random.default_rng(5)))])
    assert list(decode_batch(gather, starts, FEATURES, ["water", "row"])) == ["water", "row"]


def test_another_shape_than_the_spec_says_is_an_error():
    gather, starts = gather_from([ours(some_values(np.random.default_rng(6)))])
    wrong = FEATURES | {"image": Feature((4, 4, 3), "float32", "image", "tensor")}
    with pytest.raises(DatasetError, match="'image'"):
        decode_batch(gather, starts, wrong, ["image"])


def test_bytes_that_are_no_record_are_an_error():
    gather, starts = gather_from([b"\xff" * 500])
    with pytest.raises(DatasetError, match="verify"):
        decode_batch(gather, starts, FEATURES, ["image"])


def test_negative_varint_is_64_bit_twos_complement():
    assert varint(-1) == b"\xff" * 9 + b"\x01"
    assert varint(300) == b"\xac\x02"
