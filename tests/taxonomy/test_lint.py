"""The lint report."""

from __future__ import annotations

from hypothesis import given
from taxonomies import random_taxonomies, teddy_taxonomy

from hierseg.taxonomy import Taxonomy
from hierseg.taxonomy.draft import TaxonomyDraft
from hierseg.taxonomy.lint import describe, lint, summary


def draft(ids: str, edges: list[tuple[str, str]], *, names: list[str] | None = None) -> TaxonomyDraft:
    return TaxonomyDraft('t.csv', tuple(ids), tuple(names or ids), tuple(edges))


def messages(ids: str, edges: list[tuple[str, str]], **options) -> list[str]:
    return [str(finding) for finding in lint(draft(ids, edges, **options)).findings]


def test_nothing_to_say():
    report = lint(draft('abcd', [('b', 'a'), ('c', 'a')]))
    assert report.findings == ()
    assert report.taxonomy == Taxonomy.from_edges('abcd', [('b', 'a'), ('c', 'a')])


def test_all_errors_are_told_and_there_is_no_taxonomy():
    # Two knots: a and b; c alone. d hangs from the first and is in no cycle. a is listed twice, z nowhere.
    report = lint(draft('abacd', [('a', 'b'), ('b', 'a'), ('c', 'c'), ('d', 'a'), ('d', 'z')]))
    assert report.taxonomy is None
    assert {finding.severity for finding in report.findings} == {'error'}
    assert [finding.message.partition('. ')[0] for finding in report.findings] == [
        "t.csv: class 'a' is listed 2 times",
        "t.csv: unknown class 'z' in the edge d → z",
        't.csv: cycle a → b → a',
        't.csv: cycle c → c',
    ]


def test_several_parents():
    edges = [('c', 'b'), ('c', 'a'), ('d', 'c'), ('e', 'a'), ('f', 'b')]
    found = messages('abcdef', edges, names=['A', 'B', 'C', 'D', 'E', 'F'])
    assert 'warning: C (c) has 2 parents: B (preferred), A' in found
    assert sum('parents' in message for message in found) == 1


def test_superfluous_edge():
    # c is below a directly and by way of b.
    found = messages('abcd', [('b', 'a'), ('c', 'b'), ('c', 'a'), ('d', 'b')])
    assert 'warning: c is directly below a and again through another class' in found
    assert not any('again through' in message for message in messages('abc', [('c', 'a'), ('c', 'b')]))


def test_single_child_chains_are_told_once_and_whole():
    # a > b > c > d is one chain; x has two children, of which y has one.
    edges = [('b', 'a'), ('c', 'b'), ('d', 'c'), ('y', 'x'), ('z', 'x'), ('w', 'y')]
    assert messages('abcdxyzw', edges) == [
        'warning: single-child chain a › b › c › d',
        'warning: single-child chain y › w',
    ]


def test_shared_names():
    found = messages('abc', [], names=['bat', 'cat', 'bat'])
    assert found == ["warning: the name 'bat' is that of 2 classes: a, c"]


def test_summary():
    # Root classes Toy, Animal (with children) and Car; Bear at depth 1, Teddy at 2 below Animal > Bear.
    assert summary(teddy_taxonomy()) == (
        '5 classes: 3 root classes (2 with children), 2 deeper classes; 2 leaves\n'
        'depth (longest path): 3 at 0, 1 at 1, 1 at 2; at most 2'
    )


def test_describe():
    assert describe(teddy_taxonomy(), 3) == 'Teddy (teddy)'
    assert describe(Taxonomy.from_edges(['a'], []), 0) == 'a'


@given(random_taxonomies())
def test_a_taxonomy_has_no_errors(taxonomy):
    edges = tuple((taxonomy.ids[c], taxonomy.ids[p]) for c, parents in enumerate(taxonomy.parents) for p in parents)
    report = lint(TaxonomyDraft('t', taxonomy.ids, taxonomy.names, edges))
    assert report.taxonomy == taxonomy
    assert all(finding.severity == 'warning' for finding in report.findings)
    several = sum(len(parents) > 1 for parents in taxonomy.parents)
    assert sum('(preferred)' in finding.message for finding in report.findings) == several
