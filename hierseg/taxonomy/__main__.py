"""``python -m hierseg.taxonomy FILE``: prints the tree of a hierarchy and a lint report."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hierseg.errors import TaxonomyError, exits_cleanly
from hierseg.files import write_json
from hierseg.taxonomy.draft import TaxonomyDraft
from hierseg.taxonomy.graph import Taxonomy
from hierseg.taxonomy.readers import read_draft


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        severity: An error makes the taxonomy unusable, a warning does not.
        message: What was found, where, and for an error what would be right.
    """

    severity: Literal['error', 'warning']
    message: str

    def __str__(self) -> str:
        return f'{self.severity}: {self.message}'


@dataclass(frozen=True)
class LintReport:
    """All findings, and the taxonomy unless there are errors.

    Attributes:
        findings: Errors first.
        taxonomy: None if it is unusable.
    """

    findings: tuple[Finding, ...]
    taxonomy: Taxonomy | None


def lint(draft: TaxonomyDraft) -> LintReport:
    """Looks for everything that is wrong or odd in a draft.

    Errors are all that :meth:`TaxonomyDraft.errors` knows: cycles, duplicate ids, unknown classes and what
    the reader met. Warnings are classes with several parents, edges that another path makes
    superfluous, single-child chains and names that several classes share.
    """
    errors: list[TaxonomyError] = draft.errors()
    if errors:
        return LintReport(tuple(Finding('error', str(error)) for error in errors), None)
    taxonomy = draft.build()
    checks = (several_parents, superfluous_edges, single_child_chains, shared_names)
    warnings = [Finding('warning', message) for check in checks for message in check(taxonomy)]
    return LintReport(tuple(warnings), taxonomy)


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
        for parent in parents:
            if any(parent in taxonomy.arrays.above(other) for other in parents if other != parent):
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
        'file', metavar='FILE', help='Open Images hierarchy JSON, COCO JSON, edge list (CSV, YAML) or hierseg JSON'
    )
    parser.add_argument('--classes', metavar='FILE', help='class-description CSV (id,name), or a COCO JSON')
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


def parse_preferred_parents(pairs: Sequence[str]) -> dict[str, str]:
    """Child → parent of ``CHILD=PARENT`` texts.

    Raises:
        TaxonomyError: On another form.
    """
    for pair in pairs:
        if not all(pair.partition('=')):
            raise TaxonomyError(
                f'{pair!r} is no preferred parent', where='--preferred-parent', fix='Write CHILD=PARENT.'
            )
    return {child: parent for child, _, parent in (pair.partition('=') for pair in pairs)}


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


def report_lines(draft: TaxonomyDraft, report: LintReport) -> Iterator[str]:
    """Everything that the command prints."""
    if report.taxonomy:
        yield draft.source
        yield from draw(report.taxonomy)
        yield ''
        yield summary(report.taxonomy)
    errors = sum(finding.severity == 'error' for finding in report.findings)
    yield f'lint: {_count(errors, "error")}, {_count(len(report.findings) - errors, "warning")}'
    yield from map(str, report.findings)


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}{"" if number == 1 else "s"}'


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
    draft = read_draft(
        options.file,
        classes=options.classes,
        preferred_parents=parse_preferred_parents(options.preferred_parent),
        ignore_parts=options.ignore_parts,
    )
    report = lint(draft)
    if options.json and report.taxonomy:
        write_json(report.taxonomy.to_json(), options.json, error=TaxonomyError)
    _print('\n'.join(report_lines(draft, report)))
    return 0 if report.taxonomy else 1


if __name__ == '__main__':
    sys.exit(main())
