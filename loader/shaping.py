"""What is done to a decoded batch: augmentation, weights, normalization, dtype, the user's map.

Written once over a few batched operations, which NumPy and TensorFlow each provide.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .spec import DatasetError, DatasetSpec
from .statistics import Choice, Normalization, Statistics

DTYPES = ("float16", "bfloat16", "float32")
DRAWS = 5  # numbers that one record's augmentation takes


class Operations(Protocol):
    """Batched operations on images and masks, (B, H, W, ...)."""

    def oriented(self, x: Any, rows: Any, columns: Any, swap: Any) -> Any:
        """Flips rows, flips columns, then exchanges both axes, each where its (B,) is true."""

    def cropped(self, x: Any, tops: Any, lefts: Any, height: int, width: int) -> Any:
        """A window of each element, from its own corner, int64 (B,)."""

    def cast(self, x: Any, dtype: str) -> Any: ...

    def lookup(self, table: np.ndarray, ids: Any) -> Any:
        """``table[ids]``, where ids are within the table."""

    def floor(self, x: Any) -> Any:
        """As int64."""

    def normalized(self, x: Any, by: Normalization) -> Any:
        """As ``Normalization`` says, float32."""

    def transformed(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with what the dataset's own transform graph makes of it."""


@dataclasses.dataclass(frozen=True)
class Augment:
    """Random symmetries and crops of image and masks together.

    Attributes:
      flip: mirror rows, columns, neither or both, each with probability one half.
      turn: with ``flip``, any of the square's eight symmetries, equally likely; alone, any of
        the four quarter turns. Patches must be square.
      crop: a window of this height and width at a random place, an int or a pair.
    """

    flip: bool = False
    turn: bool = False
    crop: int | tuple[int, int] | None = None

    @classmethod
    def of(cls, value: bool | Mapping[str, Any] | Augment, height: int, width: int) -> Augment:
        """From the option's value.

        Raises:
          DatasetError: an unknown key, or it does not fit patches of (height, width).
        """
        if isinstance(value, Augment):
            made = value
        elif isinstance(value, Mapping):
            unknown = set(value) - {"flip", "turn", "crop"}
            if unknown:
                raise DatasetError(f"augment has no {min(unknown)!r}: flip, turn, crop")
            made = cls(**value)
        else:
            made = cls(flip=bool(value), turn=bool(value) and height == width)
        size = made.window() or (height, width)
        if not (0 < size[0] <= height and 0 < size[1] <= width):
            raise DatasetError(f"augment: a crop of {size} from patches of {(height, width)}")
        if made.turn and size[0] != size[1]:
            raise DatasetError(f"augment: quarter turns need square patches, not {size}")
        return made

    def window(self) -> tuple[int, int] | None:
        if self.crop is None:
            return None
        return (self.crop, self.crop) if isinstance(self.crop, int) else tuple(self.crop)  # type: ignore[return-value]

    def __bool__(self) -> bool:
        return self.flip or self.turn or self.crop is not None


class Shaping:
    """From a decoded batch to what the feed gives.

    Args:
      spec: the dataset's.
      names: the features that are decoded.
      normalize: a ``Normalization``, ``Statistics`` whose function is to be applied, or None.
      augment, dtype, class_weights, map, as_supervised: see ``Options``.

    Raises:
      DatasetError: an option does not fit the dataset.
    """

    def __init__(
        self, spec: DatasetSpec, names: Sequence[str], *, augment: Any, dtype: str | None,
        normalize: Choice, class_weights: Any,
        map: Callable[..., Any] | None, as_supervised: bool,
    ):  # fmt: skip
        self._names, self._features = list(names), spec.features
        self._spatial = [n for n in names if spec.features[n].encoding == "tensor"]
        image = spec.features["image"]
        self.augment = Augment.of(augment, *image.shape[:2])
        self._size = image.shape[:2]
        if dtype is not None and dtype not in DTYPES:
            raise DatasetError(f"dtype {dtype!r}: one of {', '.join(DTYPES)}")
        self.function = normalize if isinstance(normalize, Statistics) else None
        self._by = normalize if isinstance(normalize, Normalization) else None
        self._dtype = dtype or ("float32" if self._by else None)
        if (self._dtype or self.augment) and "image" not in names:
            raise DatasetError("dtype, normalize and augment need 'image' among the features")
        if self.function and self.augment.crop is not None:
            raise DatasetError(
                f"augment: no crop where {self.function.function} normalizes: its graph takes whole "
                "patches; crop in `map`, or give normalize=None"
            )
        self._weights = _weights(class_weights, spec, names) if class_weights else None
        self._map, self._labels = map, spec.labels if as_supervised else None

    def __call__(self, batch: dict[str, Any], draws: Any, ops: Operations) -> Any:
        """The batch as the feed gives it.

        Args:
          batch: decoded features.
          draws: numbers in [0, 1), (B, ``DRAWS``), one row a record; used where there is
            augmentation.
        """
        return self.given(self.computed(batch, draws, ops), ops)

    def computed(self, batch: dict[str, Any], draws: Any, ops: Operations) -> dict[str, Any]:
        """The first part: augmented, weighted, normalized. NumPy does it in the batch's own
        memory, and is what the feed for TensorFlow uses too."""
        out = dict(batch)
        if self.augment:
            out |= self._augmented(out, draws, ops)
        if self._weights is not None:
            label, table = self._weights
            out["weight"] = ops.lookup(table, out[label])
        if self._by is not None:
            out["image"] = ops.normalized(out["image"], self._by)
        return out

    def columns(self) -> dict[str, tuple[tuple[int, ...], str, str]]:
        """What ``computed`` gives: shape of a record's, dtype and kind by name."""
        found = {}
        for name in self._names:
            feature, shape = self._features[name], self._features[name].shape
            if name in self._spatial:
                shape = (*(self.augment.window() or shape[:2]), *shape[2:])
            dtype = "float32" if name == "image" and self._by is not None else feature.dtype
            found[name] = (shape, dtype, feature.kind)
        if self._weights is not None:
            label, table = self._weights
            found["weight"] = (found[label][0], str(table.dtype), "value")
        return found

    def given(self, batch: dict[str, Any], ops: Operations) -> Any:
        """The rest: transformed by a graph, cast, put into parts, mapped."""
        if self.function is not None:
            batch = ops.transformed(batch)
        if self._dtype is not None:
            batch = batch | {"image": ops.cast(batch["image"], self._dtype)}
        parts = (batch,) if self._labels is None else self._parts(batch)
        if self._map is not None:
            return self._map(*parts)
        return parts if len(parts) > 1 else parts[0]

    def _augmented(self, batch: dict[str, Any], draws: Any, ops: Operations) -> dict[str, Any]:
        found = {name: batch[name] for name in self._spatial}
        window = self.augment.window()
        if window:
            corners = [
                ops.floor(draws[:, 3 + i] * (size - part + 1))
                for i, (size, part) in enumerate(zip(self._size, window, strict=True))
            ]
            top, left = corners
            found = {k: ops.cropped(x, top, left, *window) for k, x in found.items()}
        if self.augment.flip or self.augment.turn:
            rows, columns, swap = (draws[:, i] < 0.5 for i in range(3))
            if not self.augment.turn:
                swap = draws[:, 0] < 0
            elif not self.augment.flip:  # a turn is a flip and an exchange, or neither
                columns = rows ^ swap
            found = {k: ops.oriented(x, rows, columns, swap) for k, x in found.items()}
        return found

    def _parts(self, batch: dict[str, Any]) -> tuple[Any, ...]:
        labels: list[str] = self._labels or []
        label = batch[labels[0]] if len(labels) == 1 else {n: batch[n] for n in labels}
        weight = (batch["weight"],) if self._weights is not None else ()
        return (batch["image"], label, *weight)


def needs_no_graph(shaping: Shaping) -> Shaping:
    """The shaping itself.

    Raises:
      DatasetError: it has a part that TensorFlow alone can do.
    """
    if shaping.function is not None:
        raise DatasetError(
            f"normalize: {shaping.function.function} is a TensorFlow graph, which `load` alone applies "
            "(by index, or as a stream): give normalize=None"
        )
    return shaping


def _weights(value: Any, spec: DatasetSpec, names: Sequence[str]) -> tuple[str, np.ndarray]:
    """The label, and a table of weights by its values; 0 for what it ignores."""
    from .options import by_label

    label, weights = by_label(value, spec, "class_weights")
    if label not in names:
        raise DatasetError(f"class_weights: {label!r} is not among the features")
    if not isinstance(weights, Mapping):
        raise DatasetError("class_weights: give {class: weight}")
    feature = spec.features[label]
    limits = np.iinfo(feature.dtype) if np.dtype(feature.dtype).kind in "iu" else None
    if limits is None:
        raise DatasetError(f"class_weights: {label!r} holds {feature.dtype}, not classes")
    ids = {class_id(k, feature.names, label): float(v) for k, v in weights.items()}
    if any(not math.isfinite(w) or w < 0 for w in ids.values()):
        raise DatasetError("class_weights: weights must be finite and not negative")
    # Labels below 0 count from the table's end, as numpy's indices do.
    size = 1 << (8 * min(2, np.dtype(feature.dtype).itemsize))
    size = max(size, 1 << 16) if feature.kind == "class" else size
    table = np.ones(size, np.float32)
    for number, weight in ids.items():
        if not -size <= number < size:
            raise DatasetError(f"class_weights: {number} of {label!r}: classes go up to {size - 1}")
        table[number] = weight
    for number in feature.ignore:
        if limits.min <= number <= limits.max and -size <= number < size:
            table[int(number)] = 0
    return label, table


def class_id(name: Any, names: Sequence[str], label: str) -> int:
    if isinstance(name, str):
        if name not in names:
            raise DatasetError(f"{label!r} has no class {name!r}: {', '.join(names)}")
        return list(names).index(name)
    return int(name)


class NumpyOperations:
    """The operations by NumPy; they may change the batch that they are given."""

    def oriented(
        self, x: np.ndarray, rows: np.ndarray, columns: np.ndarray, swap: np.ndarray
    ) -> np.ndarray:
        # In place: the batch is the feed's own, and fresh memory costs more than the copies.
        pixels = _packed(x)
        whole = zip(rows.tolist(), columns.tolist(), swap.tolist(), strict=True)
        for i, (r, c, exchange) in enumerate(whole):
            if r or c or exchange:
                one = pixels[i, :: -1 if r else 1, :: -1 if c else 1]
                pixels[i] = one.swapaxes(0, 1) if exchange else one
        return x

    def cropped(
        self, x: np.ndarray, tops: np.ndarray, lefts: np.ndarray, height: int, width: int
    ) -> np.ndarray:
        pixels = _packed(x)
        out = np.empty((len(x), height, width, *pixels.shape[3:]), pixels.dtype)
        for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
            out[i] = pixels[i, top : top + height, left : left + width]
        return out.view(x.dtype).reshape(len(x), height, width, *x.shape[3:])

    def cast(self, x: np.ndarray, dtype: str) -> np.ndarray:
        return x.astype(numpy_dtype(dtype), copy=False)

    def lookup(self, table: np.ndarray, ids: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(table[ids])
        except IndexError:
            raise DatasetError(
                f"class_weights: labels from {ids.min()} to {ids.max()} are not classes"
            ) from None

    def floor(self, x: np.ndarray) -> np.ndarray:
        return x.astype(np.int64)

    def normalized(self, x: np.ndarray, by: Normalization) -> np.ndarray:
        # A row of pixels at a time: a loop over two bands has hardly begun when it ends.
        wide, times = (*x.shape[:-2], x.shape[-2] * x.shape[-1]), x.shape[-2]
        out = x if x.dtype == np.float32 and x.flags.writeable else x.astype(np.float32)
        rows = out.reshape(wide)
        if by.low is not None:
            np.maximum(rows, np.tile(by.low, times), out=rows)
        if by.high is not None:
            np.minimum(rows, np.tile(by.high, times), out=rows)
        rows -= np.tile(by.offset, times)
        rows *= np.tile(by.factor, times)
        return rows.reshape(x.shape)

    def transformed(self, batch: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError  # needs_no_graph comes before


def _packed(x: np.ndarray) -> np.ndarray:
    """Each pixel's bands as one element, where there is a dtype of that many bytes: strided
    copies are several times as fast."""
    if x.ndim != 4:
        return x
    wide = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}.get(x.shape[3] * x.itemsize)
    if wide is None or not x.flags.c_contiguous:
        return x
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3]).view(wide)


def numpy_dtype(name: str) -> Any:
    """The dtype of that name; bfloat16 is ml_dtypes'.

    Raises:
      DatasetError: ml_dtypes is not installed (JAX and TensorFlow bring it).
    """
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise DatasetError("bfloat16 in NumPy needs ml_dtypes: pip install ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)
