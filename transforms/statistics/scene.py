"""What one staged scene contributes, read from its stage file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ...loader.spec import Feature
from ..choosing import choose
from ..config import Config
from ..errors import JobError
from ..hashing import patch_hashes, uniform
from ..headers import SceneHeader
from ..stagefile import read_columns, read_contents, read_fill, read_patches
from ..staging import StagedScene
from ..storage import is_remote, path_of, write_bytes
from .counting import Counting
from .numbers import Numbers
from .partial import MOST_CLASSES, Partial, added
from .tally import Tally

# So many values or fewer next to each other are counted faster one at a time.
_FEW = 8
# Of a scene with so many pixels one of four is counted by buckets, or one of sixteen.
_MANY = ((1 << 24, 16), (1 << 22, 4))


def training_split(config: Config) -> str:
    """The split that statistics are of: ``train``, or the first where none has that name."""
    return "train" if "train" in config.splits else config.splits[0]


def keep_counts(scene: StagedScene, config: Config, counting: Counting) -> None:
    """Has a scene counted into its file, if it is not there, and was not counted before.

    Raises:
      JobError: as ``count_scene``.
    """
    token = counting.token(scene, config)
    path = path_of(counting.file(token))
    if token not in counting.held and (is_remote(path) or not path.exists()):
        write_bytes(path, count_scene(scene, config).to_bytes())


def count_scene(scene: StagedScene, config: Config) -> Partial:
    """The statistics of a scene's training patches. No others are looked at.

    Raises:
      SceneError: what the split goes by is not known of this scene.
      JobError: the stage file cannot be read, or does not hold what it says; values are too large.
    """
    try:
        return _count(scene, training_patches(scene, config), config.tile.size**2)
    except OverflowError as e:
        raise JobError(
            f"statistics of scene {scene.id}: {e}: say which they are by clean.nodata, or clip them "
            "(clean.clip)"
        ) from None


def _count(scene: StagedScene, chosen: np.ndarray, pixels: int) -> Partial:
    labels = labels_of(scene.header)
    # Quantiles of millions of values in buckets are told well enough by a million of them.
    wide = np.dtype(scene.header.dtype).itemsize > 2
    some = next((n for most, n in _MANY if wide and len(chosen) * pixels >= most), 1)
    images = Tally(scene.header.dtype, len(scene.header.bands), sampled=some)
    invalid = read_columns(scene.path, ["invalid"])["invalid"][chosen]
    fill = read_fill(scene.path)
    done = 0
    for patches in read_patches(scene.path, "image", chosen):
        part = invalid[done : done + len(patches)]
        done += len(patches)
        try:
            images.add_images(patches.reshape(len(patches), -1, patches.shape[-1]), part, fill)
        except ValueError as e:
            raise JobError(f"{scene.path}: {e}: remove it and convert again") from None
    values, classes = {}, {}
    for name, kind in labels.items():
        if kind == "numbers":
            values[name] = _count_numbers(scene, name, chosen)
        else:
            classes[name] = _count_classes(scene, name, chosen)
    return Partial(len(chosen), tuple(images.numbers()), values, classes)


def training_patches(scene: StagedScene, config: Config) -> np.ndarray:
    """Places of a scene's training patches in its stage file, ascending."""
    number = config.splits.index(training_split(config))
    return np.flatnonzero(choose(scene, config, scene.rates).splits == number)


def training_batches(
    scene: StagedScene, config: Config, features: Mapping[str, Feature], share: float
) -> Iterator[dict[str, np.ndarray]]:
    """A scene's training patches as whole records, some at a time.

    Args:
      scene: staged.
      config: the configuration.
      features: which columns.
      share: of the patches, chosen by a hash of their keys.

    Yields:
      Columns by name, arrays (n, ...), gone with the next.
    """
    chosen = training_patches(scene, config)
    keys = read_columns(scene.path, ["row", "col"])
    rows, cols = keys["row"][chosen], keys["col"][chosen]
    hashes = patch_hashes(config.records.seed, "statistics", scene.id, rows, cols)
    chosen = chosen[uniform(hashes) < share]
    contents = read_contents(scene.path, features)
    small = {"row": keys["row"], "col": keys["col"], **contents.values}
    texts = {"scene_id": scene.id, **contents.texts}
    for start in range(0, len(chosen), 64):
        part = chosen[start : start + 64]
        found = {}
        for name, feature in features.items():
            if feature.encoding == "tensor":
                found[name] = np.concatenate(
                    list(map(np.copy, read_patches(scene.path, name, part)))
                )
            elif name in texts:
                found[name] = np.full(len(part), texts[name].encode(), object)
            else:
                found[name] = small[name][part]
        yield found


def labels_of(header: SceneHeader) -> dict[str, str]:
    """The labels that can be counted, and how: as ``classes`` or as ``numbers``."""
    found = {}
    for name in header.owners:
        feature = header.columns[name]
        whole = feature.dtype != "string" and np.dtype(feature.dtype).kind in "iub"
        if feature.kind == "value" or (feature.kind == "mask" and not whole):
            found[name] = "numbers"
        elif feature.kind in ("mask", "class") and whole:
            found[name] = "classes"
    return found


def _count_numbers(scene: StagedScene, name: str, chosen: np.ndarray) -> Numbers:
    feature = scene.header.columns[name]
    tally = Tally(feature.dtype, 1)
    if feature.shape:
        for patches in read_patches(scene.path, name, chosen):
            values = patches.reshape(len(patches), -1, 1)
            tally.add(values, ~np.isfinite(values) | np.isin(values, feature.ignore))
    else:
        # In their own order: a stage file that was moved holds them in another.
        values = np.sort(read_columns(scene.path, [name])[name][chosen])[None, :, None]
        if len(chosen):
            tally.add(values, ~np.isfinite(values))
    return tally.numbers()[0]


def _count_classes(scene: StagedScene, name: str, chosen: np.ndarray) -> dict[int, int] | None:
    if scene.header.columns[name].shape:
        return added(map(_counts, read_patches(scene.path, name, chosen)))
    return added([_counts(read_columns(scene.path, [name])[name][chosen])])


def _counts(block: np.ndarray) -> dict[int, int] | None:
    """How often each value is there; None for too many."""
    if block.dtype.itemsize == 1:
        whole = _byte_counts(block.view(np.uint8).ravel())
        numbers = np.arange(256, dtype=np.uint8).view(block.dtype)[whole > 0]
        counts = whole[whole > 0]
    else:
        numbers, counts = np.unique(block, return_counts=True)
    if len(numbers) > MOST_CLASSES:
        return None
    return {int(n): c for n, c in zip(numbers.tolist(), counts.tolist(), strict=True)}


def _byte_counts(values: np.ndarray) -> np.ndarray:
    """How often each byte is there, int64 (256,)."""
    counts = np.zeros(256, np.int64)
    first, last = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    if last - first < _FEW:
        for start in range(0, len(values), 1 << 18):  # what stays in the processor's cache
            part = values[start : start + (1 << 18)]
            for value in range(first, last + 1):
                counts[value] += np.count_nonzero(part == value)
        return counts
    # By pairs, which takes half the time.
    pairs = np.bincount(values[: len(values) // 2 * 2].view(np.uint16), minlength=1 << 16)
    counts += pairs.reshape(256, 256).sum(axis=0) + pairs.reshape(256, 256).sum(axis=1)
    if len(values) % 2:
        counts[values[-1]] += 1
    return counts
