"""Python functions that TensorFlow's threads call, and how a process with such threads ends.

A thread that calls into Python while the interpreter shuts down is stopped for good, with
TensorFlow's locks held, and the process hangs. So at exit such calls are refused, and the process
waits until none comes any more: what is made ahead is bounded, so that is at once.
"""

from __future__ import annotations

import atexit
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

_QUIET_S, _MOST_S = 0.05, 5.0


class _Calls:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entered = self.left = 0
        self.leaving = False


_calls = _Calls()


def called_by_threads(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, refused once the process ends."""

    @functools.wraps(function)
    def guarded(*args: Any) -> Any:
        with _calls.lock:
            _calls.entered += 1
        try:
            if _calls.leaving:
                raise StopIteration
            return function(*args)
        finally:
            with _calls.lock:
                _calls.left += 1

    return guarded


@atexit.register
def _settle() -> None:
    _calls.leaving = True
    if not _calls.entered:
        return
    end, seen = time.monotonic() + _MOST_S, -1
    while time.monotonic() < end and (seen != _calls.entered or _calls.entered != _calls.left):
        seen = _calls.entered
        time.sleep(_QUIET_S)
