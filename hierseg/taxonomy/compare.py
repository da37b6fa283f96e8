"""Two parts of a set-up that must speak of the same classes: data set, loss and evaluator.

A label is a position, so classes in another order train and score without any sign of a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from hierseg.errors import ConfigError
from hierseg.taxonomy.graph import Taxonomy

SHOWN_DIFFERENCES = 3
"""An error names this many of the differences and counts the others."""


def require_same_taxonomy(expected: Taxonomy, found: Taxonomy, *, where: str) -> None:
    """Requires the same class ids in the same order with the same parents; names may differ.

    Args:
        expected: What the data were prepared with.
        found: What the configuration names.
        where: Whose taxonomies these are; printed in front of the error.

    Raises:
        ConfigError: If they differ; it names the first differences by label.

    Example:
        >>> wide = Taxonomy.from_edges(['animal', 'dog'], [('dog', 'animal')])
        >>> require_same_taxonomy(wide, Taxonomy.from_edges(['animal', 'dog'], []), where='loss')
        Traceback (most recent call last):
        ...
        hierseg.errors.ConfigError: loss: the taxonomies differ: class 1 (dog) has parents [animal] expected, \
none found. Name the taxonomy that the store was made with, or convert the data anew.
    """
    if expected.ids == found.ids:
        differences = [
            f'class {label} ({expected.ids[label]}) has parents {_parents(expected, label)} expected, '
            f'{_parents(found, label)} found'
            for label in range(expected.num_classes)
            if expected.parents[label] != found.parents[label]
        ]
    else:
        differences = class_list_differences(expected.ids, found.ids)
    _raise_if_any(
        differences,
        'the taxonomies differ',
        where=where,
        fix='Name the taxonomy that the store was made with, or convert the data anew.',
    )


def require_same_class_names(expected: Sequence[str], found: Sequence[str], *, where: str) -> None:
    """Requires the same class names in the same order.

    Raises:
        ConfigError: If they differ; it names the first differences by label.
    """
    _raise_if_any(
        class_list_differences(expected, found),
        'the class names differ',
        where=where,
        fix='Leave the names out: they come from the store.',
    )


def class_list_differences(expected: Sequence[str], found: Sequence[str]) -> list[str]:
    """One sentence per label at which two class lists differ, their lengths first."""
    differences = []
    if len(expected) != len(found):
        differences.append(f'{len(expected)} classes expected, {len(found)} found')
    for label, (one, other) in enumerate(zip_longest(expected, found)):
        if one != other:
            one, other = ('none' if entry is None else repr(entry) for entry in (one, other))
            differences.append(f'class {label} is {one} expected, {other} found')
    return differences


def _parents(taxonomy: Taxonomy, label: int) -> str:
    parents = [taxonomy.ids[parent] for parent in taxonomy.parents[label]]
    return f'[{", ".join(parents)}]' if parents else 'none'


def _raise_if_any(differences: Sequence[str], what: str, *, where: str, fix: str) -> None:
    if not differences:
        return
    shown = '; '.join(differences[:SHOWN_DIFFERENCES])
    if len(differences) > SHOWN_DIFFERENCES:
        shown += f'; and {len(differences) - SHOWN_DIFFERENCES} more'
    raise ConfigError(f'{what}: {shown}', where=where, fix=fix)
