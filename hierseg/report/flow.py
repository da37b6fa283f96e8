"""How the two-layer ensemble came to what it says about one image: its layers' instances and what became of them.

Shape letters: N layer-0 instances, M layer-1 instances, K merged instances, C classes of the taxonomy, H, W the
image. Labels are those of the full taxonomy.

The flow of the two-layer ensemble as a picture: layer 0 | layer 1 | final, and the table of the report below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw

from hierseg.models.two_layer_ensemble import MergedInstances
from hierseg.report.drawing import (
    BACKGROUND,
    FAINT,
    PLAIN,
    DrawnInstance,
    Panel,
    Picture,
    class_colors,
    draw_instances,
    font,
    font_size,
    label_variants,
    line_height,
    path_steps,
    shortened,
    side_by_side,
)
from hierseg.taxonomy import Taxonomy

NOTHING = '–'


@dataclass(frozen=True, eq=False)
class Flow:
    """What the ensemble found on an image.

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

    @property
    def num_first(self) -> int:
        """N."""
        return len(self.layers[0])

    def shown(self, threshold: float) -> npt.NDArray[np.int64]:
        """Merged instances of which any class has at least this score, in their order."""
        best = self.merged.class_scores.amax(dim=1) if len(self.merged) else self.merged.scores
        return np.flatnonzero(best.numpy() >= threshold)

    def opinions(self, instance: int) -> npt.NDArray[np.int64]:
        """Layer-1 instances that a merged instance is made of, the best first."""
        source = int(self.joining.sources[instance])
        if source >= self.num_first:
            return np.array([source - self.num_first])
        members = np.flatnonzero(self.joining.joined == source)
        members = members[np.argsort(-self.layers[1].scores.numpy()[members], kind='stable')]
        return members[np.argsort(members != self.joining.best[instance], kind='stable')]

    def overlap(self, instance: int, opinion: int) -> float | None:
        """Intersection over union of the masks of a merged instance of layer 0 and a layer-1 instance."""
        source = int(self.joining.sources[instance])
        if source >= self.num_first:
            return None
        one, other = self.layers[0].masks[source], self.layers[1].masks[opinion]
        return float((one & other).sum() / (one | other).sum())

    def path(self, instance: int) -> tuple[int, ...]:
        """Labels from the root class that layer 0 gave, or the preferred one, to the class to name."""
        label, source = int(self.merged.labels[instance]), int(self.joining.sources[instance])
        if source >= self.num_first:
            return self.taxonomy.preferred_path(label)
        root = int(self.layers[0].labels[source])
        return next(path for path in self.taxonomy.paths(label) if path[0] == root)


@dataclass(frozen=True)
class FlowRow:
    """A row of the report's table.

    Attributes:
        number: Of the instance in the picture; 0 for one that was dropped.
        label: The named class; of the layer-1 instance where it was dropped.
        first: Class and score of layer 0, or a dash.
        second: Class and score of layer 1, or a dash.
        overlap: Intersection over union of their masks, or a dash.
        final: The path, such as ``(Person, Man)``.
        others: Other classes that layer 1 saw in the instance, with their scores.
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


def flow_rows(flow: Flow, *, threshold: float = 0.3) -> list[FlowRow]:
    """The table of the report: what each layer says of each instance, and what the ensemble says.

    Args:
        flow: What was found on the image.
        threshold: Instances without a class of at least this score are left out, and so are other opinions below it.
    """
    rows = [_row(flow, number, int(instance), threshold) for number, instance in enumerate(flow.shown(threshold), 1)]
    kept = {int(source) - flow.num_first for source in flow.joining.sources}
    for index, (owner, score) in enumerate(zip(flow.joining.joined, flow.layers[1].scores.tolist(), strict=True)):
        if owner < 0 and index not in kept and score >= threshold:
            label = int(flow.layers[1].labels[index])
            rows.append(FlowRow(0, label, NOTHING, _scored(flow, 1, index), NOTHING, 'dropped'))
    return rows


def _row(flow: Flow, number: int, instance: int, threshold: float) -> FlowRow:
    source = int(flow.joining.sources[instance])
    opinions = [int(opinion) for opinion in flow.opinions(instance)]
    overlap = flow.overlap(instance, opinions[0]) if opinions else None
    scores = flow.layers[1].scores
    return FlowRow(
        number=number,
        label=int(flow.merged.labels[instance]),
        first=_scored(flow, 0, source) if source < flow.num_first else NOTHING,
        second=_scored(flow, 1, opinions[0]) if opinions else NOTHING,
        overlap=NOTHING if overlap is None else f'{overlap:.2f}',
        final='(' + ', '.join(flow.taxonomy.names[label] for label in flow.path(instance)) + ')',
        others=', '.join(_scored(flow, 1, other) for other in opinions[1:] if scores[other] >= threshold),
    )


def _scored(flow: Flow, layer: int, index: int) -> str:
    found = flow.layers[layer]
    return f'{flow.taxonomy.names[int(found.labels[index])]} {float(found.scores[index]):.2f}'


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
