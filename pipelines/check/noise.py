"""How busy the machine was with other things while something was measured."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

MOST = 0.1  # of the machine's processors, in others' hands, before figures are doubted
_STAT = Path("/proc/stat")


@dataclasses.dataclass
class Noise:
    """Shares of all processors' time, 0 to 1; None where the system does not tell.

    Attributes:
      busy: what processes outside ours used, and what the hypervisor gave to other machines.
      steal: the latter alone.
    """

    busy: float | None = None
    steal: float | None = None

    @property
    def warning(self) -> str | None:
        """One line where the machine was too busy for figures to be believed."""
        if self.busy is None or self.busy <= MOST:
            return None
        stolen = f", {self.steal:.0%} by other virtual machines" if self.steal else ""
        return (
            f"the machine was busy: others used {self.busy:.0%} of its processors{stolen}: "
            "figures may be too slow; measure again when it is quiet"
        )


@contextlib.contextmanager
def watching() -> Iterator[Noise]:
    """Measures, until the end of the block, what others used of the machine.

    Ours is this process and what it has waited for (os.times). The whole is the first line of
    /proc/stat: proc_stat(5), fields user nice system idle iowait irq softirq steal.
    """
    seen = Noise()
    before, own = _ticks(), sum(os.times()[:4])
    yield seen
    after, own = _ticks(), sum(os.times()[:4]) - own
    if before is None or after is None:
        return
    spent = [b - a for a, b in zip(before, after, strict=True)]
    whole = max(1, sum(spent))
    idle, ours = spent[3] + spent[4], own * os.sysconf("SC_CLK_TCK")
    seen.busy = max(0.0, whole - idle - ours) / whole
    seen.steal = spent[7] / whole


def _ticks() -> list[int] | None:
    try:
        return [int(x) for x in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return None
