"""One value a scene: from its properties or a table, its file's name, or its folder."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from ...loader.spec import Feature
from ..errors import SceneError
from ..georeference import Georeference
from ..scenes import SceneFiles
from ..sections import regex_with_group
from ..tiling import Window
from ..values import as_text
from .base import Burner, Label
from .table import read_table, stamp
from .values import Classes, as_number, class_ids, is_whole, names_by_id, not_there

Task = Literal["class", "regression"]


class _OneValue(Label):
    """A value for all patches of a scene: a class or a number.

    Attributes:
      classes: values with ids from 0 in this order, or each with its id.
      missing: what a scene without a value is: a failure, or -1 (NaN) and not labelled.
    """

    classes: Classes | None = None
    missing: Literal["fail", "ignore"] = "fail"

    def find(self, name: str, scene: SceneFiles) -> tuple[Any, Task, bool]:
        """The value (None where there is none), what it is for, and whether a whole number is
        its own class id.

        Raises:
          SceneError: it cannot be looked up.
        """
        raise NotImplementedError

    def _value(self, name: str, scene: SceneFiles) -> tuple[Any, Task, bool]:
        value, task, own_ids = self.find(name, scene)
        value = as_text(value)
        if not value and self.missing == "fail":
            raise SceneError(
                f"has no value for the label {name}: give it one, or say missing: ignore",
                step="label", file=scene.files[0],
            )  # fmt: skip
        if value and task == "regression" and np.isnan(as_number(value)):
            raise SceneError(f"has {value!r} for the label {name}, which is no number: mend it, or "
                             "say task: class", step="label", file=scene.files[0])  # fmt: skip
        if value and task == "class" and self.classes:
            known = class_ids(self.classes, 0)
            if value not in known:
                raise SceneError(f"label {name} {not_there('class', value, known)}",
                                 step="label", file=scene.files[0])  # fmt: skip
        return value, task, own_ids and not self.classes

    def plan(
        self, name: str, scene: SceneFiles, where: Georeference, size: int
    ) -> dict[str, Feature]:
        value, task, own_ids = self._value(name, scene)
        if task == "regression":
            return {name: Feature((), "float32", "value", "scalar")}
        ignore = (-1,) if self.missing == "ignore" else ()
        if self.classes:
            names = names_by_id(class_ids(self.classes, 0))
        else:
            names = () if not value or (own_ids and is_whole(value)) else (value,)
        return {name: Feature((), "int64", "class", "scalar", names=names, ignore=ignore)}

    def open(
        self, name: str, scene: SceneFiles, where: Georeference, size: int,
        columns: Mapping[str, Feature],
    ) -> Burner:  # fmt: skip
        value, task, own_ids = self._value(name, scene)
        if not value:
            return ConstantBurner(name, np.nan if task == "regression" else -1, labelled=False)
        if task == "regression":
            return ConstantBurner(name, float(value))
        names = columns[name].names
        if own_ids and is_whole(value) and not names:
            return ConstantBurner(name, int(value))
        known = class_ids(self.classes or names, 0)
        if value not in known:
            raise SceneError(f"label {name} {not_there('class', value, known)}",
                             step="label", file=scene.files[0])  # fmt: skip
        return ConstantBurner(name, known[value])


class SceneLabel(_OneValue):
    """A property of the scene, or a column of a table.

    Attributes:
      column: the property, or the table's column.
      path: a CSV table; without it, what the manifest says of the scene.
      id: the table's column of scenes' ids.
      task: without it, text and integers are classes, other numbers are for regression. Integers
        are class ids as they are, unless ``classes`` says otherwise.
    """

    kind: Literal["scene"] = "scene"
    column: str
    path: str | None = None
    id: str = "id"
    task: Task | None = None

    @model_validator(mode="after")
    def _task_for_missing(self) -> SceneLabel:
        if self.classes and self.task == "regression":
            raise ValueError("classes are for task: class")
        if self.missing == "ignore" and not (self.path or self.task or self.classes):
            raise ValueError("missing: ignore needs task: class or regression")
        return self

    def find(self, name: str, scene: SceneFiles) -> tuple[Any, Task, bool]:
        if self.path is None:
            value = scene.properties.get(self.column)
            if value is None and self.missing == "fail":
                reason = not_there("property", self.column, scene.properties)
                raise SceneError(reason, step="label", file=scene.files[0])
            real = isinstance(value, float) and not is_whole(as_text(value))
            guess: Task = "regression" if real else "class"
        else:
            path = scene.labels[name]
            values, guess = _column(path, stamp(path), self.id, self.column)
            value = values.get(as_text(scene.id))
            if value is None and self.missing == "fail":
                reason = f"has no row with {self.id} {scene.id}: add it, or say missing: ignore"
                raise SceneError(reason, step="label", file=path)
        return value, self.task or ("class" if self.classes else guess), True


@functools.lru_cache(maxsize=8)
def _column(path: str, _stamp: str, key: str, column: str) -> tuple[dict[str, str], Task]:
    """A table's values by id, and what they look to be for."""
    table = read_table(path)
    for name in (key, column):
        if name not in table.header:
            raise SceneError(not_there("column", name, table.header), step="label", file=path)
    values: dict[str, str] = {}
    for one, value in zip(map(as_text, table.column(key)), table.column(column), strict=True):
        if values.setdefault(one, value) != value:
            raise SceneError(
                f"says both {values[one]!r} and {value!r} of {key} {one}: keep one row a scene",
                step="label", file=path,
            )  # fmt: skip
    given = [as_text(v) for v in values.values() if v]
    numbers = not any(np.isnan(as_number(v)) for v in given)
    return values, "regression" if numbers and not all(map(is_whole, given)) else "class"


class FilenameLabel(_OneValue):
    """What a regular expression's first group finds in the stem of the scene's first file."""

    kind: Literal["filename"] = "filename"
    regex: str
    task: Task = "class"

    @field_validator("regex")
    @classmethod
    def _has_group(cls, v: str) -> str:
        regex_with_group(v, r"([A-Za-z]+)_\d+")
        return v

    def find(self, name: str, scene: SceneFiles) -> tuple[Any, Task, bool]:
        stem = Path(scene.assets[0].path).stem
        match = re.search(self.regex, stem)
        if match is None and self.missing == "fail":
            reason = (f"label {name}: {self.regex!r} does not match the stem {stem!r}: widen the "
                      "regular expression, or say missing: ignore")  # fmt: skip
            raise SceneError(reason, step="label", file=scene.files[0])
        return match and match[1], self.task, False


class FolderLabel(_OneValue):
    """The name of the folder that the scene's first file lies in: of ``level`` 1 its parent, of 2
    that one's."""

    kind: Literal["folder"] = "folder"
    level: Annotated[int, Field(ge=1)] = 1

    def find(self, name: str, scene: SceneFiles) -> tuple[Any, Task, bool]:
        folders = Path(scene.assets[0].path).parents
        return folders[self.level - 1].name if self.level <= len(folders) else None, "class", False


class ConstantBurner(Burner):
    """One value for every patch."""

    def __init__(self, column: str, value: float, labelled: bool = True):
        super().__init__()
        self._column, self._value, self._labelled = column, value, labelled
        if not labelled:
            self.count(f"{column}_missing", 1)

    def patches(self, window: Window, out: Mapping[str, np.ndarray]) -> np.ndarray | None:
        out[self._column][...] = self._value
        return None if self._labelled else np.zeros(window.count, bool)
