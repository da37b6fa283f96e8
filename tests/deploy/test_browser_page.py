"""The example page in Chromium, as a person finds it: a file that is opened, a model, a photograph.

Skips where there is no Chromium or no onnxruntime-web: ``HIERSEG_ONNXRUNTIME_WEB`` names the ``dist`` folder of the
latter, as ``npm install onnxruntime-web`` brings it.
"""

from __future__ import annotations

import base64
import json
import os
import runpy
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, FLAGS
from exported_models import Exported, Trained
from PIL import Image

from hierseg.deploy import load_model

TOOL = Path(__file__).parents[2] / 'tools' / 'misc' / 'browser_page.py'
LIBRARY = os.environ.get('HIERSEG_ONNXRUNTIME_WEB', '')
SECONDS = 240
DRIVER = """
<script type="text/plain" id="given-model">{model}</script>
<script type="text/plain" id="given-picture">{picture}</script>
<img src="{address}" hidden alt="What keeps the browser open until there is a result.">
<script type="module">
const status = document.getElementById('status');
const choose = (id, name) => {{
  const text = document.getElementById(`given-${{id}}`).textContent, field = document.getElementById(id);
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
  field.files = files.files;
  field.dispatchEvent(new Event('change', {{bubbles: true}}));
}};
const until = (pattern) => new Promise((resolve) => {{
  const look = () => pattern.test(status.textContent) && resolve(status.textContent);
  new MutationObserver(look).observe(status, {{childList: true}});
  look();
}});
const move = (id, value) => {{
  const field = document.getElementById(id);
  field.value = value;
  field.dispatchEvent(new Event('input', {{bubbles: true}}));
  return [...document.querySelectorAll('#found tr')].map((row) => [row.cells[1].textContent, row.cells[2].textContent]);
}};
const result = {{}};
try {{
  choose('picture', 'shapes.png');
  choose('model', 'tiny.onnx');
  result.status = await until(/instances|Failed/);
  result.all = move('score', 0);
  result.roots = move('back-off', 1);
  const canvas = document.getElementById('canvas');
  result.canvas = [canvas.width, canvas.height];
  move('back-off', 0.5);
  move('score', 0.2);
}} catch (error) {{
  result.error = String(error);
}}
await fetch('{address}', {{method: 'POST', mode: 'no-cors', body: JSON.stringify(result)}});
</script>
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed'),
    pytest.mark.skipif(not LIBRARY, reason='HIERSEG_ONNXRUNTIME_WEB does not name onnxruntime-web'),
]


def driven(page: str, model: Path, picture: Path, tmp_path: Path) -> dict[str, Any]:
    """What the page showed; a picture of it is left in screen.png."""
    answers: list[dict[str, Any]] = []
    done = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            done.wait(SECONDS)
            self.send_error(404)

        def do_POST(self) -> None:
            answers.append(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    given = {
        'model': base64.b64encode(model.read_bytes()).decode(),
        'picture': base64.b64encode(picture.read_bytes()).decode(),
        'address': f'http://127.0.0.1:{server.server_port}/',
    }
    (tmp_path / 'driven.html').write_text(page.replace('</html>', DRIVER.format(**given) + '</html>'))
    files = (f'--user-data-dir={tmp_path / "profile"}', f'--screenshot={tmp_path / "screen.png"}')
    command = [CHROMIUM, *FLAGS, *files, '--window-size=1000,1100', (tmp_path / 'driven.html').as_uri()]
    try:
        subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
    finally:
        server.shutdown()
        server.server_close()
    return answers[0]


def test_the_page_finds_what_python_finds(
    exported: Exported, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, 'argv', [str(TOOL), '--library', LIBRARY, '--out', str(tmp_path / 'page.html')])
    runpy.run_path(str(TOOL), run_name='__main__')
    picture = Path(trained.pictures[0])
    shown = driven((tmp_path / 'page.html').read_text(), exported.exact, picture, tmp_path)
    assert 'error' not in shown
    found = load_model(exported.exact)(np.asarray(Image.open(picture)))
    assert [path for path, _ in shown['all']] == [' › '.join(instance.path) for instance in found]
    assert [float(score) for _, score in shown['all']] == pytest.approx(found.scores.tolist(), abs=0.002)
    roots = found.back_off(1)
    assert [path for path, _ in shown['roots']] == [' › '.join(instance.path) for instance in roots]
    # A picture of 200 × 150 pixels, four times as large.
    assert shown['canvas'] == [800, 600]
    assert (tmp_path / 'screen.png').stat().st_size > 0
