"""A head start: processes that plan and stage scenes while the command itself still starts.

To import Beam and to build the pipeline is seconds of one core, and more threads would only take
turns with it. The pipeline's steps ask here first: what a process has done they take, for what it
is at they wait, and the rest they do themselves. So they do whatever failed: who fails there
says nothing, and the pipeline meets the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection, wait
from typing import Any

from .config import Config
from .errors import DeadLetter
from .headers import SceneHeader
from .planning import PlannedScene, agree, fit, plan_scene
from .scenes import SceneFiles
from .staging import StagedScene, stage_scene

_MOST_PROCESSES = 8
_MOST_SCENES = 256  # more would still be planned when the pipeline comes
_END_SECONDS = 10  # for a process to remove what it has not finished

Plans = list[PlannedScene | DeadLetter]


class HeadStart:
    """Processes that plan and stage a conversion's scenes; a context, at whose end they end too.

    Args:
      scenes: all of them.
      config: the configuration.
      folder: where stage files go. It must be there.
      shared: other datasets may have theirs there too.
      processes: how many.
    """

    def __init__(
        self, scenes: Sequence[SceneFiles], config: Config, folder: str, shared: bool,
        processes: int,
    ):  # fmt: skip
        self._scenes, self._config, self._folder, self._shared = scenes, config, folder, shared
        self._number = {scene.id: i for i, scene in enumerate(scenes)}
        self._claims = _Claims(len(scenes))
        self._plans: Future[Plans | None] = Future()
        self._staged: list[Future[StagedScene | None]] = [Future() for _ in scenes]
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        context = multiprocessing.get_context("fork")  # what is imported need not be again
        for _ in range(processes):
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=self._work, args=(there,), daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._connections.append(here)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> HeadStart:
        global _current
        _current = self
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        global _current
        _current = None
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(_END_SECONDS)
            process.kill()
        self._reader.join()
        self._claims.close()

    def plan(self, scene: SceneFiles, config: Config) -> PlannedScene | DeadLetter:
        """As ``plan_scene``."""
        plans = self._plans.result()
        return plans[self._number[scene.id]] if plans else plan_scene(scene, config)

    def stage(self, ready: PlannedScene, config: Config, folder: str, shared: bool) -> StagedScene:
        """As ``stage_scene``. From here on, processes begin no other scenes."""
        self._claims.end()
        number = self._number[ready.scene.id]
        found = None if self._claims.take(number) else self._staged[number].result()
        return found or stage_scene(ready.scene, ready.header, config, folder, shared)

    def _read(self) -> None:
        """Takes what the processes send, until all have ended."""
        connections = list(self._connections)
        while connections:
            ready: list[Any] = wait(connections)
            for connection in ready:
                try:
                    number, found = connection.recv()
                except Exception:  # it ended, or was ended while it sent
                    connections.remove(connection)
                    continue
                future: Future[Any] = self._plans if number is None else self._staged[number]
                _set(future, found)
        _set(self._plans, None)
        for future in self._staged:
            _set(future, None)

    def _work(self, connection: Connection) -> None:
        """What each process does."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends us
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # what is half written is removed
        threading.Thread(target=_end_with_parent, daemon=True).start()
        with contextlib.suppress(Exception):
            plans = [plan_scene(scene, self._config) for scene in self._scenes]
            connection.send((None, plans))
            layout = agree(p for p in plans if isinstance(p, PlannedScene))
            for number, planned in enumerate(plans):
                if layout is None or self._claims.ended:
                    return
                if isinstance(planned, PlannedScene) and self._claims.take(number):
                    staged = self._stage(planned, layout)
                    self._claims.done(number)
                    connection.send((number, staged))

    def _stage(self, planned: PlannedScene, layout: SceneHeader) -> StagedScene | None:
        with contextlib.suppress(Exception):
            ready = fit(planned, layout)
            return stage_scene(ready.scene, ready.header, self._config, self._folder, self._shared)
        return None


def _set(future: Future[Any], result: Any) -> None:
    if not future.done():  # each process plans
        future.set_result(result)


class _Claims:
    """Who stages which scene, between processes: locks of single bytes of a file in memory, which
    go with the process that holds them (fcntl(2)). A byte that is set is a scene that a process
    has staged; the one after the last, that the pipeline has come."""

    def __init__(self, count: int):
        self._fd = os.memfd_create("scenefeed-claims")
        self._count = count
        os.truncate(self._fd, count + 1)

    def take(self, number: int) -> bool:
        """Whether a scene is this process's to stage. Each asks once for each."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError:
            return False
        return not self._is_set(number)

    def done(self, number: int) -> None:
        """It is staged: who takes it from a process that has ended would stage it again."""
        os.pwrite(self._fd, b"1", number)

    def end(self) -> None:
        """The pipeline has come: no process is to begin another scene."""
        self.done(self._count)

    @property
    def ended(self) -> bool:
        return self._is_set(self._count)

    def close(self) -> None:
        os.close(self._fd)

    def _is_set(self, number: int) -> bool:
        return os.pread(self._fd, 1, number) == b"1"


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


_current: HeadStart | None = None


def how_many(scenes: Sequence[SceneFiles]) -> int:
    """How many processes a head start of a conversion can have now; 0 for none.

    Not where Beam is imported already, nor beside threads, of which a forked process would hold
    the locks for ever. What is remote is left to the pipeline: connections cannot be forked.
    """
    usable = [s for s in scenes if not s.problem]
    safe = sys.platform == "linux" and threading.active_count() == 1
    if not safe or "apache_beam" in sys.modules or any(s.remote for s in usable):
        return 0
    if len(usable) > _MOST_SCENES:
        return 0
    return min(len(usable), len(os.sched_getaffinity(0)) - 1, _MOST_PROCESSES)


def is_under_way() -> bool:
    """Whether a head start's processes may be writing stage files."""
    return _current is not None


def plan(scene: SceneFiles, config: Config) -> PlannedScene | DeadLetter:
    """As ``plan_scene``; from this command's head start, where there is one."""
    return _current.plan(scene, config) if _current else plan_scene(scene, config)


def stage(ready: PlannedScene, config: Config, folder: str, shared: bool) -> StagedScene:
    """As ``stage_scene``; from this command's head start, where there is one."""
    if _current:
        return _current.stage(ready, config, folder, shared)
    return stage_scene(ready.scene, ready.header, config, folder, shared)
