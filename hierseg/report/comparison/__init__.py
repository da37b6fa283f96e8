"""The comparison of evaluated systems: one document of everything measured, and page, tables and JSON made of it."""

from hierseg.report.comparison.document import ComparedImage, Comparison, Head
from hierseg.report.comparison.page import write_comparison
from hierseg.report.comparison.panels import PanelInstance, draw_panel, photograph, photograph_side

__all__ = [
    'ComparedImage',
    'Comparison',
    'Head',
    'PanelInstance',
    'draw_panel',
    'photograph',
    'photograph_side',
    'write_comparison',
]
