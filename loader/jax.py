"""The feed for JAX: batches on the device, one ahead. TensorFlow is never imported."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from .feed import Feed as NumpyFeed
from .feed import PlacedFeed
from .records import Paths


class Feed(PlacedFeed):
    """A split's batches as ``jax.Array``s.

        feed = Feed("out", batch_size=1024, as_supervised=True, dtype="bfloat16")
        for image, label in feed:
            params = step(params, image, label)

    ``jax.device_put`` of the next batch runs while the step works on this one. In a job of
    several processes give ``shard=(jax.process_index(), jax.process_count())``.

    Args:
      path: the dataset's folder or URL, or several of them.
      split: which split; ``train`` by default.
      device: a device, or a sharding that batches are laid out by; JAX's default otherwise.
      options: see ``Options``. Texts stay arrays of ``str``; ``map`` is called with NumPy arrays.

    Raises:
      DatasetError: a dataset cannot be read, or an option does not fit it.
    """

    def __init__(
        self, path: Paths, split: str | None = None, *, device: Any = None, **options: Any
    ):
        self._device = device
        super().__init__(NumpyFeed(path, split, **options), self._placed, ahead=1)

    def _placed(self, batch: Any) -> Any:
        return jax.tree.map(self._one, batch)

    def _one(self, x: Any) -> Any:
        if isinstance(x, np.ndarray) and x.dtype == object:
            return x
        return jax.device_put(x, self._device)
