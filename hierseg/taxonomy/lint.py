"""A lint report: what makes a hierarchy unusable, and what its author may not have meant."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hierseg.errors import TaxonomyError
from hierseg.taxonomy.draft import TaxonomyDraft
from hierseg.taxonomy.graph import Taxonomy


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


def describe(taxonomy: Taxonomy, label: int) -> str:
    """Name and id, as in ``Man (/m/04yx4)``; the name alone where both are the same."""
    name, class_id = taxonomy.names[label], taxonomy.ids[label]
    return name if name == class_id else f'{name} ({class_id})'


def several_parents(taxonomy: Taxonomy) -> Iterator[str]:
    """Classes with more than one parent, and which of them is followed."""
    for label, parents in enumerate(taxonomy.parents):
        if len(parents) > 1:
            first, *others = (taxonomy.path_name(parent) for parent in parents)
            yield f'{describe(taxonomy, label)} has {len(parents)} parents: {first} (preferred), {", ".join(others)}'


def superfluous_edges(taxonomy: Taxonomy) -> Iterator[str]:
    """Edges to a class that is an ancestor by a longer path too."""
    mask = taxonomy.arrays.ancestor_mask
    for label, parents in enumerate(taxonomy.parents):
        for parent in parents:
            if any(mask[other, parent] for other in parents if other != parent):
                child, above = describe(taxonomy, label), describe(taxonomy, parent)
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
        yield f'single-child chain {" › ".join(describe(taxonomy, label) for label in chain)}'


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
