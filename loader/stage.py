"""Records straight from the stage files: for experiments before sharding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .pool import Pool
from .spec import FILE_NAME, DatasetError, DatasetSpec, Feature, Split
from .storage import LocalShards

if TYPE_CHECKING:
    from .options import Options

_KEYS = ("scene_id", "row", "col")
_OWN = ("row", "col", "valid", "hash", "invalid")  # columns that are no label


class StageReader:
    """The patches of all stage files of a dataset's folder by index, scene after scene.

    Stage files know no splits. Without ``split`` all patches are read, also those that sampling
    leaves out of the records; with one, those whose keys the split's records have.

    Args:
      path: the dataset's folder, which need not be complete.
      split: None, or a split of the complete dataset.
      options: the feed's: which features are wanted.

    Raises:
      DatasetError: no stage files, one of them cannot be read, or no such split or feature.
    """

    def __init__(self, path: str | Path, split: str | None, options: Options):
        files = sorted((Path(path) / "stage").glob("*.h5"))
        if not files:
            raise DatasetError(
                f"{Path(path) / 'stage'}: no stage files: run `scenefeed convert` without "
                "--drop_stage, or leave source='stage' out"
            )
        self.spec = _spec(Path(path), files[0])
        self.names = options.wanted(self.spec)
        self._columns: dict[str, list[np.ndarray]] = {}
        self._offsets: dict[str, list[np.ndarray]] = {}
        counts = [self._opened(file) for file in files]
        self._file_of = np.repeat(np.arange(len(files)), counts)
        self._at = {k: np.concatenate(v) for k, v in self._offsets.items()}
        self._small = {k: np.concatenate(v) for k, v in self._columns.items()}
        self._files, self._pool = LocalShards([str(f) for f in files]), Pool()
        self._chosen = self._of_split(Path(path), split) if split else None

    def _opened(self, path: Path) -> int:
        """Notes where a file's patches lie, and reads its small columns; how many there are."""
        import h5py

        try:
            with h5py.File(path, "r", locking=False) as file:
                count = len(file["row"])
                texts = {"scene_id": file.attrs["scene_id"]}
                texts |= json.loads(file.attrs["notes"])["texts"]
                for name, feature in self.spec.features.items():
                    if feature.encoding == "tensor":
                        offsets = _patches(file[name], feature)
                        self._offsets.setdefault(name, []).append(offsets)
                    else:
                        column = (
                            np.full(count, texts[name], object)
                            if name in texts
                            else file[name][:].astype(feature.dtype)
                        )
                        self._columns.setdefault(name, []).append(column)
                return count
        except (OSError, KeyError) as e:
            raise DatasetError(
                f"{path}: the stage file cannot be read ({e}): remove it and convert again"
            ) from None

    def _of_split(self, path: Path, split: str) -> np.ndarray:
        from .reader import Reader

        records = Reader(path, split, _KEYS).columns(_KEYS)
        where = {key: i for i, key in enumerate(zip(*(self._small[k] for k in _KEYS), strict=True))}
        return np.array([where[key] for key in zip(*(records[k] for k in _KEYS), strict=True)])

    def __len__(self) -> int:
        return len(self._file_of) if self._chosen is None else len(self._chosen)

    def batch(
        self, indices: Sequence[int] | np.ndarray, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Records ``indices``, stacked, as ``Reader.batch`` gives them."""
        chosen = np.asarray(indices, np.int64)
        if self._chosen is not None:
            chosen = self._chosen[chosen]
        out = {}
        for name in self.names if names is None else names:
            feature = self.spec.features[name]
            if feature.encoding == "scalar":
                out[name] = self._small[name][chosen]
                continue
            dtype = np.dtype(feature.dtype).newbyteorder("<")
            rows = self._pool.take(len(chosen), int(np.prod(feature.shape)) * dtype.itemsize)
            self._files.fill(self._file_of[chosen], self._at[name][chosen], rows)
            out[name] = rows.view(dtype).reshape(len(chosen), *feature.shape)
        return out

    def columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Whole columns of small features."""
        every = slice(None) if self._chosen is None else self._chosen
        return {name: self._small[name][every] for name in names}

    def damage(self, indices: Any) -> dict[int, str]:
        """None is known: HDF5 keeps no checksums here."""
        return {}


def patch_offsets(dataset: Any) -> np.ndarray:
    """Where each patch of an uncompressed HDF5 dataset begins in its file, int64 (N,)."""
    size = int(np.prod(dataset.shape[1:], dtype=np.int64)) * dataset.dtype.itemsize
    return offsets_in_chunks(dataset.id, dataset.shape[0], dataset.chunks[0], size)


def offsets_in_chunks(dataset: Any, count: int, per_chunk: int, size: int) -> np.ndarray:
    """``patch_offsets`` of an open ``h5py.h5d.DatasetID`` of which is known how many patches it has
    in all and in a chunk, and the bytes of one."""
    offsets = np.zeros(-(-count // per_chunk), np.int64)

    def note(info: Any) -> None:
        offsets[info.chunk_offset[0] // per_chunk] = info.byte_offset

    if count:
        dataset.chunk_iter(note)
    index = np.arange(count)
    return np.asarray(offsets[index // per_chunk] + index % per_chunk * size)


def _patches(dataset: Any, feature: Feature) -> np.ndarray:
    if dataset.shape[1:] != feature.shape or str(dataset.dtype) != feature.dtype:
        raise KeyError(f"{dataset.name} is {dataset.dtype} {dataset.shape[1:]}, not as expected")
    return patch_offsets(dataset)


def _spec(folder: Path, first: Path) -> DatasetSpec:
    """dataset.json's features, or what the first stage file tells of them: then every mask is a
    label, and other columns are plain numbers."""
    if (folder / FILE_NAME).exists():
        return DatasetSpec.load(folder)
    import h5py

    with h5py.File(first, "r", locking=False) as file:
        features = {}
        for name, column in file.items():
            shape, dtype = column.shape[1:], str(column.dtype)
            if shape and name not in _OWN:
                kind = "image" if name == "image" else "mask"
                bands = tuple(map(str, file.attrs["bands"])) if kind == "image" else ()
                features[name] = Feature(shape, dtype, kind, "tensor", bands=bands)
            elif name in ("row", "col") or (name not in _OWN and column.dtype.kind in "iu"):
                features[name] = Feature((), "int64", "int", "scalar")
            elif name not in _OWN:
                features[name] = Feature((), "float32", "value", "scalar")
        for name in ("scene_id", *json.loads(file.attrs["notes"])["texts"]):
            features[name] = Feature((), "string", "text", "scalar")
    labels: dict[str, Any] = {k: {} for k, f in features.items() if f.kind == "mask"}
    none: dict[str, Split] = {}
    return DatasetSpec(folder.name, features, none, {"labels": labels}, "", "stage files")
