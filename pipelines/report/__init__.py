"""report: one self-contained HTML page on a dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ...transforms.storage import write_text


def write_report(out: Path, page: Path) -> dict[str, Any]:
    """Writes the page.

    Args:
      out: a converted dataset, a folder or a URL.
      page: where the page goes, a local file.

    Returns:
      ``facts``, the numbers that it shows; ``bytes`` of it; ``seconds``.

    Raises:
      DatasetError: no complete dataset, or a shard is missing or damaged.
    """
    from .gather import gather
    from .page import render

    start = time.perf_counter()
    gathered = gather(out)
    text = render(gathered, str(out))
    write_text(page, text)
    return {
        "page": str(page), "bytes": len(text.encode()), "facts": gathered.facts,
        "seconds": time.perf_counter() - start,
    }  # fmt: skip
