"""What metrics share whose ground truth comes from a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from hierseg.annotations import Store
from hierseg.errors import EvaluationError
from hierseg.taxonomy import Taxonomy
from hierseg.taxonomy.compare import require_same_taxonomy


class StoreMetric(BaseMetric):
    """A metric that finds the ground truth of each data sample in a store, by the sample's ``img_id``.

    Args:
        store: Folder of the store.
        collect_device: As of MMEngine.
        prefix: Put before the names of results.
        collect_dir: As of MMEngine.

    Raises:
        StoreError: If there is no store.
    """

    def __init__(self, store: str, *, collect_device: str, prefix: str, collect_dir: str | None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.store = Store.open(store)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes of the store."""
        return self.store.taxonomy

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: Mapping[str, Any]) -> None:
        """The data set's meta information, whose taxonomy must be the store's."""
        if dataset_meta and 'taxonomy' in dataset_meta:
            found = Taxonomy.from_json(dataset_meta['taxonomy'], where='metainfo of the data set')
            require_same_taxonomy(self.taxonomy, found, where=f'data set of the metric on {self.store.path}')
        self._dataset_meta = dataset_meta

    def rows_of(self, data_samples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Row of the image and ``pred_instances`` of every data sample.

        Raises:
            EvaluationError: If a sample lacks one of them.
            StoreError: If the store does not have the image.
        """
        for sample in data_samples:
            missing = [name for name in ('img_id', 'pred_instances') if name not in sample]
            if missing:
                raise EvaluationError(
                    f'a data sample has no {", ".join(missing)}',
                    fix="PackDetInputs needs 'img_id' among its meta_keys, and the model must predict instances.",
                )
            yield self.store.row_of(str(sample['img_id'])), sample['pred_instances']
