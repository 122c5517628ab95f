"""What a worker uses: seconds by step, memory, processor. It goes into metrics.json."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROC = "/proc/{}/{}"  # proc_pid_status(5), proc_pid_stat(5)
_LIMIT = Path("/sys/fs/cgroup/memory.max")  # docs.kernel.org/admin-guide/cgroup-v2.html
_HELD = re.compile(rb"^(VmHWM|VmRSS):\s*(\d+) kB", re.M)


class Timer:
    """Seconds by step, on the clock and of the thread's processor: where they differ, the step
    waited, for the disk or for another thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.cpu[step] = self.cpu.get(step, 0.0) + time.thread_time() - cpu
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a worker's process had used when a scene or a shard was done.

    Attributes:
      worker: its machine and process.
      at: seconds since the epoch.
      rss: memory held, bytes.
      peak: the most memory held until then, bytes.
      cpu: seconds of processor, of all threads.
    """

    worker: str
    at: float
    rss: int
    peak: int
    cpu: float

    @classmethod
    def now(cls) -> Usage:
        held, peak = _memory("self")
        worker = f"{socket.gethostname()}:{os.getpid()}"
        return cls(worker, time.time(), held, peak, time.process_time())

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Of another process, on Linux.

        Raises:
          OSError: there is none.
        """
        with open(_PROC.format(pid, "stat")) as file:
            fields = file.read().rpartition(")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return cls(f"{socket.gethostname()}:{pid}", time.time(), *_memory(pid), cpu)


def memory() -> int:
    """Bytes of memory that there are: the machine's, or what a container may use of them."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # "max", where there is no limit
        there = min(there, int(_LIMIT.read_text()))
    return there


def _memory(pid: int | str) -> tuple[int, int]:
    """Bytes that a process holds, and the most that it held. Where the system does not tell the
    first of this one (macOS, gVisor), the second stands for both."""
    try:
        with open(_PROC.format(pid, "status"), "rb") as file:
            held = {k: int(kib) * 1024 for k, kib in _HELD.findall(file.read())}
        return held[b"VmRSS"], held[b"VmHWM"]
    except (OSError, KeyError):
        if pid != "self":
            raise
        # This counts what the process was before exec, too.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return peak, peak
