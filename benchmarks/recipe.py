"""The reference: the published recipe as a plain script.

One rasterio window read per patch, one HDF5 file per scene, then ``tf.io.serialize_tensor`` of
every patch in one global permutation, written with ``tf.io.TFRecordWriter`` into 16 shards.

    python benchmarks/recipe.py SCENES_FOLDER OUT --tile 64
"""

import argparse
import json
import time
from pathlib import Path

start = time.perf_counter()

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import rasterio  # noqa: E402
import tensorflow as tf  # noqa: E402
from rasterio.windows import Window  # noqa: E402

SHARDS = 16


def patches_of(path: Path, tile: int) -> list[np.ndarray]:
    with rasterio.open(path) as scene:
        return [
            np.ascontiguousarray(np.moveaxis(scene.read(window=Window(x, y, tile, tile)), 0, -1))
            for y in range(0, scene.height - tile + 1, tile)
            for x in range(0, scene.width - tile + 1, tile)
        ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tile", type=int, default=64)
    args = parser.parse_args()
    imported = time.perf_counter()
    args.out.mkdir(parents=True)
    names = []
    for path in sorted(args.scenes.glob("*.tif")):
        names.append(args.out / f"{path.stem}.h5")
        with h5py.File(names[-1], "w") as file:
            file.create_dataset("patches", data=np.stack(patches_of(path, args.tile)))
    sources = [h5py.File(name)["patches"] for name in names]
    where = [(source, i) for source in sources for i in range(len(source))]
    order = np.random.default_rng(0).permutation(len(where))
    for shard, part in enumerate(np.array_split(order, SHARDS)):
        with tf.io.TFRecordWriter(str(args.out / f"{shard:05d}.tfrecord")) as writer:
            for dataset, index in (where[i] for i in part):
                writer.write(tf.io.serialize_tensor(dataset[index]).numpy())
    end = time.perf_counter()
    print(json.dumps({"import_s": imported - start, "work_s": end - imported}))


if __name__ == "__main__":
    main()
