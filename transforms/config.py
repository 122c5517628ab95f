"""The configuration: one frozen, validated tree for YAML and flags.

Errors name the key by its path, the value, and what would be right.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator


class ConfigError(Exception):
    """A configuration or a command line that cannot be run; the message says how to mend it."""


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants"
    )


class Scenes(Section):
    """Which files, how they group into scenes, and what their bands are called."""

    paths: tuple[str, ...] = ()
    id: str | None = None
    bands: tuple[str, ...] | dict[str, str] | None = None

    @field_validator("paths", mode="before")
    @classmethod
    def _one_path(cls, v: Any) -> Any:
        return (v,) if isinstance(v, str) else v

    @field_validator("bands")
    @classmethod
    def _some_bands(cls, v: Any) -> Any:
        if v is not None and not v:
            raise ValueError("names no band: leave it out to take all bands")
        if isinstance(v, tuple) and len(set(v)) < len(v):
            raise ValueError(f"a band is named twice in {', '.join(v)}")
        return v

    @field_validator("id")
    @classmethod
    def _regex(cls, v: str | None) -> str | None:
        import re

        if v is not None:
            try:
                groups = re.compile(v).groups
            except re.error as e:
                raise ValueError(f"{v!r} is not a regular expression ({e})") from None
            if groups < 1:
                raise ValueError(f"{v!r} has no group: put the id in parentheses, (.+)_S1")
        return v


class RasterLabel(Section):
    """A mask on the scene's grid, found by the scene's id."""

    kind: Literal["raster"] = "raster"
    path: str
    ignore: tuple[int, ...] = ()

    @field_validator("path")
    @classmethod
    def _has_id(cls, v: str) -> str:
        if "{id}" not in v:
            raise ValueError(f"{v!r} does not name the scene: put {{id}} where its id stands")
        return v


class Clean(Section):
    """What makes a pixel valid, and what becomes of the others."""

    nodata: float | Literal["auto", "none"] = "auto"
    fill: float | tuple[float, ...] = 0.0
    min_valid: Annotated[float, Field(ge=0, le=1)] = 0.0
    to_db: bool = False
    clip: tuple[float, float] | None = None

    @field_validator("clip")
    @classmethod
    def _ordered(cls, v: tuple[float, float] | None) -> tuple[float, float] | None:
        if v is not None and not v[0] < v[1]:
            raise ValueError(f"{list(v)}: the lower limit must be below the upper")
        return v


class Tile(Section):
    """The patch grid, in pixels."""

    size: Annotated[int, Field(ge=1, le=65536)] = 64
    stride: Annotated[int, Field(ge=1)] | None = None
    edge: Literal["drop", "pad", "shift"] = "drop"

    @property
    def step(self) -> int:
        return self.stride or self.size


class Split(Section):
    """How patches are divided. ``block`` is in pixels of the scene's grid."""

    by: Literal["patch", "scene", "block"] = "patch"
    block: Annotated[int, Field(ge=1)] | None = None
    fractions: dict[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}

    @field_validator("fractions")
    @classmethod
    def _sums_to_one(cls, v: dict[str, float]) -> dict[str, float]:
        for name, share in v.items():
            if not (name.isidentifier() and share >= 0):
                raise ValueError(
                    f"{name}: {share}: a split is a plain name with a share from 0 to 1"
                )
        if not math.isclose(sum(v.values()), 1, abs_tol=1e-6):
            raise ValueError(f"the shares add up to {sum(v.values()):g}, not to 1")
        return v

    @model_validator(mode="after")
    def _block_for_block(self) -> Split:
        if (self.by == "block") != (self.block is not None):
            raise ValueError(
                "by: block needs block: its side in pixels, as in {by: block, block: 5000}"
                if self.by == "block" else f"block is for by: block, and by is {self.by}"
            )  # fmt: skip
        return self


class Records(Section):
    """Shards. ``num_shards`` is exact, for each split; else ``shard_mb`` (10^6 bytes) decides."""

    shard_mb: Annotated[float, Field(gt=0)] = 128
    num_shards: Annotated[int, Field(ge=1, le=99999)] | None = None
    seed: int = 0
    compression: Literal["none", "gzip"] = "none"


class Statistics(Section):
    """Nothing but ``none`` yet: statistics are not part of this version."""

    normalize: Literal["none"] = "none"


class Config(Section):
    """A whole configuration. Paths are relative to ``base`` (the YAML's folder)."""

    name: str = "scenes"
    scenes: Scenes = Scenes()
    labels: dict[str, RasterLabel] = {}
    clean: Clean = Clean()
    tile: Tile = Tile()
    split: Split | None = None
    records: Records = Records()
    statistics: Statistics = Statistics()

    @field_validator("labels")
    @classmethod
    def _label_names(cls, v: dict[str, RasterLabel]) -> dict[str, RasterLabel]:
        for name in v:
            if not name.isidentifier() or name in ("image", "row", "col", "valid", "scene_id"):
                raise ValueError(f"{name!r} cannot be a label's name: use another plain word")
        return v

    @property
    def fractions(self) -> dict[str, float]:
        return self.split.fractions if self.split else {"train": 1.0}

    def resolved(self) -> dict[str, Any]:
        """As dataset.json holds it: every key, with its default where none was given."""
        return dict(_json_numbers(self.model_dump(mode="json")))

    def digest(self, *sections: str) -> str:
        """sha256 over the sections that decide a result. Which files there are does not count:
        that is for fingerprints of scenes."""
        whole = self.resolved()
        whole["scenes"].pop("paths")
        text = json.dumps({k: whole[k] for k in sections}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _json_numbers(value: Any) -> Any:
    """NaN and infinities as the strings that parse again: JSON has no such numbers."""
    if isinstance(value, dict):
        return {k: _json_numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_json_numbers(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The YAML file as a dictionary.

    Raises:
      ConfigError: it cannot be read, or is not a mapping.
    """
    try:
        value = yaml.safe_load(Path(path).read_text())
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}: give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(e).split())}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds no keys: start with `scenes:` (docs/configuration.md)")
    return value


def parse(values: dict[str, Any], where: str) -> Config:
    """Validates the whole tree.

    Raises:
      ConfigError: one line for all that is wrong, the nearest known key suggested.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as e:
        found = list(dict.fromkeys(_one_line(error) for error in e.errors()))
        raise ConfigError(f"{where}: " + "; ".join(found)) from None


def _one_line(error: Any) -> str:
    location = [str(x) for x in error["loc"] if str(x) not in _UNION_ARMS]
    path = ".".join(location)
    if error["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        near = difflib.get_close_matches(location[-1], known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        return f"{path}: unknown key; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    message = message.replace("valid tuple", "list").replace("valid dictionary", "mapping")
    given = error.get("input")
    plain = given is None or isinstance(given, str | int | float | bool)
    return f"{path}: {message}" + (
        f", not {given!r}" if plain and error["type"] != "value_error" else ""
    )


# Which arm of a union failed is pydantic's business, not the user's.
_UNION_ARMS = {
    "float", "literal['auto','none']", "tuple[float, ...]", "tuple[str, ...]", "dict[str,str]",
    "constrained-int", "int", "function-after[_block_for_block(), Split]",
}  # fmt: skip


def _keys_at(location: list[str]) -> list[str]:
    model: Any = Config
    for name in location:
        field = model.model_fields.get(name)
        if field is None:
            continue  # a label's own name
        arms = [field.annotation, *get_args(field.annotation)]
        model = next((a for a in arms if isinstance(a, type) and issubclass(a, Section)), model)
    return list(model.model_fields)
