"""Values of attributes and columns: how they compare, and the class ids that they stand for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, StrictInt, StrictStr

from ..values import as_text

ClassName = StrictStr | StrictInt
# More ids than this need no names; they would only swell dataset.json.
ClassId = Annotated[int, Field(ge=0, le=65535)]


def _distinct(v: Any) -> Any:
    texts = [as_text(x) for x in v]
    if not texts:
        raise ValueError("names no class: leave it out to take the values as they come")
    if len(set(texts)) < len(texts):
        raise ValueError(f"a class stands twice in {', '.join(texts)}")
    return v


# Classes in order, or each with its id.
Classes = Annotated[tuple[ClassName, ...] | dict[ClassName, ClassId], AfterValidator(_distinct)]


def as_number(value: Any) -> float:
    """A value as a finite number; NaN where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return np.nan
    return number if np.isfinite(number) else np.nan


def is_whole(text: str) -> bool:
    """Whether a value, as text, is an integer that int64 holds."""
    return re.fullmatch(r"-?\d{1,18}", text) is not None


def in_order(values: Iterable[str]) -> list[str]:
    """Values sorted: numbers by size, before other text."""

    def key(value: str) -> tuple[bool, float, str]:
        number = as_number(value)
        return (True, 0.0, value) if np.isnan(number) else (False, number, value)

    return sorted(values, key=key)


def class_ids(classes: Any, first: int) -> dict[str, int]:
    """Value (as text) to id, in the order of ``classes``; those of a list count from ``first``.

    Where no class is called by a number, numbers among the values are ids already: 0 and 1 are
    ship and iceberg for ``classes: [ship, iceberg]``.
    """
    if isinstance(classes, Mapping):
        ids = {as_text(name): int(number) for name, number in classes.items()}
    else:
        ids = {as_text(name): first + i for i, name in enumerate(classes)}
    return ids if any(map(is_whole, ids)) else ids | {str(i): i for i in ids.values()}


def names_by_id(ids: Mapping[str, int]) -> tuple[str, ...]:
    """The names that stand at each id; an id without one is named by its number."""
    names = [str(i) for i in range(max(ids.values()) + 1)]
    for name, number in reversed(list(ids.items())):  # of two with one id, the first names it
        names[number] = name
    return tuple(names)


def not_there(what: str, name: str, known: Iterable[str]) -> str:
    """That a name is unknown, with the nearest one that is not."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    meant = f": did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"has no {what} {name!r}{meant} (there are: {listed or 'none'})"
