"""Edge lists in CSV and YAML, the Open Images hierarchy, COCO categories, hierseg's own JSON, and who takes which."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from taxonomies import random_taxonomies, teddy_taxonomy

from hierseg.errors import TaxonomyError
from hierseg.files import write_json
from hierseg.taxonomy import Taxonomy, read_taxonomy
from hierseg.taxonomy.formats import OPEN_IMAGES_PREFERRED_PARENTS

TEDDY_TAXONOMY = Taxonomy.from_edges(
    ['teddy', 'toy', 'bear', 'animal'], [('teddy', 'toy'), ('teddy', 'bear'), ('bear', 'animal')]
)


@pytest.fixture
def read_edges(tmp_path: Path):
    """Writes an edge list, and a class list beside it, and reads both."""

    def write_and_read(text: str, *, ending: str = 'csv', classes: str | None = None) -> Taxonomy:
        path = tmp_path / f'edges.{ending}'
        path.write_text(text, encoding='utf-8')
        if classes is None:
            return read_taxonomy(path)
        (tmp_path / 'classes.csv').write_text(classes)
        return read_taxonomy(path, classes=tmp_path / 'classes.csv')

    return write_and_read


class TestCsv:
    @pytest.mark.parametrize(
        'text',
        [
            'child,parent\nteddy,toy\nteddy,bear\nbear,animal\n',
            '\ufeffchild,parent\r\nteddy,toy\r\nteddy,bear\r\nbear,animal\r\n',
            ' child , parent \nteddy, toy\n\nteddy,bear\nbear,animal\n',
            'child,parent\nteddy,toy\nteddy,bear\nbear,animal\nteddy,toy\n',  # said twice, counted once
            'child,parent\nteddy,toy\nteddy,bear\nbear,animal\nanimal,\ntoy,/m/0bl9f\n/m/0bl9f,\n',
        ],
    )
    def test_forms(self, read_edges, text):
        # A class that occurs only as a parent (toy, animal) is one too; order is that of mention.
        assert read_edges(text) == TEDDY_TAXONOMY

    def test_columns_in_another_order(self, read_edges):
        assert read_edges('parent,child\ntoy,teddy\nbear,teddy\nanimal,bear\n') == TEDDY_TAXONOMY

    def test_names(self, read_edges):
        taxonomy = read_edges('child,parent,name\nteddy,toy,Teddy bear\nteddy,bear,\nbear,,"Bear, any"\n')
        assert taxonomy.ids == ('teddy', 'toy', 'bear')
        assert taxonomy.names == ('Teddy bear', 'toy', 'Bear, any')

    def test_ids_are_text(self, read_edges):
        assert read_edges('child,parent\n007,1e5\n').ids == ('007', '1e5')

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('', r"edges.csv, line 1: the header '' is not that of an edge list"),
            ('teddy,toy\n', r"line 1: the header 'teddy,toy' is not .*Write \"child,parent\""),
            ('child,parent,weight\nteddy,toy,1\n', 'is not that of an edge list'),
            ('child,child\nteddy,toy\n', 'is not that of an edge list'),
            ('child,parent\n', 'edges.csv: no classes'),
            ('child,parent\nteddy,toy\nteddy\n', r"edges.csv, line 3: malformed row \['teddy'\]"),
            ('child,parent\nteddy,toy,x\n', r'edges.csv, line 2: malformed row'),
            ('child,parent\n,toy\n', r"edges.csv, line 2: malformed row \['', 'toy'\]"),
            ('child,parent\n"teddy,toy\n', r'edges.csv, line 2: not valid CSV'),
            ('child,parent,name\na,b,A\na,c,B\n', r"line 3: class 'a' is named 'A' and 'B'. Give it one name"),
            ('child,parent\na,b\nb,c\nc,a\n', r'edges.csv: cycle a → b → c → a'),
        ],
    )
    def test_bad_lists(self, read_edges, text, message):
        with pytest.raises(TaxonomyError, match=message):
            read_edges(text)


class TestYaml:
    @pytest.mark.parametrize('ending', ['yaml', 'yml'])
    @pytest.mark.parametrize(
        'text',
        [
            'teddy: [toy, bear]\nbear: animal\n',
            'teddy:\n  - toy\n  - bear\nbear: animal  # a comment\nanimal: null\ntoy:\n',
            '- [teddy, toy]\n- [teddy, bear]\n- [bear, animal]\n- [animal, ~]\n- [toy, /m/0bl9f]\n',
            '{"teddy": ["toy", "bear"], "bear": "animal", "toy": []}',
        ],
    )
    def test_forms(self, read_edges, text, ending):
        assert read_edges(text, ending=ending) == TEDDY_TAXONOMY

    def test_scalars_are_taken_as_written(self, read_edges):
        taxonomy = read_edges('no: 007\n1.50: yes\n2020-01-01: "null"\n', ending='yaml')
        assert taxonomy.ids == ('no', '007', '1.50', 'yes', '2020-01-01', 'null')

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('', 'edges.yaml: no classes'),
            ('a: [b\nc: d\n', r'edges.yaml, line \d: not valid YAML'),
            ('a: b\n\tc: d\n', r'edges.yaml, line 2: not valid YAML'),
            ('a: b\n--- \nc: d\n', r'edges.yaml, line 2: not valid YAML'),
            ('a: *b\n', r'edges.yaml, line 1: \*b stands for something else'),
            ('a: \0\n', 'edges.yaml: not valid YAML: unacceptable character'),
            ('[' * 100_000, r'edges.yaml, line 1: not a'),
            # YAML readers keep the last of two equal keys, and an edge would be lost.
            ('a: b\nc: d\na: e\n', r"edges.yaml, line 3: child 'a' occurs twice, first in line 1. Give several"),
            ('{a: b, a: c}', "child 'a' occurs twice"),
            ('a: {b: c}\n', r'edges.yaml, line 1: not a class'),
            ('a: b\nc: [[d]]\n', r'edges.yaml, line 2: not a class'),
            ('~: b\n', 'a child is empty'),
            ('- [a, b, c]\n', r'edges.yaml, line 1: not an edge. Write "child: parent"'),
            ('- [a, b]\n- a\n', r'edges.yaml, line 2: not an edge'),
            ('a\n', r'edges.yaml, line 1: not an edge'),
            ('a: a\n', 'edges.yaml: cycle a → a'),
        ],
    )
    def test_bad_lists(self, read_edges, text, message):
        with pytest.raises(TaxonomyError, match=message):
            read_edges(text, ending='yaml')


class TestEdgesBesideAClassList:
    CLASSES = '/m/3,Car\n/m/1,Animal\n/m/2,Bear\n'

    def test_edges_by_id_and_by_name_and_classes_without_an_edge(self, read_edges):
        taxonomy = read_edges('child,parent\n/m/2,Animal\n', classes=self.CLASSES)
        assert taxonomy.ids == ('/m/3', '/m/1', '/m/2')
        assert taxonomy.names == ('Car', 'Animal', 'Bear')
        assert taxonomy.parents == ((), (), (1,))

    def test_an_unknown_class(self, read_edges):
        with pytest.raises(
            TaxonomyError, match=r"edges.csv, line 3: 'bear' is neither id nor name .*classes.csv. Check"
        ):
            read_edges('child,parent\nBear,Animal\nbear,Animal\n', classes=self.CLASSES)

    def test_all_unknown_classes_are_told(self, read_edges):
        with pytest.raises(TaxonomyError, match=r"2 problems: .*line 2: 'x' is neither.*line 3: 'y' is neither"):
            read_edges('child,parent\nx,Animal\nCar,y\n', classes=self.CLASSES)

    def test_an_ambiguous_name(self, read_edges):
        with pytest.raises(TaxonomyError, match=r"'Bear' is the id or the name of several classes: \['/m/2', '/m/4'\]"):
            read_edges('child,parent\nBear,Animal\n', classes=self.CLASSES + '/m/4,Bear\n')

    def test_another_name_than_in_the_list(self, read_edges):
        with pytest.raises(TaxonomyError, match="class '/m/2' is named 'Bear' and 'Ours'"):
            read_edges('child,parent,name\n/m/2,/m/1,Ours\n', classes=self.CLASSES)

    def test_a_class_that_is_listed_twice(self, read_edges):
        with pytest.raises(TaxonomyError, match=r"classes.csv, line 4: class '/m/1' is listed twice"):
            read_edges('child,parent\nBear,Animal\n', classes=self.CLASSES + '/m/1,Animals\n')


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
def read_hierarchy(tmp_path: Path):
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
    def test_repeated_nodes_are_one_class_with_all_parents_and_children(self, read_hierarchy):
        taxonomy = read_hierarchy(DOUBLE)
        # Labels in the order of first mention; the top node is no class; b stays below c although it
        # is below the top node too.
        assert taxonomy.ids == ('c', 'b', 'teddy', 'a', 'polar')
        assert edges(taxonomy) == {('b', 'c'), ('teddy', 'b'), ('teddy', 'a'), ('polar', 'b')}
        assert [taxonomy.ids[parent] for parent in taxonomy.parents[2]] == ['b', 'a']

    def test_class_list_gives_order_and_names(self, read_hierarchy):
        classes = 'teddy,Teddy bear\na,Toy\nb,"Bear, any"\nc,Carnivore\npolar,Eisbär\n'
        taxonomy = read_hierarchy(DOUBLE, classes=classes)
        assert taxonomy.ids == ('teddy', 'a', 'b', 'c', 'polar')
        assert taxonomy.names == ('Teddy bear', 'Toy', 'Bear, any', 'Carnivore', 'Eisbär')
        assert edges(taxonomy) == edges(read_hierarchy(DOUBLE))

    def test_a_teddy_bear_is_a_toy_by_default(self, read_hierarchy):
        document = node('/m/0bl9f', node(CARNIVORE, node(TEDDY)), node(TOY, node(TEDDY)))
        taxonomy = read_hierarchy(document)
        assert taxonomy.path_name(taxonomy.label(TEDDY)) == f'{TOY} › {TEDDY}'
        overruled = read_hierarchy(document, preferred_parents={TEDDY: CARNIVORE})
        assert overruled.path_name(overruled.label(TEDDY)) == f'{CARNIVORE} › {TEDDY}'

    def test_without_that_edge_the_default_does_not_matter(self, read_hierarchy):
        assert read_hierarchy(node('/m/0bl9f', node(CARNIVORE, node(TEDDY)), node(TOY))).parents == ((), (0,), ())

    def test_preferred_parents_may_be_named(self, read_hierarchy):
        classes = 'a,Toy\nb,Bear\nc,Carnivore\npolar,Polar bear\nteddy,Teddy bear\n'
        taxonomy = read_hierarchy(DOUBLE, classes=classes, preferred_parents={'Teddy bear': 'Toy'})
        assert taxonomy.path_name(4) == 'Toy › Teddy bear'

    def test_a_preferred_parent_that_is_none(self, read_hierarchy):
        with pytest.raises(TaxonomyError, match=r"hierarchy.json: preferred parent 'c' of 'teddy' is none of its"):
            read_hierarchy(DOUBLE, preferred_parents={'teddy': 'c'})

    def test_the_top_node_needs_no_id(self, read_hierarchy):
        assert read_hierarchy({'Subcategory': [node('a')]}).ids == ('a',)

    def test_a_very_deep_hierarchy(self, read_hierarchy):
        document = node('c300')
        for depth in reversed(range(300)):
            document = node(f'c{depth}', document)
        assert read_hierarchy(document).arrays.depths.max() == 299


class TestParts:
    def test_are_refused_and_each_is_told_with_its_line(self, read_hierarchy, tmp_path):
        with pytest.raises(TaxonomyError, match=r'3 problems: .*ignore_parts=True, --ignore-parts') as caught:
            read_hierarchy(PARTS)
        lines = (tmp_path / 'hierarchy.json').read_text().splitlines()
        found = re.findall(r"line (\d+): '(\w+)' is a Part of '(\w+)'", str(caught.value))
        # In file order; eye is first mentioned as a part of person, man first as a kind of person.
        assert [pair[1:] for pair in found] == [('eye', 'person'), ('man', 'person'), ('eye', 'head')]
        mentions = [(number, line) for number, line in enumerate(lines, 1) if '"eye"' in line or '"man"' in line]
        man, first_eye, man_again, second_eye = (number for number, _ in sorted(mentions))
        assert [int(pair[0]) for pair in found] == [first_eye, man_again, second_eye]
        assert man < first_eye

    def test_can_be_ignored_and_their_classes_stay(self, read_hierarchy):
        taxonomy = read_hierarchy(PARTS, ignore_parts=True)
        assert taxonomy.ids == ('person', 'man', 'eye', 'head')
        assert edges(taxonomy) == {('man', 'person')}

    def test_a_kind_of_a_part_is_a_kind(self, read_hierarchy):
        taxonomy = read_hierarchy(node('top', node('face', parts=[node('eye', node('human eye'))])), ignore_parts=True)
        assert edges(taxonomy) == {('human eye', 'eye')}


class TestBadHierarchies:
    def test_cycle(self, read_hierarchy):
        document = node('top', node('a', node('b', node('a'))), node('x', node('y')))
        with pytest.raises(TaxonomyError, match=r'hierarchy.json: cycle a → b → a\. .*remove one of these edges'):
            read_hierarchy(document)

    def test_a_node_below_itself(self, read_hierarchy):
        with pytest.raises(TaxonomyError, match='cycle a → a'):
            read_hierarchy(node('top', node('a', node('a'))))

    @pytest.mark.parametrize('top', ['/m/0bl9f', 'top'])
    def test_the_virtual_root_again(self, read_hierarchy, top):
        with pytest.raises(TaxonomyError, match=f"line 2: the virtual root '{top}' occurs again below 'a'"):
            read_hierarchy(node(top, node('a', node(top, node('b')))))

    @pytest.mark.parametrize(
        ('document', 'message'),
        [
            ('{"LabelName": "top", ', r'hierarchy.json, line 1: is not JSON'),
            ('{"LabelName": "top",\n "Subcategory": [}', r'hierarchy.json, line 2: is not JSON'),
            ('{"LabelName": "t", "Subcategory": [], "Subcategory": []}', "the key 'Subcategory' stands twice"),
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
    def test_malformed(self, read_hierarchy, document, message):
        with pytest.raises(TaxonomyError, match=message):
            read_hierarchy(document)


class TestHierarchyBesideAClassList:
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
    def test_forms(self, read_hierarchy, text):
        taxonomy = read_hierarchy(self.HIERARCHY, classes=text)
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
    def test_bad_lists(self, read_hierarchy, text, message):
        with pytest.raises(TaxonomyError, match=message):
            read_hierarchy(self.HIERARCHY, classes=text)

    def test_line_of_a_missing_class_is_the_editor_line(self, read_hierarchy, tmp_path):
        with pytest.raises(TaxonomyError) as caught:
            read_hierarchy(self.HIERARCHY, classes='a,A\n')
        line = int(caught.value.where.rpartition(' ')[2])
        assert '"b"' in (tmp_path / 'hierarchy.json').read_text().splitlines()[line - 1]

    def test_both_ways_at_once(self, read_hierarchy):
        with pytest.raises(
            TaxonomyError, match=r"3 problems: .*'a' is not in the class.*'b' is not.*'c' is not in the h"
        ):
            read_hierarchy(self.HIERARCHY, classes='c,C\n')

    def test_many_problems_are_counted(self, read_hierarchy):
        with pytest.raises(TaxonomyError, match=r'22 problems: .*; and 17 more'):
            read_hierarchy(self.HIERARCHY, classes=''.join(f'x{i},X\n' for i in range(20)))

    def test_a_class_as_the_top_node(self, read_hierarchy):
        # A branch cut out of a larger hierarchy: its top would silently be no class.
        with pytest.raises(TaxonomyError, match=r"line 1: class 'person' is the top node .* Put a node above it"):
            read_hierarchy(node('person', node('man')), classes='person,Person\nman,Man\n')

    def test_another_encoding(self, read_hierarchy, tmp_path):
        read_hierarchy(self.HIERARCHY)
        (tmp_path / 'latin.csv').write_bytes('a,A\nb,Bär\n'.encode('latin-1'))
        with pytest.raises(TaxonomyError, match=r'latin.csv, line 2: not UTF-8 text. Save the file as UTF-8'):
            read_taxonomy(tmp_path / 'hierarchy.json', classes=tmp_path / 'latin.csv')

    def test_utf_16(self, read_hierarchy, tmp_path):
        read_hierarchy(self.HIERARCHY)
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


CATEGORIES = [
    {'id': 1, 'name': 'person', 'supercategory': 'person'},
    {'id': 18, 'name': 'dog', 'supercategory': 'animal'},
    {'id': 3, 'name': 'car', 'supercategory': 'vehicle'},
    {'id': 17, 'name': 'cat', 'supercategory': 'animal'},
]


@pytest.fixture
def read_categories(tmp_path: Path):
    """Writes categories, and an edge list above them, and reads both."""

    def write_and_read(categories: Any, *, edges: str | None = None, ending: str = 'csv', **options: Any) -> Taxonomy:
        coco = tmp_path / 'instances.json'
        coco.write_text(json.dumps({'images': [], 'annotations': [], 'categories': categories}))
        if edges is None:
            return read_taxonomy(coco, **options)
        (tmp_path / f'edges.{ending}').write_text(edges)
        return read_taxonomy(tmp_path / f'edges.{ending}', classes=coco, **options)

    return write_and_read


def parents(taxonomy: Taxonomy) -> dict[str, list[str]]:
    return {
        taxonomy.names[label]: [taxonomy.names[parent] for parent in above]
        for label, above in enumerate(taxonomy.parents)
    }


class TestSupercategories:
    def test_categories_keep_their_place_and_supercategories_come_after(self, read_categories):
        taxonomy = read_categories(CATEGORIES)
        assert taxonomy.ids == ('1', '18', '3', '17', 'supercategory:animal', 'supercategory:vehicle')
        assert taxonomy.names == ('person', 'dog', 'car', 'cat', 'animal', 'vehicle')

    def test_a_category_that_is_its_own_supercategory_is_one_root_class(self, read_categories):
        taxonomy = read_categories(CATEGORIES)
        assert parents(taxonomy) == {
            'person': [], 'dog': ['animal'], 'car': ['vehicle'], 'cat': ['animal'], 'animal': [], 'vehicle': []
        }  # fmt: skip

    def test_a_supercategory_named_like_another_category_is_that_category(self, read_categories):
        categories = [
            {'id': 0, 'name': 'sign', 'supercategory': 'none'},
            {'id': 1, 'name': 'stop', 'supercategory': 'sign'},
        ]
        taxonomy = read_categories(categories)
        assert taxonomy.ids == ('0', '1')
        assert taxonomy.parents == ((), (0,))

    @pytest.mark.parametrize('extra', [{}, {'supercategory': ''}, {'supercategory': None}, {'supercategory': 'None'}])
    def test_no_supercategory_makes_a_root_class(self, read_categories, extra):
        assert read_categories([{'id': 7, 'name': 'dog', **extra}]).parents == ((),)

    def test_names_that_look_like_ids(self, read_categories):
        # Digits: category 1 is called 0 and category 2 is called 1.
        digits = [{'id': 1, 'name': '0', 'supercategory': 'digit'}, {'id': 2, 'name': '1', 'supercategory': 'digit'}]
        taxonomy = read_categories(digits)
        assert taxonomy.ids == ('1', '2', 'supercategory:digit')
        assert taxonomy.parents == ((2,), (2,), ())

    @pytest.mark.parametrize(
        ('categories', 'message'),
        [
            ([], 'instances.json: no classes'),
            ('dog', '"categories" is not a list'),
            ([{'id': 1, 'name': 'a'}, {'id': 1, 'name': 'b'}], "category id 1 occurs twice: 'a' and 'b'"),
            ([{'id': 1.5, 'name': 'a'}], r'instances.json, categories\[0\]: malformed category'),
            ([{'id': 1, 'name': 'a'}, {'id': True, 'name': 'b'}], r'categories\[1\]: malformed category'),
            ([{'id': 1, 'name': ''}], 'malformed category'),
            ([{'id': 1}], 'malformed category'),
            ([{'id': 1, 'name': 'a', 'supercategory': 5}], 'malformed category'),
            (['a'], "malformed category 'a'"),
            (
                [
                    {'id': 1, 'name': 'bat'},
                    {'id': 2, 'name': 'bat'},
                    {'id': 3, 'name': 'vampire', 'supercategory': 'bat'},
                ],
                "category 3: supercategory 'bat' is the name of the categories 1, 2",
            ),
            (
                [{'id': 1, 'name': 'a', 'supercategory': 'b'}, {'id': 2, 'name': 'b', 'supercategory': 'a'}],
                'cycle 1 → 2 → 1',
            ),
        ],
    )
    def test_bad_categories(self, read_categories, categories, message):
        with pytest.raises(TaxonomyError, match=message):
            read_categories(categories)

    def test_a_class_list_beside_a_coco_file(self, read_categories, tmp_path):
        (tmp_path / 'classes.csv').write_text('1,person\n')
        with pytest.raises(TaxonomyError, match=r'the file names its classes itself, and .*classes.csv does too'):
            read_categories(CATEGORIES, classes=tmp_path / 'classes.csv')


class TestEdgeListAbove:
    def test_levels_above_the_supercategories(self, read_categories):
        taxonomy = read_categories(CATEGORIES, edges='child,parent\nanimal,living\nperson,living\n')
        assert parents(taxonomy) == {
            'person': ['living'], 'dog': ['animal'], 'car': ['vehicle'], 'cat': ['animal'],
            'animal': ['living'], 'vehicle': [], 'living': [],
        }  # fmt: skip
        assert taxonomy.ids[:4] == ('1', '18', '3', '17')
        assert taxonomy.ids[6] == 'supercategory:living'
        assert taxonomy.path_name(1) == 'living › animal › dog'

    def test_an_edge_of_a_category_replaces_its_supercategory(self, read_categories):
        taxonomy = read_categories(
            CATEGORIES, edges='child,parent\ndog,canine\n17,feline\ncanine,animal\nfeline,animal\n'
        )
        assert taxonomy.path_name(1) == 'animal › canine › dog'
        assert taxonomy.path_name(3) == 'animal › feline › cat'

    def test_a_supercategory_that_nothing_is_below_any_more_is_no_class(self, read_categories):
        taxonomy = read_categories(CATEGORIES, edges='child,parent\ndog,\ncat,pet\n')
        assert 'animal' not in taxonomy.names
        assert parents(taxonomy)['dog'] == []

    def test_several_parents_in_yaml_by_name_and_by_id(self, read_categories):
        taxonomy = read_categories(CATEGORIES, edges='dog: [pet, "supercategory:animal"]\n17: pet\n', ending='yaml')
        assert parents(taxonomy)['dog'] == ['pet', 'animal']
        assert parents(taxonomy)['cat'] == ['pet']

    def test_preferred_parent_by_name(self, read_categories):
        edges = 'dog: [pet, animal]\n'
        taxonomy = read_categories(CATEGORIES, edges=edges, ending='yaml', preferred_parents={'dog': 'animal'})
        assert taxonomy.path_name(1) == 'animal › dog'

    def test_a_misspelt_category(self, read_categories):
        with pytest.raises(
            TaxonomyError, match=r"edges.csv, line 3: 'dgo' is neither id nor name of a class in .*inst"
        ):
            read_categories(CATEGORIES, edges='child,parent\ncat,pet\ndgo,pet\n')

    def test_a_name_of_two_categories(self, read_categories):
        categories = [{'id': 1, 'name': 'bat'}, {'id': 2, 'name': 'bat'}]
        with pytest.raises(
            TaxonomyError, match=r"line 2: 'bat' is the id or the name of several classes: \['1', '2'\]"
        ):
            read_categories(categories, edges='child,parent\nbat,animal\n')
        assert parents(read_categories(categories, edges='child,parent\n2,animal\n'))['animal'] == []

    def test_an_open_images_hierarchy_above_coco(self, read_categories, tmp_path):
        read_categories(CATEGORIES)
        (tmp_path / 'hierarchy.json').write_text('{"LabelName": "top", "Subcategory": [{"LabelName": "dog"}]}')
        with pytest.raises(TaxonomyError, match=r'hierarchy.json: .* cannot stand over the COCO .*Give an edge list'):
            read_taxonomy(tmp_path / 'hierarchy.json', classes=tmp_path / 'instances.json')


def test_real_file(test_data):
    taxonomy = read_taxonomy(test_data / 'coco-by/instances_train.json')
    # 80 categories and 12 supercategories, of which person is a category itself.
    assert taxonomy.num_classes == 91
    assert len(taxonomy.root_classes) == 12
    assert [int(class_id) for class_id in taxonomy.ids[:80]][::79] == [1, 90]
    assert all(class_id.startswith('supercategory:') for class_id in taxonomy.ids[80:])
    assert taxonomy.path_name(taxonomy.label('2')) == 'vehicle › bicycle'
    assert taxonomy == read_taxonomy(test_data / 'coco-by/instances_val.json')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('taxonomies')


@given(random_taxonomies())
def test_own_json_round_trip(folder, taxonomy):
    write_json(taxonomy.to_json(), folder / 'taxonomy.json')
    assert read_taxonomy(folder / 'taxonomy.json') == taxonomy


def test_own_json_keeps_a_preference_against_the_default(tmp_path):
    ((teddy, toy),) = OPEN_IMAGES_PREFERRED_PARENTS.items()
    taxonomy = Taxonomy.from_edges(['bear', toy, teddy], [(teddy, 'bear'), (teddy, toy)])
    write_json(taxonomy.to_json(), tmp_path / 't.json')
    assert read_taxonomy(tmp_path / 't.json').parents[2] == (0, 1)
    assert read_taxonomy(tmp_path / 't.json', preferred_parents={teddy: toy}).parents[2] == (1, 0)


def test_paths_may_be_text(tmp_path):
    write_json(teddy_taxonomy().to_json(), str(tmp_path / 't.JSON'))
    assert read_taxonomy(str(tmp_path / 't.JSON')) == teddy_taxonomy()


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('t.txt', 'child,parent\n', r"t.txt: unknown ending '.txt' of a hierarchy. Use .json, .csv, .yaml or .yml"),
        ('t', '{}', "unknown ending ''"),
        ('t.json', '{}', r't.json: the JSON is no hierarchy that hierseg knows. It has "LabelName"'),
        ('t.json', '[]', 'no hierarchy that hierseg knows'),
        ('t.json', 'null', 'no hierarchy that hierseg knows'),
        ('t.json', '{"format": "other"}', r"expected 'hierseg-taxonomy' version 1, found 'other' version None"),
        ('t.json', '', r't.json, line 1: is not JSON'),
        ('t.json', b'\xff\xfe{\x00}\x00', r't.json, line 1: not UTF-8'),
        ('t.yaml', b'a: b\nb\xe4r: c\n', r't.yaml, line 2: not UTF-8'),
    ],
)
def test_files_that_are_no_hierarchy(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TaxonomyError, match=message):
        read_taxonomy(tmp_path / name)


def test_missing_files(tmp_path):
    with pytest.raises(TaxonomyError, match=r'none.json: cannot be read \(No such file or directory\)'):
        read_taxonomy(tmp_path / 'none.json')
    with pytest.raises(TaxonomyError, match=r'cannot be read \(Is a directory\)'):
        read_taxonomy(tmp_path)


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        ([], r"2 problems: t.json: no classes; t.json: preferred parent 'b'"),
        ([('a', []), ('a', [])], "class 'a' is listed 2 times"),
        ([('', [])], 'the id of class 0 is empty'),
        ([('a', ['b'])], "unknown class 'b' in the edge a → b"),
        ([('a', ['b']), ('b', ['a'])], 'cycle a → b → a'),
    ],
)
def test_own_json_that_is_no_taxonomy(tmp_path, monkeypatch, classes, message):
    monkeypatch.chdir(tmp_path)
    entries = [{'id': class_id, 'name': 'A', 'parents': parents} for class_id, parents in classes]
    document = {'format': 'hierseg-taxonomy', 'version': 1, 'classes': entries}
    (tmp_path / 't.json').write_text(json.dumps(document))
    preferred = None if classes else {'a': 'b'}
    with pytest.raises(TaxonomyError, match=message):
        read_taxonomy('t.json', preferred_parents=preferred)


def test_classes_of_no_known_kind(tmp_path):
    (tmp_path / 't.csv').write_text('child,parent\na,b\n')
    (tmp_path / 'c.json').write_text('{"classes": []}')
    with pytest.raises(TaxonomyError, match=r'c.json: no list of classes. Give a CSV'):
        read_taxonomy(tmp_path / 't.csv', classes=tmp_path / 'c.json')
