"""What one scene, or many of them, contribute to the statistics."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from .numbers import Numbers

# What has more different values is no classes but, say, ids of objects: it is not counted.
MOST_CLASSES = 1024


@dataclasses.dataclass(frozen=True)
class Partial:
    """Counts that merge.

    Attributes:
      patches: of the training split.
      bands: of the image, in order.
      values: labels that are numbers, by name.
      classes: labels that are classes, by name: how often each class is there, pixels of masks
        and patches of other labels; None where there are more than MOST_CLASSES.
    """

    patches: int
    bands: tuple[Numbers, ...]
    values: Mapping[str, Numbers]
    classes: Mapping[str, Mapping[int, int] | None]

    @classmethod
    def merged(cls, parts: Sequence[Partial]) -> Partial:
        """All of them as one; the same in any order."""
        bands = zip(*(p.bands for p in parts), strict=True)
        return cls(
            sum(p.patches for p in parts),
            tuple(Numbers.merged(each) for each in bands),
            {k: Numbers.merged([p.values[k] for p in parts]) for k in parts[0].values},
            {k: added(p.classes[k] for p in parts) for k in parts[0].classes},
        )

    def to_bytes(self) -> bytes:
        """As an .npz archive of plain arrays."""
        arrays: dict[str, np.ndarray] = {}
        columns = {f"bands/{i}": b for i, b in enumerate(self.bands)}
        columns |= {f"values/{k}": v for k, v in self.values.items()}
        head: dict[str, Any] = {"patches": self.patches, "classes": self.classes, "columns": {}}
        for name, numbers in columns.items():
            held = dataclasses.asdict(numbers)
            arrays[f"{name}/codes"], arrays[f"{name}/counts"] = (
                held.pop("codes"),
                held.pop("counts"),
            )
            head["columns"][name] = held | {k: str(held[k]) for k in ("total", "squares")}
        arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Partial:
        """What ``to_bytes`` gave."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            head = json.loads(arrays["head"].tobytes())
            columns = {
                name: Numbers(
                    **held | {k: Fraction(held[k]) for k in ("total", "squares")},
                    codes=arrays[f"{name}/codes"], counts=arrays[f"{name}/counts"],
                )
                for name, held in head["columns"].items()
            }  # fmt: skip
        classes = {k: v and {int(c): n for c, n in v.items()} for k, v in head["classes"].items()}
        bands = sum(name.startswith("bands/") for name in columns)
        values = {
            k.removeprefix("values/"): v for k, v in columns.items() if k.startswith("values/")
        }
        in_order = tuple(columns[f"bands/{i}"] for i in range(bands))
        return cls(head["patches"], in_order, values, classes)


def added(parts: Iterable[Mapping[int, int] | None]) -> dict[int, int] | None:
    """Counts by class as one; None, and no further part is asked for, once there are too many."""
    whole: dict[int, int] = {}
    for part in parts:
        for number, count in (part or {}).items():
            whole[number] = whole.get(number, 0) + count
        if part is None or len(whole) > MOST_CLASSES:
            return None
    return dict(sorted(whole.items()))
