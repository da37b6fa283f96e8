"""A stopwatch for the parts of a computation, which latency.py and training.py share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter, process_time
from typing import Any
from unittest import mock

import torch


class Stopwatch:
    """Time by part: an inner part interrupts the outer one, so that no time counts twice.

    On a GPU every part ends with a synchronisation.

    Args:
        parts: Their names.
        device: Where torch computes.

    Attributes:
        milliseconds: By part, since the last :meth:`restart`.
    """

    def __init__(self, parts: Iterable[str], device: torch.device) -> None:
        self.parts, self.device = tuple(parts), device
        self.use_threads(torch.get_num_threads())
        self.restart()

    def use_threads(self, count: int) -> None:
        """Gives torch so many threads. The time of a single one on a CPU is the processor's; else it is the clock's."""
        torch.set_num_threads(count)
        self._clock = process_time if count == 1 and self.device.type == 'cpu' else perf_counter

    def restart(self) -> None:
        """Begins anew."""
        self.milliseconds = dict.fromkeys(self.parts, 0.0)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens inside belongs to a part."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        now = self._clock()
        if self._open:
            self.milliseconds[self._open[-1]] += (now - self._since) * 1000
        self._since = now

    @contextmanager
    def watching(self, functions: Iterable[tuple[Any, str, str]]) -> Iterator[None]:
        """Calls of functions, (owner, attribute, part), count for their parts."""
        with ExitStack() as stack:
            for owner, attribute, name in functions:
                stack.enter_context(mock.patch.object(owner, attribute, self._around(getattr(owner, attribute), name)))
            yield

    def _around(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed
