"""dataset.json: what a dataset is, as plain frozen dataclasses.

Format ``scenefeed/1``. The file is written last, so its presence is what makes a dataset
complete. Reading it needs the standard library alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

FORMAT = "scenefeed/1"
FILE_NAME = "dataset.json"


class DatasetError(Exception):
    """A dataset that cannot be read: the message says what, where and what to do."""


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature of a record.

    Attributes:
      shape: of one record; ``()`` for a scalar.
      dtype: a numpy dtype's name, or ``"string"`` for text.
      kind: image, mask, class, value, text or int.
      encoding: ``tensor`` (the bytes of ``tf.io.serialize_tensor``) or ``scalar``.
      bands: the image's band names, in order of the last axis.
      names: a class label's names, by id.
      ignore: label values that mean "do not learn from this pixel".
      scale: (factor, offset) where values were packed into integers: the cleaned value is
        stored value x factor + offset.
    """

    shape: tuple[int, ...]
    dtype: str
    kind: str
    encoding: str
    bands: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    ignore: tuple[int, ...] = ()
    scale: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        required = ("shape", "dtype", "kind", "encoding")
        values = dataclasses.asdict(self)
        return {k: _plain(v) for k, v in values.items() if k in required or v}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Feature:
        known = {f.name for f in dataclasses.fields(cls)}
        lists: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in value.items()
        }
        return cls(**{k: v for k, v in lists.items() if k in known})


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file.

    Attributes:
      path: relative to the dataset's folder.
      num_examples: records that it holds.
      num_bytes: its size.
      sha256: of the whole file, hexadecimal.
      record_bytes: what each of its records takes, framing included, where all take the same;
        else 0, as in compressed shards.
    """

    path: str
    num_examples: int
    num_bytes: int
    sha256: str
    record_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k != "record_bytes" or v}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Shard:
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in value.items() if k in known})


@dataclasses.dataclass(frozen=True)
class Split:
    """A split: its shards, in order."""

    num_examples: int
    num_bytes: int
    shards: tuple[Shard, ...]

    @classmethod
    def of(cls, shards: Iterable[Shard]) -> Split:
        shards = tuple(shards)
        return cls(sum(s.num_examples for s in shards), sum(s.num_bytes for s in shards), shards)


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """The whole of dataset.json.

    ``fingerprint`` is the sha256 over the shards' hexadecimal sha256, split after split, in
    order; ``inputs`` identifies what the dataset was made from (files and configuration).
    """

    name: str
    features: dict[str, Feature]
    splits: dict[str, Split]
    config: dict[str, Any]
    inputs: str
    created_by: str

    @property
    def fingerprint(self) -> str:
        digests = (shard.sha256 for split in self.splits.values() for shard in split.shards)
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def compression(self) -> str:
        """``"none"`` or ``"gzip"``."""
        return str(self.config.get("records", {}).get("compression", "none"))

    def split(self, name: str) -> Split:
        """The split of that name.

        Raises:
          DatasetError: there is none, or it holds no examples.
        """
        if name not in self.splits:
            raise DatasetError(f"no split {name!r}: the dataset has {', '.join(self.splits)}")
        if not self.splits[name].num_examples:
            raise DatasetError(
                f"split {name!r} is empty: give it a larger share in split.fractions and "
                "run `scenefeed shard` again"
            )
        return self.splits[name]

    @property
    def labels(self) -> list[str]:
        """The names of the label features, in order: those that the configuration's labels are
        called by. What else a label or a scalar adds (counts, longitude) is none."""
        wanted = self.config.get("labels", {})
        return [name for name in self.features if name in wanted]

    def check_names(self, names: Sequence[str] | None) -> list[str]:
        """Names of features: those asked for, or all.

        Raises:
          DatasetError: a name that the dataset does not have.
        """
        for name in names or ():
            if name not in self.features:
                known = ", ".join(self.features)
                raise DatasetError(f"no feature {name!r}: the dataset has {known}")
        return list(names or self.features)

    def to_json(self) -> str:
        document = {
            "format": FORMAT,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "features": {k: f.to_json() for k, f in self.features.items()},
            "splits": {
                k: {**dataclasses.asdict(s), "shards": [x.to_json() for x in s.shards]}
                for k, s in self.splits.items()
            },
            "inputs": self.inputs,
            "config": self.config,
            "created_by": self.created_by,
        }
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = FILE_NAME) -> DatasetSpec:
        """Parses dataset.json.

        Raises:
          DatasetError: not JSON, another format, or fields are missing.
        """
        try:
            d = json.loads(text)
        except ValueError as e:
            raise DatasetError(f"{where}: not JSON ({e}): convert the dataset again") from None
        found = d.get("format") if isinstance(d, dict) else None
        if found != FORMAT:
            raise DatasetError(
                f"{where}: format {found!r}, but this scenefeed reads {FORMAT!r}: "
                "install the scenefeed that wrote it, or convert again"
            )
        try:
            return cls(
                name=d["name"],
                features={k: Feature.from_json(f) for k, f in d["features"].items()},
                splits={
                    k: Split.of(Shard.from_json(shard) for shard in s["shards"])
                    for k, s in d["splits"].items()
                },
                config=d["config"],
                inputs=d["inputs"],
                created_by=d["created_by"],
            )
        except (KeyError, TypeError) as e:
            raise DatasetError(f"{where}: a field is missing or odd ({e})") from None

    @classmethod
    def load(cls, folder: str | Path) -> DatasetSpec:
        """Reads ``folder/dataset.json``.

        Raises:
          DatasetError: there is none, or it cannot be read.
        """
        from .storage import join, read_file

        path = join(folder, FILE_NAME)
        try:
            text = read_file(path).decode()
        except FileNotFoundError:
            raise DatasetError(
                f"{path}: not there, so {folder} holds no complete dataset: "
                "run (or run again) `scenefeed convert`"
            ) from None
        except OSError as e:
            raise DatasetError(f"{path}: {e.strerror or e}") from None
        return cls.from_json(text, path)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
