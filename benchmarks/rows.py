"""What `make bench` measures: rows, each a process of its own, beside the row it is compared with.

A command that prints a JSON object in its last line adds it to what is known of its run; where
that holds ``seconds``, they are the row's figure instead of the whole process's on the clock.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCENEFEED = (sys.executable, "-m", "scenefeed.pipelines.cli")
TILE = 64
# Scenes of equal total size. The last is there where they do not become smaller than a tile.
GROWTH = (1, 10, 100, 1000, 10_000)
GIB_SIDE = 11_264  # pixels, whole blocks of 512: a scene of nearly a GiB


@dataclasses.dataclass(frozen=True)
class Row:
    """A command that is measured.

    Attributes:
      name: "GROUP: WHAT".
      command: OUT in it stands for a folder that is not there when it starts.
      reference: the name of the row that it is compared with; "" for none.
      keep: the folder that its first OUT is kept as, for rows after it.
      mib: of pixels; where given, the figure is seconds a MiB.
      scenes: the folder of the scenes that it reads; "" for none.
      cold: of these nothing is in the page cache; else all of it.
    """

    name: str
    command: tuple[str, ...]
    reference: str = ""
    keep: str = ""
    mib: float = 0
    scenes: str = ""
    cold: bool = False


def rows(work: Path, size: int, gib: int = 0) -> list[Row]:
    """All rows, those that keep a folder before those that read it."""
    every = _start_up(), _convert(work), _check(work), _load(work), _growth(work, size)
    return [row for group in (*every, _sizes(work, gib)) for row in group]


def _start_up() -> Iterator[Row]:
    python = (sys.executable, "-c")
    yield Row("start: python", (*python, "pass"))
    yield Row(
        "start: import scenefeed.loader", (*python, "import scenefeed.loader"), "start: python"
    )
    yield Row("start: scenefeed --help", (*SCENEFEED, "--help"), "start: python")


def _convert(work: Path) -> Iterator[Row]:
    scenes = str(work / "synth/scenes")
    recipe = (sys.executable, str(HERE / "recipe.py"), scenes, "OUT")
    ours = (*SCENEFEED, "convert", "--config", str(work / "synth.yaml"), "--output", "OUT")
    yield Row("convert: recipe", recipe, keep="recipe", scenes=scenes)
    yield Row("convert: scenefeed", ours, "convert: recipe", keep="scenefeed", scenes=scenes)
    processes = (*ours, "--direct_running_mode=multi_processing")
    yield Row("convert: scenefeed, processes", processes, "convert: recipe", scenes=scenes)
    statistics = (*ours, "--normalize", "zscore")
    yield Row("convert: scenefeed, statistics", statistics, "convert: scenefeed", scenes=scenes)
    yield Row("floors: core-seconds a GB", (sys.executable, str(HERE / "floors.py"), str(work)))


def _check(work: Path) -> Iterator[Row]:
    ours = str(work / "scenefeed")
    yield Row("check: verify", (*SCENEFEED, "verify", ours))
    # Targets that are met by any machine: one that is missed would end the command with 1.
    met = ("--load_seconds", "1000", "--convert_mb_per_s", "0.001", "--memory_gib", "1000")
    yield Row("check: check", (*SCENEFEED, "check", ours, "--seconds", "1", *met))


def _load(work: Path) -> Iterator[Row]:
    load = (sys.executable, str(HERE / "load.py"))
    ours = str(work / "scenefeed")
    yield Row("load: recipe", (*load, "recipe", str(work / "recipe")))
    yield Row("load: load()", (*load, "load", ours), "load: recipe")
    yield Row("load: load(source='stream')", (*load, "stream", ours), "load: recipe")
    yield Row("load: Feed", (*load, "reader", ours), "load: recipe")


def _growth(work: Path, size: int) -> Iterator[Row]:
    for count, side in growth_sides(size):
        scenes = str(work / f"growth-{count}/scenes")
        config = str(work / f"growth-{count}.yaml")
        command = (*SCENEFEED, "convert", "--config", config, "--output", "OUT")
        mib = count * side**2 * 8 / 2**20
        reference = "growth: 1 scene" if count > 1 else ""
        name = f"growth: {count} scene{'s' * (count > 1)}"
        yield Row(name, command, reference, mib=mib, scenes=scenes)


def growth_sides(size: int) -> list[tuple[int, int]]:
    """(scenes, side of each in pixels), all of the pixels of one of side ``size``: about 1, 10 ...
    scenes. Large ones are whole blocks of 512, as files hold them: what reaches past a scene's edge
    is read too."""
    sides = [size / n**0.5 for n in GROWTH]
    units = [(side, 512 if side > 448 else TILE) for side in sides if side >= TILE]
    whole = [round(side / unit) * unit for side, unit in units]
    return [(round(size**2 / side**2), side) for side in whole]


def _sizes(work: Path, gib: int) -> Iterator[Row]:
    for count in sizes(gib):
        config, scenes = str(work / f"size-{count}.yaml"), str(work / f"size-{count}/scenes")
        command = (*SCENEFEED, "convert", "--config", config, "--output", "OUT")
        mib = count * GIB_SIDE**2 * 8 / 2**20
        reference = "size: 1 GiB" if count > 1 else ""
        yield Row(f"size: {count} GiB", command, reference, mib=mib, scenes=scenes, cold=True)


def sizes(gib: int) -> list[int]:
    """How many scenes of a GiB: 1, 2, 4 ... up to ``gib``; none for 0 and less."""
    return [2**n for n in range(max(0, gib).bit_length())]
