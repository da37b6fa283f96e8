"""Names of files, folders, patterns and cameras, and the shots that they stand for."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hierseg.errors import AnnotationError, ConfigError
from hierseg.prediction.inputs import Video, expand, is_moving, read_shot


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two images, one of them deeper, and files that are none."""
    (tmp_path / 'album' / 'more').mkdir(parents=True)
    for name in ('b.JPG', 'more/a.png', 'notes.txt', 'clip.mp4', 'more/odd[1].png'):
        (tmp_path / 'album' / name).write_bytes(b'')
    return tmp_path / 'album'


class TestNames:
    def test_a_folder_is_its_images_and_those_below(self, album: Path) -> None:
        assert expand([album]) == [str(album / name) for name in ('b.JPG', 'more/a.png', 'more/odd[1].png')]

    def test_a_pattern_is_the_images_and_videos_that_match(self, album: Path) -> None:
        assert expand([f'{album}/*']) == [str(album / name) for name in ('b.JPG', 'clip.mp4')]
        assert expand([f'{album}/**/*.png']) == [str(album / name) for name in ('more/a.png', 'more/odd[1].png')]

    def test_a_file_whose_name_looks_like_a_pattern(self, album: Path) -> None:
        assert expand([album / 'more' / 'odd[1].png']) == [str(album / 'more' / 'odd[1].png')]

    def test_all_others_are_taken_as_they_are_and_in_order(self, album: Path) -> None:
        names = ['camera:0', str(album / 'notes.txt'), str(album / 'clip.mp4')]
        assert expand(names) == names
        assert [is_moving(name) for name in names] == [True, False, True]

    @pytest.mark.parametrize(
        ('name', 'message'),
        [
            ('nowhere', 'nowhere: the input does not exist'),
            ('empty', 'empty: the folder has no image. Images end in .bmp, .jp2'),
            ('*.gif', r'\*.gif: no image or video matches'),
            ('camera:', 'camera:: a camera is named by its number. Name the first one camera:0'),
        ],
    )
    def test_that_stand_for_nothing(self, tmp_path: Path, monkeypatch, name: str, message: str) -> None:
        monkeypatch.chdir(tmp_path)
        Path('empty').mkdir()
        with pytest.raises(ConfigError, match=message):
            expand([name])


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L', 'P', 'CMYK'])
def test_images_of_pillow_in_any_mode(mode: str) -> None:
    image = Image.new('RGB', (5, 4), (200, 200, 200)).convert(mode)
    shot = read_shot(image, 'turned')
    assert shot.image.shape == (4, 5, 3)
    assert np.abs(shot.image.astype(int) - 200).max() <= 5


class TestVideos:
    def test_says_how_long_and_how_fast_it_is(self, video: str) -> None:
        opened = Video(video)
        assert (opened.fps, opened.count) == (10, 5)
        shots = list(opened)
        assert [shot.frame for shot in shots] == [0, 1, 2, 3, 4]
        assert {(shot.image.shape, shot.source) for shot in shots} == {((64, 80, 3), video)}

    @pytest.mark.parametrize(('most', 'count'), [(2, 2), (9, 5)])
    def test_may_be_cut_short(self, video: str, most: int, count: int) -> None:
        opened = Video(video, max_frames=most)
        assert opened.count == len(list(opened)) == count

    def test_of_too_many_pixels_is_refused(self, video: str) -> None:
        height, width, _ = next(iter(Video(video))).image.shape
        assert Video(video, max_pixels=height * width).count
        with pytest.raises(AnnotationError, match=rf'has {width} x {height} pixels .*--max-pixels'):
            Video(video, max_pixels=height * width - 1)

    def test_a_camera_that_is_not_there(self) -> None:
        with pytest.raises(AnnotationError, match=re.escape('camera:97: the camera cannot be opened')):
            Video('camera:97')
