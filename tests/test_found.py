"""Detections as data, and every form that other programs take: read back with the programs themselves."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from pycocotools.coco import COCO

import hierseg.found
from hierseg.errors import AnnotationError, ConfigError
from hierseg.found import Found, coco_document, run_lengths_of
from hierseg.pictures import read_picture, write_picture

# Vehicle; Person > Man, Woman; Toy and Bear with a common child Teddy, which prefers Toy.
NAMES = ('Vehicle', 'Person', 'Man', 'Woman', 'Toy', 'Bear', 'Teddy')
PARENTS = ((), (), (1,), (1,), (), (), (4, 5))
SIZE = (40, 60)


def masks() -> np.ndarray:
    """Two masks of 10 x 12 = 120 and 6 x 5 = 30 pixels."""
    planes = np.zeros((2, *SIZE), dtype=bool)
    planes[0, 10:20, 5:17] = planes[1, 30:36, 50:55] = True
    return planes


@pytest.fixture
def found() -> Found:
    """A man, and a teddy that is nearly as much a bear; the boxes lie within half a pixel of the masks."""
    class_scores = np.zeros((2, 7), dtype=np.float32)
    class_scores[0, [1, 2, 3]] = 0.9, 0.7, 0.2
    class_scores[1, [4, 5, 6]] = 0.6, 0.5, 0.4
    return Found(
        image_size=SIZE,
        boxes=np.array([[5.25, 10.5, 16.5, 19.75], [50, 30, 55, 36]], dtype=np.float32),
        scores=np.array([0.7, 0.4], dtype=np.float32),
        labels=np.array([2, 6]),
        class_scores=class_scores,
        masks=run_lengths_of(masks()),
        names=NAMES,
        parents=PARENTS,
        image=np.full((*SIZE, 3), 200, dtype=np.uint8),
    )


@pytest.fixture
def nothing(found: Found) -> Found:
    return found[found.scores > 1]


@pytest.fixture
def boxes_only(found: Found) -> Found:
    changed = copy.copy(found)
    object.__setattr__(changed, 'masks', None)
    return changed


class TestInstances:
    def test_one_has_a_name_a_path_and_a_text(self, found: Found) -> None:
        man, teddy = found
        assert (man.name, man.path, man.label, str(man)) == ('Man', ('Person', 'Man'), 2, 'Person › Man 0.70')
        assert teddy.path == ('Toy', 'Teddy')
        assert man.score == pytest.approx(0.7)
        assert man.class_scores.tolist() == found.class_scores[0].tolist()

    def test_masks_come_back(self, found: Found, boxes_only: Found) -> None:
        np.testing.assert_array_equal([instance.mask for instance in found], masks())
        np.testing.assert_array_equal(found.decoded_masks(), masks())
        assert boxes_only[0].mask is None
        assert boxes_only.decoded_masks() is None

    def test_fewer_by_any_index(self, found: Found) -> None:
        assert len(found) == 2
        assert found[-1].name == found[[1]][0].name == found[found.scores < 0.5][0].name == found[1:][0].name == 'Teddy'
        turned = found[::-1]
        assert [instance.name for instance in turned] == ['Teddy', 'Man']
        np.testing.assert_array_equal(turned.decoded_masks(), masks()[::-1])
        with pytest.raises(IndexError):
            found[2]

    # Man has 0.7 / 0.9 = 0.78 of its root; of the teddy's roots Toy is the more probable, Teddy has 0.4 / 0.6 = 0.67.
    @pytest.mark.parametrize(
        ('threshold', 'names', 'scores'),
        [(0.5, ['Man', 'Teddy'], [0.7, 0.4]), (0.7, ['Man', 'Toy'], [0.7, 0.6]), (0.8, ['Person', 'Toy'], [0.9, 0.6])],
    )
    def test_backs_off(self, found: Found, threshold: float, names: list[str], scores: list[float]) -> None:
        changed = found.back_off(threshold)
        assert [instance.name for instance in changed] == names
        assert changed.scores.tolist() == pytest.approx(scores)
        np.testing.assert_array_equal(changed.decoded_masks(), masks())

    def test_backs_off_where_there_is_nothing(self, nothing: Found) -> None:
        assert len(nothing.back_off(0.9)) == 0


class TestJson:
    def test_a_line_says_it_all(self, found: Found) -> None:
        (line,) = json.dumps(found.to_json(), allow_nan=False).splitlines()
        document = json.loads(line)
        assert {key: document[key] for key in ('source', 'frame', 'height', 'width')} == {
            'source': None, 'frame': None, 'height': 40, 'width': 60,
        }  # fmt: skip
        man, teddy = document['instances']
        assert man['path'] == ['Person', 'Man']
        assert man['box'] == [5.25, 10.5, 16.5, 19.75]
        assert np.float32(man['score']) == np.float32(0.7)
        assert {name: np.float32(score) for name, score in teddy['class_scores'].items()} == {
            'Toy': np.float32(0.6), 'Bear': np.float32(0.5), 'Teddy': np.float32(0.4),
        }  # fmt: skip
        assert teddy['mask'] == found.masks[1]

    def test_classes_of_one_name_are_told_apart(self, found: Found) -> None:
        changed = copy.copy(found)
        object.__setattr__(changed, 'names', ('Vehicle', 'Person', 'Small', 'Woman', 'Toy', 'Bear', 'Small'))
        assert [list(entry['class_scores']) for entry in changed.to_json()['instances']] == [
            ['Person', 'Person › Small', 'Woman'], ['Toy', 'Bear', 'Toy › Small'],
        ]  # fmt: skip

    def test_without_masks_and_without_instances(self, boxes_only: Found, nothing: Found) -> None:
        assert all('mask' not in entry for entry in boxes_only.to_json()['instances'])
        assert nothing.to_json()['instances'] == []


class TestCoco:
    def test_pycocotools_reads_it(self, found: Found, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / 'found.json').write_text(json.dumps(coco_document([found, found[1:]])))
        coco = COCO(str(tmp_path / 'found.json'))
        assert [len(coco.getAnnIds(imgIds=[image])) for image in (1, 2)] == [2, 1]
        first, *_, last = coco.loadAnns(coco.getAnnIds())
        assert first['bbox'] == [5.25, 10.5, 11.25, 9.25]
        assert (first['area'], last['area']) == (120, 30)
        np.testing.assert_array_equal(coco.annToMask(first), masks()[0])
        man, teddy = coco.loadCats([first['category_id'], last['category_id']])
        assert (man['name'], man['supercategory'], teddy['supercategory']) == ('Man', 'Person', 'Toy')
        assert coco.cats[1] == {'id': 1, 'name': 'Vehicle', 'supercategory': 'Vehicle'}

    def test_annotations_are_coco_results(self, found: Found, capsys: pytest.CaptureFixture[str]) -> None:
        coco = COCO()
        coco.dataset = found.to_coco()
        coco.createIndex()
        results = coco.loadRes(copy.deepcopy(coco.dataset['annotations']))
        assert [results.anns[key]['score'] for key in (1, 2)] == pytest.approx([0.7, 0.4])

    def test_boxes_have_their_own_area(self, boxes_only: Found) -> None:
        first = boxes_only.to_coco()['annotations'][0]
        assert 'segmentation' not in first
        assert first['area'] == 11.25 * 9.25


class TestTables:
    def test_a_row_for_each(self, found: Found) -> None:
        table = found.to_pandas()
        assert table.columns.tolist() == [
            'source', 'frame', 'name', 'path', 'label', 'score', 'x1', 'y1', 'x2', 'y2', 'area',
        ]  # fmt: skip
        assert table['path'].tolist() == ['Person › Man', 'Toy › Teddy']
        assert table['area'].tolist() == [120, 30]
        assert table[['x1', 'y1', 'x2', 'y2']].to_numpy().tolist() == found.boxes.tolist()

    def test_without_masks_and_without_instances(self, boxes_only: Found, nothing: Found) -> None:
        assert 'area' not in boxes_only.to_pandas()
        assert nothing.to_pandas().columns.tolist() == [*boxes_only.to_pandas().columns, 'area']
        assert len(nothing.to_pandas()) == 0


class TestSupervision:
    def test_detections(self, found: Found) -> None:
        pytest.importorskip('supervision')
        detections = found.to_supervision()
        np.testing.assert_array_equal(detections.xyxy, found.boxes)
        np.testing.assert_array_equal(detections.mask, masks())
        assert detections.class_id.tolist() == [2, 6]
        assert detections['path'].tolist() == ['Person › Man', 'Toy › Teddy']
        assert detections[detections.confidence > 0.5]['class_name'].tolist() == ['Man']

    def test_without_masks_and_without_instances(self, boxes_only: Found, nothing: Found) -> None:
        pytest.importorskip('supervision')
        assert boxes_only.to_supervision().mask is None
        assert len(nothing.to_supervision()) == 0


class TestFiftyOne:
    def test_masks_lie_where_they_were(self, found: Found) -> None:
        pytest.importorskip('fiftyone')
        man, teddy = found.to_fiftyone().detections
        assert (man.label, man.path, man.confidence) == ('Man', ['Person', 'Man'], pytest.approx(0.7))
        for detection, mask in zip((man, teddy), masks(), strict=True):
            left, top, width, height = detection.bounding_box * np.array([60, 40, 60, 40])
            canvas = np.zeros(SIZE, dtype=bool)
            edges = ((top, top + height), (left, left + width))
            rows, columns = (np.arange(round(start), round(end)) for start, end in edges)
            canvas[np.ix_(rows, columns)] = detection.mask
            np.testing.assert_array_equal(canvas, mask)

    def test_boxes_stay_as_they_are(self, boxes_only: Found) -> None:
        pytest.importorskip('fiftyone')
        man = boxes_only.to_fiftyone().detections[0]
        assert man.mask is None
        assert man.bounding_box == pytest.approx([5.25 / 60, 10.5 / 40, 11.25 / 60, 9.25 / 40])


@pytest.mark.parametrize('form', ['pandas', 'supervision', 'fiftyone'])
def test_a_missing_package_is_named(found: Found, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, form, None)
    with pytest.raises(ConfigError, match=f'{form} is not installed. pip install {form}'):
        getattr(found, f'to_{form}')()


class TestDrawing:
    def test_masks_are_tinted_and_the_rest_is_not(self, found: Found) -> None:
        drawn = found.draw()
        # 60 pixels become 600: tenfold would be 10.7, but six times is the most.
        assert drawn.shape == (240, 360, 3)
        assert drawn.dtype == np.uint8
        inside, outside = drawn[15 * 6, 11 * 6], drawn[2, 355]
        assert np.abs(inside.astype(int) - 200).max() > 40
        assert outside.tolist() == [200, 200, 200]
        assert np.array_equal(found.image, np.full((*SIZE, 3), 200)), 'the image itself was drawn on'

    def test_relatives_look_alike(self, found: Found) -> None:
        """The teddy's hue is that of the toys, the man's that of persons."""
        colors = hierseg.found._colors(NAMES, PARENTS)
        hues = [cv2.cvtColor(color[None, None], cv2.COLOR_RGB2HSV)[0, 0, 0].astype(int) for color in colors]
        assert abs(hues[6] - hues[4]) < 8 < abs(hues[6] - hues[1])

    @pytest.mark.parametrize('ending', ['.png', '.jpg'])
    def test_the_file_has_what_was_drawn(self, found: Found, tmp_path, ending: str) -> None:
        drawn = found.draw(tmp_path / 'new' / f'drawn{ending}')
        written = read_picture(tmp_path / 'new' / f'drawn{ending}')
        assert np.abs(written.astype(int) - drawn).mean() < (3 if ending == '.jpg' else 1e-9)

    def test_an_ending_that_is_none(self, found: Found, tmp_path) -> None:
        for name in ('drawn', 'drawn.txt'):
            with pytest.raises(ConfigError, match='is no format of images'):
                found.draw(tmp_path / name)

    def test_nothing_leaves_the_picture_as_it_was(self, nothing: Found) -> None:
        assert (nothing.draw() == 200).all()

    @pytest.mark.parametrize(('orientation', 'size'), [('turned', (60, 40)), ('stored', (40, 60))])
    def test_a_file_is_read_as_it_was(self, found: Found, tmp_path, orientation: str, size: tuple[int, int]) -> None:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        Image.new('RGB', (60, 40), (0, 0, 200)).save(tmp_path / 'turned.jpg', exif=exif)
        changed = copy.copy(found)
        for name, value in (('image', None), ('source', str(tmp_path / 'turned.jpg')), ('orientation', orientation)):
            object.__setattr__(changed, name, value)
        assert changed.picture().shape[:2] == size
        if orientation == 'stored':
            assert changed.draw().shape == (240, 360, 3)
        else:
            with pytest.raises(AnnotationError, match='the image has 40 x 60 and not 60 x 40 pixels'):
                changed.draw()

    def test_without_an_image(self, found: Found) -> None:
        changed = copy.copy(found)
        object.__setattr__(changed, 'image', None)
        with pytest.raises(ConfigError, match='the image was not kept'):
            changed.draw()
        np.testing.assert_array_equal(changed.draw(image=found.image), found.draw())


def test_pictures_come_back(tmp_path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_picture(picture, tmp_path / 'x.png')
    np.testing.assert_array_equal(read_picture(tmp_path / 'x.png'), picture)


def test_needs_no_torch_and_draws_without() -> None:
    script = """
import sys
import numpy as np
from hierseg.found import Found
assert not {'torch', 'mmdet', 'mmcv', 'mmengine', 'pandas', 'networkx', 'matplotlib'} & sys.modules.keys()
score = np.array([0.5])
found = Found((20, 30), np.array([[2., 2, 9, 9]]), score, np.array([0]), score[None], None, ('A',), ((),))
found.draw(image=np.zeros((20, 30, 3), np.uint8))
assert not {'torch', 'mmdet', 'mmcv', 'mmengine', 'pandas'} & sys.modules.keys()
"""
    subprocess.run([sys.executable, '-c', script], check=True)
