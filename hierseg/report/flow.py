"""How the two-layer ensemble came to what it says about one image: its layers' instances and what became of them.

Shape letters: N layer-0 instances, M layer-1 instances, K merged instances, C classes of the taxonomy, H, W the
image. Labels are those of the full taxonomy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mmengine.structures import InstanceData

from hierseg.models.two_layer_ensemble import MergedInstances
from hierseg.report.canvas import Picture
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
