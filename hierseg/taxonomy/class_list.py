"""The classes of a data set, from a list that comes beside the hierarchy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from hierseg.errors import TaxonomyError
from hierseg.taxonomy.files import csv_rows

VIRTUAL_ROOT = '/m/0bl9f'
"""MID of "Entity", which stands above all classes in Open Images and is none."""

HEADERS = {('id', 'name'), ('mid', 'name'), ('labelname', 'displayname')}
"""The challenge files have no header; those of Open Images V7 have the last one."""


@dataclass(frozen=True)
class ClassList:
    """Classes in label order.

    Attributes:
        source: The file, for messages.
        ids: Class ids, unique.
        names: Names.
        places: File and line, or the like, of each class.
        problems: Classes that are listed twice; the first mention counts.
    """

    source: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[str, ...]
    problems: tuple[TaxonomyError, ...] = ()

    @cached_property
    def name_of(self) -> Mapping[str, str]:
        """Class id → name."""
        return dict(zip(self.ids, self.names, strict=True))

    @cached_property
    def ids_of(self) -> Mapping[str, list[str]]:
        """Name → ids of the classes with that name."""
        ids_of = defaultdict(list)
        for class_id, name in self.name_of.items():
            ids_of[name].append(class_id)
        return dict(ids_of)

    def find(self, text: str, *, where: str) -> str | None:
        """The id of the class with this id or this name; None if there is none.

        Raises:
            TaxonomyError: If several classes answer to it.
        """
        candidates = {*self.ids_of.get(text, ()), *({text} & self.name_of.keys())}
        if len(candidates) > 1:
            raise TaxonomyError(
                f'{text!r} is the id or the name of several classes: {sorted(candidates)}',
                where=where,
                fix='Name each by an id that is not the name of another.',
            )
        return candidates.pop() if candidates else None


def parse_class_list(text: str, *, where: str) -> ClassList:
    """Parses a class-description CSV with rows ``id,name``; the virtual root is left out.

    Raises:
        TaxonomyError: On a malformed row.
    """
    rows: dict[str, tuple[str, str]] = {}
    problems = []
    for line, row in csv_rows(text, where=where):
        place = f'{where}, line {line}'
        if line == 1 and tuple(cell.lower() for cell in row) in HEADERS:
            continue
        if len(row) != 2 or not all(row):
            raise TaxonomyError(
                f'expected a class id and a name, found {row}',
                where=place,
                fix='Write "id,name", and quote a name that has a comma.',
            )
        class_id, name = row
        if class_id in rows:
            what = f'class {class_id!r} is listed twice, first in {rows[class_id][1]}'
            problems.append(TaxonomyError(what, where=place, fix='List it once: its place is its label.'))
        elif class_id != VIRTUAL_ROOT:
            rows[class_id] = (name, place)
    names, places = tuple(name for name, _ in rows.values()), tuple(place for _, place in rows.values())
    return ClassList(where, tuple(rows), names, places, tuple(problems))
