"""Processes of the command's own, which do a conversion's work on one machine.

They are forked from the command before it imports Beam, and begin at once: to import Beam and to
build the pipeline is seconds of one core, while the others would wait. They go on to the end, since
threads would take turns: much of a shard, and nearly all of a small scene, is work under the lock of
Python or of HDF5.

The pipeline's steps ask here for what they need, and wait. What a process fails at they do
themselves, so that it fails there as it always did, or does not.

For the statistics scenes are counted here, too: each as soon as it is staged, or, where memory holds
all of them, when all are staged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection, wait
from typing import Any

from . import records
from .choosing import choose
from .config import Config
from .errors import DeadLetter, JobError
from .planning import PlannedScene, agree, fit, plan_scene, record_bytes
from .records import Filled
from .scenes import SceneFiles
from .staging import StagedScene, stage_scene
from .statistics.counting import Counting
from .statistics.scene import keep_counts
from .usage import Usage, memory

_MOST = 16  # processes, each of which takes some hundred MiB
_HELD = 0.25  # of the memory, by all that is staged, where it is counted last
# Handed out at once, where scenes are small: to send and to wake up takes as long as a plan.
_TOGETHER, _TOGETHER_BYTES = 16, 8 << 20
_END_SECONDS = 10  # for processes to remove what they have not finished


class Processes:
    """The processes; a context, at whose end they end too.

    Each has a pipe and a thread of its own, and shares no lock with another: one that is killed
    takes nothing with it. (The standard library's pools hang or break when a process is killed.)

    Args:
      scenes: all that are to be staged.
      config: the configuration.
      folder: where stage files go. It must be there.
      shared: other datasets may have theirs there too.
      count: how many. The last one begins when the pipeline asks for its first scene.
      counting: what has scenes counted, while the system still holds their pixels, if any.
      quiet: what they say to standard error is not shown.
    """

    def __init__(
        self, scenes: Sequence[SceneFiles], config: Config, folder: str, shared: bool, count: int,
        counting: Counting | None = None, quiet: bool = False,
    ):  # fmt: skip
        def stage(planned: PlannedScene, layout: Any, counted: bool) -> StagedScene:
            ready = fit(planned, layout)
            staged = stage_scene(ready.scene, ready.header, config, folder, shared)
            if counted:
                with contextlib.suppress(Exception):
                    keep(staged)
            return staged

        def keep(staged: StagedScene) -> bool:
            assert counting is not None
            chosen = choose(staged, config, {}).counts(config)
            keep_counts(dataclasses.replace(staged, counts=chosen), config, counting)
            return True

        self._functions = {
            "plan": lambda scene: plan_scene(scene, config), "stage": stage, "count": keep,
            "fill": records.fill,
        }  # fmt: skip
        # Not where classes are balanced, which takes all scenes to decide.
        self._counting = counting is not None and not config.sample.balance
        self._late = False  # whether when all are staged
        self._counts: dict[str, Future[Any]] = {}
        self._config, self._quiet = config, quiet
        self._pairs: list[tuple[Any, Connection]] = []
        with contextlib.suppress(OSError):  # there may be no room for so many, or for any
            for _ in range(count):
                self._pairs.append(self._fork())
        last = len(self._pairs) - 1
        self._threads = [
            threading.Thread(target=self._drive, args=(connection, 0 < i == last), daemon=True)
            for i, (_, connection) in enumerate(self._pairs)
        ]
        self._driven, self._lock = len(self._pairs), threading.Lock()
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._asked, self._ended, self.asked_at = threading.Event(), False, 0.0
        self._plans = {
            scene.id: plan
            for part in self._parts(scenes, [0] * len(scenes))
            for scene, plan in zip(part, self._put("plan", [(s,) for s in part]), strict=True)
        }
        self._staged: Future[dict[str, Future[Any]]] = Future()
        self._left = len(self._plans)

    def _fork(self) -> tuple[Any, Connection]:
        context = multiprocessing.get_context("fork")  # what is imported need not be again
        here, there = context.Pipe()
        process = context.Process(
            target=_work, args=(there, self._functions, self._quiet), daemon=True
        )
        process.start()
        there.close()
        return process, here

    def __enter__(self) -> Processes:
        global _current
        _current = self
        for thread in self._threads:
            thread.start()
        for plan in self._plans.values():
            plan.add_done_callback(self._planned)
        return self

    def __exit__(self, *_: object) -> None:
        global _current
        _current, self._ended = None, True
        self._asked.set()
        for process, _connection in self._pairs:
            process.terminate()
        end = time.monotonic() + _END_SECONDS
        for process, _connection in self._pairs:
            process.join(max(0.0, end - time.monotonic()))
            process.kill()
        for _ in self._pairs:
            self._put("end", [()])
        for thread in self._threads:
            thread.join(_END_SECONDS)

    def plan(self, scene: SceneFiles, config: Config) -> PlannedScene | DeadLetter:
        """As ``plan_scene``."""
        self.asked_at = self.asked_at or time.time()
        self._asked.set()
        return self._result(self._plans[scene.id]) or plan_scene(scene, config)

    def stage(self, ready: PlannedScene, config: Config, folder: str, shared: bool) -> StagedScene:
        """As ``stage_scene``."""
        staged = self._result(self._staged).get(ready.scene.id)
        found = self._result(staged) if staged else None
        if found and found.header == ready.header:
            return found  # type: ignore[no-any-return]
        return stage_scene(ready.scene, ready.header, config, folder, shared)

    def usages(self) -> list[Usage]:
        """What each process has used until now, also one that had nothing to do."""
        found = []
        for process, _connection in self._pairs:
            with contextlib.suppress(OSError, KeyError):  # it was killed
                found.append(Usage.of(process.pid))
        return found

    def is_counted(self, scene: StagedScene) -> bool:
        """Whether a scene was counted, or may be."""
        counted = self._counts.get(scene.id)
        return counted is not None and (not counted.done() or bool(counted.result()))

    def wait_counted(self) -> None:
        """Waits until no scene is being counted. All are staged."""
        for counted in list(self._counts.values()):
            counted.result()

    def fill(self, *shard: Any) -> Filled | None:
        """As ``records.fill``; None where the process failed."""
        return self._result(self._put("fill", [shard])[0])  # type: ignore[no-any-return]

    def _result(self, future: Future[Any]) -> Any:
        found = future.result()
        if self._ended:
            if threading.current_thread() is not threading.main_thread():
                threading.Event().wait()  # the runner's, which nobody waits for: it would say why
            raise JobError("the conversion has ended")
        return found

    def _planned(self, _: Any) -> None:
        """Has scenes staged as soon as all are planned."""
        with self._lock:
            self._left -= 1
            if self._left:
                return
        plans = [plan.result() for plan in self._plans.values()]
        planned = [plan for plan in plans if isinstance(plan, PlannedScene)]
        found: dict[str, Future[Any]] = {}
        # A plan that is not there may change the layout, which then is the pipeline's to find.
        if all(plans):
            with contextlib.suppress(Exception):  # the pipeline meets the same, and says so
                layout = agree(planned)
                size = record_bytes(layout, self._config) if layout else 0
                sizes = [size * p.header.grid(self._config).count for p in planned]
                self._late = self._counting and sum(sizes) <= _HELD * memory()
                at_once = self._counting and not self._late
                for part in self._parts(planned, sizes):
                    staged = self._put("stage", [(p, layout, at_once) for p in part])
                    found |= zip((p.scene.id for p in part), staged, strict=True)
        self._staged.set_result(found)

    def _parts(self, scenes: Sequence[Any], sizes: Sequence[int]) -> Iterator[Sequence[Any]]:
        """Scenes that are handed out together, of so many bytes each; enough parts for all."""
        most = min(_TOGETHER, len(scenes) // (8 * max(1, len(self._pairs))))
        first = held = 0
        for i, size in enumerate(sizes):
            if i > first and (i - first >= most or held + size > _TOGETHER_BYTES):
                yield scenes[first:i]
                first, held = i, 0
            held += size
        if first < len(scenes):
            yield scenes[first:]

    def _put(self, name: str, calls: Sequence[tuple[Any, ...]]) -> list[Future[Any]]:
        """Has one process call the function of a name, with each of these arguments."""
        futures: list[Future[Any]] = [Future() for _ in calls]
        with self._lock:
            if self._driven:
                self._tasks.put((futures, name, calls))
                return futures
        for future in futures:
            future.set_result(None)
        return futures

    def _drive(self, connection: Connection, late: bool) -> None:
        """Hands tasks to one process and takes its results, until it ends."""
        if late:
            self._asked.wait()
        try:
            while not self._ended:
                futures, name, calls = self._tasks.get()
                found: list[Any] = [None] * len(calls)
                try:
                    if name == "end":
                        break
                    try:
                        connection.send((name, calls))
                    except OSError:
                        raise
                    except Exception:  # it cannot be pickled, which the pipeline then meets
                        continue
                    for i in range(len(calls)):  # one that is killed takes the rest with it alone
                        found[i] = connection.recv()
                    if name == "stage" and self._late:
                        # Behind all that are to be staged.
                        staged = [s for s in found if s]
                        counts = self._put("count", [(s,) for s in staged])
                        self._counts |= zip((s.id for s in staged), counts, strict=True)
                finally:
                    for future, result in zip(futures, found, strict=True):
                        future.set_result(result)
        except Exception:  # it ended, or was ended while it sent
            pass
        finally:
            with self._lock:
                self._driven -= 1
                left = [] if self._driven else list(_drained(self._tasks))
            for future in left:
                future.set_result(None)


# The futures of the results, a function's name, and the arguments of each call.
_Task = tuple[list[Future[Any]], str, Sequence[tuple[Any, ...]]]


def _drained(tasks: queue.SimpleQueue[_Task]) -> Iterator[Future[Any]]:
    with contextlib.suppress(queue.Empty):
        while True:
            yield from tasks.get_nowait()[0]


def _work(connection: Connection, functions: dict[str, Callable[..., Any]], quiet: bool) -> None:
    """What each process does: each call's result, or None where it fails."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # what is half written is removed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.freeze()  # what was imported is not looked through again and again
    if quiet:
        sys.stderr = io.StringIO()
    with contextlib.suppress(EOFError, OSError):
        while True:
            name, calls = connection.recv()
            for arguments in calls:
                found = None
                with contextlib.suppress(Exception):
                    found = functions[name](*arguments)
                try:
                    connection.send(found)
                except (EOFError, OSError):
                    raise
                except Exception:  # it cannot be pickled
                    connection.send(None)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_SECONDS)
    os._exit(1)


_current: Processes | None = None


def how_many(scenes: Sequence[SceneFiles]) -> int:
    """How many processes a conversion can have now, as many as cores; 0 for none.

    Not where Beam is imported already, nor beside threads, of which a forked process would hold
    the locks for ever. What is remote is left to the pipeline: connections cannot be forked.
    """
    usable = [s for s in scenes if not s.problem]
    safe = sys.platform == "linux" and threading.active_count() == 1
    if not safe or "apache_beam" in sys.modules or any(s.remote for s in usable):
        return 0
    cores = len(os.sched_getaffinity(0))
    return min(cores, _MOST) if cores > 1 and usable else 0


def are_at_work() -> bool:
    """Whether this command has processes, which may be writing files."""
    return _current is not None


def plan(scene: SceneFiles, config: Config) -> PlannedScene | DeadLetter:
    """As ``plan_scene``; by this command's processes, where there are any."""
    ours = _current  # which another thread may end
    return ours.plan(scene, config) if ours else plan_scene(scene, config)


def stage(ready: PlannedScene, config: Config, folder: str, shared: bool) -> StagedScene:
    """As ``stage_scene``; by this command's processes, where there are any."""
    ours = _current
    if ours:
        return ours.stage(ready, config, folder, shared)
    return stage_scene(ready.scene, ready.header, config, folder, shared)


def count(scene: StagedScene, config: Config, counting: Counting) -> None:
    """As ``keep_counts``; by this command's processes, where there are any, and then later."""
    ours = _current
    if not ours or not ours.is_counted(scene):
        keep_counts(scene, config, counting)


def fill(*shard: Any) -> Filled | None:
    """As ``records.fill``, by this command's processes; None where there are none, or they fail."""
    ours = _current
    return ours.fill(*shard) if ours else None


def asked_at() -> float:
    """When the pipeline asked for its first scene, in seconds since the epoch; else 0."""
    ours = _current
    return ours.asked_at if ours else 0.0


def usages() -> list[Usage]:
    """What each of this command's processes has used until now, if it has any."""
    ours = _current
    return ours.usages() if ours else []


def wait_counted() -> None:
    """Waits for the scenes that this command's processes are still counting."""
    if ours := _current:
        ours.wait_counted()
