"""Makes one file of the example page in docs/examples and onnxruntime-web, so that it opens without a network.

Example:
    npm install onnxruntime-web@1.30.0
    python tools/misc/browser_page.py --library node_modules/onnxruntime-web/dist --out browser.html
"""

from __future__ import annotations

import argparse
import base64
import gzip
from pathlib import Path

from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import output_file, write_atomically

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'examples' / 'browser.html'
LIBRARY, WASM = 'ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm'
PROGRAM = '<script type="module" id="program">'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--library', type=Path, required=True, help='the folder `dist` of onnxruntime-web')
    parser.add_argument('--out', type=Path, required=True, help='the page')
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    arguments = parse_arguments()
    output_file(arguments.out)
    for name in (LIBRARY, WASM):
        if not (arguments.library / name).is_file():
            raise ConfigError(f'there is no {name}', where=str(arguments.library), fix='npm install onnxruntime-web')
    library = (arguments.library / LIBRARY).read_text(encoding='utf-8').replace('</script', r'<\/script')
    wasm = base64.b64encode(gzip.compress((arguments.library / WASM).read_bytes())).decode()
    page = PAGE.read_text(encoding='utf-8').replace(
        PROGRAM,
        f'<script type="text/plain" id="library">{library}</script>\n'
        f'<script type="text/plain" id="wasm">{wasm}</script>\n{PROGRAM}',
    )
    write_atomically(page.encode('utf-8'), arguments.out)


if __name__ == '__main__':
    main()
