"""Pictures and pages that show what was annotated and what was found."""

from hierseg.report.curves import LossCurvesHook
from hierseg.report.visualizer import HierLocalVisualizer

__all__ = ['HierLocalVisualizer', 'LossCurvesHook']
