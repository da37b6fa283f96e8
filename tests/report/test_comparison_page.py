"""The page of a comparison as a file: whole, safe, and free of the network."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from comparison_documents import ERROR_KINDS, METRICS, confusion_of, made_up
from PIL import Image

from hierseg.errors import HiersegError
from hierseg.metrics.declarations import Estimate
from hierseg.metrics.system import System
from hierseg.report.comparison import Comparison, write_comparison
from hierseg.report.comparison.page import ON_A_PAGE, render_page
from hierseg.report.comparison.panels import ShownPanel
from hierseg.taxonomy import Taxonomy

EVIL = '<script>alert("x")</script>\'&<img src=x onerror=alert(1)>'
VOID = {'meta', 'br', 'input', 'link'}


@pytest.fixture(scope='module')
def document() -> Comparison:
    return made_up()


@pytest.fixture(scope='module')
def page(document) -> str:
    return render_page(document)


class Elements(HTMLParser):
    """All elements of a page with their attributes, their text, and whether every one is closed where it was opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f'</{tag}> at {self.getpos()}'

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ('script', 'style'):
            self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def evil_document() -> Comparison:
    """Whatever may come from a user is hostile."""
    base = made_up(systems=2, images=1)
    taxonomy = replace(base.taxonomy, names=tuple(f'{EVIL}{name}' for name in base.taxonomy.names))
    names = [f'{EVIL}{index}' for index in range(2)]
    systems = [
        replace(
            system,
            name=name,
            config=EVIL,
            weights=EVIL,
            precision_curves={EVIL: np.linspace(1, 0, 101)},
            training_curves={EVIL: [(0, 1.0), (1, 0.5)]},
        )
        for system, name in zip(base.systems, names, strict=True)
    ]
    image = base.images[0]
    found = image.ground_truth.instances[0]
    label = replace(found.label, text=EVIL)
    panel = ShownPanel([replace(found, text=EVIL, label=label, score=90)], errors=['missed'], score=0.5)
    return replace(
        base,
        head=replace(base.head, title=EVIL, date=EVIL, store=EVIL, command=EVIL, machine=EVIL, versions={EVIL: EVIL}),
        taxonomy=taxonomy,
        metrics=[replace(metric, label=EVIL, group=EVIL, explanation=EVIL, unit=EVIL) for metric in base.metrics],
        systems=systems,
        differences={names[1]: next(iter(base.differences.values()))},
        error_kinds=[replace(kind, label=EVIL, explanation=EVIL) for kind in base.error_kinds],
        images=[replace(image, image_id=EVIL, file_name=EVIL, panels=dict.fromkeys(names, panel))],
        panel_score=EVIL,
    )


def test_the_page_is_well_formed(page):
    elements = Elements(page)
    assert elements.open == []
    ids = [attributes['id'] for _, attributes in elements.found if 'id' in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes['href'] for attributes in elements.named('a')]
    assert {link[1:] for link in links if link.startswith('#')} <= set(ids)
    beside = [link for link in links if not link.startswith(('#', 'data:text/csv;charset=utf-8;base64,'))]
    tables = ('scores', 'costs', 'classes', 'curves', 'names', 'errors', 'confusions', 'training', 'images')
    assert beside == ['results.json', 'table.md', *(f'tables/{name}.csv' for name in tables)]


def test_nothing_comes_from_elsewhere(page):
    without_pictures = re.sub(r'data:(image/webp|text/csv;charset=utf-8);base64,[\w+/=]+', 'data:', page)
    # The name space of SVG is no address that a browser opens.
    addresses = re.findall(
        r'(?:https?:)?//[\w.]+[^\s"\']*', re.sub(r'^ *// .*', '', without_pictures, flags=re.MULTILINE)
    )
    assert addresses == ['http://www.w3.org/2000/svg']
    assert {image['href'] for image in Elements(without_pictures).named('image')} == {'data:'}
    assert all(use['href'].startswith('#') for use in Elements(page).named('use'))
    assert not re.search(r'@import|url\(', page)
    (policy,) = [meta['content'] for meta in Elements(page).named('meta') if 'http-equiv' in meta]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_texts_of_users_are_only_text():
    page = render_page(evil_document())
    harmless = Elements(page)
    expected = Elements(render_page(made_up(images=1)))
    assert harmless.open == []
    assert len(harmless.named('script')) == len(expected.named('script')) == 1
    assert all(set(attributes) <= {'class', 'data-x', 'data-y'} for attributes in harmless.named('figure'))
    assert all(not name.startswith('on') for _, attributes in harmless.found for name in attributes)
    assert harmless.named('img') == []
    assert ''.join(harmless.text).count(EVIL) > 40
    # Outside attributes and text there is no trace of it.
    assert page.count('<script>alert') == 0


def test_every_photograph_stands_once_and_every_panel_is_described(document, page):
    elements = Elements(page)
    photographs = elements.named('image')
    assert len(photographs) == len(document.images)
    for image, expected in zip(photographs, sorted(document.images, key=lambda image: -image.spread), strict=True):
        content = base64.b64decode(image['href'].removeprefix('data:image/webp;base64,'))
        assert content == expected.photograph.content
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            assert max(picture.size) == 240  # not enlarged: the drawing is
            assert (image['width'], image['height']) == tuple(str(round(2.5 * side)) for side in picture.size)
    assert len(elements.named('use')) == 2 * len(document.images)
    labels = [svg['aria-label'] for svg in elements.named('svg') if ' of made_up' in svg.get('aria-label', '')]
    assert len(labels) == 3 * len(document.images)
    assert all(
        re.fullmatch(r'(Ground truth|two-layer ensemble|end-to-end) of made_up_\d{3}\.jpg', label) for label in labels
    )


def test_pictures_beyond_the_first_page_wait_as_text():
    document = made_up(images=1)
    count = ON_A_PAGE + 3
    images = [replace(document.images[0], file_name=f'{at}.jpg') for at in range(count)]
    page = render_page(replace(document, images=images))
    elements = Elements(page)
    assert elements.open == []
    assert len(elements.named('image')) == count
    inside = re.findall(r'<noscript>(.*?)</noscript>', page, flags=re.DOTALL)
    assert sum('<image' in part for part in inside) == 3


def test_detections_below_the_threshold_are_hidden_at_first(document):
    image = document.images[0]
    sure, unsure = (replace(image.ground_truth.instances[0], score=score) for score in (50, 49))
    panels = dict.fromkeys(image.panels, ShownPanel([sure, unsure], score=0.5))
    page = render_page(replace(document, images=[replace(image, panels=panels)], score_threshold=0.5))
    items = [item for item in Elements(page).named('li') if 'data-score' in item]
    assert [(item['data-score'], 'hidden' in item) for item in items] == [('50', False), ('49', True)] * 2


def test_pictures_with_most_difference_come_first(document):
    panels = [dict(document.images[0].panels) for _ in range(2)]
    near = {name: replace(panel, score=0.5) for name, panel in panels[0].items()}
    far = {
        name: replace(panel, score=score) for (name, panel), score in zip(panels[1].items(), (0.1, 0.9), strict=True)
    }
    images = [
        replace(document.images[0], file_name=name, panels=entry) for name, entry in (('near', near), ('far', far))
    ]
    page = render_page(replace(document, images=images))
    assert page.index('of far"') < page.index('of near"')
    articles = [
        attributes['data-leaders'] for attributes in Elements(page).named('article') if 'data-leaders' in attributes
    ]
    assert articles == [' 1 ', '  ']


def test_only_clear_winners_are_marked(document):
    def marked(page: str) -> int:
        return sum('wins' in (cell.get('class') or '').split() for cell in Elements(page).named('td'))

    assert marked(render_page(document)) == 8  # see test_comparison_numbers: one of nine is open
    wide = {name: {key: Estimate(entry.value, -1, 1) for key, entry in entries.items()}
            for name, entries in document.differences.items()}  # fmt: skip
    page = render_page(replace(document, differences=wide))
    assert marked(page) == 0
    assert ' better</span>' not in page
    assert page.count('no clear difference') == 9 + 4  # the table, and the big numbers


def test_tables_have_headers(page):
    tables = [attributes for attributes in Elements(page).named('th') if 'scope' not in attributes]
    assert tables == []


@pytest.mark.parametrize('systems', [1, 2, 3])
def test_any_number_of_systems(systems):
    document = made_up(systems=systems, images=1)
    elements = Elements(render_page(document))
    assert elements.open == []
    assert (len(elements.named('image')), len(elements.named('use'))) == (1, systems)
    rows = len(METRICS) + 4  # and the costs
    scores = [cell for cell in elements.named('td') if 'score' in (cell.get('class') or '').split()]
    assert len(scores) == systems * rows


def test_a_document_with_next_to_nothing_in_it():
    base = made_up(systems=2, images=0)
    size = base.taxonomy.num_classes
    empty = [
        System(system.name, '', 'predictions.csv', {}, np.full(size, np.nan), confusion_of([], size))
        for system in base.systems
    ]
    document = replace(
        base,
        systems=empty,
        differences={},
        objects=np.zeros(size, dtype=np.int64),
        train_images=None,
        error_kinds=(),
    )
    elements = Elements(render_page(document))
    assert elements.open == []
    assert {attributes['id'] for attributes in elements.named('section')} == {'answer', 'scores', 'classes', 'made'}
    assert 'two-layer ensemble has no value of Mask mAP@0.5.' in ''.join(elements.text)
    assert 'nan' not in ''.join(elements.text).lower().split()


def test_page_and_tables_are_written(document, tmp_path):
    page = write_comparison(document, tmp_path / 'new' / 'comparison')
    assert page == tmp_path / 'new' / 'comparison' / 'index.html'
    assert sorted(path.name for path in page.parent.iterdir()) == ['index.html', 'results.json', 'table.md', 'tables']
    assert page.read_text(encoding='utf-8') == render_page(document)
    results = json.loads((page.parent / 'results.json').read_text(encoding='utf-8'))
    assert Taxonomy.from_json(results['taxonomy']) == document.taxonomy
    assert [system['name'] for system in results['systems']] == ['two-layer ensemble', 'end-to-end']
    assert results['systems'][1]['scores']['found'] == pytest.approx(
        {'value': 0.842, 'low': 0.824, 'high': 0.859, 'images': None}
    )
    known = [None if np.isnan(value) else value for value in document.systems[0].class_ap]
    assert results['systems'][0]['class_ap'] == known
    image, first = results['images'][0], document.images[0]
    assert (image['image_id'], image['file_name']) == (first.image_id, first.file_name)
    assert image['ground_truth'].keys() == {'instances', 'errors', 'score'}
    assert image['ground_truth']['instances'] == [
        {'text': entry.text, 'score': None} for entry in first.ground_truth.instances
    ]


def test_the_table_is_markdown(tmp_path):
    document = made_up(images=0)
    metrics = [replace(document.metrics[0], label='m|A*P'), document.metrics[7]]
    systems = [replace(system, scores={'mask_map': Estimate(0.5, 0.4, 0.6), 'found': Estimate(0.84)})
               for system in document.systems]  # fmt: skip
    differences = {'end-to-end': {'mask_map': Estimate(0.1, 0.05, 0.15)}}
    write_comparison(replace(document, metrics=metrics, systems=systems, differences=differences), tmp_path)
    assert (tmp_path / 'table.md').read_text(encoding='utf-8').splitlines()[:6] == [
        '|  | two-layer ensemble | end-to-end | end-to-end against two-layer ensemble |',
        '| --- | ---: | ---: | ---: |',
        '| *Open Images protocol* |  |  |  |',
        '| m\\|A\\*P | 0.500 (0.400 to 0.600) | **0.500** (0.400 to 0.600) | +0.100 (+0.050 to +0.150) |',
        '| *Names of found objects* |  |  |  |',
        '| Objects found | 0.840 | 0.840 | – |',
    ]


def test_numbers_that_are_none_become_null(document, tmp_path):
    curve = np.array([1.0] * 100 + [np.nan])
    cells = confusion_of([(0, 0, 2)], document.taxonomy.num_classes)
    systems = [replace(system, precision_curves={'all': curve}, confusion=cells) for system in document.systems]
    write_comparison(replace(document, systems=systems), tmp_path)
    results = json.loads((tmp_path / 'results.json').read_text(encoding='utf-8'))
    curve = results['systems'][0]['precision_recall']['all']
    assert (curve['recall'][57], curve['precision'][99:]) == (0.57, [1.0, None])
    assert results['systems'][0]['confusion'] == [[0, 0, 2]]


def test_a_folder_that_cannot_be_written_is_an_error(document, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(HiersegError, match='is a file'):
        write_comparison(document, tmp_path / 'file')


def test_error_kinds_without_counts_are_left_out(document):
    systems = [replace(system, errors={'missed': 3}) for system in document.systems]
    text = ''.join(Elements(render_page(replace(document, systems=systems, images=()))).text)
    assert ERROR_KINDS[-1].label in text
    assert ERROR_KINDS[2].label not in text
