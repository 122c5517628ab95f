"""Plans and stages files, each in a process of its own, so that a crash, a hang or a hunger for
memory is one file's alone.

    python -m tests.end_to_end.alone TILE_SIZE SECONDS < paths

prints a line of JSON a file: ``file``, ``status`` (the process's; not 0 where it crashed or passed
SECONDS), ``memory`` (its peak, bytes), ``staged`` (how many scenes), ``reasons`` (of dead
letters) and ``said`` (what it wrote to standard error).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

from scenefeed.transforms.config import Config, parse
from scenefeed.transforms.errors import ConfigError, as_scene_error
from scenefeed.transforms.finding import find_scenes
from scenefeed.transforms.planning import PlannedScene, agree, fit, plan_scene
from scenefeed.transforms.staging import stage_scene


def main(size: int, seconds: int) -> None:
    for line in sys.stdin:
        path = line.rstrip("\n")
        config = parse({"scenes": {"paths": path}, "tile": {"size": size, "edge": "pad"}}, "test")
        with (
            tempfile.TemporaryDirectory() as folder,
            tempfile.TemporaryFile("w+") as said,
            tempfile.TemporaryFile("w+") as told,
        ):
            child = os.fork()
            if child == 0:
                os.dup2(said.fileno(), 2)
                signal.alarm(seconds)
                # As Beam does: libraries set some things up for the first thread alone.
                worker = threading.Thread(target=_convert, args=(config, folder, told))
                worker.start()
                worker.join()
                os._exit(0)
            _, status, usage = os.wait4(child, 0)
            told.seek(0)
            said.seek(0)
            found = json.loads(told.read() or '{"staged": 0, "reasons": []}')
            found |= {"file": path, "status": status, "memory": usage.ru_maxrss << 10}
            print(json.dumps(found | {"said": said.read()}), flush=True)


def _convert(config: Config, folder: str, told: IO[str]) -> None:
    staged, reasons = 0, []
    try:
        scenes = find_scenes(config, Path("/"))
    except ConfigError as e:
        scenes, reasons = [], [str(e)]
    for scene in scenes:
        planned: Any = plan_scene(scene, config)
        if not isinstance(planned, PlannedScene):
            reasons.append(planned.reason)
            continue
        try:
            ready = fit(planned, agree([planned]))
            stage_scene(ready.scene, ready.header, config, folder)
            staged += 1
        except Exception as e:
            reasons.append(as_scene_error(e, "stage", scene.files[0]).reason)
    json.dump({"staged": staged, "reasons": reasons}, told)
    told.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
