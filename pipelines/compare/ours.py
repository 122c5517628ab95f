"""scenefeed's own: records as ``convert`` writes them, gathered from the sample's file as from a
stage file, and the feeds over them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...loader.spec import FILE_NAME, DatasetSpec, Feature, Shard, Split
from .alternative import FILES, STATE, Alternative

_WINDOW = 256 << 20  # bytes of a stream's shuffle window


class Ours(Alternative):
    resume, ours = STATE, True

    def why_not(self) -> str:
        self.modules = ("apache_beam", *type(self).modules)
        return super().why_not()

    def write(self, images: np.ndarray, classes: np.ndarray | None, folder: Path) -> None:
        from ...transforms.assign import Pointers
        from ...transforms.shards import finalize_split, sinks_of, write_shard

        number = Feature((), "int64", "int", "scalar")
        features = {
            "col": number, "image": Feature(self.sample.shape, self.sample.dtype, "image", "tensor"),
            "row": number, "scene_id": Feature((), "string", "text", "scalar"),
        }  # fmt: skip
        source = Path(self.sample.folder) / "images.npy"
        begin = source.stat().st_size - self.sample.bytes
        size = self.sample.bytes // self.sample.count
        order = np.random.default_rng(0).permutation(len(images))
        (folder / "records").mkdir()
        sinks = sinks_of(str(folder / "records/train"), "none")
        inits = [sink.initialize_write() for sink in sinks]
        written = []
        for shard, part in enumerate(np.array_split(order, FILES)):
            rows = part.astype(np.int32)
            patches = Pointers("sample", str(source), rows, rows * 0, np.arange(len(part)),
                               {"image": begin + part * size})  # fmt: skip
            written.append(write_shard(sinks, inits, "train", shard, [patches.pack()], features))
        shards = [
            Shard(str(Path(s.path).relative_to(folder)), s.num_examples, s.num_bytes, s.sha256,
                  s.record_bytes)
            for s in finalize_split(sinks, inits, written)
        ]  # fmt: skip
        config = {"records": {"compression": "none"}}
        spec = DatasetSpec("sample", features, {"train": Split.of(shards)}, config, "", "compare")
        (folder / FILE_NAME).write_text(spec.to_json())

    def feed(self, folder: Path) -> Any:
        return _Images(self.batches(folder, {"batch_size": self.batch_size, "features": ["image"]}))

    def batches(self, folder: Path, options: dict[str, Any]) -> Iterable[Any]:
        raise NotImplementedError


class _Images:
    """Passes over a feed of dictionaries, of which the image alone is given."""

    def __init__(self, feed: Iterable[Any]):
        self._feed = feed

    def __iter__(self) -> Any:
        return (batch["image"] for batch in self._feed)


class Stream(Ours):
    name, title = "stream", 'scenefeed load(source="stream")'

    def batches(self, folder: Path, options: dict[str, Any]) -> Iterable[Any]:
        from ...loader.tfdata import load

        window = self.sample.scaled(_WINDOW)
        return load(folder, source="stream", shuffle_bytes=window, **options)


class Index(Ours):
    name, title = "load", "scenefeed load, by index"

    def batches(self, folder: Path, options: dict[str, Any]) -> Iterable[Any]:
        from ...loader.tfdata import load

        return load(folder, source="index", **options)


class Numpy(Ours):
    name, title, modules = "feed", "scenefeed Feed (NumPy)", ()
    install = "pip install 'scenefeed[convert]'"

    def batches(self, folder: Path, options: dict[str, Any]) -> Iterable[Any]:
        from ...loader import Feed

        return Feed(folder, source="index", **options)


class Torch(Ours):
    name, title, modules = "torch", "scenefeed torch.Feed (PyTorch)", ("torch",)
    install = "pip install 'scenefeed[convert,torch]'"

    def batches(self, folder: Path, options: dict[str, Any]) -> Iterable[Any]:
        from ...loader.torch import Feed

        return Feed(folder, source="index", **options)

    def array(self, batch: Any) -> np.ndarray:
        return np.moveaxis(batch.numpy(), 1, -1)  # PyTorch's order is channels first
