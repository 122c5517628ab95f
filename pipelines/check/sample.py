"""Converting a sample of scenes now, each time in a process of its own.

    echo '{"config": {...}, "base": "/data", "ids": ["a"], "out": "/tmp/x", "started": 0}' \
        | python -m scenefeed.pipelines.check.sample
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...transforms.scenes import SceneFiles

SAMPLE_BYTES = 1_100_000_000  # of source
REPEATS, SECONDS = 3, 120.0  # no repetition begins after so many seconds
NEEDED = 3  # bytes of disk a byte of source: stage files, records, and some room


@dataclasses.dataclass(frozen=True)
class Sample:
    """Scenes to convert, and how.

    Attributes:
      config: the dataset's configuration, with these scenes' paths, without statistics.
      base: the folder that its paths are relative to.
      scenes: those that are converted.
      found: how many were given.
      num_bytes: of their files.
    """

    config: dict[str, Any]
    base: Path
    scenes: tuple[SceneFiles, ...]
    found: int
    num_bytes: int


def choose(config: dict[str, Any], given: Sequence[str], most: float = SAMPLE_BYTES) -> Sample:
    """The first scenes that together have up to ``most`` bytes; the smallest, where none is so
    small: a scene is converted whole.

    Args:
      config: dataset.json's.
      given: scenes as the command line names them.

    Raises:
      ConfigError: a scene is not there, or a label's file is not to be found.
    """
    from ...transforms.config import parse
    from ...transforms.finding import find_scenes
    from ..options import from_here

    paths = [from_here(path) for path in given]
    values = {**config, "scenes": {**config["scenes"], "paths": paths}, "statistics": {}}
    base = _base(values, Path(paths[0]))
    found = find_scenes(parse(values, "dataset.json"), base)
    chosen: list[SceneFiles] = []
    total, sizes = 0, {s.id: _num_bytes(s) for s in found}
    for scene in found:
        if total + sizes[scene.id] <= most:
            chosen.append(scene)
            total += sizes[scene.id]
    if not chosen:
        chosen = [min(found, key=lambda s: sizes[s.id])]
    total = sum(sizes[s.id] for s in chosen)
    return Sample(values, base, tuple(chosen), len(found), total)


def _base(values: dict[str, Any], scene: Path) -> Path:
    """Where labels' paths are relative to, which a dataset does not remember: the folder that the
    command runs in, or the nearest one above the scenes where the first scene's labels lie.

    Raises:
      ConfigError: no such folder.
    """
    from ...transforms.config import parse
    from ...transforms.errors import ConfigError
    from ...transforms.finding import find_scenes
    from ...transforms.storage import is_remote

    config, missing = parse(values, "dataset.json"), ""
    for base in (Path.cwd(), *scene.absolute().parents):
        labels = find_scenes(config, base)[0].labels.values()
        missing = next((p for p in labels if not is_remote(p) and not os.path.exists(p)), "")
        if not missing:
            return base
    raise ConfigError(
        f"--scenes: the labels of {scene.name} are not where the dataset's configuration has them "
        f"({Path(missing).name}): run this in the folder that its paths are relative to"
    )


def _num_bytes(scene: SceneFiles) -> int:
    from ...transforms.storage import is_remote, size_of

    total = 0
    for path in dict.fromkeys(a.path for a in scene.assets):
        if is_remote(path):
            total += size_of(path)
        else:
            inside = Path(path).rglob("*") if os.path.isdir(path) else [Path(path)]
            total += sum(p.stat().st_size for p in inside if p.is_file())
    return total


def repeat(sample: Sample, beside: Path, seconds: float = SECONDS) -> list[dict[str, Any]]:
    """Converts the sample several times; nothing of it stays.

    Scenes are taken out of the page cache before each, as those of a large archive would be.

    Args:
      sample: what to convert.
      beside: where the temporary folder is made; where it cannot be, in the system's.

    Returns:
      metrics.json of each, and ``tree``, the memory of its processes, and ``dead``, scenes that failed, in words.

    Raises:
      JobError: no room, or no scene could be converted, in one line.
    """
    found: list[dict[str, Any]] = []
    began = time.perf_counter()
    where = beside if os.access(beside, os.W_OK) else Path(tempfile.gettempdir())
    while len(found) < REPEATS and (not found or time.perf_counter() - began < seconds):
        _check_room(where, sample.num_bytes)
        with tempfile.TemporaryDirectory(prefix=".scenefeed-check-", dir=where) as folder:
            found.append(_converted(sample, Path(folder) / "out"))
    return found


def _check_room(folder: Path, num_bytes: int) -> None:
    from ...transforms.errors import JobError

    free, needed = shutil.disk_usage(folder).free, NEEDED * num_bytes
    if free < needed:
        raise JobError(
            f"{folder}: the sample takes up to {needed / 1e6:,.0f} MB there, and {free / 1e6:,.0f} "
            "MB are free: make room, or give --scenes smaller ones"
        )


def _converted(sample: Sample, out: Path) -> dict[str, Any]:
    from ...transforms.errors import JobError
    from . import cold
    from .memory import tracking

    paths = [a.path for s in sample.scenes for a in s.assets if os.path.isfile(a.path)]
    cold.empty(paths)
    job = {
        "config": sample.config, "base": str(sample.base), "out": str(out),
        "ids": [s.id for s in sample.scenes], "started": time.time(),
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process, tracking(process.pid) as memory:  # fmt: skip
        _, said = process.communicate(json.dumps(job))
    try:
        metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
        letters = (out / "errors.jsonl").read_text().splitlines()
    except OSError:
        metrics, letters = {"status": "failed"}, []
    if metrics["status"] != "complete":
        raise JobError(f"the sample was not converted: {_why(letters, said, process.returncode)}")
    tree = {"kind": memory.kind, "peak_bytes": memory.peak_bytes}
    return metrics | {"tree": tree, "dead": _words(letters)}


def _why(letters: Sequence[str], said: str, code: int) -> str:
    words = _words(letters) or [x for x in said.splitlines() if x.strip()][-1:]
    return words[0] if words else f"its process ended with code {code}, or every patch was dropped"


def _words(letters: Iterable[str]) -> list[str]:
    return [f"{d['scene']}: {d['reason']}" for d in map(json.loads, letters)]


def main() -> int:
    job = json.load(sys.stdin)
    from .. import lean

    lean.import_beam()  # as convert does
    from ...loader.spec import DatasetError
    from ...transforms.config import parse
    from ...transforms.errors import ConfigError, JobError
    from ...transforms.finding import find_scenes
    from .. import convert, results, runner
    from ..quiet import quieten

    quieten()
    try:
        config = parse(job["config"], "dataset.json")
        wanted = set(job["ids"])
        scenes = [s for s in find_scenes(config, Path(job["base"])) if s.id in wanted]
        options = runner.pipeline_options([], job["out"])
        run = results.Run(job["out"], config, "", job["started"], runner.worker_count(options))
        results.begin(run)
        runner.run(convert.convert_pipeline(run, scenes), options)
    except (ConfigError, DatasetError, JobError, OSError) as e:
        print(" ".join(str(e).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
