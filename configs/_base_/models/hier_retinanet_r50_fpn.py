# RetinaNet that knows a taxonomy, for boxes without masks: mmdet's, with a hierarchical head.
# A config that builds on it sets `taxonomy` and `num_classes` of the head; see configs/hier_retinanet.py.
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'
custom_imports = dict(imports=['hierseg.registry'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        type='hierseg.HierarchicalRetinaHead',
        # Anchors have no quality: it is the focal loss of the scheme, with γ = 2.
        loss_cls=dict(_delete_=True, type='hierseg.HierarchicalQualityLoss', scheme='path_sum', beta=2.0)),
    # Group-of boxes are ignored: an anchor that lies mostly inside one is neither positive nor negative.
    train_cfg=dict(assigner=dict(ignore_iof_thr=0.5)),
    # Which class of a detection to name; see docs/decisions.md.
    test_cfg=dict(decision=dict(rule='back_off', threshold=0.5)))
