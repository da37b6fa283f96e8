"""The comparison page in Chromium, as a person finds it: no error, every picture, filters that filter.

Skips where no Chromium is installed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browser import CHROMIUM, opened
from comparison_documents import made_up

from hierseg.report.comparison import Comparison, write_comparison

DRIVER = """
window.addEventListener('load', async () => {
  const result = {};
  const root = document.documentElement;
  const choose = (name, value) => {
    const field = document.querySelector(`[name=${name}]`);
    field.value = value;
    field.dispatchEvent(new Event('input', {bubbles: true}));
  };
  const shown = (selector) => [...document.querySelectorAll(selector)].filter((item) => item.checkVisibility());
  const labels = (selector) => shown(selector).map((item) => item.textContent);
  try {
    result.widths = [innerWidth, root.scrollWidth - root.clientWidth];
    const pictures = [...document.querySelectorAll('.panels img')];
    for (const picture of pictures) picture.loading = 'eager';
    for (let waited = 0; waited < 200 && !pictures.every((picture) => picture.complete); waited += 1) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    result.pictures = pictures.filter((picture) => picture.naturalWidth > 0).length;

    result.all = labels('#tree .label').length;
    choose('find', 'polar');
    result.found = labels('#tree .label');
    choose('find', '');
    document.querySelector('#tree details').open = false;
    result.closed = labels('#tree .label').length;
    choose('order', 'ahead');
    const differences = labels('#tree .flat .row > .values:last-child .figure');
    result.ahead = differences.map((text) => Number(text.replace('−', '-')));
    choose('order', 'rare');
    result.rare = labels('#tree .flat .path')[0];

    choose('level', '1');
    result.levels = shown('.confusions').map((item) => item.dataset.level);

    choose('class', '0');
    result.ofClass = labels('#gallery h3');
    choose('class', '');
    choose('error', '0:missed');
    result.withError = labels('#gallery h3');
    choose('error', '');
    choose('better', '1');
    result.better = labels('#gallery h3');
    choose('class', '999');
    choose('better', '');

    const zoom = document.querySelectorAll('.zoom')[1];
    zoom.click();
    const dialog = document.getElementById('viewer');
    const captions = [dialog.querySelector('.caption').textContent];
    dialog.querySelector('[data-step="1"]').click();
    captions.push(dialog.querySelector('.caption').textContent);
    result.viewer = [dialog.open, ...captions];
    dialog.close();

    const svg = document.querySelector('#curves svg');
    const box = svg.getBoundingClientRect();
    svg.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + box.width / 4, clientY: box.top + 9}));
    result.readout = document.querySelector('#curves .readout').textContent;
  } catch (error) {
    result.error = String(error);
  }
  parent.postMessage(JSON.stringify(result), '*');
});
"""
# Windows of Chromium are no narrower than 500 pixels; a frame can be as narrow as a phone.
FRAME = """<html><body><iframe src="driven.html" style="border: 0; width: {width}px; height: 844px"></iframe>
<script>addEventListener('message', (event) => {{ document.documentElement.dataset.result = event.data; }});</script>
</body></html>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed')


@pytest.fixture(scope='module')
def document() -> Comparison:
    return made_up(images=8)


@pytest.fixture(scope='module')
def page(document, tmp_path_factory) -> Path:
    return write_comparison(document, tmp_path_factory.mktemp('comparison'))


def test_an_error_would_be_seen(tmp_path):
    page = tmp_path / 'page.html'
    page.write_text(
        '<html data-state="before"><script>document.documentElement.dataset.state = nothing;</script></html>'
    )
    data, console = opened(page.as_uri(), tmp_path)
    assert data == {'state': 'before'}
    assert 'ReferenceError' in console[0]


def test_a_link_opens_a_view_without_any_error(page, document, tmp_path):
    data, console = opened(page.as_uri() + '#find=bear&level=2&error=1%3Amissed', tmp_path)
    assert console == []
    missed = sum('missed' in image.panels['end-to-end'].errors for image in document.images)
    assert 0 < missed < len(document.images)
    # Four of the names have "bear" in their path: Bear, Brown bear, Polar bear and Teddy bear.
    assert data == {'state': 'ready', 'classes': '4', 'level': '2', 'pictures': str(missed)}


def test_what_is_no_choice_is_left_alone(page, document, tmp_path):
    data, console = opened(page.as_uri() + '#order=sideways&level=9&class=%22%5D&better=x', tmp_path)
    assert console == []
    assert data == {'state': 'ready', 'classes': '22', 'level': '0', 'pictures': str(len(document.images))}


def test_a_page_without_pictures_works(tmp_path):
    page = write_comparison(made_up(systems=1, images=0), tmp_path)
    data, console = opened(page.as_uri(), tmp_path)
    assert console == []
    assert data == {'state': 'ready', 'classes': '22', 'level': '0'}


@pytest.mark.parametrize('width', [1280, 390])
def test_everything_can_be_used(page, document, tmp_path, width):
    # The page's own policy forbids foreign scripts.
    source = re.sub(r'<meta http-equiv[^>]*>', '', page.read_text(encoding='utf-8'))
    driven = tmp_path / 'driven.html'
    driven.write_text(source.replace('</body>', f'<script>{DRIVER}</script></body>'), encoding='utf-8')
    frame = tmp_path / 'frame.html'
    frame.write_text(FRAME.format(width=width), encoding='utf-8')
    data, console = opened(frame.as_uri(), tmp_path, '--window-size=1400,900')
    assert console == []
    result = json.loads(data['result'])
    assert 'error' not in result, result['error']

    assert result['widths'] == [width, 0]  # nothing sticks out
    assert result['pictures'] == 3 * len(document.images)

    assert result['all'] == 22
    assert result['found'] == ['Animal', 'Bear', 'Polar bear']
    assert result['closed'] == 22 - 3  # Person's children
    assert result['ahead'][:3] == sorted(result['ahead'][:3], reverse=True)
    assert result['rare'] == document.taxonomy.path_name(21)  # made_up: fewer images the higher the label
    assert result['levels'] == ['1']

    def titles(images) -> list[str]:
        return sorted(image.image_id for image in images)

    def found(headings: list[str]) -> list[str]:
        return sorted(heading.split()[0] for heading in headings)

    people = {label for label in range(22) if document.taxonomy.preferred_path(label)[0] == 0}
    assert found(result['ofClass']) == titles(image for image in document.images if people & set(image.classes))
    assert found(result['withError']) == titles(
        image for image in document.images if 'missed' in image.panels['two-layer ensemble'].errors
    )
    assert found(result['better']) == titles(
        image
        for image in document.images
        if image.panels['end-to-end'].score > image.panels['two-layer ensemble'].score
    )
    is_open, *captions = result['viewer']
    assert is_open
    assert [caption.split(' of ')[0] for caption in captions] == ['two-layer ensemble', 'end-to-end']
    assert 'two-layer ensemble' in result['readout']
    assert 'end-to-end' in result['readout']
