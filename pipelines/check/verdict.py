"""What a measurement comes to: its median and spread, beside the target and what would help."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

LEAST = 3  # samples that a verdict takes


def result(
    name: str, samples: Sequence[float], unit: str, target: float | None, side: str, advice: str,
    *, exact: bool = False, shown: str = "", words: str = "", **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """One line of the table, and of ``results`` in the JSON.

    Args:
      name: what was measured.
      samples: one number a repetition; none where it was not measured.
      unit: of the samples and of the target.
      target: what the median must reach; None where nothing is asked.
      side: "at most" or "at least".
      advice: what to do where it is missed, with ``{value}`` for the median.
      exact: the figure is what it is, and one sample is enough: a peak, a rate of a whole run.
      shown: what tables say in place of a median that tells nothing.
      words: what the table says beside it, before our own.
      more: further keys.

    Returns:
      The arguments, and ``value`` (the median), ``spread`` [least, most], ``met``: None without
      a verdict, which is where nothing was measured, nothing is asked, or too few samples were taken.
    """
    values = [float(s) for s in samples]
    value = statistics.median(values) if values else None
    met, own = None, ""
    if value is None:
        own = "" if shown else "not measured"
    elif target is not None and not exact and len(values) < LEAST:
        own = f"no verdict from {len(values)} repetition" + "s" * (len(values) > 1)
    elif target is not None:
        reached = [v <= target if side == "at most" else v >= target for v in (value, *values)]
        met, others = reached[0], reached[1:].count(not reached[0])
        own = f"{others} of {len(values)} {'miss' if met else 'reach'} it" if others else ""
    return {
        "name": name, "value": value, "unit": unit, "target": target, "side": side, "met": met,
        "advice": advice.format(value=value) if met is False else "",
        "shown": shown, "samples": values, "spread": [min(values), max(values)] if values else None,
        "words": ", ".join(x for x in (words, own) if x), **more,
    }  # fmt: skip
