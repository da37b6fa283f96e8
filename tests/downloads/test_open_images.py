"""The steps of a download, from a small mirror."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mirror import HURRIED, Mirror, serving
from open_images_mirror import ARCHIVES, CLASSES, IMAGE_IDS, IMAGES, TABLES, archive, open_images_mirror

from hierseg.downloads import OpenImagesDownload, Outcome
from hierseg.downloads.open_images import class_ids, image_ids, official_files, sample
from hierseg.errors import AnnotationError, ConfigError, DownloadError, TaxonomyError


@pytest.fixture
def mirror():
    with serving(open_images_mirror()) as mirror:
        yield mirror


@pytest.fixture
def download(mirror, tmp_path):
    """All steps; what was selected and what became of it."""

    def run(**options):
        urls = {'base_url': mirror.url, 'images_url': mirror.url}
        steps = OpenImagesDownload(tmp_path / 'out', **{'split': 'validation', 'policy': HURRIED, **urls, **options})
        plan, outcome = steps.plan(), Outcome()
        with steps.locked():
            steps.tables(plan, outcome)
            selection = steps.select(plan)
            steps.fetch(selection, outcome)
        return selection, outcome

    return run


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file() and path.name[0] != '.'}


class TestSelection:
    @pytest.mark.parametrize(
        ('options', 'images', 'digits'),
        [
            ({}, '012345', '0f'),
            ({'images_with': 'boxes'}, '01234', '0f'),
            ({'images_with': 'masks'}, '034', '0f'),
            ({'classes': ('Dog',)}, '0', '0'),
            ({'classes': ('Dog',), 'images_with': 'labels'}, '05', '0'),
            ({'classes': ('Animal',)}, '0123', '0'),
            ({'classes': ('Animal',), 'images_with': 'masks'}, '03', '0'),
            ({'classes': ('Toy', '/m/car')}, '34', '0f'),
            ({'classes': ('Cat',)}, '1', ''),
        ],
    )
    def test_only_what_is_needed_is_fetched(self, mirror, download, tmp_path, options, images, digits):
        selection, outcome = download(**options)
        expected = {*TABLES, *map(archive, digits), *(IMAGES[int(number)] for number in images)}
        assert files_in(tmp_path / 'out') == expected
        assert selection.image_ids == tuple(sorted(IMAGE_IDS[int(number)] for number in images))
        assert (outcome.num_fetched, outcome.num_there, outcome.failed) == (len(expected), 0, {})
        assert outcome.num_bytes == sum(len(mirror.files[name]) for name in expected)
        for name in expected:
            assert (tmp_path / 'out' / name).read_bytes() == mirror.files[name]

    def test_a_larger_sample_adds_to_a_smaller_one(self, download):
        smaller, _ = download(max_images=2)
        larger, outcome = download(max_images=4)
        assert (len(smaller.image_ids), len(larger.image_ids), larger.num_named) == (2, 4, 6)
        assert set(smaller.image_ids) < set(larger.image_ids)
        assert outcome.num_there == 2

    def test_a_hierarchy_of_ones_own(self, download, tmp_path):
        (tmp_path / 'mine.yaml').write_text('Cat: Vehicle\nCar: Vehicle\n')
        selection, _ = download(classes=('Vehicle',), hierarchy=tmp_path / 'mine.yaml')
        assert selection.image_ids == (IMAGE_IDS[1], IMAGE_IDS[4])

    def test_classes_that_nothing_is_of(self, mirror, download):
        mirror.files[CLASSES] += b'/m/kite,Kite\n'
        with pytest.raises(AnnotationError, match='no image has anything of these classes'):
            download(classes=('Kite',))

    def test_unknown_classes(self, download):
        with pytest.raises(TaxonomyError, match="no class is called 'Dgo'"):
            download(classes=('Dgo',))


class TestOnceMore:
    def test_nothing_is_fetched_twice(self, mirror, download):
        download()
        gets = [request for request in mirror.requests if request.method == 'GET']
        before = len(mirror.requests)
        _, outcome = download()
        assert (outcome.num_fetched, outcome.num_there, outcome.num_bytes) == (0, len(IMAGES), 0)
        assert [request for request in mirror.requests if request.method == 'GET'] == gets
        # One question for each table and archive, two whether the servers are there, none for images.
        assert len(mirror.requests) - before == len(TABLES) + len(ARCHIVES) + 2

    def test_a_table_that_changed_is_fetched(self, mirror, download, tmp_path):
        download(classes=('Dog',))
        mirror.files[CLASSES] = mirror.files[CLASSES].replace(b'Cat', b'Cow')
        _, outcome = download(classes=('Cow',))
        assert outcome.num_fetched == 2  # the table and image 1
        assert (tmp_path / 'out' / CLASSES).read_bytes() == mirror.files[CLASSES]

    def test_damaged_files_are_fetched(self, mirror, download, tmp_path):
        download()
        for name in (CLASSES, archive('0'), IMAGES[0]):
            path = tmp_path / 'out' / name
            path.write_bytes(b'x' + path.read_bytes()[1:])
        _, outcome = download()
        assert outcome.num_fetched == 3
        for name in (CLASSES, archive('0'), IMAGES[0]):
            assert (tmp_path / 'out' / name).read_bytes() == mirror.files[name]

    def test_what_a_download_made_is_a_mirror(self, mirror, download, tmp_path):
        download()
        copy = Mirror()
        copy.files = {f'pub/{name}': (tmp_path / 'out' / name).read_bytes() for name in files_in(tmp_path / 'out')}
        copy.files.update({f'pub/{name}': b'' for name in ARCHIVES if f'pub/{name}' not in copy.files})
        (tmp_path / 'out').rename(tmp_path / 'first')
        with serving(copy):
            download(base_url=f'{copy.url}pub', images_url=f'{copy.url}pub/')
        assert files_in(tmp_path / 'out') == files_in(tmp_path / 'first')


class TestMissing:
    def test_the_rest_comes_and_a_list_says_what_did_not(self, mirror, download, tmp_path):
        image = mirror.files.pop(IMAGES[2])
        del mirror.files[archive('f')]
        _, outcome = download()
        assert outcome.num_fetched == len(TABLES) + 1 + 5
        listed = (tmp_path / 'out/not_fetched.csv').read_text().splitlines()
        assert listed == [
            'file,address,why',
            f'{archive("f")},{mirror.url}{archive("f")},404 Not Found',
            f'{IMAGES[2]},{mirror.url}{IMAGES[2]},404 Not Found',
        ]
        assert [request.path for request in mirror.requests].count(IMAGES[2]) == 1
        mirror.files[IMAGES[2]] = image
        _, outcome = download()
        assert (outcome.num_fetched, [file.name for file in outcome.failed]) == (1, [archive('f')])
        mirror.files[archive('f')] = b'PK'
        download()
        assert not (tmp_path / 'out/not_fetched.csv').exists()

    def test_without_a_table_there_is_nothing_to_do(self, mirror, download):
        del mirror.files[TABLES[2]]
        with pytest.raises(DownloadError, match=r'-bbox\.csv: the table cannot be had \(404 Not Found\)'):
            download()

    def test_nobody_listens(self, download):
        with pytest.raises(DownloadError, match=r'^http://127\.0\.0\.1:1: the server cannot be reached \(.*refused'):
            download(base_url='http://127.0.0.1:1/x/')
        with pytest.raises(DownloadError, match=r'^http://127\.0\.0\.1:1: the server cannot be reached'):
            download(images_url='http://127.0.0.1:1/')

    def test_a_name_that_nobody_knows(self, download):
        with pytest.raises(DownloadError, match='the server cannot be reached'):
            download(base_url='http://mirror.invalid/')

    def test_a_network_that_goes_away_ends_the_run(self, mirror, tmp_path):
        with serving(open_images_mirror()) as other:
            urls = {'base_url': mirror.url, 'images_url': other.url}
            steps = OpenImagesDownload(tmp_path / 'out', 'validation', **urls, policy=HURRIED, workers=1)
            plan, outcome = steps.plan(), Outcome()
            with steps.locked():
                steps.tables(plan, outcome)
        with pytest.raises(DownloadError, match='the server cannot be reached'):
            steps.fetch(steps.select(plan), outcome)
        assert outcome.num_fetched == len(TABLES) + 2  # and the archives, from the other server


class TestPlan:
    def plan(self, mirror, tmp_path, **options):
        urls = {'base_url': mirror.url, 'images_url': mirror.url}
        options = {'split': 'validation', 'policy': HURRIED, **urls, **options}
        return OpenImagesDownload(tmp_path / 'out', **options).plan()

    def test_says_what_there_is(self, mirror, tmp_path):
        del mirror.files[archive('7')]
        mirror.files[archive('f')] = bytes(12_345_678)
        plan = self.plan(mirror, tmp_path)
        files = {file.name: file for file in (*plan.tables, *plan.archives)}
        assert files[CLASSES].num_missing == len(mirror.files[CLASSES])
        assert files[archive('f')].num_missing == 12_345_678
        assert (files[archive('7')].size, files[archive('7')].problem) == (None, '404 Not Found')
        assert plan.most_images == 41_620
        assert not (tmp_path / 'out').exists()
        assert {request.method for request in mirror.requests} == {'HEAD'}

    def test_sums_up(self, mirror, download, tmp_path):
        download()
        plan = self.plan(mirror, tmp_path, max_images=3)
        files = [*TABLES, *ARCHIVES]
        there = [*TABLES, archive('0'), archive('f')]
        assert {file.name for file in (*plan.tables, *plan.archives) if file.is_whole} == set(there)
        assert sum(file.size for file in (*plan.tables, *plan.archives)) == sum(len(mirror.files[n]) for n in files)
        missing = sum(len(mirror.files[name]) for name in files if name not in there)
        assert sum(file.num_missing for file in (*plan.tables, *plan.archives)) == missing
        assert plan.most_images == 3

    @pytest.mark.parametrize(('free', 'what'), [(500, 'the tables take'), (100_000, 'images and masks take')])
    def test_a_disk_that_is_too_small(self, mirror, download, monkeypatch, free, what):
        # The tables have about 1.3 kB; six images are taken to have 294 kB each.
        usage = namedtuple('usage', 'total used free')
        monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10**12, 10**12 - free, free))
        with pytest.raises(DownloadError, match=f'{what} .* more, and {"500 B" if free == 500 else "100 kB"} are free'):
            download()
        assert all(mirror.gets(name) == [] for name in (*IMAGES, *ARCHIVES))


class TestOptions:
    @pytest.mark.parametrize(
        'options',
        [
            {'split': 'val'},
            {'release': 'v5'},
            {'images_with': 'points'},
            {'max_images': 0},
            {'workers': 0},
            {'base_url': 'storage.googleapis.com'},
            {'images_url': 's3://open-images-dataset'},
        ],
    )
    def test_bad_ones(self, tmp_path, options):
        with pytest.raises(ConfigError):
            OpenImagesDownload(tmp_path, **{'split': 'train', **options})

    def test_the_challenge_has_no_test_annotations(self, tmp_path):
        with pytest.raises(ConfigError, match='were never published'):
            OpenImagesDownload(tmp_path, 'test')

    def test_only_one_at_a_time(self, tmp_path):
        steps = [OpenImagesDownload(tmp_path, 'train') for _ in range(2)]
        with steps[0].locked(), pytest.raises(DownloadError, match='another run'), steps[1].locked():
            pass
        with steps[1].locked():
            assert (tmp_path / '.hierseg.lock').exists()


# As on the official download pages.
@pytest.mark.parametrize(
    ('release', 'split', 'path'),
    [
        ('challenge-2019', 'train', 'challenge_2019/challenge-2019-train-segmentation-bbox.csv'),
        ('challenge-2019', 'train', 'challenge_2019/challenge-2019-train-segmentation-labels.csv'),
        ('challenge-2019', 'train', 'challenge_2019/challenge-2019-train-segmentation-masks.csv'),
        ('challenge-2019', 'validation', 'challenge_2019/validation-masks/challenge-2019-validation-masks-f.zip'),
        ('challenge-2019', 'train', 'challenge_2019/challenge-2019-label300-segmentable-hierarchy.json'),
        ('challenge-2019', 'train', 'challenge_2019/challenge-2019-classes-description-segmentable.csv'),
        ('v7', 'train', 'v6/oidv6-train-annotations-bbox.csv'),
        ('v7', 'test', 'v5/test-annotations-bbox.csv'),
        ('v7', 'train', 'v5/train-annotations-human-imagelabels-boxable.csv'),
        ('v7', 'validation', 'v5/validation-annotations-object-segmentation.csv'),
        ('v7', 'test', 'v5/test-masks/test-masks-0.zip'),
        ('v7', 'train', '2018_04/bbox_labels_600_hierarchy.json'),
        ('v7', 'train', 'v7/oidv7-class-descriptions-boxable.csv'),
    ],
)
def test_official_paths(release, split, path):
    tables, archives = official_files(release, split)
    assert path in (*tables.values(), *archives.values())
    assert len(archives) == 16


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
