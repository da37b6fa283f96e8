"""``python -m hierseg.taxonomy FILE``: prints the tree of a hierarchy and a lint report."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import get_args

from hierseg.errors import TaxonomyError, exits_cleanly
from hierseg.files import output_file, write_json
from hierseg.taxonomy.formats import read_draft
from hierseg.taxonomy.graph import Taxonomy
from hierseg.taxonomy.levels import Levels


def lint(taxonomy: Taxonomy) -> list[str]:
    """What is odd in a taxonomy, though it makes it no less usable.

    Classes with several parents, edges that another path makes superfluous, single-child chains, names that several
    classes share, and names that differ by blanks or case only.
    """
    checks = (several_parents, superfluous_edges, single_child_chains, shared_names, similar_names)
    return [message for check in checks for message in check(taxonomy)]


def described(taxonomy: Taxonomy, label: int) -> str:
    """Name and id, as in ``Man (/m/04yx4)``; the name alone where both are the same."""
    name, class_id = taxonomy.names[label], taxonomy.ids[label]
    return name if name == class_id else f'{name} ({class_id})'


def several_parents(taxonomy: Taxonomy) -> Iterator[str]:
    """Classes with more than one parent, and which of them is followed."""
    for label, parents in enumerate(taxonomy.parents):
        if len(parents) > 1:
            first, *others = (taxonomy.path_name(parent) for parent in parents)
            yield f'{described(taxonomy, label)} has {len(parents)} parents: {first} (preferred), {", ".join(others)}'


def superfluous_edges(taxonomy: Taxonomy) -> Iterator[str]:
    """Edges to a class that is an ancestor by a longer path too."""
    for label, parents in enumerate(taxonomy.parents):
        if len(parents) < 2:
            continue
        higher = {above for parent in parents for above in taxonomy.arrays.above(parent).tolist() if above != parent}
        for parent in parents:
            if parent in higher:
                child, above = described(taxonomy, label), described(taxonomy, parent)
                yield f'{child} is directly below {above} and again through another class'


def single_child_chains(taxonomy: Taxonomy) -> Iterator[str]:
    """Longest runs of classes of which each but the last has just one child.

    Such a pair differs only by instances that are labelled at the upper class.
    """
    only_child = {label: children[0] for label, children in enumerate(taxonomy.children) if len(children) == 1}
    for start in only_child:
        if any(only_child.get(parent) == start for parent in taxonomy.parents[start]):
            continue
        chain = [start]
        while chain[-1] in only_child:
            chain.append(only_child[chain[-1]])
        yield f'single-child chain {" › ".join(described(taxonomy, label) for label in chain)}'


def shared_names(taxonomy: Taxonomy) -> Iterator[str]:
    """Names of more than one class."""
    labels_of = defaultdict(list)
    for label, name in enumerate(taxonomy.names):
        labels_of[name].append(label)
    for name, labels in labels_of.items():
        if len(labels) > 1:
            yield f'the name {name!r} is that of {len(labels)} classes: {", ".join(taxonomy.ids[v] for v in labels)}'


def similar_names(taxonomy: Taxonomy) -> Iterator[str]:
    """Names that differ by blanks or case only."""
    spellings = defaultdict(list)
    for name in dict.fromkeys(taxonomy.names):
        spellings[''.join(name.split()).casefold()].append(name)
    for names in spellings.values():
        if len(names) > 1:
            yield f'the names {", ".join(map(repr, names))} differ by blanks or case only'


def summary(taxonomy: Taxonomy) -> str:
    """Counts, in two lines."""
    roots_with_children = sum(bool(taxonomy.children[root]) for root in taxonomy.root_classes)
    depths = Counter(taxonomy.arrays.depths.tolist())
    return (
        f'{taxonomy.num_classes} classes: {len(taxonomy.root_classes)} root classes ({roots_with_children} with '
        f'children), {len(taxonomy.deeper_classes)} deeper classes; {len(taxonomy.leaves)} leaves\n'
        f'depth (longest path): {", ".join(f"{depths[depth]} at {depth}" for depth in sorted(depths))}; '
        f'at most {max(depths)}'
    )


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog='hierseg taxonomy',
        description='Prints a class hierarchy as a tree, and what is wrong or odd in it.',
        epilog='Exit status: 0 usable, 1 read but unusable (all errors are told), 2 not readable.',
    )
    parser.add_argument(
        'file',
        metavar='FILE',
        help='Open Images hierarchy JSON, COCO JSON, edge list (CSV, YAML), category tree of V3Det or hierseg JSON',
    )
    parser.add_argument('--classes', metavar='FILE', help='class-description CSV (id,name), or a COCO JSON')
    parser.add_argument(
        '--levels',
        choices=get_args(Levels),
        help='what the levels above the categories of a COCO file come from: supercategory as a path '
        '(animal/mammal), the ranks of iNaturalist, or WordNet by the synsets of LVIS',
    )
    parser.add_argument('--ignore-parts', action='store_true', help='leave out Part edges instead of refusing them')
    parser.add_argument(
        '--preferred-parent',
        metavar='CHILD=PARENT',
        action='append',
        default=[],
        help='the parent to follow for a class with several, by id or name; may be repeated',
    )
    parser.add_argument('--json', metavar='OUT', help='write the taxonomy as hierseg JSON')
    return parser.parse_args(arguments)


def child_and_parent(text: str) -> tuple[str, str]:
    """Child and parent of ``CHILD=PARENT``."""
    child, _, parent = text.partition('=')
    if not child or not parent:
        raise TaxonomyError(f'{text!r} is no preferred parent', where='--preferred-parent', fix='Write CHILD=PARENT.')
    return child, parent


def draw(taxonomy: Taxonomy) -> Iterator[str]:
    """The lines of the tree.

    A class with several parents stands below each of them and says so; what is below it is drawn at its
    preferred parent alone, where other places have ``…``.
    """
    stack: list[tuple[int, int | None, str, bool]] = [
        (label, None, '', label == taxonomy.root_classes[-1]) for label in reversed(taxonomy.root_classes)
    ]
    while stack:
        label, parent, indent, is_last = stack.pop()
        parents, children = taxonomy.parents[label], taxonomy.children[label]
        is_preferred = parent in parents[:1] or not parents
        others = [
            taxonomy.path_name(other) + (' (preferred)' if other == parents[0] else '')
            for other in parents
            if other != parent
        ]
        mark = f'  [also below {", ".join(others)}]' if others else ''
        more = ' …' if children and not is_preferred else ''
        yield f'{indent}{"└── " if is_last else "├── "}{described(taxonomy, label)}{more}{mark}'
        if is_preferred:
            deeper = indent + ('    ' if is_last else '│   ')
            stack += [(child, label, deeper, child == children[-1]) for child in reversed(children)]


def _print(text: str) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='replace')  # a terminal without box characters
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # A reader such as `head` has seen enough; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@exits_cleanly()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    options = parse_arguments(arguments)
    if options.json:
        output_file(options.json)
    draft = read_draft(
        options.file,
        classes=options.classes,
        preferred_parents=dict(map(child_and_parent, options.preferred_parent)),
        ignore_parts=options.ignore_parts,
        levels=options.levels,
    )
    errors, warnings, lines = draft.errors(), [], []
    if not errors:
        taxonomy = draft.build()
        warnings = [*draft.warnings, *lint(taxonomy)]
        lines = [draft.source, *draw(taxonomy), '', summary(taxonomy)]
        if options.json:
            write_json(taxonomy.to_json(), options.json)
    counts = (
        f'{len(found)} {noun}{"s" * (len(found) != 1)}' for found, noun in ((errors, 'error'), (warnings, 'warning'))
    )
    lines += [f'lint: {", ".join(counts)}', *(f'error: {error}' for error in errors)]
    _print('\n'.join([*lines, *(f'warning: {warning}' for warning in warnings)]))
    return 1 if errors else 0


if __name__ == '__main__':
    sys.exit(main())
