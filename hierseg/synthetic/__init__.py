"""Synthetic Open Images: scenes for any taxonomy, written as the official files."""

from hierseg.synthetic.options import (
    VALIDATION_RATES,
    AnnotationRates,
    SplitOptions,
    SynthesisOptions,
    default_taxonomy,
    large_taxonomy,
    read_counts,
)
from hierseg.synthetic.writer import SplitSummary, synthesize

__all__ = [
    'VALIDATION_RATES',
    'AnnotationRates',
    'SplitOptions',
    'SplitSummary',
    'SynthesisOptions',
    'default_taxonomy',
    'large_taxonomy',
    'read_counts',
    'synthesize',
]
