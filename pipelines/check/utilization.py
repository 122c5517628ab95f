"""How much of the time an accelerator would work, and not wait for the feed.

Accelerator utilization as MLPerf Storage defines it: AU = total compute time / total running
time, the first step left out (MLCommons, "MLPerf Storage Benchmark Rules", v2.0, sections 3 and
4: github.com/mlcommons/storage, Submission_guidelines.md). There, too, a training step is a sleep
of given length, and 90 % or more is asked for of most models.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any


def simulated(batches: Iterator[Any], step_s: float, steps: int) -> float:
    """AU, 0 to 1, of an accelerator that takes ``step_s`` seconds for a batch: for that long the
    processor is the feed's alone."""
    return utilization(batches, lambda batch: time.sleep(step_s), step_s, steps)


def utilization(
    batches: Iterator[Any], step: Callable[[Any], Any], step_s: float, steps: int
) -> float:
    """AU, 0 to 1, over ``steps`` steps, of which each takes ``step_s`` where nothing waits."""
    step(next(batches))  # the first step, which fills the pipeline
    start = time.perf_counter()
    for _ in range(steps):
        step(next(batches))
    return min(1.0, steps * step_s / (time.perf_counter() - start))


def trained(load: Callable[[str | None], Any], turns: int, seconds: float) -> dict[str, Any]:
    """AU of a small Keras model that learns from a feed, on an accelerator where there is one.

    The compute time of a step is the median of steps on one batch that is held in memory; on a
    processor, the feed and the model have the same cores, which counts as waiting.

    Args:
      load: makes the feed, endless, for a device (None: the processor).
      turns: how many times it is measured.
      seconds: how long each time.

    Returns:
      ``utilization``, one share a turn; ``step_seconds``; ``device``; ``parameters``.

    Raises:
      DatasetError: as ``load``.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    device = "/GPU:0" if gpus else "/CPU:0"
    batches = iter(load(device if gpus else None))
    held = next(batches)
    with tf.device(device):
        model = _model(tf.keras, held["image"].shape)

        def step(batch: Any) -> None:
            image = batch["image"]
            model.train_on_batch(image, tf.reduce_mean(image, (1, 2)))  # waits for the loss

        step_s = _median(step, held)
        steps = max(3, int(seconds / step_s))
        found = [utilization(batches, step, step_s, steps) for _ in range(turns)]
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name") if gpus else "CPU"
    return {
        "utilization": found, "step_seconds": step_s, "device": name,
        "parameters": model.count_params(),
    }  # fmt: skip


def _median(step: Callable[[Any], Any], held: Any) -> float:
    """Seconds of a step on a batch that is there already."""
    times = []
    for _ in range(8):
        start = time.perf_counter()
        step(held)
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])  # the first ones compile


def _model(keras: Any, shape: Any) -> Any:
    """Learns each band's mean, which every dataset has, whatever its labels."""
    layers = keras.layers
    model = keras.Sequential([
        keras.Input(shape[1:]),
        layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(shape[-1]),
    ])  # fmt: skip
    model.compile("adam", "mse")
    return model
