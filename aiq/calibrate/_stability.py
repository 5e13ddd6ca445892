"""Whether the machine held still: one working set read at the start, in between and at the end."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from aiq.calibrate._bandwidth import read_rates
from roofline.units import percent

MOST_DRIFT, MOST_SPREAD, MOST_STOLEN, MOST_OTHERS = 0.1, 0.1, 0.05, 0.05
_BYTES = 256 * 1024
_REPEATS = 31


@dataclass(frozen=True, slots=True)
class Stability:
    """How steady the machine was while it was calibrated.

    Attributes:
        drift: Fastest over slowest median of the reference reads, less 1.
        spread: Median over all networks of the interquartile range of a pass over its median.
        stolen: Share of processor time that the hypervisor gave to others; ``None`` where it is not told.
        others: Share of processor time that other programs on this machine took; ``None`` where it is not told.
    """

    drift: float
    spread: float
    stolen: float | None
    others: float | None = None

    @property
    def stable(self) -> bool:
        """Whether all are within their limits: 10 % for drift and spread, 5 % for both shares."""
        shares = (self.stolen or 0.0) <= MOST_STOLEN and (self.others or 0.0) <= MOST_OTHERS
        return self.drift <= MOST_DRIFT and self.spread <= MOST_SPREAD and shares

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        stolen = "steal time is not told" if self.stolen is None else f"{percent(self.stolen)} of time was stolen"
        others = "" if self.others is None else f", other programs took {percent(self.others)}"
        drift, spread = percent(self.drift), percent(self.spread)
        found = f"the same reads drifted by {drift}, passes spread by {spread}, {stolen}{others}"
        if self.stable:
            return f"stable: {found}"
        return f"unstable, do not trust these figures to better than that: {found}"


class Others:
    """What other programs take of the processors, from Linux's ``/proc/stat``, since this was made."""

    def __init__(self, file: Path = Path("/proc/stat")) -> None:
        self._file = file
        self._before = self._ticks()

    def share(self) -> float | None:
        """Return their share of all processor time; ``None`` where the system does not tell."""
        before, after = self._before, self._ticks()
        if before is None or after is None or after[0] <= before[0]:
            return None
        total, busy, own = (b - a for a, b in zip(before, after, strict=True))
        return min(max((busy - own) / total, 0.0), 1.0)

    def _ticks(self) -> tuple[float, float, float] | None:
        """Return ticks of all processors, those of any program, and those of this one."""
        try:
            fields = [int(text) for text in self._file.read_text().splitlines()[0].split()[1:8]]
            rate = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError, AttributeError):
            return None
        own = sum(os.times()[:4])
        return (sum(fields), sum(fields) - fields[3] - fields[4], own * rate) if len(fields) == 7 else None


@dataclass
class Reference:
    """256 KiB a thread, read over and over now and then.

    Attributes:
        threads: Threads, as of all that is measured in between.
        rates: Median of each time, bytes/s.
    """

    threads: int
    rates: list[float] = field(default_factory=list)

    def sample(self) -> None:
        """Read it for about a tenth of a second."""
        (found,) = read_rates((self.threads * _BYTES,), threads=self.threads, repeats=_REPEATS)
        self.rates.append(found.bytes_per_s)

    @property
    def drift(self) -> float:
        """Fastest over slowest median, less 1."""
        return max(self.rates) / min(self.rates) - 1.0
