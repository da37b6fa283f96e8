"""Which images tables and classes ask for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierseg.downloads.selection import class_ids, image_ids, sample
from hierseg.errors import AnnotationError, TaxonomyError

A, B, C = (letter * 16 for letter in 'abc')


@pytest.fixture
def classes(tmp_path):
    path = tmp_path / 'classes.csv'
    path.write_text('/m/a,Animal\n/m/d,Dog\n/m/t,Teddy bear\n/m/y,Toy\n/m/c,Car\n/m/x,Extra\n')
    return path


@pytest.fixture
def hierarchy(tmp_path):
    def node(class_id, *below):
        return {'LabelName': class_id, **({'Subcategory': list(below)} if below else {})}

    path = tmp_path / 'hierarchy.json'
    top = node('/m/0bl9f', node('/m/a', node('/m/d'), node('/m/t')), node('/m/y', node('/m/t')), node('/m/c'))
    top['Subcategory'][2]['Part'] = [node('/m/wheel')]
    path.write_text(json.dumps(top))
    return path


class TestClassIds:
    @pytest.mark.parametrize(
        ('names', 'expected'),
        [
            (['Animal'], 'adt'),
            (['/m/a'], 'adt'),
            (['Toy'], 'yt'),  # by the other parent
            (['Car', 'Dog'], 'cd'),
            (['Extra'], 'x'),  # listed, but outside the hierarchy
        ],
    )
    def test_descendants_belong_to_a_class(self, classes, hierarchy, names, expected):
        found = class_ids(names, hierarchy=hierarchy, classes=classes)
        assert found == {f'/m/{letter}' for letter in expected}

    def test_parts_are_no_descendants(self, classes, hierarchy):
        assert '/m/wheel' not in class_ids(['Car'], hierarchy=hierarchy, classes=classes)

    def test_a_hierarchy_alone_stands_for_its_classes(self, classes, tmp_path):
        path = tmp_path / 'mine.csv'
        path.write_text('child,parent\nDog,Animal\n/m/t,\n')
        assert class_ids([], hierarchy=path, classes=classes) == {'/m/a', '/m/d', '/m/t'}
        assert class_ids(['Animal'], hierarchy=path, classes=classes) == {'/m/a', '/m/d'}

    def test_an_unknown_class(self, classes, hierarchy):
        with pytest.raises(TaxonomyError, match=r"no class is called 'Dgo'\. Is it 'Dog'\?"):
            class_ids(['Dgo'], hierarchy=hierarchy, classes=classes)


class TestImageIds:
    def write(self, tmp_path, name, *rows):
        path = tmp_path / name
        path.write_text('\n'.join(['LabelName,Source,ImageID', *rows]) + '\n')
        return path

    def test_of_several_tables_and_some_classes(self, tmp_path):
        first = self.write(tmp_path, '1.csv', f'/m/d,x,{B}', f'/m/c,x,{A}', f'/m/d,y,{B}')
        second = self.write(tmp_path, '2.csv', f'/m/d,x,{C}')
        assert image_ids([first, second], classes=None) == [A, B, C]
        assert image_ids([first, second], classes={'/m/d'}) == [B, C]
        assert image_ids([first], classes=set()) == []

    def test_an_id_of_digits_is_text(self, tmp_path):
        path = self.write(tmp_path, '1.csv', '/m/d,x,0000000000000012', '/m/d,x,00000000000001e2')
        assert image_ids([path], classes=None) == ['0000000000000012', '00000000000001e2']

    @pytest.mark.parametrize('bad', ['../../../../etc/passwd', 'AAAAAAAAAAAAAAAA', 'abc', ''])
    def test_an_id_becomes_no_other_path(self, tmp_path, bad):
        path = self.write(tmp_path, '1.csv', f'/m/d,x,{bad}')
        with pytest.raises(AnnotationError, match='16 hex digits'):
            image_ids([path], classes=None)

    @pytest.mark.parametrize(
        'text', ['', 'ImageID,Confidence\n', '<html>not found</html>\n', f'ImageID,LabelName\n{A}\n']
    )
    def test_no_such_table(self, tmp_path, text):
        path = tmp_path / 'bad.csv'
        path.write_text(text)
        with pytest.raises(AnnotationError, match=r'bad\.csv: cannot be read as a table'):
            image_ids([path], classes=None)


@given(count=st.integers(0, 60), seed=st.integers(0, 5))
def test_a_smaller_sample_is_part_of_a_larger_one(count, seed):
    ids = [f'{number:016x}' for number in range(50)]
    chosen = sample(ids, count, seed=seed)
    assert len(chosen) == min(count, 50)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(sample(ids, count + 1, seed=seed))


def test_samples_depend_on_the_seed():
    ids = [f'{number:016x}' for number in range(50)]
    assert sample(ids, 10, seed=0) != sample(ids, 10, seed=1)
    assert sample(ids, 10, seed=0) == sample(ids, 10, seed=0)


def test_the_real_hierarchy(test_data):
    folder = test_data / 'openimages'
    hierarchy = folder / 'challenge-2019-label300-segmentable-hierarchy.json'
    classes = folder / 'challenge-2019-classes-description-segmentable.csv'
    assert len(class_ids([], hierarchy=hierarchy, classes=classes)) == 300
    # Person › Man, Woman, Boy, Girl.
    assert len(class_ids(['Person'], hierarchy=hierarchy, classes=classes)) == 5
    assert '/m/0kmg4' in class_ids(['Carnivore'], hierarchy=hierarchy, classes=classes)
