"""Progress on standard error: often on one line of a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

_LINE_EVERY_S, _UPDATE_EVERY_S = 5.0, 0.1


class Ticker:
    """Tells news as they come, leaving out what comes too soon after the last that was told.

    Args:
        tell: Writes a line; one that ``updates`` is replaced by the next (``Edge.tell``).
        text: Makes the line out of the news; called only for those that are told.
        at_once: Tell the first news too; otherwise quick work says nothing.
    """

    def __init__(self, tell: Callable[..., None], text: Callable[[Any], str] = str, *, at_once: bool = False) -> None:
        self.tell, self.text = tell, text
        self.every_s = _UPDATE_EVERY_S if sys.stderr.isatty() else _LINE_EVERY_S
        self.last = -math.inf if at_once else time.monotonic()
        self.shown = False

    def __call__(self, news: Any) -> None:
        """Tell the news, if it is time."""
        if time.monotonic() - self.last >= self.every_s:
            self.tell(self.text(news), updates=True)
            self.last, self.shown = time.monotonic(), True

    def close(self) -> None:
        """Leave the line that was updated, if there is one."""
        if self.shown:
            self.tell("", updates=True)
