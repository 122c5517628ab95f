"""Which scenes are to be counted, and the files that their counts go to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from importlib import metadata
from typing import Any

from ..config import Config
from ..staging import StagedScene
from ..storage import join, path_of

# To be raised when scenes are counted otherwise than before.
_VERSION = 4


@dataclasses.dataclass(frozen=True)
class Counting:
    """What workers have to know of it.

    Attributes:
      folder: a path or a URL that all workers see.
      salt: what decides all scenes' counts beside the configuration.
      held: tokens of scenes that were counted before.
    """

    folder: str
    salt: str
    held: frozenset[str] = frozenset()

    @classmethod
    def of(cls, folder: str, config: Config) -> Counting:
        """On the launching machine: workers need neither the file of a split nor tf.Transform."""
        parts = [str(_VERSION), metadata.version("tensorflow-transform")]
        if path := getattr(config.split, "path", None):
            parts.append(hashlib.sha256(path_of(path).read_bytes()).hexdigest())
        return cls(folder, " ".join(parts))

    def token(self, scene: StagedScene, config: Config) -> str:
        """What decides a scene's counts: its patches, and which of them are for training."""
        whole = config.resolved()
        parts: list[Any] = [scene.id, scene.fingerprint, scene.content, scene.header.to_json()]
        parts += [whole["sample"], whole["split"], whole["records"]["seed"], scene.counts]
        if config.sample.balance:
            parts.append(sorted((k, sorted(v.items())) for k, v in scene.rates.items()))
        text = json.dumps([self.salt, *parts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def file(self, token: str) -> str:
        """Where a scene's counts are."""
        return join(self.folder, f"{token}.npz")
