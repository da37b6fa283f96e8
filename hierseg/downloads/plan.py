"""What is to be fetched, how large it is, and whether it fits on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from terminaltables import AsciiTable

from hierseg.errors import DownloadError


def in_words(num_bytes: int) -> str:
    """Bytes in decimal units, three digits.

    Example:
        >>> in_words(999), in_words(1_234_567), in_words(561_000_000_000)
        ('999 B', '1.23 MB', '561 GB')
    """
    amount, units = float(num_bytes), iter(['kB', 'MB', 'GB', 'TB'])
    unit = 'B'
    while amount >= 999.5 and unit != 'TB':
        amount, unit = amount / 1000, next(units)
    return f'{amount:.3g} {unit}'


@dataclass(frozen=True)
class PlannedFile:
    """An official file.

    Attributes:
        name: Path.
        size: Bytes; None if the server does not say, or lacks the file.
        num_there: Bytes that need not be fetched.
        is_whole: Whether it is there, verified.
        problem: Why it will not be had, '' if it will.
    """

    name: str
    size: int | None
    num_there: int
    is_whole: bool
    problem: str = ''

    @property
    def num_missing(self) -> int:
        """Bytes to fetch, as far as is known."""
        return 0 if self.is_whole else max(0, (self.size or 0) - self.num_there)

    def row(self) -> list[str]:
        """For the table."""
        state = 'to fetch'
        if self.problem:
            state = self.problem
        elif self.is_whole:
            state = 'there'
        elif self.num_there:
            state = f'{in_words(self.num_there)} are there'
        return [self.name, '?' if self.size is None else in_words(self.size), state]


@dataclass(frozen=True)
class Plan:
    """The files of a split before anything is fetched.

    Attributes:
        tables: Classes, hierarchy and tables.
        archives: Masks; those that no image needs will be left out.
        most_images: An upper bound of the number of images.
        image_bytes: Mean bytes of an image.
    """

    tables: tuple[PlannedFile, ...]
    archives: tuple[PlannedFile, ...]
    most_images: int
    image_bytes: int

    def __str__(self) -> str:
        files = [*self.tables, *self.archives]
        images = in_words(self.most_images * self.image_bytes)
        rows = [file.row() for file in files]
        rows.append([f'images, at most {self.most_images:,}', f'about {images}', 'the tables say which'])
        total = sum(file.size or 0 for file in files)
        missing = in_words(sum(file.num_missing for file in files))
        rows.append(['in all, without images', in_words(total), f'{missing} to fetch'])
        table = AsciiTable([['file', 'size', 'state'], *rows])
        table.justify_columns[1] = 'right'
        table.inner_footing_row_border = True
        return str(table.table)


def require_space(num_bytes: int, folder: Path, *, what: str) -> None:
    """Compares with the free space of the disk.

    Raises:
        DownloadError: If there is less.
    """
    free = shutil.disk_usage(_existing(folder)).free
    if num_bytes > free:
        raise DownloadError(
            f'{what} take {in_words(num_bytes)} more, and {in_words(free)} are free',
            where=str(folder),
            fix='Make room, name another folder, or ask for less (--classes, --images-with masks, --max-images).',
        )


def _existing(folder: Path) -> Path:
    candidates: Iterable[Path] = (folder.absolute(), *folder.absolute().parents)
    return next(path for path in candidates if path.exists())
