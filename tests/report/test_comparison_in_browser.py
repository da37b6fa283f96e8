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
from hierseg.report.comparison.page import ON_A_PAGE

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
    result.shown = labels('#gallery h3').length;
    result.photographs = document.querySelectorAll('#gallery image').length;

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

    // All pages of pictures, one after another.
    const pages = () => {
      const next = document.querySelector('.pager [data-page="1"]');
      document.querySelector('.pager select').value = 0;
      document.querySelector('.pager select').dispatchEvent(new Event('input', {bubbles: true}));
      const found = labels('#gallery h3');
      while (!next.disabled) {
        next.click();
        found.push(...labels('#gallery h3'));
      }
      return found;
    };
    choose('class', '0');
    result.ofClass = pages();
    choose('class', '');
    choose('error', '0:missed');
    result.withError = pages();
    choose('error', '');
    choose('better', '1');
    result.better = pages();
    choose('class', '999');
    choose('better', '');
    choose('file', '_003');
    result.ofFile = labels('#gallery h3');
    choose('file', '');
    result.everything = pages();
    result.waiting = document.querySelectorAll('#gallery noscript').length;

    const drawn = () => document.querySelectorAll('#gallery .i[data-score]:not([hidden])').length;
    result.score = [];
    for (const least of ['0', '90', '100']) {
      choose('score', least);
      result.score.push([least, drawn(), labels('#counts span').slice(1)]);
    }
    choose('score', '30');

    const fill = () => getComputedStyle(document.querySelector('#gallery article:not([hidden]) .i path')).fill;
    const byClass = fill();
    document.querySelector('[name=colours][value=instance]').click();
    result.colours = [byClass, fill()];

    const article = document.querySelector('#gallery article:not([hidden])');
    const tops = [...article.querySelectorAll('.shot')].map((shot) => shot.getBoundingClientRect());
    result.panels = tops.map(({ left, right, top }) => [left, right, top]);
    const zoom = article.querySelectorAll('.zoom')[1];
    zoom.click();
    const dialog = document.getElementById('viewer');
    const captions = [dialog.querySelector('.caption').textContent];
    dialog.querySelector('[data-step="1"]').click();
    captions.push(dialog.querySelector('.caption').textContent);
    result.viewer = [dialog.open, ...captions];
    result.ids = document.querySelectorAll('#photograph-0').length;
    dialog.close();

    choose('curves', '2');
    const legend = labels('#curves .curve .legend li');
    result.curves = [shown('#curves .curve').length, labels('#curves .curve figcaption'), legend];
    result.downloads = [...document.querySelectorAll('a[download]')].map((link) => link.download);
    choose('curves', 'all');

    const svg = document.querySelector('#curves .curve svg');
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
    return made_up(images=ON_A_PAGE + 2)


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
    data, console = opened(page.as_uri() + '#find=bear&level=2&curves=3&error=1%3Amissed', tmp_path)
    assert console == []
    missed = sum('missed' in image.panels['end-to-end'].errors for image in document.images)
    assert 0 < missed < len(document.images)
    # Four of the names have "bear" in their path: Bear, Brown bear, Polar bear and Teddy bear.
    assert data == {
        'state': 'ready', 'classes': '4', 'level': '2', 'curves': '3', 'pictures': str(missed), 'page': '1'
    }  # fmt: skip


def test_what_is_no_choice_is_left_alone(page, document, tmp_path):
    data, console = opened(page.as_uri() + '#order=sideways&level=9&class=%22%5D&better=x&curves=y&page=-7', tmp_path)
    assert console == []
    assert data == {
        'state': 'ready', 'classes': '22', 'level': '0', 'curves': 'all', 'page': '1',
        'pictures': str(len(document.images)),
    }  # fmt: skip


def test_a_page_without_pictures_works(tmp_path):
    page = write_comparison(made_up(systems=1, images=0), tmp_path)
    data, console = opened(page.as_uri(), tmp_path)
    assert console == []
    assert data == {'state': 'ready', 'classes': '22', 'level': '0', 'curves': 'all'}


def _legend(document: Comparison, label: int, kind: int) -> list[str]:
    curves = [(system.name, system.class_curves[label]) for system in document.systems]
    if kind == 0:
        return [f'{name} area {curve.area:.3f}' for name, curve in curves]
    return [f'{name} best {curve.best[0]:.2f} from score {curve.best[1]:.2f}' for name, curve in curves]


@pytest.mark.parametrize('width', [1280, 360])
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
    assert (result['shown'], result['photographs']) == (ON_A_PAGE, ON_A_PAGE)

    assert result['all'] == 22
    assert result['found'] == ['Animal', 'Bear', 'Polar bear']
    assert result['closed'] == 22 - 3  # Person's children
    assert result['ahead'][:3] == sorted(result['ahead'][:3], reverse=True)
    assert result['rare'] == document.taxonomy.path_name(21)  # made_up: fewer images the higher the label
    assert result['levels'] == ['1']

    def titles(images) -> list[str]:
        return sorted(image.file_name for image in images)

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
    assert found(result['ofFile']) == ['made_up_003.jpg']
    assert (found(result['everything']), result['waiting']) == (titles(document.images), 0)
    for least, drawn, texts in result['score']:
        scores = {
            system.name: [entry.score for image in document.images for entry in image.panels[system.name].instances]
            for system in document.systems
        }
        kept = {name: [score for score in of_system if score >= int(least)] for name, of_system in scores.items()}
        assert texts == [f'{name}: {len(kept[name])} of {len(scores[name])} detections' for name in scores]
        # A shape, a label where there is a place, and a line of text for each.
        assert 2 * sum(map(len, kept.values())) <= drawn <= 3 * sum(map(len, kept.values()))
    by_class, by_instance = result['colours']
    assert by_class != by_instance
    # Panels of both systems are on the screen at once, beside each other.
    (_, first, second) = result['panels']
    assert 0 <= first[0] < first[1] < second[0] < second[1] <= width
    assert first[2] == pytest.approx(second[2])
    assert result['ids'] == 1
    assert result['curves'] == [
        1, ['Precision by recall', 'F1 by score'],
        [text for kind in (0, 1) for text in _legend(document, 2, kind)],
    ]  # fmt: skip
    assert result['downloads'] == ['scores.csv', 'costs.csv', 'classes.csv', 'names.csv', 'errors.csv',
                                   'confusions.csv', 'training.csv', 'images.csv']  # fmt: skip
    is_open, *captions = result['viewer']
    assert is_open
    assert [caption.split(' of ')[0] for caption in captions] == ['two-layer ensemble', 'end-to-end']
    assert 'two-layer ensemble' in result['readout']
    assert 'end-to-end' in result['readout']
