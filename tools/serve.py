"""Serves a page on this machine: drop a photograph, see instances, click one for the probabilities of its classes.

Needs Gradio: pip install 'hierseg[serve]'. Nothing leaves the machine, and the page works without a network.

Example:
    python tools/serve.py configs/hier_e2e.py epoch_12.pth
    python tools/serve.py model.onnx --port 8000
"""

# Gradio reads the types of its event handlers: no `from __future__ import annotations` here.
import argparse
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
from PIL import Image

from hierseg.errors import ConfigError, HiersegError, exits_cleanly
from hierseg.files import write_atomically, write_json
from hierseg.found import SEPARATOR, Found
from hierseg.limits import MAX_PIXELS, add_max_pixels
from hierseg.pictures import read_picture
from hierseg.threads import choose_threads

LEAST = 0.05
"""What the most probable class of an instance needs, so that it is kept for the sliders."""
SHOWN = 0.01
"""What a class needs, so that it is in the tree; those of the path named are there anyway."""
MODEL, BACK_OFF = 'the model', 'back-off'
HINT = '<p class="hint">Click an instance in the picture or in the table.</p>'
COLUMNS = ['#', 'path', 'score', 'x1', 'y1', 'x2', 'y2']
FILES = ('JSON', 'CSV')
CSS = """
.classes { list-style: none; margin: 0; padding: 0; }
.classes li { display: grid; grid-template-columns: minmax(0, 1fr) 6rem 2.5rem; gap: .5rem; align-items: center;
  padding: .15rem .3rem; border-radius: 4px; }
.classes .name { padding-left: calc(var(--depth) * 1.1rem); overflow-wrap: anywhere; }
.classes .bar { position: relative; height: .6rem; background: var(--border-color-primary); border-radius: 2px; }
.classes .bar i { position: absolute; inset: 0 auto 0 0; background: var(--body-text-color-subdued);
  border-radius: 2px; }
.classes .bar b { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px; background: var(--body-text-color); }
.classes .named { font-weight: 600; background: var(--background-fill-secondary); }
.classes .named .bar i { background: var(--color-accent); }
.classes .value { text-align: right; font-variant-numeric: tabular-nums; }
.hint { color: var(--body-text-color-subdued); }
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage='%(prog)s [OPTIONS] (CONFIG CHECKPOINT | MODEL.onnx)',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file, or an exported model (.onnx)')
    parser.add_argument('checkpoint', nargs='?', help='the checkpoint, if it is a config')
    parser.add_argument('--score-thr', type=float, default=0.3, help='where its slider begins; default: 0.3')
    parser.add_argument(
        '--rule', choices=['back_off', 'leaf', 'distance'], help="which class the model names; default: the config's"
    )
    parser.add_argument(
        '--threshold', type=float, help="what back_off needs of the root's probability; default: the config's"
    )
    parser.add_argument('--device', help='such as cuda:0 or cpu; default: the first GPU, else the CPU')
    parser.add_argument('--host', default='127.0.0.1', help='0.0.0.0 serves other machines, too; default: %(default)s')
    parser.add_argument('--port', type=int, help='default: the first free one from 7860')
    add_max_pixels(parser)
    return parser.parse_args()


def instance_at(found: Found, x: float, y: float) -> int | None:
    """The row of the smallest instance on whose mask a point lies, else in whose box; None where there is none."""
    left, top, right, bottom = found.boxes.T
    rows = np.flatnonzero((left <= x) & (x < right) & (top <= y) & (y < bottom)).tolist()
    masks = {row: found[row].mask for row in rows}
    on_mask = [row for row, mask in masks.items() if mask is not None and mask[int(y), int(x)]]
    areas = (right - left) * (bottom - top)
    return min(on_mask or rows, key=areas.__getitem__, default=None)


def tree(found: Found, row: int, threshold: float | None) -> str:
    """The classes that an instance claims as HTML, below their parents; a line marks what back-off needs."""
    scores, label = found.class_scores[row], int(found.labels[row])
    path = {label}
    while found.parents[label]:
        label = found.parents[label][0]
        path.add(label)
    shown = [*map(int, np.flatnonzero(scores >= SHOWN)), *(step for step in path if scores[step] < SHOWN)]
    below: dict[int, list[int]] = {}
    for entry in sorted(shown, key=scores.__getitem__, reverse=True):
        parent = next((above for above in found.parents[entry] if above in shown), -1)
        below.setdefault(parent, []).append(entry)
    lines = []

    def add(entry: int, depth: int, needed: float | None) -> None:
        mark = '' if needed is None else f'<b style="left: {needed:.1%}"></b>'
        lines.append(
            f'<li style="--depth: {depth}"{" class=named" * (entry in path)}><span class="name">'
            f'{escape(found.names[entry])}</span><span class="bar"><i style="width: {scores[entry]:.1%}"></i>{mark}'
            f'</span><span class="value">{scores[entry]:.2f}</span></li>'
        )
        for child in below.get(entry, ()):
            add(child, depth + 1, needed)

    for root in below[-1]:
        add(root, 0, threshold * float(scores[root]) if threshold is not None and root == below[-1][0] else None)
    hidden = int((scores > 0).sum()) - len(shown)
    more = f'<p class="hint">{hidden} more below {SHOWN:.0%}</p>' if hidden > 0 else ''
    return f'<p><b>{escape(str(found[row]))}</b></p><ul class="classes">{"".join(lines)}</ul>{more}'


def picture_of(found: Found, chosen: int | None) -> np.ndarray:
    """The instances drawn, and all but the chosen one darkened."""
    drawn = found.draw()
    if chosen is None:
        return drawn
    instance, factor = found[chosen], len(drawn) // found.image_size[0]
    region = instance.mask
    if region is None or not region.any():
        region = np.zeros(found.image_size, dtype=bool)
        left, top, right, bottom = instance.box.clip(0).astype(int)
        region[top : bottom + 1, left : right + 1] = True
    lit = region.repeat(factor, axis=0).repeat(factor, axis=1)[..., None]
    return np.where(lit, drawn, (drawn * 0.45).astype(np.uint8))


def show(
    found: Found | None, chosen: int | None, named_by: str, threshold: float, score_thr: float
) -> tuple[np.ndarray | None, str, list[list[Any]], str | None, str | None]:
    """The picture, the tree, the table and the two files for a choice; ``chosen`` is a row of all instances."""
    if found is None:
        return None, HINT, [], None, None
    if named_by == BACK_OFF:
        found = found.back_off(threshold)
    rows = np.flatnonzero(found.scores >= score_thr)
    kept, place = found[rows], {int(row): number for number, row in enumerate(rows)}.get(chosen)
    table = [
        [int(row) + 1, SEPARATOR.join(one.path), round(one.score, 3), *one.box.astype(float).round(1).tolist()]
        for row, one in zip(rows, kept, strict=True)
    ]
    folder, stem = Path(mkdtemp(dir=os.environ['GRADIO_TEMP_DIR'])), Path(found.source or 'photograph').stem
    document, sheet = folder / f'{stem}.json', folder / f'{stem}.csv'
    write_json(kept.to_json(), document)
    write_atomically(kept.to_pandas().to_csv(index=False).encode('utf-8'), sheet)
    explained = HINT if place is None else tree(kept, place, threshold if named_by == BACK_OFF else None)
    return picture_of(kept, place), explained, table, str(document), str(sheet)


def build(
    gradio: Any, model: Callable[..., Found], *, score_thr: float, threshold: float, max_pixels: int = MAX_PIXELS
) -> Any:
    """The page, as Gradio's Blocks."""

    def find(path: str | None) -> tuple[Found | None, None]:
        if path is None:
            return None, None
        try:
            found = model(read_picture(path, 'turned', max_pixels=max_pixels), score_thr=0)
        except HiersegError as error:
            raise gradio.Error(str(error)) from error
        found = found[found.class_scores.max(axis=1, initial=0) >= LEAST]
        return replace(found, source=Path(path).name), None

    def click(found: Found, named_by: str, threshold: float, score_thr: float, event: gradio.SelectData) -> int | None:
        named = found.back_off(threshold) if named_by == BACK_OFF else found
        rows = np.flatnonzero(named.scores >= score_thr)
        factor = named[rows[:0]].draw().shape[0] / found.image_size[0]
        place = instance_at(named[rows], *(position / factor for position in event.index))
        return None if place is None else int(rows[place])

    def click_row(event: gradio.SelectData) -> int:
        return event.row_value[0] - 1

    with gradio.Blocks(title='hierseg', fill_width=True, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        found, chosen = gradio.State(None), gradio.State(None)
        with gradio.Row():
            with gradio.Column(scale=3, min_width=280):
                photo = gradio.Image(
                    label='Photograph', type='filepath', image_mode=None, height=260, elem_id='photo', buttons=[]
                )
                score = gradio.Slider(LEAST, 1, score_thr, step=0.01, label='Least score', elem_id='score')
                naming = gradio.Radio([MODEL, BACK_OFF], value=MODEL, label='Classes are named by', elem_id='naming')
                back_off = gradio.Slider(
                    0.01, 1, threshold, step=0.01, label='Back-off threshold', elem_id='threshold',
                    info="The deepest class with this part of its root's probability is named.",
                )  # fmt: skip
            with gradio.Column(scale=6, min_width=340):
                picture = gradio.Image(
                    label='Instances', show_label=False, format='jpeg', interactive=False, elem_id='picture',
                    buttons=['download', 'fullscreen'],
                )  # fmt: skip
            with gradio.Column(scale=3, min_width=280):
                classes = gradio.HTML(HINT, elem_id='classes', padding=True)
        table = gradio.Dataframe(headers=COLUMNS, label='All instances', interactive=False, elem_id='table')
        with gradio.Row():
            files = [gradio.DownloadButton(f'Download {kind}', size='sm', elem_id=kind.lower()) for kind in FILES]

        choice, views = [naming, back_off, score], [picture, classes, table, *files]
        refresh: Any = dict(fn=show, inputs=[found, chosen, *choice], outputs=views, api_visibility='private')
        quiet: Any = dict(show_progress='hidden', api_visibility='private')
        searched = photo.change(
            find, photo, [found, chosen], concurrency_limit=1, show_progress_on=picture, api_visibility='private'
        )
        searched.then(**refresh, show_progress='hidden')
        picture.select(click, [found, *choice], chosen, **quiet).then(**refresh, show_progress='hidden')
        table.select(click_row, None, chosen, **quiet).then(**refresh)
        back_off.input(lambda: BACK_OFF, None, naming, **quiet)
        for part in (score, naming, back_off):
            part.change(**refresh, show_progress='hidden', trigger_mode='always_last')
    return page


@exits_cleanly()
def main() -> None:
    arguments = parse_arguments()
    choose_threads()
    # Ended in either way, it leaves no photographs.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix='hierseg-serve-') as folder:
        # Photographs lie there while the page is served; no version is looked up, nobody is told.
        os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED='False')
        # Gradio asks its own server whether it is there, which a proxy cannot answer.
        others = os.environ.get('no_proxy', os.environ.get('NO_PROXY'))
        os.environ['no_proxy'] = ','.join(filter(None, (others, '127.0.0.1', 'localhost')))
        try:
            import gradio
        except ModuleNotFoundError as error:
            raise ConfigError('the page needs Gradio', fix="pip install 'hierseg[serve]'") from error
        from hierseg.prediction import load_model

        chosen = {'device': arguments.device, 'rule': arguments.rule, 'threshold': arguments.threshold}
        model = load_model(arguments.config, arguments.checkpoint, **chosen)
        # Gradio reads headers with Pillow, which has a limit of its own.
        Image.MAX_IMAGE_PIXELS = arguments.max_pixels
        shown = {'score_thr': arguments.score_thr, 'threshold': arguments.threshold or 0.5}
        page = build(gradio, model, **shown, max_pixels=arguments.max_pixels)
        address = launch(gradio, page, arguments.host, arguments.port)
        print(f'{address} shows the page; Ctrl+C ends it', flush=True)
        page.block_thread()


def launch(gradio: Any, page: Any, host: str, port: int | None) -> str:
    """Begins to serve a page and returns its address.

    Raises:
        ConfigError: The port is taken.
    """
    fonts = dict(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, ssr_mode=False,
            footer_links=[], pwa=False, css=CSS, theme=gradio.themes.Default(**fonts), max_file_size='100mb',
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(f'port {port or "7860 to 7959"} of {host} cannot be used', fix='Choose another.') from error
    return str(address)


if __name__ == '__main__':
    main()
