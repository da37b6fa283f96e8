"""Edge lists in CSV and YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from hierseg.errors import TaxonomyError
from hierseg.taxonomy import Taxonomy, read_taxonomy

TEDDY = Taxonomy.from_edges(
    ['teddy', 'toy', 'bear', 'animal'], [('teddy', 'toy'), ('teddy', 'bear'), ('bear', 'animal')]
)


@pytest.fixture
def read(tmp_path: Path):
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
    def test_forms(self, read, text):
        # A class that occurs only as a parent (toy, animal) is one too; order is that of mention.
        assert read(text) == TEDDY

    def test_columns_in_another_order(self, read):
        assert read('parent,child\ntoy,teddy\nbear,teddy\nanimal,bear\n') == TEDDY

    def test_names(self, read):
        taxonomy = read('child,parent,name\nteddy,toy,Teddy bear\nteddy,bear,\nbear,,"Bear, any"\n')
        assert taxonomy.ids == ('teddy', 'toy', 'bear')
        assert taxonomy.names == ('Teddy bear', 'toy', 'Bear, any')

    def test_ids_are_text(self, read):
        assert read('child,parent\n007,1e5\n').ids == ('007', '1e5')

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
    def test_bad_lists(self, read, text, message):
        with pytest.raises(TaxonomyError, match=message):
            read(text)


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
    def test_forms(self, read, text, ending):
        assert read(text, ending=ending) == TEDDY

    def test_scalars_are_taken_as_written(self, read):
        taxonomy = read('no: 007\n1.50: yes\n2020-01-01: "null"\n', ending='yaml')
        assert taxonomy.ids == ('no', '007', '1.50', 'yes', '2020-01-01', 'null')

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('', 'edges.yaml: no classes'),
            ('a: [b\nc: d\n', r'edges.yaml, line \d: not valid YAML'),
            ('a: b\n\tc: d\n', r'edges.yaml, line 2: not valid YAML'),
            ('a: b\n--- \nc: d\n', r'edges.yaml, line 2: not valid YAML'),
            ('a: *b\n', r'edges.yaml, line 1: not valid YAML'),
            ('a: \0\n', 'edges.yaml: not valid YAML: unacceptable character'),
            ('[' * 1500, 'edges.yaml: not valid YAML'),
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
    def test_bad_lists(self, read, text, message):
        with pytest.raises(TaxonomyError, match=message):
            read(text, ending='yaml')


class TestClassList:
    CLASSES = '/m/3,Car\n/m/1,Animal\n/m/2,Bear\n'

    def test_edges_by_id_and_by_name_and_classes_without_an_edge(self, read):
        taxonomy = read('child,parent\n/m/2,Animal\n', classes=self.CLASSES)
        assert taxonomy.ids == ('/m/3', '/m/1', '/m/2')
        assert taxonomy.names == ('Car', 'Animal', 'Bear')
        assert taxonomy.parents == ((), (), (1,))

    def test_an_unknown_class(self, read):
        with pytest.raises(
            TaxonomyError, match=r"edges.csv, line 3: 'bear' is neither id nor name .*classes.csv. Check"
        ):
            read('child,parent\nBear,Animal\nbear,Animal\n', classes=self.CLASSES)

    def test_all_unknown_classes_are_told(self, read):
        with pytest.raises(TaxonomyError, match=r"2 problems: .*line 2: 'x' is neither.*line 3: 'y' is neither"):
            read('child,parent\nx,Animal\nCar,y\n', classes=self.CLASSES)

    def test_an_ambiguous_name(self, read):
        with pytest.raises(TaxonomyError, match=r"'Bear' is the id or the name of several classes: \['/m/2', '/m/4'\]"):
            read('child,parent\nBear,Animal\n', classes=self.CLASSES + '/m/4,Bear\n')

    def test_another_name_than_in_the_list(self, read):
        with pytest.raises(TaxonomyError, match="class '/m/2' is named 'Bear' and 'Ours'"):
            read('child,parent,name\n/m/2,/m/1,Ours\n', classes=self.CLASSES)

    def test_a_class_that_is_listed_twice(self, read):
        with pytest.raises(TaxonomyError, match=r"classes.csv, line 4: class '/m/1' is listed twice"):
            read('child,parent\nBear,Animal\n', classes=self.CLASSES + '/m/1,Animals\n')
