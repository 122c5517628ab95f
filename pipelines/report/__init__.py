"""report: one self-contained HTML page on a dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ...transforms.storage import write_text


def write_report(
    out: Path, page: Path, check: Path | None = None, compare: Path | None = None
) -> dict[str, Any]:
    """Writes the page.

    Args:
      out: a converted dataset, a folder or a URL.
      page: where the page goes, a local file.
      check, compare: figures of these commands (``--json``) that it shows too.

    Returns:
      ``facts``, the numbers that it shows; ``bytes`` of it; ``seconds``.

    Raises:
      DatasetError: no complete dataset, or a shard is missing or damaged.
      ConfigError: ``check`` or ``compare`` is another file than these commands write.
    """
    from .gather import gather
    from .page import render

    start = time.perf_counter()
    gathered = gather(out, check, compare)
    text = render(gathered, str(out))
    write_text(page, text)
    return {
        "page": str(page), "bytes": len(text.encode()), "facts": gathered.facts,
        "seconds": time.perf_counter() - start,
    }  # fmt: skip
