"""The Open Images hierarchy JSON with its class-description CSV."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hierseg.errors import TaxonomyError
from hierseg.taxonomy import Taxonomy, read_taxonomy

TOY, TEDDY, CARNIVORE = '/m/0138tl', '/m/0kmg4', '/m/01lrl'


def node(class_id: str, *children: dict[str, Any], parts: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    document: dict[str, Any] = {'LabelName': class_id}
    if children:
        document['Subcategory'] = list(children)
    if parts:
        document['Part'] = parts
    return document


# Teddy occurs below c > b first and below a second; b occurs twice and its children differ.
DOUBLE = node('top', node('c', node('b', node('teddy'))), node('a', node('teddy')), node('b', node('polar')))
PARTS = node('top', node('person', node('man'), parts=[node('eye'), node('man')]), node('head', parts=[node('eye')]))


@pytest.fixture
def read(tmp_path: Path):
    """Writes a hierarchy and a class list, and reads them."""

    def write_and_read(document: Any, *, classes: str | None = None, **options: Any) -> Taxonomy:
        hierarchy = tmp_path / 'hierarchy.json'
        hierarchy.write_text(document if isinstance(document, str) else json.dumps(document, indent=1))
        if classes is not None:
            options['classes'] = tmp_path / 'classes.csv'
            options['classes'].write_text(classes, encoding='utf-8')
        return read_taxonomy(hierarchy, **options)

    return write_and_read


def edges(taxonomy: Taxonomy) -> set[tuple[str, str]]:
    return {(taxonomy.ids[c], taxonomy.ids[p]) for c, parents in enumerate(taxonomy.parents) for p in parents}


class TestHierarchy:
    def test_repeated_nodes_are_one_class_with_all_parents_and_children(self, read):
        taxonomy = read(DOUBLE)
        # Labels in the order of first mention; the top node is no class; b stays below c although it
        # is below the top node too.
        assert taxonomy.ids == ('c', 'b', 'teddy', 'a', 'polar')
        assert edges(taxonomy) == {('b', 'c'), ('teddy', 'b'), ('teddy', 'a'), ('polar', 'b')}
        assert [taxonomy.ids[parent] for parent in taxonomy.parents[2]] == ['b', 'a']

    def test_class_list_gives_order_and_names(self, read):
        classes = 'teddy,Teddy bear\na,Toy\nb,"Bear, any"\nc,Carnivore\npolar,Eisbär\n'
        taxonomy = read(DOUBLE, classes=classes)
        assert taxonomy.ids == ('teddy', 'a', 'b', 'c', 'polar')
        assert taxonomy.names == ('Teddy bear', 'Toy', 'Bear, any', 'Carnivore', 'Eisbär')
        assert edges(taxonomy) == edges(read(DOUBLE))

    def test_a_teddy_bear_is_a_toy_by_default(self, read):
        document = node('/m/0bl9f', node(CARNIVORE, node(TEDDY)), node(TOY, node(TEDDY)))
        taxonomy = read(document)
        assert taxonomy.path_name(taxonomy.label(TEDDY)) == f'{TOY} › {TEDDY}'
        overruled = read(document, preferred_parents={TEDDY: CARNIVORE})
        assert overruled.path_name(overruled.label(TEDDY)) == f'{CARNIVORE} › {TEDDY}'

    def test_without_that_edge_the_default_does_not_matter(self, read):
        assert read(node('/m/0bl9f', node(CARNIVORE, node(TEDDY)), node(TOY))).parents == ((), (0,), ())

    def test_preferred_parents_may_be_named(self, read):
        classes = 'a,Toy\nb,Bear\nc,Carnivore\npolar,Polar bear\nteddy,Teddy bear\n'
        taxonomy = read(DOUBLE, classes=classes, preferred_parents={'Teddy bear': 'Toy'})
        assert taxonomy.path_name(4) == 'Toy › Teddy bear'

    def test_a_preferred_parent_that_is_none(self, read):
        with pytest.raises(TaxonomyError, match=r"hierarchy.json: preferred parent 'c' of 'teddy' is none of its"):
            read(DOUBLE, preferred_parents={'teddy': 'c'})

    def test_the_top_node_needs_no_id(self, read):
        assert read({'Subcategory': [node('a')]}).ids == ('a',)

    def test_a_very_deep_hierarchy(self, read):
        document = node('c300')
        for depth in reversed(range(300)):
            document = node(f'c{depth}', document)
        assert read(document).arrays.depths.max() == 299


class TestParts:
    def test_are_refused_and_each_is_told_with_its_line(self, read, tmp_path):
        with pytest.raises(TaxonomyError, match=r'3 problems: .*ignore_parts=True, --ignore-parts') as caught:
            read(PARTS)
        lines = (tmp_path / 'hierarchy.json').read_text().splitlines()
        found = re.findall(r"line (\d+): '(\w+)' is a Part of '(\w+)'", str(caught.value))
        # In file order; eye is first mentioned as a part of person, man first as a kind of person.
        assert [pair[1:] for pair in found] == [('eye', 'person'), ('man', 'person'), ('eye', 'head')]
        mentions = [(number, line) for number, line in enumerate(lines, 1) if '"eye"' in line or '"man"' in line]
        man, first_eye, man_again, second_eye = (number for number, _ in sorted(mentions))
        assert [int(pair[0]) for pair in found] == [first_eye, man_again, second_eye]
        assert man < first_eye

    def test_can_be_ignored_and_their_classes_stay(self, read):
        taxonomy = read(PARTS, ignore_parts=True)
        assert taxonomy.ids == ('person', 'man', 'eye', 'head')
        assert edges(taxonomy) == {('man', 'person')}

    def test_a_kind_of_a_part_is_a_kind(self, read):
        taxonomy = read(node('top', node('face', parts=[node('eye', node('human eye'))])), ignore_parts=True)
        assert edges(taxonomy) == {('human eye', 'eye')}


class TestBadHierarchies:
    def test_cycle(self, read):
        document = node('top', node('a', node('b', node('a'))), node('x', node('y')))
        with pytest.raises(TaxonomyError, match=r'hierarchy.json: cycle a → b → a\. .*remove one of these edges'):
            read(document)

    def test_a_node_below_itself(self, read):
        with pytest.raises(TaxonomyError, match='cycle a → a'):
            read(node('top', node('a', node('a'))))

    @pytest.mark.parametrize('top', ['/m/0bl9f', 'top'])
    def test_the_virtual_root_again(self, read, top):
        with pytest.raises(TaxonomyError, match=f"line 2: the virtual root '{top}' occurs again below 'a'"):
            read(node(top, node('a', node(top, node('b')))))

    @pytest.mark.parametrize(
        ('document', 'message'),
        [
            ('{"LabelName": "top", ', r'hierarchy.json, line 1: not valid JSON'),
            ('{"LabelName": "top",\n "Subcategory": [}', r'hierarchy.json, line 2: not valid JSON'),
            ('{"LabelName": "t", "Subcategory": [], "Subcategory": []}', "key 'Subcategory' twice"),
            (node('top'), 'no classes'),
            (node('top', node('')), "below 'the top node': malformed node"),
            (node('top', node('a', {'Subcategory': []})), "below 'a': malformed node"),
            (node('top', {'LabelName': 5}), 'malformed node'),
            ({'LabelName': 5, 'Subcategory': []}, 'malformed node'),
            ({'LabelName': 'top', 'Subcategory': 'a'}, "malformed entry 'Subcategory' in node 'top'"),
            ({'LabelName': 'top', 'Subcategory': ['a']}, "malformed node 'a'"),
            # A misspelt key would lose a whole branch without a sign.
            ({'LabelName': 'top', 'Subcategories': []}, "malformed entry 'Subcategories'"),
            ('{"LabelName": "t", "Subcategory": ' + '[' * 100_000, 'nested too deeply'),
        ],
    )
    def test_malformed(self, read, document, message):
        with pytest.raises(TaxonomyError, match=message):
            read(document)


class TestClassList:
    HIERARCHY = node('/m/0bl9f', node('a', node('b')))

    @pytest.mark.parametrize(
        'text',
        [
            'a,A\nb,B\n',
            'a,A\r\nb,B',
            '\ufeffa,A\nb,B\n',  # a byte order mark, as a spreadsheet writes it
            'LabelName,DisplayName\na,A\nb,B\n',  # Open Images V7
            'a , A\n\n b,B\n',
            '/m/0bl9f,Entity\na,A\nb,B\n',
        ],
    )
    def test_forms(self, read, text):
        taxonomy = read(self.HIERARCHY, classes=text)
        assert (taxonomy.ids, taxonomy.names) == (('a', 'b'), ('A', 'B'))

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('a,A\nb,B\na,C\n', "classes.csv, line 3: class 'a' is listed twice, first in .*classes.csv, line 1"),
            ('a,A\nb,B\nc,C\n', r"classes.csv, line 3: class 'c' is not in the hierarchy .*hierarchy.json. Add it"),
            ('a,A\n', r"hierarchy.json, line \d+: class 'b' is not in the class list .*classes.csv. Add it there"),
            ('a,A\nb\n', r"classes.csv, line 2: expected a class id and a name, found \['b'\]"),
            ('a,A\nb,B,extra\n', r'classes.csv, line 2: expected a class id and a name'),
            ('a,A\n,B\n', r'classes.csv, line 2: expected a class id and a name'),
            ('a,A\nb,"B\n', r'classes.csv, line 2: not valid CSV'),
            ('a,"A"x\nb,B\n', r'classes.csv, line 1: not valid CSV'),
        ],
    )
    def test_bad_lists(self, read, text, message):
        with pytest.raises(TaxonomyError, match=message):
            read(self.HIERARCHY, classes=text)

    def test_line_of_a_missing_class_is_the_editor_line(self, read, tmp_path):
        with pytest.raises(TaxonomyError) as caught:
            read(self.HIERARCHY, classes='a,A\n')
        line = int(caught.value.where.rpartition(' ')[2])
        assert '"b"' in (tmp_path / 'hierarchy.json').read_text().splitlines()[line - 1]

    def test_both_ways_at_once(self, read):
        with pytest.raises(
            TaxonomyError, match=r"3 problems: .*'a' is not in the class.*'b' is not.*'c' is not in the h"
        ):
            read(self.HIERARCHY, classes='c,C\n')

    def test_many_problems_are_counted(self, read):
        with pytest.raises(TaxonomyError, match=r'22 problems: .*; and 17 more'):
            read(self.HIERARCHY, classes=''.join(f'x{i},X\n' for i in range(20)))

    def test_a_class_as_the_top_node(self, read):
        # A branch cut out of a larger hierarchy: its top would silently be no class.
        with pytest.raises(TaxonomyError, match=r"line 1: class 'person' is the top node .* Put a node above it"):
            read(node('person', node('man')), classes='person,Person\nman,Man\n')

    def test_another_encoding(self, read, tmp_path):
        read(self.HIERARCHY)
        (tmp_path / 'latin.csv').write_bytes('a,A\nb,Bär\n'.encode('latin-1'))
        with pytest.raises(TaxonomyError, match=r'latin.csv, line 2: not UTF-8 text. Save the file as UTF-8'):
            read_taxonomy(tmp_path / 'hierarchy.json', classes=tmp_path / 'latin.csv')

    def test_utf_16(self, read, tmp_path):
        read(self.HIERARCHY)
        (tmp_path / 'wide.csv').write_bytes('a,A\nb,B\n'.encode('utf-16'))
        with pytest.raises(TaxonomyError, match=r'wide.csv, line 1: not UTF-8'):
            read_taxonomy(tmp_path / 'hierarchy.json', classes=tmp_path / 'wide.csv')


class TestRealFiles:
    @pytest.fixture
    def hierarchy(self, test_data: Path) -> Path:
        return test_data / 'openimages/challenge-2019-label300-segmentable-hierarchy.json'

    @pytest.fixture
    def classes(self, test_data: Path) -> Path:
        return test_data / 'openimages/challenge-2019-classes-description-segmentable.csv'

    def test_counts(self, hierarchy, classes):
        taxonomy = read_taxonomy(hierarchy, classes=classes)
        assert taxonomy.num_classes == 300
        assert len(taxonomy.root_classes) == 213
        assert len(taxonomy.deeper_classes) == 87
        assert sum(bool(taxonomy.children[root]) for root in taxonomy.root_classes) == 23
        assert (taxonomy.arrays.depths == 2).sum() == 5
        assert taxonomy.arrays.depths.max() == 2

    def test_teddy_bear_alone_has_two_parents(self, hierarchy, classes):
        taxonomy = read_taxonomy(hierarchy, classes=classes)
        assert [taxonomy.ids[v] for v, parents in enumerate(taxonomy.parents) if len(parents) > 1] == [TEDDY]
        paths = taxonomy.paths(taxonomy.label(TEDDY))
        assert [[taxonomy.names[label] for label in path] for path in paths] == [
            ['Toy', 'Teddy bear'],
            ['Carnivore', 'Bear', 'Teddy bear'],
        ]

    def test_label_order_is_that_of_the_class_list(self, hierarchy, classes):
        taxonomy = read_taxonomy(hierarchy, classes=classes)
        assert taxonomy.ids[:2] == ('/m/01bms0', '/m/03jbxj')
        assert taxonomy.names[:2] == ('Screwdriver', 'Light switch')

    def test_without_class_list(self, hierarchy, classes):
        bare, named = read_taxonomy(hierarchy), read_taxonomy(hierarchy, classes=classes)
        assert bare.names == bare.ids
        assert edges(bare) == edges(named)
        assert set(bare.ids) == set(named.ids)
