"""How far a download is: bytes, rate and time left, in words."""

from __future__ import annotations

import time
from collections.abc import Callable


def size_text(count: float) -> str:
    """1.2 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}" if count < 100 * factor else f"{count / factor:.0f} {unit}"
    return f"{count:.0f} B"


def time_text(seconds: float) -> str:
    """About how long."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Meter:
    """Counts the bytes of several files.

    Args:
        total: bytes of all files, 0 where nobody knows. clock: seconds, for tests.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.clock = total, clock
        self.finished = self.here = 0
        self.began: tuple[float, int] | None = None  # time and bytes when the first news came: what was here before took no time

    def see(self, here: int) -> None:
        """So many bytes of the present file are here."""
        self.here = here
        if self.began is None:
            self.began = (self.clock(), self.finished + here)

    def finish(self, size: int) -> None:
        """The present file is whole."""
        self.finished, self.here = self.finished + size, 0

    @property
    def text(self) -> str:
        """ "12.0 of 627 MB, 5.1 MB/s, about 2 min left"."""
        done = self.finished + self.here
        parts = [f"{size_text(done)} of {size_text(self.total)}" if self.total else size_text(done)]
        began, first = self.began or (self.clock(), done)
        spent, came = self.clock() - began, done - first
        if spent >= 1.0 and came > 0:
            rate = came / spent
            parts.append(f"{size_text(rate)}/s")
            if self.total > done:
                parts.append(f"about {time_text((self.total - done) / rate)} left")
        return ", ".join(parts)
