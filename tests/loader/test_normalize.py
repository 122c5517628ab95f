"""A dataset's own normalization in every feed, against NumPy and its own transform graph."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from scenefeed.loader import DatasetError, Feed, Reader, Statistics, load, mix
from scenefeed.loader.statistics import Normalization
from scenefeed.loader.transform import Transform
from tests.loader.datasets import write_dataset
from tests.loader.normalized import with_statistics


@pytest.fixture(scope="module")
def plain(small_dataset):
    return small_dataset / "out"


@pytest.fixture(scope="module", params=["zscore", "quantile"])
def out(request, plain, tmp_path_factory):
    return with_statistics(plain, tmp_path_factory.mktemp("own") / "out", request.param)


# Another band order, something that depends on a scalar, a new feature, a label with other ids.
OWN = """
import tensorflow as tf

def ndvi(inputs):
    image, row = inputs["image"], tf.cast(inputs["row"], tf.float32)
    return {
        "image": tf.reverse(image, [-1]) * 2 + row[:, None, None, None],
        "ratio": image[..., 0] / (1 + tf.abs(image[..., 1])),
        "water": tf.cast(inputs["water"], tf.int64) + 1,
    }
"""


RUN = {"normalize": "dataset"}


@pytest.fixture(scope="module")
def own(plain, tmp_path_factory):
    return with_statistics(plain, tmp_path_factory.mktemp("f") / "out", "features:ndvi", OWN)


def by_hand(out, image):
    """(clip(x, low, high) - offset) / scale in float64, from the file itself."""
    values = json.loads((out / "statistics.json").read_text())["transform"]["image"]
    given = {k: v if v is None else np.array(v, np.float32) for k, v in values.items()}
    low, high = (given[k] if given[k] is not None else None for k in ("low", "high"))
    clipped = image if low is None else np.clip(image, low, high)
    return (clipped.astype(np.float64) - given["offset"]) / given["scale"]


def every(reader):
    return reader.batch(range(len(reader)))


def keys(batch):
    scenes = (s if isinstance(s, str) else s.decode() for s in np.asarray(batch["scene_id"]))
    return list(zip(scenes, *(np.asarray(batch[k]).tolist() for k in ("row", "col")), strict=True))


def test_every_feed_gives_the_graphs_own_bits(out):
    raw = every(Reader(out))
    graph = Transform(out)({"image": tf.constant(raw["image"])})
    served = graph["image"].numpy()
    assert set(graph) == {"image"}  # what needs labels is not there
    np.testing.assert_allclose(served, by_hand(out, raw["image"]), rtol=3e-7, atol=1e-7)
    assert np.abs(served - raw["image"]).max() > 0.01
    options = {"shuffle": False, "batch_size": 7}
    for source in ("index", "stream"):
        for batches in (Feed(out, source=source, **options), load(out, source=source, **options)):
            found = np.concatenate([np.asarray(b["image"]) for b in batches])
            assert found.dtype == np.float32
            assert np.array_equal(found, served)
    in_graph = tf.function(Transform(out))({"image": tf.constant(raw["image"])})
    assert np.array_equal(in_graph["image"], served)


def test_raw_is_what_the_records_hold(out, plain):
    raw = every(Reader(out))["image"]
    for choice in (None, False, "none"):
        (found,) = Feed(out, shuffle=False, normalize=choice)
        assert np.array_equal(found["image"], raw)
    for dataset, options in ((plain, {}), (plain, {"normalize": "auto"})):
        (found,) = Feed(dataset, shuffle=False, **options)
        assert np.array_equal(found["image"], raw)
    assert np.array_equal(Reader(out).batch([3])["image"], raw[[3]])
    (found,) = Feed(out, features=["water"], shuffle=False)
    assert list(found) == ["water"]


def test_with_augmentation_dtype_and_labels(out):
    augmented = Feed(out, augment={"flip": True}, normalize=None, seed=4, batch_size=5)
    feed = Feed(out, augment={"flip": True}, seed=4, batch_size=5)
    for a, b in zip(augmented, feed, strict=True):
        assert np.allclose(b["image"], by_hand(out, a["image"]), rtol=3e-7, atol=1e-7)
    (half,) = Feed(out, dtype="float16", shuffle=False)
    (full,) = Feed(out, shuffle=False)
    assert np.array_equal(half["image"], full["image"].astype(np.float16))
    half = next(iter(load(out, dtype="float16", shuffle=False)))
    assert np.array_equal(half["image"], full["image"].astype(np.float16))
    image, _ = next(iter(Feed(out, as_supervised=True, shuffle=False, augment={"crop": 8})))
    assert image.shape[1:] == (8, 8, 2)


def test_integers_of_many_bands_with_huge_values():
    rng = np.random.default_rng(0)
    by = Normalization(
        rng.normal(size=40).astype("f4"), rng.uniform(0.1, 9, 40).astype("f4"),
        np.full(40, -100, "f4"), np.full(40, 3000, "f4"),
    )  # fmt: skip
    from scenefeed.loader.shaping import NumpyOperations
    from scenefeed.loader.tensors import TensorOperations

    for dtype in ("uint8", "int16", "uint16", "int32", "uint32", "float64"):
        low, high = (-32768, 32767) if dtype in ("int16", "float64") else (0, 255)
        image = rng.integers(low, high, (3, 4, 5, 40)).astype(dtype)
        if dtype[-2:] in ("32", "64"):
            image[0] = 2_000_000_011  # no float32 is exactly that
        expected = (np.clip(image.astype("f4"), -100, 3000) - by.offset) * (
            np.float32(1) / by.scale
        )
        kept = image.copy()
        assert np.array_equal(NumpyOperations().normalized(image.copy(), by), expected)
        assert np.array_equal(TensorOperations().normalized(tf.constant(image), by), expected)
        assert np.array_equal(kept, image)


def test_values_that_are_not_numbers_stay_so():
    from scenefeed.loader.shaping import NumpyOperations
    from scenefeed.loader.tensors import TensorOperations

    one = np.ones(1, "f4")
    by = Normalization(one, one, -one, one)
    image = np.array([np.nan, 5, -np.inf], "f4").reshape(1, 3, 1, 1)
    expected = np.array([np.nan, 0, -2], "f4")
    found = [
        NumpyOperations().normalized(image.copy(), by),
        TensorOperations().normalized(image, by),
    ]
    for each in found:
        assert np.array_equal(np.ravel(each), expected, equal_nan=True)


def test_a_function_of_ones_own(own):
    raw = every(Reader(own))
    feed = load(own, **RUN, shuffle=False, batch_size=6)
    found = {k: np.concatenate([b[k] for b in feed]) for k in feed.element_spec}
    image = raw["image"][..., ::-1] * 2 + raw["row"].astype("f4")[:, None, None, None]
    assert np.array_equal(found["image"], image)
    assert np.array_equal(found["water"], raw["water"].astype(np.int64) + 1)
    ratio = raw["image"][..., 0] / (1 + np.abs(raw["image"][..., 1]))
    assert np.allclose(found["ratio"], ratio, rtol=1e-6)
    assert found["scene_id"].tolist() == [s.encode() for s in raw["scene_id"]]
    # Supervised: the row is read for the image's sake, and not given.
    pairs = load(own, **RUN, shuffle=False, as_supervised=True, drop_remainder=True, batch_size=4)
    first, label = next(iter(pairs))
    assert pairs.element_spec[0].shape == (4, 16, 16, 2)
    assert np.array_equal(first, image[:4])
    assert np.array_equal(label, raw["water"][:4].astype(np.int64) + 1)
    (some,) = load(own, **RUN, features=["image"], shuffle=False, source="stream")
    assert set(some) == {"image", "ratio"}
    assert np.array_equal(some["image"], image)
    (still,) = load(own, normalize=None, shuffle=False)
    assert np.array_equal(still["image"], raw["image"])
    again = load(own, **RUN, shuffle=True, batch_size=4, repeat=2)
    again.load_state_dict(again.state_dict())
    assert sum(len(b["image"]) for b in again) == 2 * len(raw["image"])


def test_a_function_of_ones_own_through_the_service(own):
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=address))
    raw = {k: i for i, k in enumerate(keys(every(Reader(own))))}
    images = every(Reader(own))["image"]
    seen = 0
    for batch in load(own, **RUN, service=f"grpc://{address}", batch_size=4):
        for key, image in zip(keys(batch), batch["image"].numpy(), strict=True):
            assert np.array_equal(image, images[raw[key]][..., ::-1] * 2 + np.float32(key[1]))
            seen += 1
    assert seen == len(raw)
    del worker


def test_no_feed_runs_a_datasets_program_unasked(own, plain, monkeypatch):
    """An invariant: nothing in data is executed."""
    monkeypatch.setattr(tf.saved_model, "load", lambda *_: pytest.fail("it was run"))
    address = "grpc://localhost:1"
    for feed in (Feed, load, lambda *paths: mix(paths, [1]), lambda p: load(p, service=address)):
        with pytest.raises(
            DatasetError, match=r"program, features:ndvi,.*'dataset'.*None"
        ) as raised:
            feed(own)
        assert "\n" not in str(raised.value)
    with pytest.raises(DatasetError, match="program, features:ndvi"):
        load([plain, own])
    for feed in (Feed, load):
        assert next(iter(feed(own, normalize=None)))
        assert list(next(iter(feed(own, features=["row"])))) == ["row"]


def test_a_function_is_refused_where_it_cannot_be_applied(own, tmp_path):
    with pytest.raises(DatasetError, match=r"features:ndvi is a TensorFlow graph.*normalize=None"):
        Feed(own, **RUN)
    assert next(iter(Feed(own, normalize=None)))
    assert list(next(iter(Feed(own, features=["row"])))) == ["row"]
    with pytest.raises(DatasetError, match="no crop where features:ndvi"):
        load(own, **RUN, augment={"crop": 8})
    shutil.copytree(own, tmp_path / "out")
    shutil.rmtree(tmp_path / "out/transform_fn")
    with pytest.raises(DatasetError, match=r"transform_fn: no graph.*scenefeed stats"):
        load(tmp_path / "out", **RUN)


def test_one_line_where_statistics_are_missing_damaged_or_others(out, plain, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(out, folder)
    file = folder / "statistics.json"
    whole = json.loads(file.read_text())

    def says(words, **options):
        with pytest.raises(DatasetError, match=words) as raised:
            Feed(folder, **options)
        assert "\n" not in str(raised.value)

    file.unlink()
    says(f"statistics.json: not there: run `scenefeed stats {folder}`, or give normalize=None")
    assert next(iter(Feed(folder, normalize=None)))
    assert next(iter(Feed(folder, features=["row"])))
    for damage in (
        "{", "[]", "null", json.dumps({**whole, "format": "scenefeed-statistics/9"}),
        json.dumps({k: v for k, v in whole.items() if k != "bands"}),
        json.dumps({**whole, "transform": {"image": {"offset": [1], "scale": [1]}}}),
        json.dumps({**whole, "transform": {"image": {"offset": [1, 1], "scale": [1, 0]}}}),
        json.dumps({**whole, "transform": {"image": {"offset": [1, 1], "scale": [1, float("nan")]}}}),
        json.dumps({**whole, "transform": {"image": {"offset": [1, 1], "scael": [1, 1]}}}),
        json.dumps({**whole, "bands": {"VV": {}, "other": {}}}),
    ):  # fmt: skip
        file.write_text(damage)
        says(r"statistics.json: .*scenefeed stats")
    file.write_text(json.dumps({**whole, "inputs": "f" * 64}))
    says(r"of another dataset than .* holds now: run `scenefeed stats")
    with pytest.raises(DatasetError, match=r"statistics.json: not there"):
        Feed(plain, normalize="dataset")
    file.write_text(json.dumps({**whole, "normalize": "none", "transform": None}))
    says("no normalization of its own", normalize="dataset")
    assert np.array_equal(
        next(iter(Feed(folder, shuffle=False)))["image"], every(Reader(out))["image"]
    )
    with pytest.raises(DatasetError, match="'auto', 'dataset', None"):
        Feed(plain, normalize="zscore")


def test_baked_records_are_fed_as_they_are(out, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(out, folder)
    document = json.loads((folder / "dataset.json").read_text())
    document["config"]["statistics"]["bake"] = True
    (folder / "dataset.json").write_text(json.dumps(document))
    (found,) = Feed(folder, shuffle=False)
    assert np.array_equal(found["image"], every(Reader(folder))["image"])
    with pytest.raises(DatasetError, match="normalized already"):
        Feed(folder, normalize="dataset")
    # Stage files never are.
    staged = next(iter(Feed(folder, "train", source="stage", shuffle=False)))
    whole = next(iter(Feed(folder, "train", source="stage", shuffle=False, normalize=None)))
    assert np.allclose(staged["image"], by_hand(folder, whole["image"]), rtol=3e-7, atol=1e-7)


def test_of_a_url(own, out):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for name, folder in (("own", own), ("out", out)):
        if memory.exists(f"/{name}"):
            memory.rm(f"/{name}", recursive=True)
        memory.put(str(folder), f"/{name}", recursive=True)
    (found,) = load("memory://own", **RUN, shuffle=False, source="index")
    (expected,) = load(own, **RUN, shuffle=False)
    assert np.array_equal(found["image"], expected["image"])
    (found,) = Feed("memory://out", shuffle=False, source="index")
    (expected,) = Feed(out, shuffle=False)
    assert np.array_equal(found["image"], expected["image"])
    memory.rm("/own/transform_fn", recursive=True)
    with pytest.raises(DatasetError, match=r"memory://own/transform_fn: no graph"):
        load("memory://own", **RUN)


def test_several_datasets_need_one_normalization(out, plain, tmp_path):
    raw = every(Reader(out))["image"]
    same = list(Feed([out, out], batch_size=4))
    assert np.isclose(
        np.sort(np.concatenate([b["image"] for b in same]).ravel()),
        np.sort(np.tile(by_hand(out, raw).ravel(), 2)), rtol=1e-5, atol=1e-6,
    ).all()  # fmt: skip
    for paths in ([out, plain], [plain, out]):
        with pytest.raises(DatasetError, match=r"differ: give one for all.*Statistics.load"):
            mix(paths, [1, 1])
    own = Statistics.load(out)
    (found,) = Feed([plain, plain], normalize=own, shuffle=False)
    assert np.allclose(
        found["image"], by_hand(out, np.tile(raw, (2, 1, 1, 1))), rtol=3e-7, atol=1e-7
    )
    assert len(list(mix([out, plain], [1, 1], normalize=None, batch_size=4)))
    other = write_dataset(tmp_path / "o", np.zeros(4, int))
    with pytest.raises(DatasetError, match="statistics of bands VV, VH; the dataset has a"):
        Feed(other, normalize=own)


def test_class_weights_from_statistics(out):
    masks = every(Reader(out))["water"]
    counts = np.bincount(masks.ravel(), minlength=3)[:2]  # 2 is ignored
    expected = np.append(counts.sum() / (2 * counts), 0).astype("f4")
    for choice in ("statistics", {"water": "statistics"}):
        for feed in (Feed, load):
            for source in ("index", "stream"):
                batch = next(iter(feed(out, class_weights=choice, shuffle=False, source=source)))
                assert np.array_equal(batch["weight"], expected[batch["water"]])
    with pytest.raises(DatasetError, match="of one dataset"):
        Feed([out, out], class_weights="statistics")
