"""How long to wait for a server, and how often to ask again."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Patience:
    """Time limits and retries.

    Attributes:
        timeout: Seconds without a byte after which a connection is given up, that of connecting included.
        min_rate: Bytes a second, over ``rate_window``, below which a connection is given up.
        rate_window: Seconds.
        attempts: Times that a file is asked for without getting further; at least 1.
        backoff: Seconds before the second attempt, doubled before each further one.
        max_backoff: Seconds; the longest wait.
    """

    timeout: float = 30.0
    min_rate: float = 1024.0
    rate_window: float = 60.0
    attempts: int = 8
    backoff: float = 1.0
    max_backoff: float = 60.0

    def pause(self, failures: int, *, asked_for: float, jitter: random.Random) -> float:
        """Seconds to wait after some failures in a row.

        Between half and all of the doubled backoff, so that workers that failed together do not come back
        together; not less than the server asked for, within ``max_backoff``.
        """
        longest = min(self.max_backoff, self.backoff * 2.0 ** min(failures - 1, 64))
        return max(longest * jitter.uniform(0.5, 1.0), min(asked_for, self.max_backoff))


@dataclass
class RateWatch:
    """Bytes of one connection over a sliding window.

    Attributes:
        patience: Names rate and window.
        clock: Gives seconds.
    """

    patience: Patience
    clock: Callable[[], float] = time.monotonic
    _arrivals: deque[tuple[float, int]] = field(default_factory=deque)
    _bytes: int = 0

    def __post_init__(self) -> None:
        self._start = self.clock()

    def is_too_slow(self, num_bytes: int) -> bool:
        """Takes note of bytes that arrived now; whether the window that ends now had too few."""
        now = self.clock()
        self._arrivals.append((now, num_bytes))
        self._bytes += num_bytes
        while self._arrivals[0][0] <= now - self.patience.rate_window:
            self._bytes -= self._arrivals.popleft()[1]
        is_full = now - self._start >= self.patience.rate_window
        return is_full and self._bytes < self.patience.min_rate * self.patience.rate_window
