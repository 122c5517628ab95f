"""Many consumers of one dataset in TensorFlow: strategies, the tf.data service; and Keras."""

import json
import os
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from scenefeed.loader import Reader, load


@pytest.fixture(scope="module")
def out(small_dataset):
    return small_dataset / "out"


def run(code, *args, env=None, timeout=150):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def test_keras_fits_and_goes_on(out):
    """Epochs of model.fit, a state in the middle of one, and the rest from it."""
    feed = load(out, batch_size=4, as_supervised=True, drop_remainder=True)
    model = tf.keras.Sequential([tf.keras.layers.Conv2D(1, 3, padding="same")])
    model.compile("sgd", "mse")
    states = []

    class Keep(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            states.append(feed.state_dict())

    history = model.fit(feed, epochs=2, verbose=0, callbacks=[Keep()])
    steps = len(feed)
    assert len(history.history["loss"]) == 2
    assert [(s["epoch"], s["records"]) for s in states] == [
        (e, 4 * (i + 1)) for e in range(2) for i in range(steps)
    ]
    again = load(out, batch_size=4, as_supervised=True, drop_remainder=True)
    again.load_state_dict(states[1])
    assert len(list(again)) == steps - 2


def test_mirrored_strategy_on_two_devices(out):
    code = """
        import sys, numpy as np, tensorflow as tf
        from scenefeed.loader import load
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        feed = load(sys.argv[1], batch_size=4)
        seen = []
        for batch in strategy.experimental_distribute_dataset(feed):
            parts = strategy.experimental_local_results(batch["row"])
            assert len(parts) == 2
            cols = strategy.experimental_local_results(batch["col"])
            ids = strategy.experimental_local_results(batch["scene_id"])
            seen += [(s, int(r), int(c)) for i, p, q in zip(ids, parts, cols)
                     for s, r, c in zip(i.numpy(), p, q)]
        with strategy.scope():
            model = tf.keras.Sequential([tf.keras.layers.Conv2D(1, 3, padding="same")])
            model.compile("sgd", "mse")
        model.fit(load(sys.argv[1], batch_size=4, as_supervised=True, drop_remainder=True), verbose=0)
        own = strategy.distribute_datasets_from_function(
            lambda context: load(sys.argv[1], batch_size=2, shard=context))
        count = sum(int(sum(len(p) for p in strategy.experimental_local_results(b["row"]))) for b in own)
        print(len(seen), len(set(seen)), count)
    """
    n = len(Reader(out))
    assert run(code, out).split() == [str(n)] * 3


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_multi_worker_mirrored_strategy_in_two_processes(out, own):
    """With shard=(i, n), and with the strategy dividing the feed by itself."""
    code = """
        import json, os, sys, tensorflow as tf
        from scenefeed.loader import load
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        if sys.argv[2] == "True":
            feed = strategy.distribute_datasets_from_function(
                lambda context: load(sys.argv[1], batch_size=2, shard=context, drop_remainder=True))
        else:
            feed = strategy.experimental_distribute_dataset(load(sys.argv[1], batch_size=4, drop_remainder=True))
        with strategy.scope():
            total = tf.Variable(0.0)
        @tf.function
        def step(batch):
            mean = strategy.run(lambda b: tf.reduce_mean(b["image"]), args=(batch,))
            return strategy.reduce("MEAN", mean, axis=None)
        seen = []
        for batch in feed:
            step(batch)
            local = {k: strategy.experimental_local_results(batch[k])[0].numpy()
                     for k in ("scene_id", "row", "col")}
            seen += [(s.decode(), int(r), int(c)) for s, r, c in zip(*local.values())]
        print(json.dumps(seen))
    """
    ports = []
    for _ in range(2):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            ports.append(s.getsockname()[1])
    cluster = {"worker": [f"127.0.0.1:{p}" for p in ports]}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(out), str(own)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "TF_CONFIG": json.dumps(
                {"cluster": cluster, "task": {"type": "worker", "index": i}})},
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        ends = [w.communicate(timeout=150) for w in workers]
    finally:
        for w in workers:
            w.kill()
    assert [w.returncode for w in workers] == [0, 0], ends[0][1][-3000:]
    seen = [[tuple(k) for k in json.loads(o.splitlines()[-1])] for o, _ in ends]
    assert len(seen[0]) == len(seen[1]) == len(Reader(out)) // 4 * 2
    assert not set(seen[0]) & set(seen[1])


@pytest.mark.slow
def test_the_tf_data_service_with_two_workers(out):
    """Each worker a process of its own, which knows nothing of this one's Python functions."""
    worker = """
        import sys, tensorflow as tf
        service = tf.data.experimental.service
        config = service.WorkerConfig(dispatcher_address=sys.argv[1], heartbeat_interval_ms=100)
        server = service.WorkerServer(config)
        sys.stdin.read()
    """
    dispatcher = tf.data.experimental.service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(worker), address],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        shaped = {"normalize": {"mean": 1, "std": 2}, "augment": True}
        feed = load(out, batch_size=4, service=dispatcher.target, **shaped)
        reader = Reader(out)
        by_key = {}
        for i in range(len(reader)):
            r = reader[i]
            by_key[r["scene_id"].encode(), int(r["row"]), int(r["col"])] = r["image"]
        for _ in range(2):
            found = {}
            for b in feed:
                for j, key in enumerate(
                    zip(
                        b["scene_id"].numpy(),
                        b["row"].numpy().tolist(),
                        b["col"].numpy().tolist(),
                        strict=True,
                    )
                ):
                    assert key not in found
                    found[key] = b["image"][j].numpy()
            assert found.keys() == by_key.keys()
            for key, image in found.items():
                expected = (by_key[key] - 1) / 2
                turns = [np.rot90(x, k) for k in range(4) for x in (expected, expected[::-1])]
                assert any(np.allclose(image, x, rtol=1e-6) for x in turns)
    finally:
        for w in workers:
            w.kill()


@pytest.mark.slow
@pytest.mark.parametrize("source", ["index", "stream"])
def test_a_process_ends_in_the_middle_of_an_epoch(out, source):
    """TensorFlow's threads call into Python; the interpreter must not wait for them for ever."""
    code = """
        import sys
        from scenefeed.loader import load
        feed = load(sys.argv[1], source=sys.argv[2], batch_size=1, repeat=True)
        batches = iter(feed)
        for _ in range(3):
            next(batches)
        print("ended")
    """
    assert run(code, out, source, timeout=60) == "ended"
