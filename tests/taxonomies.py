"""Small taxonomies and strategies that several tests share."""

from __future__ import annotations

from hypothesis import strategies as st

from hierseg.taxonomy import Taxonomy

TOY, ANIMAL, BEAR, TEDDY, CAR = range(5)


def teddy_taxonomy() -> Taxonomy:
    """Toy; Animal > Bear; Teddy under Toy (preferred) and Bear; Car alone."""
    return Taxonomy.from_edges(
        ['toy', 'animal', 'bear', 'teddy', 'car'],
        [('bear', 'animal'), ('teddy', 'toy'), ('teddy', 'bear')],
        names=['Toy', 'Animal', 'Bear', 'Teddy', 'Car'],
    )


def tree_taxonomy() -> Taxonomy:
    """The same classes as a tree: Toy; Animal > Bear, Teddy; Car alone."""
    return Taxonomy.from_edges(
        ['toy', 'animal', 'bear', 'teddy', 'car'],
        [('bear', 'animal'), ('teddy', 'animal')],
        names=['Toy', 'Animal', 'Bear', 'Teddy', 'Car'],
    )


def lowest_common_ancestors(taxonomy: Taxonomy, first: int, second: int) -> tuple[int, ...]:
    """The common ancestors (a class is its own) below which there is no other one, ascending; in a tree one at most."""
    common = (taxonomy.ancestors(first) | {first}) & (taxonomy.ancestors(second) | {second})
    return tuple(sorted(label for label in common if not common & taxonomy.descendants(label)))


@st.composite
def random_taxonomies(draw: st.DrawFn, max_classes: int = 9, max_parents: int = 3) -> Taxonomy:
    """DAGs of up to ``max_classes`` classes in shuffled label order; trees with one parent at most."""
    count = draw(st.integers(1, max_classes))
    ids = draw(st.permutations([f'c{i}' for i in range(count)]))
    edges = []
    for child in range(1, count):
        parents = draw(st.sets(st.integers(0, child - 1), max_size=min(child, max_parents)))
        edges += [(f'c{child}', f'c{parent}') for parent in sorted(parents)]
    return Taxonomy.from_edges(ids, edges)
