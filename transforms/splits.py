"""Which split a patch belongs to, and where it stands in the global shuffle.

Every choice is a hash of (seed, purpose, key): the same on any machine, in any order.
"""

from __future__ import annotations

import hashlib

import numpy as np

from .config import Config

_GOLDEN, _M1, _M2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key_hash(seed: int, purpose: str, text: str) -> int:
    """64 bits of BLAKE2b over (seed, purpose, text)."""
    material = f"{seed}\0{purpose}\0{text}".encode()
    return int.from_bytes(hashlib.blake2b(material, digest_size=8).digest(), "little")


def patch_hashes(
    seed: int, purpose: str, scene_id: str, rows: np.ndarray, cols: np.ndarray
) -> np.ndarray:
    """One uint64 (N,) a patch: splitmix64's finalizer over the scene's hash and the corner.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    base = np.uint64(key_hash(seed, purpose, scene_id))
    corner = rows.astype(np.uint64) << np.uint64(32) | cols.astype(np.uint64)
    return _mix(_mix(corner + np.uint64(_GOLDEN)) ^ base)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_M1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_M2)
    return np.asarray(z ^ (z >> np.uint64(31)))


def split_indexes(config: Config, scene_id: str, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """The split of each patch, as an index into ``config.fractions``, intp (N,).

    By patch, each patch draws for itself; by block, all patches whose corner lies in one square
    of ``block`` pixels draw together; by scene, the whole scene draws once.
    """
    shares = np.cumsum(list(config.fractions.values()))
    if config.split is None:
        return np.zeros(len(rows), np.intp)
    by, seed = config.split.by, config.records.seed
    if by == "scene":
        hashes = np.full(len(rows), key_hash(seed, "split", scene_id), np.uint64)
    elif by == "block" and config.split.block:
        side = config.split.block
        hashes = patch_hashes(seed, "split", scene_id, rows // side, cols // side)
    else:
        hashes = patch_hashes(seed, "split", scene_id, rows, cols)
    draws = (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.minimum(np.searchsorted(shares, draws, side="right"), len(shares) - 1)
