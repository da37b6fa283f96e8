"""Which reader takes a file, and hierseg's own JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from taxonomies import random_taxonomies, teddy_taxonomy

from hierseg.errors import TaxonomyError
from hierseg.files import write_json
from hierseg.taxonomy import Taxonomy, read_taxonomy
from hierseg.taxonomy.readers import OPEN_IMAGES_PREFERRED_PARENTS


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
        ('t.json', '', r't.json, line 1: not valid JSON'),
        ('t.json', b'\xff\xfe{\x00}\x00', r't.json, line 1: not UTF-8'),
        ('t.yaml', b'a: b\nb\xe4r: c\n', r't.yaml, line 2: not UTF-8'),
    ],
)
def test_files_that_are_no_hierarchy(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TaxonomyError, match=message):
        read_taxonomy(tmp_path / name)


def test_missing_files(tmp_path):
    with pytest.raises(TaxonomyError, match=r'none.json: cannot read the file \(No such file or directory\)'):
        read_taxonomy(tmp_path / 'none.json')
    with pytest.raises(TaxonomyError, match=r'cannot read the file \(Is a directory\)'):
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
