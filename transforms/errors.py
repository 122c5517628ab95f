"""Bad scenes and failed jobs."""

from __future__ import annotations

import dataclasses
import errno
import json

# Failures of the machine, not of a scene: no space, quota, read-only, no more open files.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)

# GDAL quotes whole documents in some errors.
MOST_WORDS = 400

MAKE_ROOM = (
    "make room or choose another --output, then run the same command again "
    "(finished scenes are kept)"
)


class ConfigError(Exception):
    """A configuration or a command line that cannot be run; the message says how to mend it."""


class JobError(Exception):
    """The job cannot go on; the message is the one line that the user sees."""


class SceneError(Exception):
    """A scene that cannot be used. It becomes one dead letter; the run goes on.

    Args:
      reason: what is wrong and what to do.
      step: plan, read, clean, label or stage.
      file: the file at fault.
      window: (row, column, height, width) in pixels, where it is known.
    """

    def __init__(
        self, reason: str, *, step: str, file: str = "",
        window: tuple[int, int, int, int] | None = None,
    ):  # fmt: skip
        super().__init__(reason)
        self.reason, self.step, self.file, self.window = reason, step, file, window


@dataclasses.dataclass(frozen=True)
class DeadLetter:
    """One line of errors.jsonl."""

    scene: str
    file: str
    window: tuple[int, int, int, int] | None
    step: str
    reason: str

    @classmethod
    def of(cls, scene_id: str, error: SceneError) -> DeadLetter:
        return cls(scene_id, error.file, error.window, error.step, error.reason)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> DeadLetter:
        d = json.loads(line)
        return cls(**d | {"window": tuple(d["window"]) if d["window"] else None})


def describe(error: BaseException) -> str:
    """An exception in one line. rasterio keeps GDAL's own words in ``__cause__``."""
    words = [str(error)]
    cause = error.__cause__
    while cause is not None:
        words.append(str(cause))
        cause = cause.__cause__
    useful = [w for w in words if w and "previous exception" not in w]
    line = " ".join((useful or words)[-1].split())
    return line if len(line) <= MOST_WORDS else f"{line[:MOST_WORDS]} ..."


def as_scene_error(error: Exception, step: str, file: str) -> SceneError:
    """What went wrong with one scene, as one scene's error: a surprise in one must not stop the
    others. What is the job's or the machine's fault is raised again.

    Raises:
      Exception: ``error`` itself, when it is a JobError or says that the disk is full.
    """
    if isinstance(error, SceneError):
        error.file = error.file or file
        return error
    if isinstance(error, JobError) or getattr(error, "errno", None) in DISK_ERRORS:
        raise error
    reason = f"{type(error).__name__}: {describe(error)} (not foreseen: please report it)"
    return SceneError(reason, step=step, file=file)
