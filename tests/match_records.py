"""What matching leaves of an image, written down by hand."""

from __future__ import annotations

import numpy as np

from hierseg.metrics.records import ImageMatches


def image_matches(image_id, entries, counts):
    """Entries are (label, score, weight); counts maps labels to counted ground truth."""
    labels, scores, weights = zip(*entries, strict=True) if entries else ([], [], [])
    return ImageMatches(
        image_id,
        np.array(labels, dtype=np.int64),
        np.array(scores, dtype=np.float64),
        np.array(weights, dtype=np.float64),
        np.array(list(counts), dtype=np.int64),
        np.array(list(counts.values()), dtype=np.float64),
    )
