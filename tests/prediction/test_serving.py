"""The page of `hierseg serve`: its parts, and the whole in Chromium.

The whole skips without Gradio, Selenium, Chromium and its driver. Gradio wants an older Pillow than constraints.txt
has; an environment of its own with ``pip install 'hierseg[serve]' selenium`` runs it.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from hierseg.found import Found, run_lengths_of
from hierseg.pictures import write_picture

TOOL = Path(__file__).parents[2] / 'tools' / 'serve.py'
SIZE = (40, 60)


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('serve_tool', TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def found() -> Found:
    """A man and, on the left half of his box, a teddy; Teddy's parents are Toy, which it prefers, and Bear."""
    masks = np.zeros((2, *SIZE), dtype=bool)
    masks[0, 10:30, 10:50] = masks[1, 12:20, 12:20] = True
    class_scores = np.zeros((2, 6), dtype=np.float32)
    class_scores[0, [0, 1, 2]] = 0.9, 0.6, 0.004
    class_scores[1, [3, 4, 5]] = 0.6, 0.5, 0.4
    return Found(
        image_size=SIZE,
        boxes=np.array([[10, 10, 50, 30], [12, 12, 30, 30]], dtype=np.float32),
        scores=np.array([0.6, 0.4], dtype=np.float32),
        labels=np.array([1, 5]),
        class_scores=class_scores,
        masks=run_lengths_of(masks),
        names=('Person', 'Man', '<Woman>', 'Toy', 'Bear', 'Teddy'),
        parents=((), (0,), (0,), (), (), (3, 4)),
        source='street.jpg',
        image=np.full((*SIZE, 3), 200, dtype=np.uint8),
    )


def lines_of(html: str) -> list[tuple[int, bool, str, str]]:
    """Depth, whether it is on the path named, name and probability of each class in a tree."""
    pattern = r'<li style="--depth: (\d)"( class=named)?>.*?name">(.*?)</span>.*?value">(.*?)</span>'
    return [(int(depth), bool(named), name, value) for depth, named, name, value in re.findall(pattern, html)]


class TestClicking:
    @pytest.mark.parametrize(
        ('point', 'row'),
        [
            ((13.5, 13.5), 1),  # on both masks: the smaller
            ((25, 15), 0),  # in both boxes, on the man's mask
            ((45, 29.9), 0),
            ((5, 5), None),
        ],
    )
    def test_the_smallest_whose_mask_it_is(
        self, tool: ModuleType, found: Found, point: tuple[float, float], row: int | None
    ) -> None:
        assert tool.instance_at(found, *point) == row

    def test_boxes_where_there_are_no_masks(self, tool: ModuleType, found: Found) -> None:
        found = Found(**{**vars(found), 'masks': None})
        assert tool.instance_at(found, 25, 15) == 1


class TestTree:
    def test_classes_lie_below_their_parents(self, tool: ModuleType, found: Found) -> None:
        html = tool.tree(found, 0, None)
        assert '<b>Person › Man 0.60</b>' in html
        assert lines_of(html) == [(0, True, 'Person', '0.90'), (1, True, 'Man', '0.60')]
        assert '1 more below 1%' in html  # <Woman>
        assert 'style="left' not in html

    def test_a_class_with_two_parents_is_shown_once(self, tool: ModuleType, found: Found) -> None:
        assert lines_of(tool.tree(found, 1, None)) == [
            (0, True, 'Toy', '0.60'),
            (1, True, 'Teddy', '0.40'),
            (0, False, 'Bear', '0.50'),
        ]

    def test_what_back_off_needs_is_marked_below_the_root_it_takes(self, tool: ModuleType, found: Found) -> None:
        # 0.75 of Toy's 0.6; none at Bear.
        assert re.findall(r'left: (.*?)%', tool.tree(found, 1, 0.75)) == ['45.0', '45.0']

    def test_what_is_named_is_there_however_improbable_and_names_are_text(self, tool: ModuleType, found: Found) -> None:
        html = tool.tree(Found(**{**vars(found), 'labels': np.array([2, 5])}), 0, None)
        assert (1, True, '&lt;Woman&gt;', '0.00') in lines_of(html)


class TestViews:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path))

    def test_sliders_name_and_leave_out(self, tool: ModuleType, found: Found) -> None:
        _, tree, table, document, sheet = tool.show(found, None, tool.MODEL, 0.7, 0.5)
        assert tree == tool.HINT
        assert table == [[1, 'Person › Man', 0.6, 10, 10, 50, 30]]
        assert json.loads(Path(document).read_text()) == found[[0]].to_json()
        assert Path(sheet).read_text().splitlines()[1].startswith('street.jpg,,Man,Person › Man,1,0.6')
        # 0.7 of Person's 0.9 is more than 0.6 and 0.7 of Toy's 0.6 more than 0.4.
        _, tree, table, _, _ = tool.show(found, 1, tool.BACK_OFF, 0.7, 0.5)
        assert [row[1:3] for row in table] == [['Person', 0.9], ['Toy', 0.6]]
        assert '<b>Toy 0.60</b>' in tree

    def test_all_but_the_chosen_one_is_dark(self, tool: ModuleType, found: Found) -> None:
        plain, *_ = tool.show(found, None, tool.MODEL, 0.5, 0.3)
        chosen, *_ = tool.show(found, 1, tool.MODEL, 0.5, 0.3)
        factor = len(plain) // SIZE[0]
        inside = np.zeros(plain.shape[:2], dtype=bool)
        inside[12 * factor : 20 * factor, 12 * factor : 20 * factor] = True
        assert (plain != chosen).any(axis=-1).tolist() == (~inside & plain.any(axis=-1)).tolist()

    def test_one_that_is_left_out_is_not_chosen(self, tool: ModuleType, found: Found) -> None:
        assert tool.show(found, 1, tool.MODEL, 0.5, 0.5)[1] == tool.HINT

    def test_nothing_found_and_no_photograph(self, tool: ModuleType, found: Found) -> None:
        picture, tree, table, *_ = tool.show(found, None, tool.BACK_OFF, 0.5, 1)
        assert (picture.shape[1] % SIZE[1], tree, table) == (0, tool.HINT, [])
        assert tool.show(None, None, tool.MODEL, 0.5, 0.5) == (None, tool.HINT, [], None, None)


def test_photographs_that_are_too_large_are_refused(tool: ModuleType, found: Found, tmp_path: Path) -> None:
    write_picture(found.picture(), tmp_path / 'street.png')
    gradio = MagicMock(Error=RuntimeError)

    def find(max_pixels: int) -> Any:
        tool.build(gradio, lambda *_, **__: found, score_thr=0.3, threshold=0.5, max_pixels=max_pixels)
        return gradio.Image.return_value.change.call_args[0][0](str(tmp_path / 'street.png'))

    assert len(find(SIZE[0] * SIZE[1])[0]) == 2
    with pytest.raises(RuntimeError, match=r'street\.png: has 60 x 40 pixels .*--max-pixels'):
        find(SIZE[0] * SIZE[1] - 1)


def test_without_gradio_the_extra_is_named(tmp_path: Path) -> None:
    # A folder in front of the installed packages stands for an environment without it.
    (tmp_path / 'gradio.py').write_text('raise ModuleNotFoundError("No module named gradio")')
    command = [sys.executable, str(TOOL), 'config.py', 'checkpoint.pth']
    root = TOOL.parents[1]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={'PYTHONPATH': f'{tmp_path}:{root}', 'PATH': ''}
    )
    assert done.returncode == 2
    assert "error: the page needs Gradio. pip install 'hierseg[serve]'" in done.stderr


class Browser:
    """Chromium at a page, driven by Selenium."""

    def __init__(self, address: str) -> None:
        webdriver = pytest.importorskip('selenium.webdriver')
        options = webdriver.ChromeOptions()
        # No name of a computer can be found: what is fetched from elsewhere is missing.
        blocked = '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1'
        for flag in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-background-networking', blocked):
            options.add_argument(flag)
        options.set_capability('goog:loggingPrefs', {'browser': 'SEVERE', 'performance': 'ALL'})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which('chromedriver')))
        self.resize(1280)
        self.driver.get(address)

    def resize(self, width: int) -> None:
        screen = {'width': width, 'height': 1000, 'deviceScaleFactor': 1, 'mobile': False}
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """The first value of a condition that is true."""
        end = time.monotonic() + 60
        while not (value := condition()):
            assert time.monotonic() < end, self.run('return document.body.innerText')
            time.sleep(0.1)
        return value

    def find(self, selector: str) -> Any:
        return self.wait(lambda: self.driver.find_elements('css selector', selector))[0]

    def set(self, selector: str, value: float) -> None:
        script = """const [field, value] = arguments;
            field.value = value;
            for (const kind of ['input', 'blur']) field.dispatchEvent(new Event(kind, {bubbles: true}));"""
        self.run(script, self.find(f'{selector} input[type=number]'), value)

    def title(self) -> str:
        """The path and score above the tree."""
        return self.run("return document.querySelector('#classes p b')?.textContent ?? ''")

    def paths(self) -> list[str]:
        """The second column of the table."""
        cells = '[...document.querySelectorAll(\'#table [data-testid^=cell-][data-testid$="-1"]\')]'
        return self.run(f'return {cells}.map((cell) => cell.textContent.trim())')

    def click(self, x: float, y: float) -> None:
        """Clicks at a pixel of the drawn picture."""
        from selenium.webdriver.common.action_chains import ActionChains

        left, top, scale = self.run(
            """const image = document.querySelector('#picture img');
            image.scrollIntoView({block: 'center'});
            const box = image.getBoundingClientRect();
            const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
            return [box.left + (box.width - image.naturalWidth * scale) / 2,
                    box.top + (box.height - image.naturalHeight * scale) / 2, scale];"""
        )
        chain = ActionChains(self.driver)
        chain.w3c_actions.pointer_action.move_to_location(round(left + x * scale), round(top + y * scale))
        chain.w3c_actions.pointer_action.click()
        chain.perform()

    def foreign(self) -> list[str]:
        """Addresses elsewhere that the page asked for."""
        messages = [json.loads(entry['message'])['message'] for entry in self.driver.get_log('performance')]
        asked = [
            entry['params']['request']['url'] for entry in messages if entry['method'] == 'Network.requestWillBeSent'
        ]
        return [url for url in asked if not url.startswith(('http://127.0.0.1:', 'data:', 'blob:'))]


@pytest.fixture
def calls() -> list[tuple[Any, ...]]:
    """What the model was called with: the shape of each picture, and the score."""
    return []


@pytest.fixture
def browser(
    tool: ModuleType, found: Found, calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Browser]:
    if not (shutil.which('chromedriver') and shutil.which('chromium')):
        pytest.skip('Chromium or its driver is not installed')
    pytest.importorskip('selenium')
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path))
    monkeypatch.setenv('GRADIO_ANALYTICS_ENABLED', 'False')
    gradio = pytest.importorskip('gradio')

    def model(picture: np.ndarray, *, score_thr: float) -> Found:
        calls.append((picture.shape, score_thr))
        return found

    page = tool.build(gradio, model, score_thr=0.3, threshold=0.5)
    address = tool.launch(gradio, page, '127.0.0.1', None)
    opened = Browser(address)
    yield opened
    opened.driver.quit()
    page.close()


@pytest.mark.slow
def test_a_photograph_a_click_and_a_slider(browser: Browser, found: Found, calls: list[Any], tmp_path: Path) -> None:
    write_picture(np.full((*SIZE, 3), 200, dtype=np.uint8), tmp_path / 'harbour.png')
    browser.find('#photo input[type=file]').send_keys(str(tmp_path / 'harbour.png'))
    factor = browser.wait(lambda: browser.run("return document.querySelector('#picture img')?.naturalWidth")) / SIZE[1]
    browser.wait(lambda: browser.paths() == ['Person › Man', 'Toy › Teddy'])
    assert browser.title() == ''

    browser.click(15 * factor, 15 * factor)
    browser.wait(lambda: browser.title() == 'Toy › Teddy 0.40')
    browser.find('#table [data-testid=cell-0-1]').click()
    browser.wait(lambda: browser.title() == 'Person › Man 0.60')
    browser.click(5 * factor, 5 * factor)
    browser.wait(lambda: browser.title() == '')
    browser.click(25 * factor, 15 * factor)
    browser.wait(lambda: browser.title() == 'Person › Man 0.60')
    named = "return [...document.querySelectorAll('#classes .named .name')].map((name) => name.textContent)"
    assert browser.run(named) == ['Person', 'Man']

    # 0.7 of Person's 0.9 is more than 0.6.
    browser.set('#threshold', 0.7)
    browser.wait(lambda: browser.title() == 'Person 0.90')
    assert browser.run(named) == ['Person']
    assert browser.paths() == ['Person', 'Toy']
    browser.set('#score', 0.7)
    browser.wait(lambda: browser.paths() == ['Person'])
    downloads = {'behavior': 'allow', 'downloadPath': str(tmp_path / 'downloads')}
    browser.driver.execute_cdp_cmd('Browser.setDownloadBehavior', downloads)
    browser.find('#json').click()
    written = tmp_path / 'downloads' / 'harbour.json'
    browser.wait(written.exists)
    document = json.loads(written.read_text())
    assert document['source'] == 'harbour.png'
    assert [one['path'] for one in document['instances']] == [['Person']]
    assert calls == [((*SIZE, 3), 0)]  # sliders do not run the network

    browser.resize(390)
    time.sleep(0.5)
    assert browser.run('return document.documentElement.scrollWidth') <= 390
    assert browser.driver.get_log('browser') == []
    assert browser.foreign() == []
