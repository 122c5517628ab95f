"""A process beside the command's, which runs tf.Transform.

To import it takes four seconds of a processor, and Python's lock would take them from the threads
that convert. So it is begun first, and needs nothing that takes long to import itself.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from . import lean

_lock = threading.Lock()  # one question at a time
_started: dict[tuple[bool, bool], tuple[subprocess.Popen[bytes], Any]] = {}


def warm_up(quiet: bool, own: bool) -> None:
    """Begins to import tf.Transform.

    Args:
      quiet: say nothing of what TensorFlow says meanwhile.
      own: a function of the user's will run there, which may want what is left out else.
    """
    if is_beside():
        _analyst(quiet, own)


def is_beside() -> bool:
    """Whether what is asked runs in a process of its own, not in this one."""
    return "tensorflow_transform" not in sys.modules


def stop() -> None:
    """Ends the process; who waits for its answer gets an error."""
    for process, _ in list(_started.values()):
        process.kill()
    _started.clear()


def _analyst(quiet: bool, own: bool) -> Any:
    """A connection to the process. It ends with this one.

    It is no process of multiprocessing, whose new Python runs the user's script again.
    """
    if (quiet, own) not in _started:
        here, there = multiprocessing.Pipe()
        folder = tempfile.mkdtemp(prefix="scenefeed-")  # TensorFlow leaves files when it is ended
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(there.fileno())],
            pass_fds=[there.fileno()],
            env={
                **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "TMPDIR": folder,
            },
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL if quiet else None,
        )  # fmt: skip
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(process.kill)  # which is called first
        there.close()
        here.send((sys.path, quiet, own))
        _started[quiet, own] = process, here
    return _started[quiet, own][1]


def _serve(connection: Any) -> None:
    sys.path[:], quiet, own = connection.recv()
    gc.disable()  # what is imported stays
    with lean.hidden(() if own else lean.TENSORFLOWS):
        importlib.import_module("tensorflow_transform.beam")
    importlib.import_module("scenefeed.pipelines.analysis")
    gc.freeze()  # else Beam, which looks for garbage after each run, looks through all of it
    gc.enable()
    from ..transforms.errors import ConfigError, JobError, describe
    from .quiet import quieten

    if quiet:
        quieten()
    with contextlib.suppress(EOFError):
        while True:
            folder, analyze, given = connection.recv()
            os.chdir(folder)  # where a module of the user's may be
            try:
                connection.send((analyze(*given), None))
            except Exception as e:
                known = isinstance(e, (ConfigError, JobError))
                connection.send((None, e if known else JobError(f"statistics: {describe(e)}")))


def ask(
    analyze: Callable[..., dict[str, Any]], *given: Any, quiet: bool, own: bool
) -> dict[str, Any]:
    """What a function gives, in the process that is warm.

    Args:
      analyze: a function of a module, which uses tf.Transform.
      given: its arguments.
      quiet, own: as for ``warm_up``.

    Raises:
      ConfigError, JobError: as it does; or the process ended.
    """
    from ..transforms.errors import JobError

    if not is_beside():
        return analyze(*given)
    with _lock:
        connection = _analyst(quiet, own)
        try:
            connection.send((os.getcwd(), analyze, given))
            found, error = connection.recv()
        except (EOFError, OSError):
            if (quiet, own) in _started and _started[quiet, own][1] is connection:
                del _started[quiet, own]
            raise JobError(
                "statistics: the process that runs tf.Transform ended: it may have run out of memory"
            ) from None
    if error is not None:
        raise error
    return dict(found)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
