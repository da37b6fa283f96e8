"""The comparison of evaluated systems: a document of everything measured, and a page that shows it."""

from hierseg.report.comparison.document import (
    ClassCounts,
    ComparedImage,
    Comparison,
    Costs,
    ErrorKind,
    Estimate,
    Head,
    Metric,
    NamedPath,
    OperatingCurve,
    Panel,
    PrecisionRecall,
    System,
)
from hierseg.report.comparison.page import PanelInstance, draw_panel, write_comparison

__all__ = [
    'ClassCounts',
    'ComparedImage',
    'Comparison',
    'Costs',
    'ErrorKind',
    'Estimate',
    'Head',
    'Metric',
    'NamedPath',
    'OperatingCurve',
    'Panel',
    'PanelInstance',
    'PrecisionRecall',
    'System',
    'draw_panel',
    'write_comparison',
]
