"""COCO categories as a taxonomy, alone and below an edge list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hierseg.errors import TaxonomyError
from hierseg.taxonomy import Taxonomy, read_taxonomy

CATEGORIES = [
    {'id': 1, 'name': 'person', 'supercategory': 'person'},
    {'id': 18, 'name': 'dog', 'supercategory': 'animal'},
    {'id': 3, 'name': 'car', 'supercategory': 'vehicle'},
    {'id': 17, 'name': 'cat', 'supercategory': 'animal'},
]


@pytest.fixture
def read(tmp_path: Path):
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
    def test_categories_keep_their_place_and_supercategories_come_after(self, read):
        taxonomy = read(CATEGORIES)
        assert taxonomy.ids == ('1', '18', '3', '17', 'supercategory:animal', 'supercategory:vehicle')
        assert taxonomy.names == ('person', 'dog', 'car', 'cat', 'animal', 'vehicle')

    def test_a_category_that_is_its_own_supercategory_is_one_root_class(self, read):
        taxonomy = read(CATEGORIES)
        assert parents(taxonomy) == {
            'person': [], 'dog': ['animal'], 'car': ['vehicle'], 'cat': ['animal'], 'animal': [], 'vehicle': []
        }  # fmt: skip

    def test_a_supercategory_named_like_another_category_is_that_category(self, read):
        categories = [
            {'id': 0, 'name': 'sign', 'supercategory': 'none'},
            {'id': 1, 'name': 'stop', 'supercategory': 'sign'},
        ]
        taxonomy = read(categories)
        assert taxonomy.ids == ('0', '1')
        assert taxonomy.parents == ((), (0,))

    @pytest.mark.parametrize('extra', [{}, {'supercategory': ''}, {'supercategory': None}, {'supercategory': 'None'}])
    def test_no_supercategory_makes_a_root_class(self, read, extra):
        assert read([{'id': 7, 'name': 'dog', **extra}]).parents == ((),)

    def test_names_that_look_like_ids(self, read):
        # Digits: category 1 is called 0 and category 2 is called 1.
        digits = [{'id': 1, 'name': '0', 'supercategory': 'digit'}, {'id': 2, 'name': '1', 'supercategory': 'digit'}]
        taxonomy = read(digits)
        assert taxonomy.ids == ('1', '2', 'supercategory:digit')
        assert taxonomy.parents == ((2,), (2,), ())

    @pytest.mark.parametrize(
        ('categories', 'message'),
        [
            ([], 'instances.json: no classes'),
            ('dog', '"categories" is not a list'),
            ([{'id': 1, 'name': 'a'}, {'id': 1, 'name': 'b'}], "category id 1 occurs twice: 'a' and 'b'"),
            ([{'id': '1', 'name': 'a'}], r'instances.json, categories\[0\]: malformed category'),
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
    def test_bad_categories(self, read, categories, message):
        with pytest.raises(TaxonomyError, match=message):
            read(categories)

    def test_a_class_list_beside_a_coco_file(self, read, tmp_path):
        (tmp_path / 'classes.csv').write_text('1,person\n')
        with pytest.raises(TaxonomyError, match=r'the file names its classes itself, and .*classes.csv does too'):
            read(CATEGORIES, classes=tmp_path / 'classes.csv')


class TestEdgeListAbove:
    def test_levels_above_the_supercategories(self, read):
        taxonomy = read(CATEGORIES, edges='child,parent\nanimal,living\nperson,living\n')
        assert parents(taxonomy) == {
            'person': ['living'], 'dog': ['animal'], 'car': ['vehicle'], 'cat': ['animal'],
            'animal': ['living'], 'vehicle': [], 'living': [],
        }  # fmt: skip
        assert taxonomy.ids[:4] == ('1', '18', '3', '17')
        assert taxonomy.ids[6] == 'supercategory:living'
        assert taxonomy.path_name(1) == 'living › animal › dog'

    def test_an_edge_of_a_category_replaces_its_supercategory(self, read):
        taxonomy = read(CATEGORIES, edges='child,parent\ndog,canine\n17,feline\ncanine,animal\nfeline,animal\n')
        assert taxonomy.path_name(1) == 'animal › canine › dog'
        assert taxonomy.path_name(3) == 'animal › feline › cat'

    def test_a_supercategory_that_nothing_is_below_any_more_is_no_class(self, read):
        taxonomy = read(CATEGORIES, edges='child,parent\ndog,\ncat,pet\n')
        assert 'animal' not in taxonomy.names
        assert parents(taxonomy)['dog'] == []

    def test_several_parents_in_yaml_by_name_and_by_id(self, read):
        taxonomy = read(CATEGORIES, edges='dog: [pet, "supercategory:animal"]\n17: pet\n', ending='yaml')
        assert parents(taxonomy)['dog'] == ['pet', 'animal']
        assert parents(taxonomy)['cat'] == ['pet']

    def test_preferred_parent_by_name(self, read):
        edges = 'dog: [pet, animal]\n'
        taxonomy = read(CATEGORIES, edges=edges, ending='yaml', preferred_parents={'dog': 'animal'})
        assert taxonomy.path_name(1) == 'animal › dog'

    def test_a_misspelt_category(self, read):
        with pytest.raises(
            TaxonomyError, match=r"edges.csv, line 3: 'dgo' is neither id nor name of a class in .*inst"
        ):
            read(CATEGORIES, edges='child,parent\ncat,pet\ndgo,pet\n')

    def test_a_name_of_two_categories(self, read):
        categories = [{'id': 1, 'name': 'bat'}, {'id': 2, 'name': 'bat'}]
        with pytest.raises(
            TaxonomyError, match=r"line 2: 'bat' is the id or the name of several classes: \['1', '2'\]"
        ):
            read(categories, edges='child,parent\nbat,animal\n')
        assert parents(read(categories, edges='child,parent\n2,animal\n'))['animal'] == []

    def test_an_open_images_hierarchy_above_coco(self, read, tmp_path):
        read(CATEGORIES)
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
