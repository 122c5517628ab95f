"""The sections of the configuration: frozen pydantic models, one for each key of the YAML.

Labels bring sections of their own (``labels/``), so that a kind of label is one file.
"""

from __future__ import annotations

import datetime
import difflib
import math
import re
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Resampling = Literal["nearest", "bilinear", "cubic", "average", "mode", "max", "min", "med"]
# What a complex band can become.
ComplexPart = Literal["amplitude", "intensity", "phase", "real", "imag"]
# How feeds normalize; "none" has statistics alone.
NORMALIZATIONS = ("none", "zscore", "minmax", "quantile")
OutputDtype = Literal["float32", "float16", "uint8", "uint16", "int16"]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants"
    )


def regex_with_group(v: str | None, example: str) -> str | None:
    """A regular expression that has a group.

    Raises:
      ValueError: it does not parse, or has none.
    """
    if v is not None:
        try:
            groups = re.compile(v).groups
        except re.error as e:
            raise ValueError(f"{v!r} is not a regular expression ({e})") from None
        if groups < 1:
            raise ValueError(f"{v!r} has no group: put what is wanted in parentheses, {example}")
    return v


class Columns(Section):
    """Which columns of a manifest say what. Without it: ``id``, ``path``, and any band's name."""

    id: str | None = None
    path: str | None = None
    bands: dict[str, str] | None = None
    time: str | None = None


class Scenes(Section):
    """Which files, how they group into scenes, and what their bands are called."""

    paths: tuple[str, ...] = ()
    id: str | None = None
    bands: tuple[str, ...] | dict[str, str] | None = None
    subdataset: str | None = None
    columns: Columns = Columns()
    time: str | None = None

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
    def _id_regex(cls, v: str | None) -> str | None:
        return regex_with_group(v, "(.+)_S1")

    @field_validator("time")
    @classmethod
    def _time_regex(cls, v: str | None) -> str | None:
        return regex_with_group(v, r"_(\d{8})_")


class TargetGrid(Section):
    """The grid that a scene's bands are brought onto.

    ``reference`` is a band's name; ``crs`` and ``resolution`` (map units) lay a new grid over the
    scene's extent. Without either, it is the grid of the finest band.
    """

    reference: str | None = None
    crs: str | None = None
    resolution: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    resampling: Resampling | dict[str, Resampling] = "bilinear"

    @field_validator("crs")
    @classmethod
    def _known(cls, v: str | None) -> str | None:
        from rasterio.crs import CRS
        from rasterio.errors import CRSError

        try:
            CRS.from_user_input(v) if v is not None else None
        except (CRSError, ValueError):
            raise ValueError(f"{v!r} is no CRS that PROJ knows, such as EPSG:32633") from None
        return v

    @model_validator(mode="after")
    def _one_of_them(self) -> TargetGrid:
        if self.reference and (self.crs or self.resolution):
            raise ValueError("give a reference band, or crs and resolution, not both")
        return self

    def resampling_of(self, band: str) -> str:
        if isinstance(self.resampling, str):
            return self.resampling
        return self.resampling.get(band, "bilinear")


class Speckle(Section):
    """The Lee filter: ``size`` is the window's side in pixels, ``looks`` the equivalent number."""

    filter: Literal["lee"] = "lee"
    size: Annotated[int, Field(ge=3, le=63)] = 7
    looks: Annotated[float, Field(gt=0)] = 1.0

    @field_validator("size")
    @classmethod
    def _odd(cls, v: int) -> int:
        if v % 2 == 0:
            raise ValueError(f"{v} has no middle pixel: give an odd number")
        return v


class Clean(Section):
    """What makes a pixel valid, what its value becomes, and what becomes of the others."""

    nodata: float | Literal["auto", "none"] = "auto"
    fill: float | Literal["mean"] | tuple[float, ...] = 0.0
    min_valid: Annotated[float, Field(ge=0, le=1)] = 0.0
    complex: ComplexPart | tuple[ComplexPart, ...] | None = None
    scale_offset: bool = False
    speckle: Speckle | None = None
    to_db: bool | tuple[str, ...] = False
    clip: tuple[float, float] | dict[str, tuple[float, float]] | None = None
    features: dict[str, str] = {}
    dtype: OutputDtype | None = None
    range: tuple[float, float] | None = None

    @field_validator("clip", "range")
    @classmethod
    def _ordered(cls, v: Any) -> Any:
        for low, high in v.values() if isinstance(v, dict) else [v] if v else []:
            if not low < high:
                raise ValueError(f"{[low, high]}: the lower limit must be below the upper")
        return v

    @field_validator("features")
    @classmethod
    def _expressions(cls, v: dict[str, str]) -> dict[str, str]:
        from .expressions import Expression

        for text in v.values():
            Expression(text)
        return v

    @model_validator(mode="after")
    def _range_for_integers(self) -> Clean:
        if self.range and not (self.dtype and np.issubdtype(self.dtype, np.integer)):
            raise ValueError("range is for an integer dtype: give dtype uint8, uint16 or int16")
        return self

    @property
    def complex_parts(self) -> tuple[ComplexPart, ...]:
        parts = self.complex
        return () if parts is None else (parts,) if isinstance(parts, str) else parts

    @property
    def computes(self) -> bool:
        """Whether values are computed, and so are float32."""
        return bool(self.to_db or self.features or self.speckle or self.scale_offset)


class Tile(Section):
    """The patch grid, in pixels."""

    size: Annotated[int, Field(ge=1, le=65536)] = 64
    stride: Annotated[int, Field(ge=1)] | None = None
    edge: Literal["drop", "pad", "shift"] = "drop"

    @property
    def step(self) -> int:
        return self.stride or self.size


class Balance(Section):
    """Class-balanced keeping: of ``label``'s classes, patches are kept in these ratios."""

    label: str
    ratios: dict[int | str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]

    @field_validator("ratios")
    @classmethod
    def _some(cls, v: dict[int | str, float]) -> dict[int | str, float]:
        if not any(v.values()):
            raise ValueError("keeps nothing: give at least one class a ratio above 0")
        return v


class Sample(Section):
    """Which patches are kept. ``labelled`` first (by all labels, or by those that are named),
    then ``fraction``, ``balance``, ``per_scene``."""

    labelled: bool | tuple[str, ...] = False
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    balance: Balance | None = None
    per_scene: Annotated[int, Field(ge=1)] | None = None
    splits: tuple[str, ...] | None = None


class Split(Section):
    """How patches are divided. ``block`` and ``buffer`` are in ``unit``."""

    by: Literal["patch", "scene", "block", "date", "column", "polygons"] = "patch"
    fractions: dict[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
    block: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    buffer: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    unit: Literal["pixels", "metres"] = "pixels"
    dates: dict[str, tuple[datetime.date | None, datetime.date | None]] | None = None
    column: str | None = None
    values: dict[str, tuple[str, ...]] | None = None
    path: str | None = None
    attribute: str = "split"

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

    @field_validator("values", mode="before")
    @classmethod
    def _as_text(cls, v: Any) -> Any:
        if isinstance(v, dict):
            return {
                k: [str(x) for x in (one if isinstance(one, list | tuple) else [one])]
                for k, one in v.items()
            }
        return v

    @model_validator(mode="after")
    def _belongs_together(self) -> Split:
        needed = {"block": "block", "date": "dates", "column": "column", "polygons": "path"}
        example = {"block": "5000", "dates": "{train: [2016-01-01, 2018-12-31]}",
                   "column": "region", "path": "zones.geojson"}  # fmt: skip
        for by, key in needed.items():
            if (self.by == by) != (getattr(self, key) is not None):
                raise ValueError(
                    f"by: {by} needs {key}, as in {{by: {by}, {key}: {example[key]}}}"
                    if self.by == by else f"{key} is for by: {by}, and by is {self.by}"
                )  # fmt: skip
        if self.buffer is not None and self.by not in ("block", "polygons"):
            raise ValueError(f"buffer is for by: block or polygons, and by is {self.by}")
        return self

    @model_validator(mode="after")
    def _plain_names(self) -> Split:
        for name in self.names:
            if not (name.isidentifier() and len(name) <= 64):
                raise ValueError(f"{name!r} cannot be a split's name: use a plain word")
        for name, (first, last) in (self.dates or {}).items():
            if first and last and first > last:
                raise ValueError(f"dates.{name}: {first} is after {last}")
        return self

    @property
    def names(self) -> list[str]:
        """The splits, in order."""
        named = self.dates if self.by == "date" else self.values if self.by == "column" else None
        return list(named or self.fractions)


class Records(Section):
    """Shards. ``num_shards`` is exact, for each split; else ``shard_mb`` (10^6 bytes) decides."""

    shard_mb: Annotated[float, Field(gt=0)] = 128
    num_shards: Annotated[int, Field(ge=1, le=99999)] | None = None
    seed: int = 0
    compression: Literal["none", "gzip"] = "none"


class Statistics(Section):
    """Statistics of the training split, and how feeds normalize images by them.

    ``normalize`` is one of the kinds below, or ``module:function``: a tf.Transform
    ``preprocessing_fn`` of the user's own. ``quantiles`` are the limits of ``quantile``. With
    ``bake``, records hold what is transformed. ``sample`` is how many patches a function of the
    user's own sees.
    """

    normalize: str | None = None
    quantiles: tuple[float, float] = (0.01, 0.99)
    bake: bool = False
    sample: Annotated[int, Field(ge=1)] | None = None

    @field_validator("normalize")
    @classmethod
    def _known(cls, v: str | None) -> str | None:
        if v is None or v in NORMALIZATIONS or re.fullmatch(r"\w+(\.\w+)*:\w+", v):
            return v
        near = difflib.get_close_matches(v, NORMALIZATIONS, 1)
        raise ValueError(
            f"{v!r} is not one of {', '.join(NORMALIZATIONS)}, nor a function's module:name"
            + (f": did you mean {near[0]!r}?" if near else "")
        )

    @field_validator("quantiles")
    @classmethod
    def _ordered(cls, v: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= v[0] < v[1] <= 1:
            raise ValueError(f"{list(v)}: give two shares from 0 to 1, the lower first")
        return v

    @model_validator(mode="after")
    def _something_to_bake(self) -> Statistics:
        if self.bake and self.normalize in (None, "none"):
            raise ValueError("bake needs a normalization: give normalize, such as zscore")
        if self.bake and self.function:
            raise ValueError("bake is for zscore, minmax and quantile: feeds apply a function")
        return self

    @property
    def wanted(self) -> bool:
        """Whether convert computes them."""
        return self.normalize is not None

    @property
    def function(self) -> str:
        """The user's own, as module:name; "" where there is none."""
        return self.normalize if self.normalize and ":" in self.normalize else ""
