"""A process beside the command's, which runs tf.Transform.

To import it takes ten seconds of a processor, and Python's lock would take them from the threads
that convert. So it is begun first, and needs nothing that takes long to import itself.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


def warm_up(quiet: bool) -> None:
    """Begins to import tf.Transform.

    Args:
      quiet: say nothing of what TensorFlow says meanwhile.
    """
    if "tensorflow_transform" not in sys.modules:
        _analyst(quiet)


@functools.cache
def _analyst(quiet: bool) -> Any:
    """A connection to the process. It ends with this one."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, quiet), daemon=True)
    with _safe_path():
        process.start()
    there.close()
    return here


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Python started meanwhile takes no modules of this folder, which may be somebody else's
    dataset: multiprocessing starts it by ``-c``, which would."""
    name = "PYTHONSAFEPATH"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _serve(connection: Any, quiet: bool) -> None:
    if quiet:  # TensorFlow greets, whatever it is told
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    importlib.import_module("scenefeed.transforms.statistics.analysis")
    from ..transforms.errors import ConfigError, JobError, describe
    from . import runner

    if quiet:
        runner.quieten()
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

    if "tensorflow_transform" in sys.modules:
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
