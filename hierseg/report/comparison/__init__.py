"""The comparison of evaluated systems: one document of everything measured, and the page, table and JSON made of it."""

from hierseg.report.comparison.document import ComparedImage, Comparison, Head
from hierseg.report.comparison.page import PanelInstance, draw_panel, write_comparison

__all__ = ['ComparedImage', 'Comparison', 'Head', 'PanelInstance', 'draw_panel', 'write_comparison']
