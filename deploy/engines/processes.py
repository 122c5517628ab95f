"""Background processes of one cluster: each with a log, a pid file and ports of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


class LaunchError(Exception):
    """What could not be started, where its log is, and its last useful line."""


class Cluster:
    """A folder that holds everything of one cluster: pids, logs, ports, temporary files.

    Args:
      folder: the work folder; made when it is not there.
      cache: where what is downloaded or built is kept between clusters.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder.absolute(), cache.absolute()
        for part in (self._pids, self.logs, self.tmp, self.cache):
            part.mkdir(parents=True, exist_ok=True)

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def _pids(self) -> Path:
        return self.folder / "pids"

    def remember(self, **values: object) -> dict[str, Any]:
        """What cluster.json holds, with ``values`` added."""
        path = self.folder / "cluster.json"
        known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        if values:
            known |= values
            path.write_text(json.dumps(known, indent=2) + "\n")
        return known

    def port(self, name: str) -> int:
        """A free port of loopback, the same one each time for ``name``."""
        ports = dict(self.remember().get("ports", {}))
        if name not in ports:
            with socket.socket() as free:
                free.bind((HOST, 0))
                ports[name] = free.getsockname()[1]
            self.remember(ports=ports)
        return int(ports[name])

    def start(
        self, name: str, command: Sequence[object], env: Mapping[str, str] | None = None
    ) -> None:
        """Starts ``command`` in the background, in a session of its own, unless it runs.

        Its log is logs/NAME.log; env is added to ours.
        """
        if self.pid(name):
            return
        with open(self.logs / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.tmp, env={**os.environ, "TMPDIR": str(self.tmp), **(env or {})},
                start_new_session=True,
            )  # fmt: skip
        # With when it began: a pid alone may be another process's by the time of `down`.
        (self._pids / name).write_text(f"{process.pid} {_began(process.pid)}\n")

    def pid(self, name: str) -> int:
        """The process id, 0 where it does not run."""
        path = self._pids / name
        pid, began = path.read_text().split() if path.exists() else ("0", "")
        return int(pid) if began and _began(int(pid)) == began else 0

    def names(self) -> list[str]:
        """All that were started, in the order of their starts."""
        return [p.name for p in sorted(self._pids.iterdir(), key=lambda p: p.stat().st_mtime_ns)]

    def wait_for(self, name: str, port: int, seconds: float = 60) -> None:
        """Waits until ``port`` answers.

        Raises:
          LaunchError: the process ended, or it took longer than ``seconds``.
        """
        self.wait_until(name, lambda: is_open(port), seconds)

    def wait_until(self, name: str, ready: Callable[[], object], seconds: float = 60) -> None:
        """Waits until ``ready()`` is true, as long as the process runs.

        Raises:
          LaunchError: it ended, or it took longer than ``seconds``.
        """
        end = time.monotonic() + seconds
        while not ready():
            if not self.pid(name):
                raise LaunchError(f"{name} ended: {self.last_words(name)}")
            if time.monotonic() > end:
                raise LaunchError(
                    f"{name}: not there after {seconds:.0f} s: {self.last_words(name)}"
                )
            time.sleep(0.1)

    def last_words(self, name: str) -> str:
        """The last line of the log that tells something, and the log's path."""
        path = self.logs / f"{name}.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        told = [x for x in lines if x.strip() and not x.startswith(("\tat ", "    at ", "  File "))]
        words = [x for x in told if "Error" in x or "Exception" in x]
        return f"{(words or told or ['nothing logged'])[-1].strip()[:300]} ({path})"

    def stop(self, name: str, seconds: float = 15) -> None:
        """Ends the process and its children: SIGTERM, and SIGKILL to what is left."""
        pid, end = self.pid(name), time.monotonic() + seconds
        if pid:
            _signal_group(pid, signal.SIGTERM)
            while self.pid(name) and time.monotonic() < end:
                time.sleep(0.05)
            _signal_group(pid, signal.SIGKILL)
        (self._pids / name).unlink(missing_ok=True)


def is_open(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((HOST, port)) == 0


def _signal_group(pid: int, number: int) -> None:
    # start_new_session made the process the leader of its group: nothing else is in it.
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _began(pid: int) -> str:
    """When a process began, in clock ticks since boot; empty where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
