"""Faults of a user's input, said so that it can be put right.

Every error names what was wrong, where (file, line, image, class) and what would be right. A caller
that wants to catch all of them catches :class:`HiersegError`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class HiersegError(ValueError):
    """Base of all hierseg errors.

    Args:
        what: What is wrong, in one sentence without a final stop.
        where: File and line, image id or class id; printed in front.
        fix: What would be right; printed behind.

    Example:
        >>> print(HiersegError('class /m/x is unknown', where='boxes.csv, line 3', fix='Add it.'))
        boxes.csv, line 3: class /m/x is unknown. Add it.
    """

    def __init__(self, what: str, *, where: str = '', fix: str = '') -> None:
        self.what, self.where, self.fix = what, where, fix
        message = f'{where}: {what}' if where else what
        super().__init__(escaped(f'{message}. {fix}' if fix else message, keep='\n\t'))

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments survive the way back from a worker process.
        return _rebuild, (type(self), self.what, self.where, self.fix)


def escaped(text: str, *, keep: str = '') -> str:
    """The text without what a file could tell a terminal to do: escapes for control characters, but those to keep."""
    if text.isprintable():
        return text
    return ''.join(
        letter if letter.isprintable() or letter in keep else letter.encode('unicode_escape').decode()
        for letter in text
    )


def _rebuild(kind: type[HiersegError], what: str, where: str, fix: str) -> HiersegError:
    return kind(what, where=where, fix=fix)


class TaxonomyError(HiersegError):
    """The class hierarchy is not a DAG over known classes, or a class in it was not found."""


class AnnotationError(HiersegError):
    """A row of an annotation file, a mask or an image cannot be used."""


class StoreError(HiersegError):
    """A store is missing, incomplete, of another format version, or does not fit its use."""


class EvaluationError(HiersegError):
    """Ground truth and predictions cannot be compared."""


class DownloadError(HiersegError):
    """A server cannot be reached, or what it sends cannot be kept."""


class ConfigError(HiersegError):
    """A configuration contradicts itself or the data that it names."""


class TrainingError(HiersegError):
    """A training cannot go on: its numbers are no longer finite."""


class OutputError(HiersegError):
    """A file or folder cannot be written: no room, no right, a link to nothing, or another run that writes it."""


@contextmanager
def exits_cleanly() -> Iterator[None]:
    """For command-line tools: prints a :class:`HiersegError` as one line on stderr and exits with 2."""
    try:
        yield
    except HiersegError as error:
        # A worker of torch's data loader hands over its traceback as the message; the error itself is the last line.
        message = str(error).rstrip().rpartition(f'\n{type(error).__module__}.{type(error).__name__}: ')[2]
        print(f'error: {message}', file=sys.stderr)
        raise SystemExit(2) from None
