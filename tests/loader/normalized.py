"""A dataset with statistics, by the real command (in this process: its imports take seconds)."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from scenefeed.pipelines.cli import main


def with_statistics(out: Path, target: Path, normalize: str, code: str = "") -> Path:
    """A copy of the dataset ``out`` with statistics that normalize so.

    Args:
      code: of the module, where ``normalize`` names a function.
    """
    shutil.copytree(out, target)
    if code:
        (target.parent / f"{normalize.split(':')[0]}.py").write_text(code)
    with contextlib.chdir(target.parent):  # where the module is looked for
        assert main(["stats", str(target), "--normalize", normalize]) == 0
    return target
