"""The built-in taxonomy: what a generated data set contains unless the user brings classes."""

from __future__ import annotations

from hierseg.taxonomy import Taxonomy

# Name → parents, the preferred one first; parents come before their children.
_PARENTS: dict[str, tuple[str, ...]] = {
    'Person': (),
    'Man': ('Person',),
    'Woman': ('Person',),
    'Child': ('Person',),
    'Vehicle': (),
    'Car': ('Vehicle',),
    'Taxi': ('Car',),
    'Van': ('Car',),
    'Bicycle': ('Vehicle',),
    'Boat': ('Vehicle',),
    'Toy': (),
    'Doll': ('Toy',),
    'Animal': (),
    'Bird': ('Animal',),
    'Bear': ('Animal',),
    'Brown bear': ('Bear',),
    'Polar bear': ('Bear',),
    'Teddy bear': ('Toy', 'Bear'),
    'Tree': (),
    'Lamp': (),
    'Guitar': (),
    'Drum': (),
}


def default_taxonomy() -> Taxonomy:
    """Twenty-two classes in three levels, with one class under two parents and four childless root classes.

    The identifiers look like Open Images' MIDs and are none of them.
    """
    id_of = {name: f'/m/0syn{index:02d}' for index, name in enumerate(_PARENTS)}
    edges = [(id_of[name], id_of[parent]) for name, parents in _PARENTS.items() for parent in parents]
    return Taxonomy.from_edges(list(id_of.values()), edges, names=list(id_of))
