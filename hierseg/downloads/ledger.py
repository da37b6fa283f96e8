"""Which files were found whole, so that the next run need not ask for each of a million."""

from __future__ import annotations

import csv
import io
import threading
from pathlib import Path

LEDGER_NAME = '.verified.csv'


class Ledger:
    """A file that grows by a line for each file verified: path, size, time of change, version.

    A file that was changed since, by whomever, is no longer known. A line that a killed process cut off is nobody's.

    Args:
        root: The folder that paths are relative to; it exists.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / LEDGER_NAME
        self._lock = threading.Lock()
        self._lines: dict[str, tuple[str, ...]] = {}
        if self._path.exists():
            text = self._path.read_text(encoding='utf-8', errors='replace')
            self._lines = {path: tuple(rest) for path, *rest in filter(None, csv.reader(io.StringIO(text)))}
            if text and not text.endswith('\n'):
                self._append('\n')

    def version(self, name: str) -> str | None:
        """What named the version of a file when it was recorded; None if it is not there as it was then.

        Args:
            name: Path relative to the root.
        """
        known = self._lines.get(name)
        if known is None or len(known) != 3 or not (self._root / name).is_file():
            return None
        return known[2] if known[:2] == self._state(name) else None

    def forget(self, name: str) -> None:
        """Lets a file be unknown until it is recorded again."""
        with self._lock:
            self._lines.pop(name, None)

    def record(self, name: str, *, version: str) -> None:
        """Takes note of a verified file."""
        fields = (name, *self._state(name), version)
        line = io.StringIO()
        csv.writer(line, lineterminator='\n').writerow(fields)
        with self._lock:
            self._lines[name] = fields[1:]
            self._append(line.getvalue())

    def _state(self, name: str) -> tuple[str, str]:
        status = (self._root / name).stat()
        return str(status.st_size), str(status.st_mtime_ns)

    def _append(self, text: str) -> None:
        with self._path.open('a', encoding='utf-8') as file:
            file.write(text)
