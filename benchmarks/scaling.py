"""What a conversion on shared storage moves and asks for: counted on a small one, then extrapolated.

    python benchmarks/scaling.py            # counts, with a real S3 server on loopback (Go)
    python benchmarks/scaling.py --table    # 100 GB, 10 TB, 1 PB by the counted constants

Counted are the requests and bytes of one conversion from S3 to S3: they do not depend on the
machine or its load.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

GROUP = 128  # transforms/assign.py, MAX_FILES_PER_SHARD
SCENE, SHARD, PATCH = 1e9, 128e6, 64 * 64 * 2 * 4  # bytes
UPLOAD_PART = 50 << 20  # of s3fs
# By (shard, stage file): what the counts below gave.
REQUESTS_PER_SHARE = 1.0
# By patch.
INDEX_BYTES, POINTER_BYTES = 30, 15


def predict(size: float, tensors: int = 1) -> dict[str, float]:
    """Requests and bytes to convert ``size`` bytes of pixels, scenes of ``SCENE`` bytes."""
    scenes, shards, patches = math.ceil(size / SCENE), math.ceil(size / SHARD), size / PATCH
    groups = min(shards, math.ceil(scenes / GROUP))
    files = scenes / groups
    return {
        "scenes": scenes,
        "shards": shards,
        "stage files a shard": files,
        "GETs of stage files": shards * files * tensors * REQUESTS_PER_SHARE,
        "KB a GET": SHARD / files / 1e3,
        "GETs of indexes": scenes * 3,
        "PUTs": scenes * (math.ceil(SCENE / UPLOAD_PART) + 3)
        + shards * (math.ceil(SHARD / UPLOAD_PART) + 3),
        "copies": shards * 2,
        "TB read": (2 * size + scenes * 3 * SCENE / PATCH * INDEX_BYTES) / 1e12,
        "TB written": 2 * size / 1e12,
        "GB shuffled": patches * POINTER_BYTES / 1e9,
        "GETs with a request a patch": patches,
        "TB read with whole files a shard": (size + shards * files * SCENE) / 1e12,
        "scenes in a batch of 1024 of one shard": files * (1 - (1 - 1 / files) ** 1024),
    }


def table() -> str:
    columns = [predict(size) for size in (1e11, 1e13, 1e15)]
    lines = ["| | 100 GB | 10 TB | 1 PB |", "|---|---|---|---|"]
    for name in columns[0]:
        lines.append(f"| {name} | " + " | ".join(_number(c[name]) for c in columns) + " |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def count(scenes: int, shards: int, side: int) -> dict[str, float]:
    """Converts scenes of side x side x 2 float32 from S3 to S3, and counts."""
    from tests.storage import servers

    with tempfile.TemporaryDirectory() as folder, servers.s3(Path(folder) / "s3") as server:
        command = [sys.executable, "-m", "scenefeed.pipelines.cli"]
        synth = ["synth", f"{folder}/synth", "--scenes", str(scenes), "--size", str(side)]
        subprocess.run([*command, *synth], check=True, capture_output=True)
        for path in sorted(Path(folder).glob("synth/scenes/*.tif")):
            server.put(f"in/{path.name}", path)
        server.log.requests.clear()
        convert = ["convert", f"{server.root}/in/*.tif", "--output", f"{server.root}/out",
                   "--num_shards", str(shards)]  # fmt: skip
        subprocess.run(
            [*command, *convert], check=True, env=os.environ | server.env, capture_output=True
        )
        gets = [r for r in server.log.requests if r.method == "GET"]
        stage = [r for r in gets if "/stage/" in r.path and r.path.endswith(".h5")]
        index = [r for r in gets if r.path.endswith(".npz")]
        tiffs = [r for r in gets if r.path.endswith(".tif")]
        patches, pixels = scenes * (side // 64) ** 2, scenes * side**2 * 8
        npz = [n for n in server.list() if n.endswith(".npz")]
        return {
            "scenes": scenes,
            "shards": shards,
            "requests a share (shard, stage file)": len(stage) / (scenes * shards),
            "bytes of stage files read / pixels": sum(r.sent for r in stage) / pixels,
            "requests of an index, a scene": len(index) / scenes,
            "bytes of indexes a patch": sum(len(server.get(n)) for n in npz) / patches,
            "requests of a scene": len(tiffs) / scenes,
            "bytes of scenes read / pixels": sum(r.sent for r in tiffs) / pixels,
            "bytes of pointers a patch": pointer_bytes(),
            "all requests": len(server.log.requests),
        }


def pointer_bytes() -> float:
    """Of one patch, as Beam carries it: a scene of ``SCENE`` bytes, staged remotely, and shards of
    ``SHARD`` of the whole table's middle column."""
    from scenefeed.transforms.assign import Pointers
    from scenefeed.transforms.hashing import shuffle_order

    side, name = int((SCENE / PATCH) ** 0.5), "scene-00017"
    rows, cols = (64 * np.indices((side, side), np.int32)).reshape(2, -1)
    order = shuffle_order(0, name, rows, cols)
    patches = np.argsort(order)[
        : int(SHARD / PATCH / GROUP)
    ]  # one share: patches that lie together
    at = np.arange(len(patches)) * int(PATCH)
    share = Pointers(
        name, f"s3://bucket/stage/{name}.h5", rows[patches], cols[patches], order[patches],
        {"image": at},
    )  # fmt: skip
    return len(share.pack(seed=0)) / len(patches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", action="store_true", help="extrapolate only")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--size", type=int, default=512, help="side of a scene, pixels")
    args = parser.parse_args()
    if not args.table:
        print(json.dumps(count(args.scenes, args.shards, args.size), indent=2))
    print(table())


if __name__ == "__main__":
    main()
