"""What an alternative is: a way to write patches, and a feed over what was written."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

BUFFER = 10_240  # records in a shuffle buffer, as the published recipe has
FILES = 16  # that HDF5 and records are spread over

# Whether a feed that was stopped in an epoch goes on from there. TensorFlow saves an iterator, and
# with it all that its buffers hold, unless a Python function is part of the pipeline ("PyFunc is
# stateful").
STATE = "yes: state_dict, a few numbers"
CHECKPOINT = "by tf.train.Checkpoint, with the shuffle buffer's records in it"
NO_RESUME = "no: tf.data does not save a pipeline with a Python function in it"


@dataclasses.dataclass(frozen=True)
class Sample:
    """Patches that all alternatives hold, in the order in which they lie in their scenes.

    Attributes:
      folder: images.npy (N, H, W, C), and classes.npy (N,) where the dataset has a class label.
      count, total: patches of the sample, and of its split.
      shape, dtype: of one patch.
      finite: whether it holds no NaN or infinity.
      low, high: of each band.
    """

    folder: str
    count: int
    total: int
    shape: tuple[int, ...]
    dtype: str
    finite: bool
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def bytes(self) -> int:
        return self.count * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def images(self) -> np.ndarray:
        """As they lie in the file, not read into memory."""
        return np.asarray(np.load(Path(self.folder) / "images.npy", mmap_mode="r"))

    def classes(self) -> np.ndarray | None:
        path = Path(self.folder) / "classes.npy"
        return np.load(path) if path.exists() else None

    def scaled(self, size: int) -> int:
        """What is ``size`` for the whole split, for the sample: a buffer that holds the same
        share of both shuffles both equally well."""
        return max(1, round(size * self.count / self.total))


class Alternative:
    """One way to keep patches and feed them.

    Attributes:
      name: as ``--alternatives`` has it.
      title: what it is.
      modules: what must be installed, and ``install`` how.
      resume: STATE, CHECKPOINT or NO_RESUME.
      room: the most bytes on disk that a byte of patches may take.
      ours: whether it is scenefeed's.
    """

    name = title = ""
    modules: tuple[str, ...] = ("tensorflow",)
    install = "pip install 'scenefeed[tensorflow]'"
    resume = NO_RESUME
    room = 1.2
    ours = False

    def __init__(self, sample: Sample, batch_size: int):
        self.sample, self.batch_size = sample, batch_size

    def why_not(self) -> str:
        """Why it cannot run here, or on these patches; "" where it can."""
        missing = [m for m in self.modules if not importlib.util.find_spec(m)]
        return f"{missing[0]} is not installed: {self.install}" if missing else ""

    @property
    def lossy(self) -> bool:
        """Whether values come back rounded."""
        return False

    def write(self, images: np.ndarray, classes: np.ndarray | None, folder: Path) -> None:
        """Writes patches (N, H, W, C), of these classes (N,), into a folder that is there."""
        raise NotImplementedError

    def feed(self, folder: Path) -> Any:
        """Shuffled batches; each pass is an epoch, each patch once in it."""
        raise NotImplementedError

    def array(self, batch: Any) -> np.ndarray:
        """A batch of the feed as (B, H, W, C)."""
        return np.asarray(batch)

    def exact(self, batch: np.ndarray) -> np.ndarray:
        """What must be the same, to the bit, in a batch from the feed and in its source."""
        return batch

    def batched(self, dataset: Any) -> Any:
        """A tf.data pipeline of single patches in batches, one ahead."""
        import tensorflow as tf

        return dataset.batch(self.batch_size).prefetch(tf.data.AUTOTUNE)

    def buffered(self, dataset: Any) -> Any:
        """The same, shuffled in a buffer."""
        return self.batched(dataset.shuffle(self.sample.scaled(BUFFER)))
