"""Flow of the two-layer ensemble on one image: its layers' instances, what became of them, as a picture and a table.

Shape letters: N layer-0 instances, M layer-1 instances, K merged instances, H, W the image. Labels are those of the
full taxonomy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw

from hierseg.drawing import (
    BACKGROUND,
    FAINT_TEXT,
    LIGHT_TEXT,
    DrawnInstance,
    Picture,
    class_colors,
    font,
    font_size,
    label_variants,
    line_height,
    panel_of,
    path_steps,
    shortened,
    side_by_side,
)
from hierseg.models.two_layer_ensemble import MergedInstances
from hierseg.taxonomy import Taxonomy

NOTHING = '–'
HEADINGS = ('', 'Layer 0', 'Layer 1', 'IoU of masks', 'Final', 'Layer 1 also says')
WIDTHS = (0.06, 0.17, 0.17, 0.12, 0.26, 0.22)
"""Parts of the width of the picture."""
MOST_ROWS = 24


@dataclass(frozen=True, eq=False)
class Flow:
    """Instances that the ensemble found on an image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        taxonomy: The classes.
        layers: Instances of layer 0 (N) and layer 1 (M), on the CPU: bboxes, masks, labels and scores.
        merged: The K instances of the ensemble, with ``class_scores`` too.
        joining: How they came about, in their order.
    """

    image: Picture
    taxonomy: Taxonomy
    layers: tuple[InstanceData, InstanceData]
    merged: InstanceData
    joining: MergedInstances

    def shown(self, score_threshold: float) -> list[tuple[int, int]]:
        """Numbers, from 1, and positions of merged instances of which any class has at least this score."""
        best = self.merged.class_scores.amax(dim=1) if len(self.merged) else self.merged.scores
        return list(enumerate(np.flatnonzero(best.numpy() >= score_threshold).tolist(), 1))

    def dropped(self, score_threshold: float) -> list[int]:
        """Layer-1 instances of at least this score that are in no merged one."""
        kept = set((self.joining.sources - len(self.layers[0])).tolist())
        entries = enumerate(zip(self.joining.joined.tolist(), self.layers[1].scores.tolist(), strict=True))
        return [at for at, (owner, score) in entries if owner < 0 and at not in kept and score >= score_threshold]

    def source(self, instance: int) -> int | None:
        """The layer-0 instance that a merged one is; None where it is of layer 1 alone."""
        source = int(self.joining.sources[instance])
        return source if source < len(self.layers[0]) else None

    def opinions(self, instance: int) -> list[int]:
        """Layer-1 instances that a merged instance is made of, the best first."""
        source = self.source(instance)
        if source is None:
            return [int(self.joining.sources[instance]) - len(self.layers[0])]
        members = np.flatnonzero(self.joining.joined == source)
        order = np.lexsort([-self.layers[1].scores.numpy()[members], members != self.joining.best[instance]])
        return members[order].tolist()

    def path(self, instance: int) -> tuple[int, ...]:
        """Labels from the root class that layer 0 gave, or the preferred one, to the class to name."""
        label, source = int(self.merged.labels[instance]), self.source(instance)
        if source is None:
            return self.taxonomy.preferred_path(label)
        root = int(self.layers[0].labels[source])
        return next(path for path in self.taxonomy.paths(label) if path[0] == root)

    def said(self, layer: int, index: int) -> str:
        """Class and score that a layer gives to one of its instances."""
        found = self.layers[layer]
        return f'{self.taxonomy.names[int(found.labels[index])]} {float(found.scores[index]):.2f}'


@dataclass(frozen=True)
class FlowRow:
    """A row of the report's table: class and score of both layers, the IoU of their masks, and the final path.

    The number is that in the picture, 0 for a layer-1 instance that was dropped. The label is the class to name, or
    that of the dropped instance. Others are further classes that layer 1 saw in the instance.
    """

    number: int
    label: int
    first: str
    second: str
    overlap: str
    final: str
    others: str = ''

    def __str__(self) -> str:
        behind = '' if self.overlap == NOTHING else f'  IoU {self.overlap}'
        behind += f'  (also {self.others})' if self.others else ''
        return f'{self.number or NOTHING:>3}  {self.first} ← {self.second} = {self.final}{behind}'


def flow_rows(flow: Flow, *, score_threshold: float = 0.3) -> list[FlowRow]:
    """Rows of the table: classes that each layer and the ensemble give to each instance.

    Instances without a class of at least ``score_threshold`` are left out, and so are other opinions below it.
    """
    first, second = flow.layers
    rows = []
    for number, instance in flow.shown(score_threshold):
        source, opinions, overlap = flow.source(instance), flow.opinions(instance), NOTHING
        if source is not None and opinions:
            one, other = first.masks[source], second.masks[opinions[0]]
            overlap = f'{float((one & other).sum() / (one | other).sum()):.2f}'
        rows.append(
            FlowRow(
                number=number,
                label=int(flow.merged.labels[instance]),
                first=NOTHING if source is None else flow.said(0, source),
                second=flow.said(1, opinions[0]) if opinions else NOTHING,
                overlap=overlap,
                final=f'({", ".join(flow.taxonomy.names[label] for label in flow.path(instance))})',
                others=', '.join(flow.said(1, at) for at in opinions[1:] if second.scores[at] >= score_threshold),
            )
        )
    dropped = flow.dropped(score_threshold)
    rows += [FlowRow(0, int(second.labels[at]), NOTHING, flow.said(1, at), NOTHING, 'dropped') for at in dropped]
    return rows


def draw_flow(flow: Flow, *, score_threshold: float = 0.3) -> Picture:
    """Draws the instances of each layer and of the ensemble, with one number for each through all panels.

    Instances without a class of at least ``score_threshold`` are left out.

    Returns:
        RGB uint8.
    """
    titles = ('Layer 0: root classes', '+ Layer 1: deeper classes', '= Final')
    panels = [
        panel_of(flow.image, instances, title, note=f', score ≥ {score_threshold:g}')
        for title, instances in zip(titles, _numbered(flow, score_threshold), strict=True)
    ]
    upper = side_by_side(panels)
    rows = flow_rows(flow, score_threshold=score_threshold)
    return np.concatenate([upper, _table(flow, rows, upper.shape[1], panels[0].picture)])


def _numbered(flow: Flow, score_threshold: float) -> tuple[list[DrawnInstance], ...]:
    """Instances of the three panels; all that belong together have the number of the merged one."""
    second, colors = flow.layers[1], class_colors(flow.taxonomy)
    panels: tuple[list[DrawnInstance], ...] = ([], [], [])

    def draw(panel: int, found: InstanceData, index: int, label: int, texts: tuple[str, ...]) -> None:
        box, mask = found.bboxes[index].numpy(), found.masks[index].numpy()
        panels[panel].append(DrawnInstance(box, colors[label], texts, mask))

    def draw_layer(layer: int, index: int, before: str) -> None:
        found = flow.layers[layer]
        draw(layer, found, index, int(found.labels[index]), (f'{before}: {flow.said(layer, index)}',))

    for number, instance in flow.shown(score_threshold):
        source, best = flow.source(instance), int(flow.joining.best[instance])
        if source is not None:
            draw_layer(0, source, str(number))
        named = best >= 0 and int(flow.merged.labels[instance]) == int(second.labels[best])
        for opinion in flow.opinions(instance):
            if second.scores[opinion] >= score_threshold or (named and opinion == best):
                draw_layer(1, opinion, str(number))
        path, claims = flow.path(instance), flow.merged.class_scores[instance].numpy()
        steps = tuple(path_steps(flow.taxonomy, step, class_scores=claims)[-1] for step in path)
        texts = tuple(f'{number}: {text}' for text in label_variants(steps))
        draw(2, flow.merged, instance, path[-1], texts)
    for index in flow.dropped(score_threshold):
        draw_layer(1, index, 'dropped')
    return panels


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
        pen.text((left, line / 2), heading, font=bold, fill=LIGHT_TEXT, anchor='lm')
    colors = class_colors(flow.taxonomy)
    for index, row in enumerate(shown, 1):
        middle = (index + 0.5) * line
        pen.rectangle((6, middle - size / 2, 6 + size, middle + size / 2), fill=tuple(colors[row.label].tolist()))
        pen.text((12 + size, middle), str(row.number or NOTHING), font=plain, fill=LIGHT_TEXT, anchor='lm')
        cells = (row.first, row.second, row.overlap, row.final, row.others)
        for left, room, text in zip(lefts[1:], rooms[1:], cells, strict=True):
            letters = bold if text == row.final else plain
            fill = FAINT_TEXT if text in (NOTHING, row.others) else LIGHT_TEXT
            pen.text((left, middle), shortened(text, room, size), font=letters, fill=fill, anchor='lm')
    for text in more:
        pen.text((lefts[1], (len(shown) + 1.5) * line), text, font=plain, fill=FAINT_TEXT, anchor='lm')
    return np.asarray(sheet)
