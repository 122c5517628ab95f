"""The configuration: one frozen, validated tree for YAML and flags.

Errors name the key by its path, the value, and what would be right.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args

import yaml
from pydantic import Discriminator, Tag, ValidationError, field_validator, model_validator

from .errors import ConfigError
from .labels import KINDS, Label
from .sections import (
    Clean,
    Records,
    Sample,
    Scenes,
    Section,
    Split,
    Statistics,
    TargetGrid,
    Tile,
)

# What decides a stage file: it is written again when one of them changes.
STAGE_SECTIONS = ("scenes", "grid", "labels", "scalars", "clean", "tile")
# What decides the records, beside the stage files.
RECORD_SECTIONS = ("name", "sample", "split", "records")
# What is said of a dataset, and decides nothing in it.
WORDS = ("description", "license")
RESERVED = ("image", "row", "col", "valid", "invalid", "hash", "scene_id")
AnySection = TypeVar("AnySection", bound=Section)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", "raster"))
    return str(getattr(value, "kind", "raster"))


if TYPE_CHECKING:
    AnyLabel = Label
else:
    AnyLabel = Annotated[
        Union[tuple(Annotated[model, Tag(kind)] for kind, model in KINDS.items())],  # noqa: UP007
        Discriminator(_kind),
    ]


class Config(Section):
    """A whole configuration. Paths are relative to the YAML's folder."""

    name: str = "scenes"
    description: str = ""
    license: str = ""
    scenes: Scenes = Scenes()
    grid: TargetGrid | None = None
    labels: dict[str, AnyLabel] = {}
    scalars: tuple[str, ...] = ()
    clean: Clean = Clean()
    tile: Tile = Tile()
    sample: Sample = Sample()
    split: Split | None = None
    records: Records = Records()
    statistics: Statistics = Statistics()

    @field_validator("labels")
    @classmethod
    def _label_names(cls, v: dict[str, Label]) -> dict[str, Label]:
        for name in v:
            _plain_name(name, "a label's")
        return v

    @field_validator("scalars")
    @classmethod
    def _scalar_names(cls, v: tuple[str, ...]) -> tuple[str, ...]:
        for name in v:  # columns of STAC have colons, as in view:incidence_angle
            _plain_name(re.sub("[:. -]", "_", name), "a scalar's")
        return v

    @model_validator(mode="after")
    def _labels_that_are_there(self) -> Config:
        balance, label = self.sample.balance, None
        if balance is not None:
            label = self.labels.get(balance.label)
            if label is None:
                known = ", ".join(self.labels) or "there is none"
                raise ValueError(f"sample.balance.label {balance.label!r} is no label: {known}")
        wanted = self.sample.labelled
        for name in wanted if isinstance(wanted, tuple) else ():
            if name not in self.labels:
                known = ", ".join(self.labels) or "there is none"
                raise ValueError(f"sample.labelled: no label {name!r}: {known}")
        for name, each in self.labels.items():
            if getattr(each, "center", False) and self.tile.edge == "shift":
                raise ValueError(
                    f"labels.{name}.center and tile.edge: shift exclude each other: a shifted "
                    "patch has its point elsewhere; use drop or pad"
                )
        for name in self.sample.splits or ():
            if name not in self.splits:
                raise ValueError(
                    f"sample.splits: no split {name!r}: there are {', '.join(self.splits)}"
                )
        return self

    @property
    def labels_wanted(self) -> frozenset[str]:
        """The labels without which a patch is not kept."""
        wanted = self.sample.labelled
        return frozenset(wanted if isinstance(wanted, tuple) else self.labels if wanted else ())

    @property
    def splits(self) -> list[str]:
        """The names of the splits, in order."""
        return self.split.names if self.split else ["train"]

    @property
    def unbaked(self) -> Config:
        """The same, but for records that hold images as they are staged."""
        section = self.statistics.model_copy(update={"bake": False})
        return self.model_copy(update={"statistics": section})

    def resolved(self) -> dict[str, Any]:
        """As dataset.json holds it: every key, with its default where none was given."""
        return dict(_json_numbers(self.model_dump(mode="json")))

    @functools.cached_property
    def stage_digest(self) -> str:
        """sha256 over what decides a stage file. Which files there are does not count: that is
        for fingerprints of scenes."""
        whole = self.resolved()
        whole["scenes"].pop("paths")
        parts = {k: whole[k] for k in STAGE_SECTIONS} | {"labelled": self.sample.labelled}
        return _sha256(parts)

    def record_digest(self) -> str:
        """sha256 over what decides the records, given the stage files."""
        whole = self.resolved()
        baked = ("statistics",) if self.statistics.bake else ()
        return _sha256({k: whole[k] for k in (*RECORD_SECTIONS, *baked)})


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain_name(name: str, whose: str) -> None:
    if not name.isidentifier() or name in RESERVED:
        raise ValueError(f"{name!r} cannot be {whose} name: use another plain word")


def _json_numbers(value: Any) -> Any:
    """NaN and infinities as the strings that parse again: JSON has no such numbers."""
    if isinstance(value, dict):
        return {k: _json_numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_json_numbers(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def load_yaml(path: str | Path, start: str = "`scenes:` (docs/configuration.md)") -> dict[str, Any]:
    """The YAML file as a dictionary; of one that holds nothing, ``start`` says how to begin.

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
        raise ConfigError(f"{path}: holds no keys: start with {start}")
    return value


def parse(values: dict[str, Any], where: str) -> Config:
    """Validates the whole tree.

    Raises:
      ConfigError: one line for all that is wrong, the nearest known key suggested.
    """
    return validated(Config, values, where)


def validated(model: type[AnySection], values: dict[str, Any], where: str) -> AnySection:
    """The same for any tree of sections.

    Raises:
      ConfigError: as ``parse``.
    """
    try:
        return model.model_validate(values)
    except ValidationError as e:
        found = list(dict.fromkeys(_one_line(error, model) for error in e.errors()))
        raise ConfigError(f"{where}: " + "; ".join(found)) from None


def _one_line(error: Any, model: type[Section]) -> str:
    location = [str(x) for x in error["loc"]]
    kind = location.pop(2) if location[:1] == ["labels"] and len(location) > 2 else ""
    location = [x for x in location if not _is_arm(x)]
    path = ".".join(location)
    if error["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1], kind)
        near = difflib.get_close_matches(location[-1], known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        return f"{path}: unknown key; {hint}"
    if error["type"] == "union_tag_invalid":
        given = error["ctx"]["tag"]
        near = difflib.get_close_matches(given, KINDS, 1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        return f"{path}.kind: {given!r} is not one of {', '.join(KINDS)}{hint}"
    message = error["msg"].removeprefix("Value error, ")
    message = message.replace("valid tuple", "list").replace("valid dictionary", "mapping")
    message = re.sub(r" or instance of \w+", "", message)
    given = error.get("input")
    plain = given is None or isinstance(given, str | int | float | bool)
    line = f"{path}: {message}" if path else message
    return line + (f", not {given!r}" if plain and error["type"] != "value_error" else "")


def _is_arm(part: str) -> bool:
    """Whether a part of a location is an arm of a union: pydantic's business, not the user's."""
    return (
        bool(set("[(") & set(part))
        or part in ("float", "int", "str", "bool")
        or part.startswith("constrained-")
    )


def _keys_at(model: Any, location: list[str], kind: str) -> list[str]:
    if kind in KINDS:
        return list(KINDS[kind].model_fields)
    for name in location:
        field = model.model_fields.get(name)
        if field is None:
            continue
        arms = [field.annotation, *get_args(field.annotation)]
        model = next((a for a in arms if isinstance(a, type) and issubclass(a, Section)), model)
    return list(model.model_fields)
