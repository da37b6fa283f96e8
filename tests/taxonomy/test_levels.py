"""Levels above categories: each data set's own form, in files made by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from word_net import write_word_net

from hierseg.errors import TaxonomyError
from hierseg.taxonomy import Taxonomy, read_taxonomy
from hierseg.taxonomy.__main__ import main
from hierseg.taxonomy.formats import read_draft
from hierseg.taxonomy.levels import Hierarchy

# As in WordNet, but for what lies between: a dog is a canine and a domestic animal, the latter no vertebrate there.
NOUNS = {
    'entity': [],
    'object': ['entity'],
    'animal': ['object'],
    'vertebrate': ['animal'],
    'canine': ['vertebrate'],
    'feline': ['vertebrate'],
    'domestic_animal': ['animal'],
    'dog': ['canine', 'domestic_animal'],
    'wolf': ['canine'],
    'house_cat': ['feline', 'domestic_animal'],
    'sparrow': ['vertebrate'],
    'vehicle': ['object'],
    'car': ['vehicle'],
    'truck': ['vehicle'],
}
LVIS_NAMES = ['dog', 'wolf', 'house_cat', 'sparrow', 'car', 'truck', 'stop_sign']


def parents_by_name(taxonomy: Taxonomy) -> dict[str, list[str]]:
    names = taxonomy.names
    return {names[label]: [names[parent] for parent in parents] for label, parents in enumerate(taxonomy.parents)}


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def coco(path: Path, *categories: dict[str, Any]) -> Path:
    numbered = [{'id': number, **category} for number, category in enumerate(categories, 1)]
    return write(path, {'images': [], 'annotations': [], 'categories': numbered})


class TestWordNet:
    @pytest.fixture
    def lvis(self, tmp_path) -> Path:
        synsets = [{'name': name, 'synset': f'{name}.n.01', 'frequency': 'c', 'synonyms': [name], 'def': ''}
                   for name in LVIS_NAMES]  # fmt: skip
        return coco(tmp_path / 'lvis.json', *synsets)

    @pytest.fixture
    def _word_net(self, tmp_path, monkeypatch) -> None:
        nltk = pytest.importorskip('nltk')
        monkeypatch.setattr(nltk.data, 'path', [str(tmp_path / 'nltk_data')])
        write_word_net(tmp_path / 'nltk_data/corpora/wordnet', NOUNS)

    @pytest.mark.usefixtures('_word_net')
    def test_hypernyms_that_tell_categories_apart(self, lvis):
        draft = read_draft(lvis, levels='wordnet')
        taxonomy = draft.build()
        # The longer way to the top, by canine, is preferred. Entity and object are above all. Vertebrate and animal
        # have the same categories below: the nearer one stays, for both, so that domestic animals are below it. Feline
        # has the cat alone.
        assert parents_by_name(taxonomy) == {
            'dog': ['canine', 'domestic animal'],
            'wolf': ['canine'],
            'house_cat': ['domestic animal'],
            'sparrow': ['vertebrate'],
            'car': ['vehicle'],
            'truck': ['vehicle'],
            'stop_sign': [],
            'canine': ['vertebrate'],
            'vertebrate': [],
            'domestic animal': ['vertebrate'],
            'vehicle': [],
        }
        assert taxonomy.ids[:7] == tuple('1234567')
        assert taxonomy.ids[taxonomy.names.index('canine')] == 'supercategory:canine.n.01'
        assert draft.warnings == ('1 categories are not found there and become root classes: stop_sign (7)',)

    @pytest.mark.usefixtures('_word_net')
    def test_a_category_above_others_stays_even_above_all(self, tmp_path):
        path = coco(tmp_path / 'c.json', {'name': 'beast', 'synset': 'animal.n.01'},
                    {'name': 'dog', 'synset': 'dog.n.01'}, {'name': 'hound', 'synset': 'dog.n.01'})  # fmt: skip
        # The second category of the synset stands beside the first.
        assert parents_by_name(read_taxonomy(path, levels='wordnet')) == {
            'beast': [], 'dog': ['beast'], 'hound': ['beast']
        }  # fmt: skip

    @pytest.mark.usefixtures('_word_net')
    @pytest.mark.parametrize('synset', [None, 7, 'dog', 'dog.n.xx', 'unicorn.n.01'])
    def test_nothing_that_wordnet_knows(self, tmp_path, synset):
        with pytest.raises(TaxonomyError, match='no category has a synset that is in WordNet'):
            read_taxonomy(coco(tmp_path / 'c.json', {'name': 'x', 'synset': synset}), levels='wordnet')

    def test_without_nltk(self, lvis, monkeypatch):
        monkeypatch.setitem(sys.modules, 'nltk.corpus.reader.wordnet', None)  # importing it fails
        with pytest.raises(TaxonomyError, match=r"is not installed\. Install it: pip install 'hierseg\[wordnet\]'"):
            read_taxonomy(lvis, levels='wordnet')

    def test_without_its_data(self, lvis, tmp_path, monkeypatch):
        nltk = pytest.importorskip('nltk')
        monkeypatch.setattr(nltk.data, 'path', [str(tmp_path)])
        with pytest.raises(TaxonomyError, match=r'python -m nltk\.downloader wordnet'):
            read_taxonomy(lvis, levels='wordnet')


TREE = {
    'categoryid2treeid': {'1': 'n1', '2': 'n2', '3': 'n3', '9': 'n9'},
    'id2name': {'n0': 'entity', 'n1': 'sea lion', 'n2': 'seal', 'n3': 'rose', 'n4': 'pinniped', 'n5': 'animal'},
    'child2father': {'n1': ['n4'], 'n2': ['n4'], 'n3': 'n0', 'n4': ['n5'], 'n5': ['n0'], 'n9': ['n0']},
    'father2child': {}, 'ancestor2descendant': {},
}  # fmt: skip


class TestV3Det:
    """Its tree is a file of its own: ids of nodes are those of WordNet or made alike."""

    def annotations(self, tmp_path) -> Path:
        return coco(tmp_path / 'train.json', {'name': 'sea_lion'}, {'name': 'seal'}, {'name': 'rose'})

    def test_tree_over_the_categories_of_the_annotations(self, tmp_path):
        tree = write(tmp_path / 'tree.json', TREE)
        taxonomy = read_taxonomy(tree, classes=self.annotations(tmp_path))
        # Pinniped and animal have the same categories below; entity is above all.
        assert parents_by_name(taxonomy) == {'sea_lion': ['pinniped'], 'seal': ['pinniped'], 'rose': [], 'pinniped': []}
        assert taxonomy.ids == ('1', '2', '3', 'supercategory:n4')

    def test_needs_the_annotations(self, tmp_path):
        with pytest.raises(TaxonomyError, match=r'--classes v3det_2023_v1_train\.json'):
            read_taxonomy(write(tmp_path / 'tree.json', TREE))

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'id2name': None}, 'lacks "categoryid2treeid"'),
            ({'child2father': {'n1': ['n4'], 'n4': ['n5'], 'n5': ['n4']}}, 'cycle n4 → n5'),
        ],
    )
    def test_malformed(self, tmp_path, changes, message):
        tree = write(tmp_path / 'tree.json', {**TREE, **changes})
        with pytest.raises(TaxonomyError, match=message):
            read_taxonomy(tree, classes=self.annotations(tmp_path))


class TestRanks:
    def test_of_inaturalist(self, tmp_path):
        def species(name: str, *ranks: str) -> dict[str, str]:
            fields = ('kingdom', 'phylum', 'class', 'order', 'family', 'genus')
            return {'name': name, 'supercategory': 'Birds', **dict(zip(fields, ranks, strict=True))}

        bird, plant = ('Animalia', 'Chordata', 'Aves', 'Passeriformes'), ('Plantae', 'Tracheophyta', 'Magnoliopsida')
        path = coco(
            tmp_path / 'train.json',
            species('Prunella modularis', *bird, 'Prunellidae', 'Prunella'),
            species('Prunella collaris', *bird, 'Prunellidae', 'Prunella'),
            species('Corvus corax', *bird, 'Corvidae', 'Corvus'),
            species('Prunella vulgaris', *plant, 'Lamiales', 'Lamiaceae', 'Prunella'),
            species('Prunella grandiflora', *plant, 'Lamiales', 'Lamiaceae', 'Prunella'),
        )
        taxonomy = read_taxonomy(path, levels='ranks')
        # A genus of birds and one of plants have one name. Ranks that have the same species below are one class, which
        # has the name of the lowest.
        (birds, plants) = (label for label, name in enumerate(taxonomy.names) if name == 'Prunella')
        order = taxonomy.names.index('Passeriformes')
        assert taxonomy.parents == ((birds,), (birds,), (order,), (plants,), (plants,), (order,), (), ())
        assert taxonomy.ids[birds] == 'supercategory:Animalia/Chordata/Aves/Passeriformes/Prunellidae/Prunella'
        assert taxonomy.num_classes == 8

    def test_none(self, tmp_path):
        with pytest.raises(TaxonomyError, match='no category has kingdom, phylum'):
            read_taxonomy(coco(tmp_path / 'c.json', {'name': 'a'}), levels='ranks')


CATEGORIES = [
    {'name': 'dog', 'supercategory': 'animal/mammal'},
    {'name': 'sparrow', 'supercategory': 'animal > bird'},
    {'name': 'mammal', 'supercategory': 'animal'},
    {'name': 'person', 'supercategory': 'person'},
    {'name': 'thing', 'supercategory': 'None'},
]


class TestPaths:
    def test_levels_of_a_supercategory(self, tmp_path):
        taxonomy = read_taxonomy(coco(tmp_path / 'c.json', *CATEGORIES), levels='paths')
        # Every level stays, and that of a category's own path is the category.
        assert parents_by_name(taxonomy) == {
            'dog': ['mammal'], 'sparrow': ['bird'], 'mammal': ['animal'], 'person': [], 'thing': [],
            'animal': [], 'bird': ['animal'],
        }  # fmt: skip
        assert taxonomy.ids[-2:] == ('supercategory:animal/bird', 'supercategory:animal')

    def test_lint_says_that_there_are_levels(self, tmp_path, capsys):
        path = coco(tmp_path / 'c.json', *CATEGORIES)
        assert main([str(path)]) == 0
        assert (
            "supercategory 'animal/mammal', 'animal > bird' is one class; python -m hierseg.taxonomy --levels paths"
            in capsys.readouterr().out
        )
        assert main([str(path), '--levels', 'paths', '--json', str(tmp_path / 't.json')]) == 0
        assert 'is one class' not in capsys.readouterr().out
        assert read_taxonomy(tmp_path / 't.json') == read_taxonomy(path, levels='paths')

    def test_a_supercategory_that_names_a_category_needs_no_option(self, tmp_path):
        path = coco(tmp_path / 'c.json', {'name': 'dog', 'supercategory': 'mammal'},
                    {'name': 'mammal', 'supercategory': 'animal'})  # fmt: skip
        assert parents_by_name(read_taxonomy(path)) == {'dog': ['mammal'], 'mammal': ['animal'], 'animal': []}

    def test_only_coco_files_have_a_choice(self, tmp_path):
        (tmp_path / 'e.yaml').write_text('a: b\n')
        with pytest.raises(TaxonomyError, match='an edge list has all levels itself'):
            read_taxonomy(tmp_path / 'e.yaml', levels='paths')
        with pytest.raises(TaxonomyError, match='only a COCO file has levels'):
            read_taxonomy(write(tmp_path / 'o.json', {'Subcategory': []}), levels='paths')


@given(st.lists(st.sets(st.integers(0, 9), max_size=3), min_size=2, max_size=10), st.data())
def test_what_is_above_a_category_stays_above_it(rows, data):
    """Of any hierarchy: a kept node has the categories below that it had, no two have the same, none has all."""
    above = {node: sorted(higher for higher in row if higher > node) for node, row in enumerate(rows)}
    above |= {node: [] for node in range(len(rows), 10)}
    named = data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1, unique=True))
    categories = {str(node): {'name': str(node)} for node in named}
    taxonomy = (
        Hierarchy({str(node): node for node in named}, above.__getitem__, name_of=str, text_of=str)
        .draft(categories, where='')
        .build()
    )

    def at_or_below(top: int) -> set[int]:
        found = {top}
        for node in sorted(above):
            found |= {node for _ in range(10) for node in above if found & {*above[node]}}
        return found & {*named}

    sets = []
    for label, class_id in enumerate(taxonomy.ids):
        below = {int(taxonomy.ids[v]) for v in {label, *taxonomy.descendants(label)} if v < len(named)}
        assert below == at_or_below(int(class_id.removeprefix('supercategory:')))
        sets.append(frozenset(below))
        if label >= len(named):
            assert 1 < len(below) < len(named)
    assert len(set(sets)) == len(sets)
