"""A process beside the command's, which runs tf.Transform.

To import it takes four seconds of a processor, and Python's lock would take them from the threads
that convert. So it is begun first, and needs nothing that takes long to import itself.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from . import lean


def warm_up(quiet: bool) -> None:
    """Begins to import tf.Transform.

    Args:
      quiet: say nothing of what TensorFlow says meanwhile.
    """
    if is_beside():
        _analyst(quiet)


def is_beside() -> bool:
    """Whether what is asked runs in a process of its own, not in this one."""
    return "tensorflow_transform" not in sys.modules


@functools.cache
def _analyst(quiet: bool) -> Any:
    """A connection to the process. It ends with this one.

    It is no process of multiprocessing, whose new Python runs the user's script again.
    """
    here, there = multiprocessing.Pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(there.fileno())], pass_fds=[there.fileno()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL if quiet else None,
    )  # fmt: skip
    atexit.register(process.kill)
    there.close()
    here.send((sys.path, quiet))
    return here


def _serve(connection: Any) -> None:
    sys.path[:], quiet = connection.recv()
    gc.disable()  # what is imported stays
    with lean.hidden(lean.TENSORFLOWS):
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


def ask(analyze: Callable[..., dict[str, Any]], *given: Any, quiet: bool) -> dict[str, Any]:
    """What a function gives, in the process that is warm.

    Args:
      analyze: a function of a module, which uses tf.Transform.
      given: its arguments.
      quiet: as for ``warm_up``.

    Raises:
      ConfigError, JobError: as it does; or the process ended.
    """
    from ..transforms.errors import JobError

    if not is_beside():
        return analyze(*given)
    try:
        _analyst(quiet).send((os.getcwd(), analyze, given))
        found, error = _analyst(quiet).recv()
    except (EOFError, OSError):
        _analyst.cache_clear()
        raise JobError(
            "statistics: the process that runs tf.Transform ended: it may have run out of memory"
        ) from None
    if error is not None:
        raise error
    return dict(found)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
