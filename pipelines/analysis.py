"""tf.Transform's analysis of what scenes contributed, in the analyst's process.

It needs nothing of the records, so that a conversion on this machine begins it as soon as all
scenes are counted, and writes the records meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..loader.spec import DatasetSpec
from ..transforms import processes
from ..transforms.config import Config
from ..transforms.errors import ConfigError, JobError, describe
from ..transforms.planning import features
from ..transforms.staging import StagedScene
from ..transforms.statistics.counting import Counting
from ..transforms.statistics.scene import training_split
from ..transforms.storage import get_folder, is_remote, names_in, path_of, remove
from . import analyst, runner
from .grouping import Group, group_scenes
from .quiet import is_quiet
from .results import CACHE, COUNTS, GRAPH, METADATA, STATISTICS, Run

_begun: dict[str, Analysis] = {}  # by the dataset's folder


class Analysis:
    """One analysis, and the local folder that it writes to.

    Args:
      out: the dataset's folder, a path or a URL.
      config: whose ``statistics.normalize`` is set, and ``bake`` is not.
      inputs: fingerprint of what the dataset is made from.
      scenes: all of the dataset's, staged.
    """

    def __init__(self, out: Path, config: Config, inputs: str, scenes: Sequence[StagedScene]):
        self._config, self._scenes = config, sorted(scenes, key=lambda s: s.id)
        found = features(self._scenes[0].header, config)
        self._spec = DatasetSpec(config.name, found, {}, config.resolved(), inputs, "")
        # Where the analyst's process was ended, it may be writing its last file.
        self._temporary = tempfile.TemporaryDirectory(
            prefix="scenefeed-", ignore_cleanup_errors=True
        )
        self.folder = Path(self._temporary.name)
        self.counting = Counting.of(str(out / COUNTS), config)
        self._tokens = {self.counting.token(s, config): s for s in self._scenes}
        self._groups = group_scenes(out / CACHE, self._tokens.keys(), self.folder / CACHE)
        self._thread: threading.Thread | None = None
        self._found: dict[str, Any] = {}
        self._error: Exception | None = None
        self._closed = False

    def __enter__(self) -> Analysis:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(failed=kind is not None)

    def close(self, failed: bool = False) -> None:
        """Removes the folder; ``failed`` ends what is going on, too."""
        self._closed = True
        if failed and self._thread is not None:
            analyst.stop()
        self._temporary.cleanup()

    def is_of(self, other: Analysis) -> bool:
        """Whether both are of the same scenes and configuration."""
        return self._spec == other._spec and self._groups == other._groups

    def uncounted(self) -> list[StagedScene]:
        """Scenes whose counts are wanted, and not there when nobody counts any more."""
        processes.wait_counted()
        there = names_in(path_of(self.counting.folder))
        return [self._tokens[t] for t in self._fresh if f"{t}.npz" not in there]

    @property
    def _fresh(self) -> list[str]:
        return [t for group in self._groups.values() if group.fresh for t in group.tokens]

    def begin(self) -> None:
        """Has it done beside what this process does, as soon as all scenes are counted."""
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        try:
            # Else they are counted first, by who asks for the result.
            if not self.uncounted() and not self._closed:
                self._found = self._run()
        except Exception as e:  # told to whom the result is for
            self._error = e

    def result(self) -> dict[str, Any]:
        """What statistics.json is to hold. All scenes are counted.

        Raises:
          ConfigError, JobError: it failed.
        """
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found or self._run()

    def _run(self) -> dict[str, Any]:
        return analyst.ask(
            _analyze, self._spec, self._config, self._scenes, self._groups, self._fetched(),
            self.folder, quiet=is_quiet(), own=bool(self._config.statistics.function),
        )  # fmt: skip

    def _fetched(self) -> Counting:
        """The same with all counts in a local folder. Without any, a store knows no such folder."""
        if not self._fresh or not is_remote(self.counting.folder):
            return self.counting
        get_folder(path_of(self.counting.folder), self.folder / "counts")
        return dataclasses.replace(self.counting, folder=str(self.folder / "counts"))


def begin(run: Run, scenes: Sequence[StagedScene]) -> None:
    """Begins the analysis of a dataset whose records are not written yet.

    What is in its way is left to ``analysis_of``, which then finds nothing begun.

    Args:
      run: in this process.
      scenes: all of them, counted or going to be.
    """
    if not analyst.is_beside():
        return
    with contextlib.suppress(Exception):
        out = path_of(run.out)
        analysis = _begun[str(out)] = Analysis(out, run.config, run.inputs, scenes)
        analysis.begin()


def analysis_of(out: Path, config: Config, inputs: str, scenes: Sequence[StagedScene]) -> Analysis:
    """The one that was begun, if it is of the same scenes, or a new one."""
    analysis, begun = Analysis(out, config, inputs, scenes), _begun.pop(str(out), None)
    if begun is not None and begun.is_of(analysis):
        analysis.close()
        return begun
    if begun is not None:
        begun.close(failed=True)
    return analysis


def forget(out: Path) -> None:
    """Ends what was begun for a folder, where nothing is to come of it."""
    if begun := _begun.pop(str(out), None):
        begun.close(failed=True)


def user_function(name: str) -> Callable[[Any], Any]:
    """The function that ``module:name`` means.

    Raises:
      ConfigError: there is none.
    """
    module, function = name.split(":")
    paths = list(sys.path)
    sys.path.append(os.getcwd())  # after all others: it hides no module of theirs
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as e:  # the module's own, too
        raise ConfigError(
            f"statistics.normalize {name}: {describe(e)}: give MODULE:FUNCTION, with MODULE in this folder "
            "or on PYTHONPATH"
        ) from None
    finally:
        sys.path[:] = paths
    if not callable(found):
        raise ConfigError(f"statistics.normalize {name}: is no function")
    return found  # type: ignore[no-any-return]


def _analyze(
    spec: DatasetSpec, config: Config, scenes: Sequence[StagedScene], groups: Mapping[str, Group],
    counting: Counting, local: Path,
) -> dict[str, Any]:  # fmt: skip
    """Runs tf.Transform into a local folder. Gives what statistics.json holds."""
    import tensorflow_transform.beam as tft_beam

    from ..transforms.statistics import analysis

    asked, split = config.statistics, training_split(config)
    names = {
        name: [counting.file(t) for t in group.tokens] if group.fresh else None
        for name, group in groups.items()
    }
    here = runner.pipeline_options([])

    def build(pipeline: Any) -> None:
        with tft_beam.Context(temp_dir=str(local / "temp")):
            analysis.analyze_partials(pipeline, spec, asked, split, names, local / CACHE, local)

    runner.run(build, here)
    if asked.function:
        function = user_function(asked.function)

        def build_own(pipeline: Any) -> None:
            with tft_beam.Context(temp_dir=str(local / "temp")):
                analysis.analyze_patches(pipeline, function, spec, config, scenes, local)

        for name in (GRAPH, METADATA):
            remove(local / name)
        try:
            runner.run(build_own, here)
        except JobError:
            raise
        except Exception as e:  # while its graph is traced
            raise JobError(f"statistics.normalize {asked.function}: {describe(e)}") from e
    return dict(json.loads((local / STATISTICS).read_text()))
