"""Model parts that know the hierarchy; everything else is mmdet's."""

from hierseg.models.hierarchical_loss import HierarchicalLoss
from hierseg.models.roi_head import HierarchicalRoIHead

__all__ = ['HierarchicalLoss', 'HierarchicalRoIHead']
