"""Samples of a test as a pickle file, the form that MMDetection's own tools read."""

from __future__ import annotations

import pickle
from typing import Any

from mmdet.evaluation.metrics import DumpDetResults
from mmengine.logging import MMLogger

from hierseg.files import write_atomically
from hierseg.registry import METRICS


@METRICS.register_module()
class DumpedResults(DumpDetResults):  # type: ignore[misc]
    """MMDetection's ``DumpDetResults``, of which a kill or a full disk leaves a whole file or none."""

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Writes the file; on the main rank only."""
        write_atomically(pickle.dumps(results), self.out_file_path)
        MMLogger.get_current_instance().info('results written to %s', self.out_file_path)
        return {}
