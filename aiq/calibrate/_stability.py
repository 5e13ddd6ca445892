"""Whether the machine held still: one working set read at the start, in between and at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiq.calibrate._bandwidth import read_rates
from roofline.units import percent

MOST_DRIFT, MOST_SPREAD, MOST_STOLEN = 0.1, 0.1, 0.05
_BYTES = 256 * 1024
_REPEATS = 31


@dataclass(frozen=True, slots=True)
class Stability:
    """How steady the machine was while it was calibrated.

    Attributes:
        drift: Fastest over slowest median of the reference reads, less 1.
        spread: Median over all networks of the interquartile range of a pass over its median.
        stolen: Share of processor time that the hypervisor gave to others; ``None`` where it is not told.
    """

    drift: float
    spread: float
    stolen: float | None

    @property
    def stable(self) -> bool:
        """Whether all three are within their limits: 10 %, 10 % and 5 %."""
        return self.drift <= MOST_DRIFT and self.spread <= MOST_SPREAD and (self.stolen or 0.0) <= MOST_STOLEN

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        found = (
            f"the same reads drifted by {percent(self.drift)}, passes spread by {percent(self.spread)}, "
            f"{'steal time is not told' if self.stolen is None else f'{percent(self.stolen)} of time was stolen'}"
        )
        if self.stable:
            return f"stable: {found}"
        return f"unstable, do not trust these figures to better than that: {found}"


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
