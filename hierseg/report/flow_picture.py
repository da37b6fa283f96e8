"""The flow of the two-layer ensemble as a picture: layer 0 | layer 1 | final, and the table of the report below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from hierseg.report.canvas import DrawnInstance, Picture, draw_instances, font, font_size
from hierseg.report.flow import NOTHING, Flow, FlowRow, flow_rows
from hierseg.report.labels import label_variants, path_steps
from hierseg.report.palette import class_colors
from hierseg.report.panels import BACKGROUND, FAINT, PLAIN, Panel, line_height, shortened, side_by_side

HEADINGS = ('', 'Layer 0', 'Layer 1', 'IoU of masks', 'Final', 'Layer 1 also says')
WIDTHS = (0.06, 0.17, 0.17, 0.12, 0.26, 0.22)
"""Parts of the width of the picture."""
MOST_ROWS = 24


def draw_flow(flow: Flow, *, threshold: float = 0.3) -> Picture:
    """Draws what each layer and the ensemble found, with one number for each instance through all panels.

    Args:
        flow: What was found on the image.
        threshold: Instances without a class of at least this score are left out.

    Returns:
        RGB uint8.
    """
    rows = flow_rows(flow, threshold=threshold)
    drawn = _numbered(flow, threshold)
    titles = ('Layer 0: root classes', '+ Layer 1: deeper classes', '= Final')
    panels = []
    for title, instances in zip(titles, drawn, strict=True):
        picture, left_out = draw_instances(flow.image, instances)
        count = f'{len(instances)} instance{"" if len(instances) == 1 else "s"}'
        subtitle = f'{count}, {left_out} without room for a label' if left_out else count
        panels.append(Panel(picture, title, f'{subtitle}, score ≥ {threshold:g}'))
    upper = side_by_side(panels)
    lower = _table(flow, rows, upper.shape[1], panels[0].picture)
    return np.concatenate([upper, lower])


def _numbered(flow: Flow, threshold: float) -> tuple[list[DrawnInstance], list[DrawnInstance], list[DrawnInstance]]:
    """Instances of the panels; all that belong together have the number of the merged one."""
    first: list[DrawnInstance] = []
    second: list[DrawnInstance] = []
    final: list[DrawnInstance] = []
    for number, instance in enumerate(flow.shown(threshold), 1):
        source = int(flow.joining.sources[instance])
        if source < flow.num_first:
            first.append(_drawn(flow, 0, source, f'{number}: '))
        best = int(flow.joining.best[instance])
        named = best >= 0 and int(flow.merged.labels[instance]) == int(flow.layers[1].labels[best])
        second += [
            _drawn(flow, 1, int(opinion), f'{number}: ')
            for opinion in flow.opinions(instance)
            if flow.layers[1].scores[opinion] >= threshold or (named and opinion == best)
        ]
        final.append(_final(flow, int(instance), f'{number}: '))
    belongs = {int(source) - flow.num_first for source in flow.joining.sources}
    for index, owner in enumerate(flow.joining.joined):
        if owner < 0 and index not in belongs and flow.layers[1].scores[index] >= threshold:
            second.append(_drawn(flow, 1, index, 'dropped: '))
    return first, second, final


def _drawn(flow: Flow, layer: int, index: int, before: str) -> DrawnInstance:
    found, label = flow.layers[layer], int(flow.layers[layer].labels[index])
    text = f'{before}{flow.taxonomy.names[label]} {float(found.scores[index]):.2f}'
    color = class_colors(flow.taxonomy)[label]
    return DrawnInstance(found.bboxes[index].numpy(), color, (text,), found.masks[index].numpy())


def _final(flow: Flow, instance: int, before: str) -> DrawnInstance:
    found, path = flow.merged, flow.path(instance)
    claims = found.class_scores[instance].numpy()
    steps = tuple(path_steps(flow.taxonomy, step, class_scores=claims)[-1] for step in path)
    texts = tuple(before + text for text in label_variants(steps))
    color = class_colors(flow.taxonomy)[path[-1]]
    return DrawnInstance(found.bboxes[instance].numpy(), color, texts, found.masks[instance].numpy())


def _table(flow: Flow, rows: Sequence[FlowRow], width: int, picture: Picture) -> Picture:
    """Rows of the table, as wide as the panels."""
    line, size = line_height(picture), font_size(picture)
    shown = rows[:MOST_ROWS]
    more = [f'and {len(rows) - MOST_ROWS} more'] if len(rows) > MOST_ROWS else []
    sheet = Image.new('RGB', (width, (len(shown) + 1 + len(more)) * line + line // 2), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    plain, bold = font(size), font(size, bold=True)
    lefts = np.cumsum([0, *WIDTHS[:-1]]) * width + 6
    rooms = np.asarray(WIDTHS) * width - 12
    for left, heading in zip(lefts, HEADINGS, strict=True):
        pen.text((left, line / 2), heading, font=bold, fill=PLAIN, anchor='lm')
    colors = class_colors(flow.taxonomy)
    for index, row in enumerate(shown, 1):
        middle = (index + 0.5) * line
        color = tuple(int(channel) for channel in colors[row.label])
        pen.rectangle((6, middle - size / 2, 6 + size, middle + size / 2), fill=color)
        pen.text((12 + size, middle), str(row.number or NOTHING), font=plain, fill=PLAIN, anchor='lm')
        cells = (row.first, row.second, row.overlap, row.final, row.others)
        for left, room, text in zip(lefts[1:], rooms[1:], cells, strict=True):
            letters = bold if text == row.final else plain
            fill = FAINT if text in (NOTHING, row.others) else PLAIN
            pen.text((left, middle), shortened(text, room, size), font=letters, fill=fill, anchor='lm')
    for text in more:
        pen.text((lefts[1], (len(shown) + 1.5) * line), text, font=plain, fill=FAINT, anchor='lm')
    return np.asarray(sheet)
