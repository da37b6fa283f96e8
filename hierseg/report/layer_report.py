"""What the layers of the two-layer ensemble are trained on, before and after the cap: text, CSV and plot.

Shape letters: K classes of a layer.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hierseg.store import LayerView, Store
from hierseg.store.frequency import LayerCounts, count_layer

SHOWN_CLASSES = 5
"""The text names this many of the most and of the least frequent classes; the CSV has all."""
LAYER_TITLES = ('root classes', 'deeper classes')
COLUMNS = ('label', 'id', 'name', 'path')
COUNTS = ('images_before', 'images_after', 'instances_before', 'instances_after')


@dataclass(frozen=True, eq=False)
class LayerReport:
    """Counts of one layer without and with the cap.

    Attributes:
        view: The layer with the cap.
        before: Counts without the cap.
        after: Counts with it.
    """

    view: LayerView
    before: LayerCounts
    after: LayerCounts

    @property
    def title(self) -> str:
        """Such as ``Layer 0: 213 root classes``."""
        return f'Layer {self.view.layer}: {self.view.taxonomy.num_classes} {LAYER_TITLES[self.view.layer]}'

    @property
    def by_frequency(self) -> npt.NDArray[np.int64]:
        """(K,) labels of the layer, the class with the most images before the cap first, then by label."""
        return np.argsort(-self.before.images_per_class, kind='stable')

    def counts_of(self, label: int) -> tuple[int, int, int, int]:
        """Images before and after, instances before and after, of a class."""
        before, after = self.before, self.after
        return (
            int(before.images_per_class[label]),
            int(after.images_per_class[label]),
            int(before.instances_per_class[label]),
            int(after.instances_per_class[label]),
        )

    def __str__(self) -> str:
        before, after, view = self.before, self.after, self.view
        cap = f'{view.images_per_class:,} images per class, and those that rarer classes bring; seed {view.seed}'
        lines = [self.title, f'  cap: {cap}', '', f'{"":<34}{"before":>12}{"after":>12}']
        rows = [
            ('training images', before.images, after.images),
            ('instances', before.instances, after.instances),
            ('boxes painted', before.painted, after.painted),
            ('  on as many images', before.images_painted, after.images_painted),
            ('boxes spared by the 25 % rule', before.spared, after.spared),
            ('classes without a training image', *(int((c.images_per_class == 0).sum()) for c in (before, after))),
        ]
        lines += [f'  {name:<32}{one:>12,}{other:>12,}' for name, one, other in rows]
        lines += ['', f'  {"class":<40}{"images":>10}{"after":>10}{"instances":>12}{"after":>10}']
        order = self.by_frequency.tolist()
        hidden = len(order) - 2 * SHOWN_CLASSES
        if hidden <= 1:
            return '\n'.join([*lines, *map(self._line, order)])
        most, fewest = map(self._line, order[:SHOWN_CLASSES]), map(self._line, order[-SHOWN_CLASSES:])
        return '\n'.join([*lines, *most, f'  … {hidden} more', *fewest])

    def _line(self, label: int) -> str:
        name = self._path(label)
        name = name if len(name) < 40 else f'{name[:38]}…'
        numbers = (f'{count:>{width},}' for count, width in zip(self.counts_of(label), (10, 10, 12, 10), strict=True))
        return f'  {name:<40}' + ''.join(numbers)

    def write_csv(self, path: Path) -> None:
        """Writes a row for every class, in the order of :attr:`by_frequency`."""
        taxonomy = self.view.taxonomy
        with path.open('w', newline='', encoding='utf-8') as file:
            writer = csv.writer(file, lineterminator='\n')
            writer.writerow((*COLUMNS, *COUNTS))
            for label in self.by_frequency.tolist():
                described = (label, taxonomy.ids[label], taxonomy.names[label], self._path(label))
                writer.writerow((*described, *self.counts_of(label)))

    def _path(self, label: int) -> str:
        return self.view.store.taxonomy.path_name(int(self.view.labels_of_layer[label]))


def layer_reports(store: Store, *, images_per_class: int, seed: int = 0) -> tuple[LayerReport, LayerReport]:
    """Counts both layers of a store.

    Args:
        store: The training split.
        images_per_class: The cap.
        seed: Of the cap.

    Raises:
        ConfigError: If a layer has no classes or no image to train on.
    """
    reports = []
    for layer in (0, 1):
        view = LayerView(store, layer, images_per_class=images_per_class, seed=seed)
        reports.append(LayerReport(view, count_layer(LayerView(store, layer)), count_layer(view)))
    return reports[0], reports[1]
