"""What a feed may be asked for: one set of options for all feeds, validated as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .order import Share
from .shaping import Augment, Shaping
from .spec import DatasetError, DatasetSpec
from .statistics import chosen, weights_of

ClassShares = str | Mapping[Any, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a feed.

    Attributes:
      batch_size: records a batch; the last one of an epoch may be smaller.
      shuffle: a new order each epoch. False gives the order of the shards.
      seed: decides every epoch's order, and every other choice by chance.
      shard: (i, n): this feed is worker i of n. Every record comes on exactly one of them; with
        ``drop_remainder`` all of them get equally many batches. A ``tf.distribute.InputContext``
        will do.
      drop_remainder: leave out an epoch's last records where they do not fill a batch (on every
        worker).
      repeat: epochs in one pass over the feed; True for no end.
      features: names to decode; all by default (image and labels with ``as_supervised``).
      as_supervised: (image, label) pairs instead of dictionaries; with several labels the second
        is a dictionary; with ``class_weights`` a third, the weights.
      where: keeps records: called with a dictionary of the scalar features' columns, it gives
        one boolean each, as in ``where=lambda x: x["incidence"] < 40``.
      resample: by classes: ``"balanced"``, or shares as {class: share}; {label: either} where
        there are several class labels. A class's records come again when they are used up.
      weights: of several datasets, how often each is drawn from; without, each record once.
      class_weights: a weight for each example (or pixel, of a mask label): {class: weight},
        {label: {class: weight}}, "balanced" for a class label, or "statistics": the balanced ones
        in statistics.json, also of a mask. In the batch as ``weight``.
      augment: True for flips and quarter turns, or a dictionary of ``flip``, ``turn``, ``crop``.
      dtype: of the image: float32, float16 or bfloat16.
      normalize: "auto": what the dataset's configuration says, from its statistics.json; nothing
        where it says nothing, or the records are normalized already; a function of somebody's own
        is refused. "dataset": there must be such, and such a function is run, by ``load``: it is
        a program that comes with the dataset. {"mean": m, "std": s} or {"min": a, "max": b}, a number or one a band; another
        dataset's ``Statistics``; None for images as they are in the records.
      map: a function of a batch (of its parts, with ``as_supervised``), called last.
      on_error: ``"raise"``, or ``"skip"``: leave out records whose checksums fail, and count
        them (by index, with ``drop_remainder``, repeat others of the batch in their place).
      checksums: ``"first"``, ``"always"`` or ``"never"``: see ``Reader``.
      cache: ``"memory"`` or a folder: see ``Reader``.
      prefetch: batches made ahead; each costs its size in memory.
      shuffle_bytes: what the serialized records of a stream's shuffle window may take in memory.
    """

    batch_size: int = 1024
    shuffle: bool = True
    seed: int = 0
    shard: Any = None
    drop_remainder: bool = False
    repeat: bool | int = 1
    features: Sequence[str] | None = None
    as_supervised: bool = False
    where: Callable[[dict[str, Any]], Any] | None = None
    resample: ClassShares | None = None
    weights: Sequence[float] | None = None
    class_weights: ClassShares | None = None
    augment: bool | Mapping[str, Any] | Augment = False
    dtype: str | None = None
    normalize: Any = "auto"
    map: Callable[..., Any] | None = None
    on_error: str = "raise"
    checksums: str = "first"
    cache: Any = None
    prefetch: int = 2
    shuffle_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        self.share()
        if self.on_error not in ("raise", "skip"):
            raise DatasetError(f"on_error {self.on_error!r}: 'raise' or 'skip'")
        if self.on_error == "skip" and self.checksums == "never":
            raise DatasetError("on_error='skip' finds damage by checksums: not with 'never'")
        if self.repeat is not True and int(self.repeat) < 1:
            raise DatasetError(f"repeat {self.repeat!r}: a number of epochs, or True for no end")
        if self.prefetch < 0:
            raise DatasetError(f"prefetch {self.prefetch}: must be at least 0")
        if self.resample is not None and self.weights is not None:
            raise DatasetError("resample and weights: give one of the two")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Options:
        """From keywords.

        Raises:
          TypeError: an unknown keyword, with the nearest known one.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                import difflib

                near = difflib.get_close_matches(name, known, 1)
                hint = f": did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
                raise TypeError(f"no option {name!r}{hint}")
        return cls(**options)

    def share(self) -> Share:
        """This worker's part."""
        index, workers = 0, 1
        if hasattr(self.shard, "num_input_pipelines"):
            index, workers = self.shard.input_pipeline_id, self.shard.num_input_pipelines
        elif self.shard is not None:
            try:
                index, workers = (int(x) for x in self.shard)
            except (TypeError, ValueError):
                raise DatasetError(f"shard {self.shard!r}: give (i, n)") from None
        return Share(self.batch_size, index, workers, self.drop_remainder)

    def wanted(self, spec: DatasetSpec) -> list[str]:
        """The features to decode.

        Raises:
          DatasetError: there is none of that name, or no label with ``as_supervised``.
        """
        if self.as_supervised:
            if not spec.labels:
                raise DatasetError("as_supervised needs a label, and the dataset has none")
            if self.features is not None:
                raise DatasetError("as_supervised says which features: leave `features` out")
            return ["image", *spec.labels]
        return spec.check_names(self.features)

    def resolved(
        self, folders: Sequence[Any], specs: Sequence[DatasetSpec], names: Sequence[str],
        *, staged: bool = False,
    ) -> Options:  # fmt: skip
        """The same, once statistics.json was read where they ask for it.

        Args:
          folders, specs: of the datasets that are fed together.
          names: the features that are decoded.
          staged: from the stage files, which are never normalized.

        Raises:
          DatasetError: the statistics are missing, damaged, or of another dataset.
        """
        roots, found = [str(f) for f in folders], list(specs)
        asked = None if self.normalize == "auto" and "image" not in names else self.normalize
        return dataclasses.replace(
            self, normalize=chosen(asked, roots, found, staged),
            class_weights=weights_of(self.class_weights, roots, found),
        )  # fmt: skip

    def shaping(self, spec: DatasetSpec, names: Sequence[str]) -> Shaping:
        """What is done to a batch once it is decoded."""
        return Shaping(
            spec, names, augment=self.augment, dtype=self.dtype, normalize=self.normalize,
            class_weights=self.class_weights, map=self.map, as_supervised=self.as_supervised,
        )  # fmt: skip


def by_label(value: ClassShares, spec: DatasetSpec, option: str) -> tuple[str, Any]:
    """The label that a choice by class speaks of, and the choice.

    Raises:
      DatasetError: it does not say which label, where there are several.
    """
    kinds = ("class", "mask") if option == "class_weights" else ("class",)
    labels = [n for n in spec.labels if spec.features[n].kind in kinds]
    if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in labels:
        return next(iter(value.items()))
    if len(labels) != 1:
        raise DatasetError(
            f"{option}: say for which label, as {{label: ...}}; "
            f"labels with classes here: {', '.join(labels) or 'none'}"
        )
    return labels[0], value
