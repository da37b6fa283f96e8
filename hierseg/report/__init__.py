"""Pictures and pages that show what was annotated and what was found."""

import hierseg.screen  # noqa: F401  before mmdet, whose notes it keeps back
from hierseg.report.curves import LossCurvesHook
from hierseg.report.visualizer import HierLocalVisualizer

__all__ = ['HierLocalVisualizer', 'LossCurvesHook']
