"""verify: every byte of every shard against dataset.json."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from ..loader import tfrecord
from ..loader.codec import decode_batch
from ..loader.index import SUFFIX, index_path, parse_index, record_files
from ..loader.spec import FILE_NAME, DatasetError, DatasetSpec, Shard
from ..loader.storage import open_file
from ..transforms.hashing import patch_hashes
from ..transforms.storage import names_in, size_of
from .results import SCENES
from .separation import Gap, gaps, read_georeferences


@dataclasses.dataclass
class _Findings:
    """What one shard was found to hold."""

    records: int = 0
    nan: int = 0
    keys: list[np.ndarray] = dataclasses.field(default_factory=list)
    corners: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
    images: list[np.ndarray] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)


def verify(folder: Path) -> dict[str, Any]:
    """Reads a whole dataset.

    Checks each shard's size and sha256, each record's checksums, that it decodes as dataset.json
    describes, that image values are finite (unless ``fill`` is NaN), that no key (scene, row,
    column) comes twice, that splits lie as far apart as ``split.buffer`` says, all counts, and
    each index that is there.

    Returns:
      ``problems``: one line each, empty when the dataset is whole; ``separation``: the least
      distance between every two splits; ``duplicates``: records whose image another has too; and
      counts.

    Raises:
      DatasetError: there is no complete dataset to verify.
    """
    start, spec = time.perf_counter(), DatasetSpec.load(str(folder))
    shards = [(name, s) for name, split in spec.splits.items() for s in split.shards]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = list(pool.map(lambda item: _verify_shard(folder, item[1], spec), shards))
    problems = [p for f in findings for p in f.problems]
    problems += _twice([split for split, _ in shards], [f.keys for f in findings])
    problems += _against_itself(folder, spec)
    names = [split for split, _ in shards]
    apart = gaps(
        _corners(names, findings), spec.features["image"].shape[0],
        read_georeferences(folder / SCENES),
    )  # fmt: skip
    problems += _too_near(apart, spec)
    problems += _strays(folder, record_files(spec))
    return {
        "problems": problems,
        "fingerprint": spec.fingerprint,
        "shards": len(shards),
        "records": sum(f.records for f in findings),
        "bytes": sum(s.num_bytes for _, s in shards),
        "nan": sum(f.nan for f in findings),
        "separation": {f"{a}, {b}": dataclasses.asdict(gap) for (a, b), gap in apart.items()},
        "duplicates": _duplicates(names, [f.images for f in findings]),
        "seconds": time.perf_counter() - start,
    }


def _key_hashes(records: dict[str, np.ndarray]) -> np.ndarray:
    """A 64-bit hash of each record's key: 8 bytes a record, whatever the scenes are called."""
    scenes, rows, cols = records["scene_id"], records["row"], records["col"]
    hashes = np.zeros(len(scenes), np.uint64)
    for scene in set(scenes.tolist()):
        chosen = scenes == scene
        hashes[chosen] = patch_hashes(0, "verify", scene, rows[chosen], cols[chosen])
    return hashes


def _twice(splits: list[str], keys: list[list[np.ndarray]]) -> list[str]:
    """Which keys come more than once, and in which splits."""
    names = sorted(set(splits))
    sizes = [sum(map(len, k)) for k in keys]
    if not sum(sizes):
        return []
    hashes = np.concatenate([h for k in keys for h in k])
    split = np.repeat([names.index(s) for s in splits], sizes)
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    again = counts[inverse] > 1
    if not again.any():
        return []
    where = ", ".join(names[i] for i in np.unique(split[again]))
    return [f"{int((counts > 1).sum())} keys come more than once, in {where}"]


def _corners(
    splits: list[str], findings: list[_Findings]
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Split to scene to its patches' rows and columns."""
    held: dict[str, dict[str, list[np.ndarray]]] = {}
    for split, found in zip(splits, findings, strict=True):
        for scene, parts in found.corners.items():
            held.setdefault(split, {}).setdefault(scene, []).extend(parts)
    joined = {
        split: {scene: np.concatenate(parts, axis=1) for scene, parts in scenes.items()}
        for split, scenes in held.items()
    }
    return {k: {s: (c[0], c[1]) for s, c in scenes.items()} for k, scenes in joined.items()}


def _too_near(apart: dict[tuple[str, str], Gap], spec: DatasetSpec) -> list[str]:
    """Splits that lie nearer to each other than ``split.buffer`` says."""
    split = spec.config.get("split") or {}
    buffer, unit = split.get("buffer"), split.get("unit", "pixels")
    if not buffer:
        return []
    problems = []
    for (one, other), gap in apart.items():
        if unit == "metres" and gap.overlapping:
            problems.append(
                f"{one} and {other}: {gap.overlapping} pairs of patches of different scenes "
                f"overlap, and split.buffer says {buffer:g} metres"
            )
        found = gap.metres if unit == "metres" else gap.pixels
        # Metres are measured at the scene's middle; its edges may differ by a little.
        if found is not None and found < buffer * (0.98 if unit == "metres" else 1):
            problems.append(
                f"{one} and {other} come within {found:.1f} {unit} of each other in scene "
                f"{gap.scene}, and split.buffer says {buffer:g}"
            )
    return problems


def _duplicates(splits: list[str], images: list[list[np.ndarray]]) -> dict[str, int]:
    """How many records hold an image that another record holds too: ``records`` beyond the
    first of each, and ``across_splits``, images that stand in several splits."""
    sizes = [sum(map(len, parts)) for parts in images]
    if not sum(sizes):
        return {"records": 0, "across_splits": 0}
    hashes = np.concatenate([h for parts in images for h in parts])
    names = sorted(set(splits))
    number = np.repeat([names.index(s) for s in splits], sizes)
    distinct = np.unique(hashes)
    in_splits = np.unique(np.stack([hashes, number.astype(np.uint64)], axis=1), axis=0)
    return {
        "records": len(hashes) - len(distinct),
        "across_splits": int((np.unique(in_splits[:, 0], return_counts=True)[1] > 1).sum()),
    }


def _against_itself(folder: Path, spec: DatasetSpec) -> list[str]:
    """What dataset.json says in sum against what its shards add up to."""
    written = json.loads((folder / FILE_NAME).read_text())
    problems = []
    if written.get("fingerprint") != spec.fingerprint:
        problems.append(f"{FILE_NAME}: its fingerprint is not that of its shards")
    for name, split in spec.splits.items():
        for key in ("num_examples", "num_bytes"):
            said, summed = written["splits"][name].get(key), getattr(split, key)
            if said != summed:
                problems.append(f"{FILE_NAME}: split {name} says {key} {said}, its shards {summed}")
    return problems


def _verify_shard(folder: Path, shard: Shard, spec: DatasetSpec) -> _Findings:
    found = _Findings()
    path = str(folder / shard.path)
    try:
        size = size_of(path)
        with open_file(path, "none") as raw:
            if size != shard.num_bytes:
                found.problems.append(
                    f"{shard.path}: {size} bytes, dataset.json says {shard.num_bytes}"
                )
            hashing = _Hashing(raw)
            lengths = _read_records(_opened(hashing, spec.compression), shard, spec, found)
            if lengths is not None:
                found.problems += _check_lengths(folder, shard, spec, lengths)
            while hashing.read(1 << 20):
                pass
            if hashing.sha256.hexdigest() != shard.sha256:
                found.problems.append(f"{shard.path}: its sha256 is not the one in dataset.json")
    except FileNotFoundError:
        found.problems.append(f"{shard.path}: the shard is missing")
    except OSError as e:
        found.problems.append(f"{shard.path}: cannot be read: {e}")
    return found


def _read_records(
    file: BinaryIO, shard: Shard, spec: DatasetSpec, found: _Findings
) -> np.ndarray | None:  # fmt: skip
    """What each record takes, framing included, int64 (N,) bytes; None where they cannot all be
    read, or are not as many as dataset.json says."""
    sizes: list[int] = []
    fill = spec.config.get("clean", {}).get("fill", 0.0)
    nan_allowed = fill != "mean" and bool(np.isnan(np.array(fill, float)).any())
    try:
        for batch in _batches(tfrecord.read(file, shard.path), 64):
            records = decode(batch, spec)
            found.records += len(batch)
            sizes += map(len, batch)
            found.keys.append(_key_hashes(records))
            image = records["image"]
            found.images.append(
                np.array([xxhash.xxh3_64_intdigest(x.tobytes()) for x in image], np.uint64)
            )
            corners = np.stack([records["row"], records["col"]]).astype(np.int32)
            for scene in set(records["scene_id"].tolist()):
                chosen = corners[:, records["scene_id"] == scene]
                found.corners.setdefault(scene, []).append(chosen)
            if np.issubdtype(image.dtype, np.inexact):
                bad = int((~np.isfinite(image)).sum())
                found.nan += bad
                if bad and not nan_allowed:
                    found.problems.append(
                        f"{shard.path}: {bad} values are not finite in records "
                        f"{found.records - len(batch)} to {found.records - 1}"
                    )
    except (DatasetError, EOFError, OSError, zlib.error) as e:
        where = "" if shard.path in str(e) else f"{shard.path}: record {found.records}: "
        found.problems.append(f"{where}{e}")
        return None
    if found.records != shard.num_examples:
        found.problems.append(
            f"{shard.path}: {found.records} records, dataset.json says {shard.num_examples}"
        )
        return None
    return np.array(sizes, np.int64) + tfrecord.HEADER_BYTES + tfrecord.FOOTER_BYTES


def _check_lengths(folder: Path, shard: Shard, spec: DatasetSpec, lengths: np.ndarray) -> list[str]:
    """What dataset.json and the index say of a whole shard's records, against their lengths."""
    problems = []
    if shard.record_bytes and (lengths != shard.record_bytes).any():
        problems.append(
            f"{shard.path}: its records take {lengths.min()} to {lengths.max()} bytes, dataset.json "
            f"says {shard.record_bytes} each: write the records again by `scenefeed shard`"
        )
    if spec.compression == "none":
        problems += _check_index(folder, index_path(shard.path), lengths)
    return problems


def _check_index(folder: Path, path: str, lengths: np.ndarray) -> list[str]:
    try:
        data = (folder / path).read_bytes()
    except FileNotFoundError:
        return []  # datasets of earlier versions have none, and nothing is lost without
    except OSError as e:
        return [f"{path}: cannot be read: {e}"]
    offsets = parse_index(data, len(lengths), int(lengths.sum()))
    if offsets is not None and np.array_equal(offsets, np.cumsum(lengths) - lengths):
        return []
    return [
        f"{path}: does not say where its shard's records lie: delete it, or write the records "
        "again by `scenefeed shard`"
    ]


def decode(payloads: list[bytes], spec: DatasetSpec) -> dict[str, np.ndarray]:
    """Records given as bytes, decoded and stacked."""
    joined = np.frombuffer(b"".join(payloads), np.uint8)
    starts = np.cumsum([0, *map(len, payloads)])[:-1]

    def gather(positions: np.ndarray, n: int) -> np.ndarray:
        out = np.zeros((len(positions), n), np.uint8)
        for row, at in zip(out, positions.tolist(), strict=True):
            piece = joined[at : at + n]
            row[: len(piece)] = piece
        return out

    return decode_batch(gather, starts, spec.features, list(spec.features))


def _batches(records: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    held: list[bytes] = []
    for record in records:
        held.append(record)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held


class _Hashing(io.RawIOBase):
    """Hashes a file as it is read."""

    def __init__(self, file: BinaryIO):
        self._file, self.sha256 = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self.sha256.update(memoryview(buffer)[:n])
        return n


def _opened(file: _Hashing, compression: str) -> BinaryIO:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    return io.BufferedReader(file, 1 << 20)


def _strays(folder: Path, named: set[str]) -> list[str]:
    found = [n for n in names_in(folder / "records") if n.endswith((".tfrecord", SUFFIX))]
    return [
        f"records/{n}: " + ("of no shard" if n.endswith(SUFFIX) else "not named")
        + f" in {FILE_NAME}"
        for n in found if f"records/{n}" not in named
    ]  # fmt: skip
