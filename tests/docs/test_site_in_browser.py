"""The site in Chromium: no page is wider than its window, from a phone to a large screen.

Skips where no Chromium is installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, opened
from documented import ROOT, blocks, prose

WIDTHS = (360, 768, 1024, 1440, 1920)
# A frame can be narrower than a window. What sticks out of the column counts like what sticks out of the page: on a
# narrow screen the theme lets the whole column scroll.
MEASURE = """<html><body><iframe style="border: 0; height: 900px"></iframe><script>
(async () => {
  const frame = document.querySelector('iframe');
  const over = (item) => item.scrollWidth - item.clientWidth;
  const result = {};
  try {
    for (const page of PAGES) {
      await new Promise((done) => { frame.onload = done; frame.src = page; });
      const shown = frame.contentDocument;
      result[page] = WIDTHS.map((width) => {
        frame.style.width = `${width}px`;
        const inside = [...shown.querySelectorAll('.table-wrapper, pre')].map(over);
        return [over(shown.documentElement), over(shown.querySelector('.content')), Math.max(...inside)];
      });
    }
  } catch (error) {
    result.error = String(error);
  }
  document.documentElement.dataset.result = JSON.stringify(result);
})();
</script></body></html>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed')


def table_width(page: Path) -> int:
    return max((len(line) for line in prose(page).splitlines() if line.startswith('|')), default=0)


def code_width(page: Path) -> int:
    return max((len(line) for block in blocks(page) for line in block.text.splitlines()), default=0)


def widest(width: Callable[[Path], int], count: int) -> Iterator[str]:
    return (page.stem for page in sorted((ROOT / 'docs').glob('*.md'), key=width)[-count:])


WIDEST = {*widest(table_width, 3), *widest(code_width, 2)}
SHOWN = {'index', 'api/taxonomy', *WIDEST}


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of SHOWN; building all of them would take a minute."""
    docs, folder = ROOT / 'docs', tmp_path_factory.mktemp('site')
    names = [str(path.relative_to(docs).with_suffix('')) for path in docs.rglob('*.[mir][dps]*')]
    left_out = [f'{name}.*' for name in names if name not in SHOWN]
    options = [f'-Dexclude_patterns={",".join(left_out)}', '-Dsuppress_warnings=toc,myst,ref']
    subprocess.run(
        [sys.executable, '-m', 'sphinx', '-q', '-b', 'html', *options, str(docs), str(folder)], check=True, timeout=300
    )
    return folder


def measured(site: Path, pages: set[str], profile: Path) -> dict[str, list[list[int]]]:
    """Pixels that stick out of the page, of its column, of its widest table or code, for each of WIDTHS."""
    names = json.dumps([f'{page}.html' for page in sorted(pages)])
    frame = site / 'frame.html'
    frame.write_text(MEASURE.replace('PAGES', names).replace('WIDTHS', json.dumps(WIDTHS)))
    data, _ = opened(frame.as_uri(), profile, '--allow-file-access-from-files', '--window-size=2000,1000')
    result = json.loads(data['result'])
    assert 'error' not in result, result['error']
    return result


def test_no_page_scrolls_sideways(site: Path, tmp_path: Path) -> None:
    result = measured(site, SHOWN | {'genindex', 'py-modindex'}, tmp_path)
    assert {page.removesuffix('.html') for page in result} == SHOWN | {'genindex', 'py-modindex'}
    sticks_out = {(page, width): widths[:2] for page, all_widths in result.items()
                  for width, widths in zip(WIDTHS, all_widths, strict=True) if any(widths[:2])}  # fmt: skip
    assert sticks_out == {}
    # On a phone the widest tables and lines of code scroll inside themselves.
    assert all(result[f'{page}.html'][0][2] > 0 for page in WIDEST)


def test_a_page_that_scrolls_is_found(site: Path, tmp_path: Path) -> None:
    page = (site / 'index.html').read_text()
    wide = '<div style="width: 1000px">wide</div>'
    (site / 'wide.html').write_text(re.sub(r'(<article[^>]*>)', rf'\1{wide}', page, count=1))
    (widths,) = measured(site, {'wide'}, tmp_path).values()
    assert [any(width[:2]) for width in widths] == [True, True, True, False, False]
