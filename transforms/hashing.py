"""Every choice by chance is a hash of (seed, purpose, key): the same on any machine, in any order."""

from __future__ import annotations

import hashlib

import numpy as np

from ..loader.order import GOLDEN, mix


def key_hash(seed: int, purpose: str, text: str) -> int:
    """64 bits of BLAKE2b over (seed, purpose, text)."""
    material = f"{seed}\0{purpose}\0{text}".encode()
    return int.from_bytes(hashlib.blake2b(material, digest_size=8).digest(), "little")


def patch_hashes(
    seed: int, purpose: str, scene_id: str, rows: np.ndarray, cols: np.ndarray
) -> np.ndarray:
    """One uint64 (N,) a patch: splitmix64's finalizer over the scene's hash and the corner.

    Negative corners count as 32-bit two's complement.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    base = np.uint64(key_hash(seed, purpose, scene_id))
    low = cols.astype(np.int64).astype(np.uint64) & np.uint64(0xFFFFFFFF)
    corner = rows.astype(np.int64).astype(np.uint64) << np.uint64(32) | low
    return mix(mix(corner + np.uint64(GOLDEN)) ^ base)


def shuffle_order(seed: int, scene_id: str, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Patches' places in the global shuffle, uint64 (N,): by this, shards are drawn and ordered."""
    return patch_hashes(seed, "order", scene_id, rows, cols)


def uniform(hashes: np.ndarray) -> np.ndarray:
    """Hashes as float64 in [0, 1)."""
    return np.asarray((hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53)
