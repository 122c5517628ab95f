"""What a conversion and its feed are measured against.

The published ones are the defaults: 100 GB of scenes in an hour on an inexpensive cloud machine,
and loading that no training step waits for.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ...transforms.config import load_yaml, validated
from ...transforms.sections import Section

START = "`loading: {seconds: 2}` (docs/check.md)"


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # pydantic would take it for 0 or 1
        raise ValueError(f"must be a number, not {value}")
    return value


Number = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_number), Field(ge=1)]


class Conversion(Section):
    """So many GB (1e9 bytes) of source in so many seconds."""

    gb: Number = 100.0
    seconds: Annotated[Number, Field(gt=0)] = 3600.0


class Loading(Section):
    """So many shuffled batches in so many seconds; the first one after so many of them."""

    batches: Count = 5
    batch_size: Count = 1024
    seconds: Number = 2.0
    first_batch_seconds: Number | None = None


class Memory(Section):
    """The peak of a process tree in GiB, of conversion and of loading, and by how many MiB it may
    grow in a minute of loading."""

    gib: Number = 2.0
    growth_mib_per_minute: Number | None = None


class Targets(Section):
    """All targets; None where nothing is asked. ``utilization`` is a share of 1."""

    conversion: Conversion = Conversion()
    loading: Loading = Loading()
    memory: Memory = Memory()
    utilization: Annotated[Number, Field(le=1)] | None = None

    @property
    def convert_mb_per_s(self) -> float:
        """Of source, MB (1e6 bytes) a second."""
        return self.conversion.gb * 1e3 / self.conversion.seconds

    @property
    def memory_gib(self) -> float:
        return self.memory.gib


PUBLISHED = Targets()


def targets_from(
    path: str | None = None, convert_mb_per_s: float | None = None,
    load_seconds: float | None = None, memory_gib: float | None = None,
    batch_size: int | None = None,
) -> Targets:  # fmt: skip
    """The targets of a YAML file, the published ones where it says nothing; flags win.

    Raises:
      ConfigError: the file cannot be read or something in it is wrong, in one line.
    """
    found = validated(Targets, load_yaml(path, START) if path else {}, path or "targets")
    loading = {"seconds": load_seconds, "batch_size": batch_size}
    conversion = found.conversion
    if convert_mb_per_s is not None:
        conversion = Conversion(gb=convert_mb_per_s * 3.6, seconds=3600)
    memory = {} if memory_gib is None else {"gib": memory_gib}
    return found.model_copy(update={
        "conversion": conversion,
        "loading": found.loading.model_copy(
            update={k: v for k, v in loading.items() if v is not None}
        ),
        "memory": found.memory.model_copy(update=memory),
    })  # fmt: skip
