"""What text means: numbers, and points in time."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any

import numpy as np

Value = str | int | float | bool | None

# Text that stands for no value, in any case.
_NOTHING = frozenset(("", "na", "n/a", "nan", "null"))
# No zero first, as codes have, and no more digits than an int64 holds.
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d{0,17})", re.ASCII)
_DECIMAL = re.compile(
    r"[+-]?((0|[1-9]\d*)\.\d*|\.\d+|(0|[1-9]\d*)(?=[eE]))([eE][+-]?\d+)?", re.ASCII
)


def typed(text: str) -> Value:
    """What a table's text means: an int, a float, a bool, None, or itself. Text such as "007" is a
    code, and stays."""
    text = text.strip()
    if text.casefold() in _NOTHING:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return {"true": True, "false": False}.get(text.casefold(), text)


def as_text(value: Any) -> str:
    """A value as text that is the same for 1, 1.0, "1" and "1.0", and for true and "True"; ""
    where there is none."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        found = typed(value)
        value = value.strip() if found is None else found
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


_TIME = re.compile(
    r"(?P<year>\d{4})(?:"
    r"(?P<sep>[-/.])(?P<month>\d{1,2})(?P=sep)(?P<day>\d{1,2})"
    r"|(?P<mm>\d\d)(?P<dd>\d\d)"
    r"|-?(?P<yearday>\d{3}))"
    r"(?:(?:[Tt_ ]|(?<=\d{8}))(?P<hour>\d\d)"
    r"(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?)?"
    r" ?(?:[Zz]|UTC|(?P<sign>[+-])(?P<zh>\d\d):?(?P<zm>\d\d)?)?)?",
    re.ASCII,
)


def parse_time(text: str | int | float) -> str | None:
    """A point in time as ISO 8601 in UTC, "2018-07-01T05:26:23Z"; None if it cannot be told.

    Reads ISO 8601, basic and extended, with days of the month or of the year, "2016/02/04
    11:55:00", and numbers such as 20180701. Without a zone it is UTC; a day is its midnight.
    """
    if isinstance(text, bool):
        return None
    match = _TIME.fullmatch(as_text(text) if isinstance(text, float) else str(text).strip())
    if match is None:
        return None
    g = match.groupdict()
    year, month, date = g["year"], g["month"] or g["mm"] or 1, g["day"] or g["dd"] or 1
    hour, minute, second, zh, zm = (
        int(g[k] or 0) for k in ("hour", "minute", "second", "zh", "zm")
    )  # fmt: skip
    micro = int((g["fraction"] or "")[:6].ljust(6, "0"))
    try:
        time = datetime.datetime(int(year), int(month), int(date), hour, minute, second, micro)
        if g["yearday"]:
            time += datetime.timedelta(days=int(g["yearday"]) - 1)
            if time.year != int(year):
                return None
        offset = datetime.timedelta(hours=zh, minutes=zm)
        time += offset if g["sign"] == "-" else -offset
    except (ValueError, OverflowError):
        return None
    return f"{time.isoformat()}Z"


def epoch_seconds(iso: str) -> float:
    """Seconds since 1970-01-01T00:00:00Z of what ``parse_time`` gives."""
    return datetime.datetime.fromisoformat(iso).timestamp()
