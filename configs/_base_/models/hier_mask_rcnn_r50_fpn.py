# Mask R-CNN that knows a taxonomy: mmdet's, with a hierarchical loss in mmdet's own box head, boxes shared by all
# classes, masks by those of one root class, and one detection per physical instance.
# A config that builds on it sets `taxonomy`, `num_classes` of the box head and, of the mask head, the number of root
# classes; see configs/hier_e2e.py.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
custom_imports = dict(imports=['hierseg.registry'], allow_failed_imports=False)

model = dict(
    roi_head=dict(
        type='hierseg.HierarchicalRoIHead',
        bbox_head=dict(
            reg_class_agnostic=True,
            loss_cls=dict(_delete_=True, type='hierseg.HierarchicalLoss', scheme='path_sum')),
        # For a mask shared by all classes, or one for each: docs/mask_heads.md
        mask_channels='root'),
    # Where not all classes were looked for on each image, as in Open Images: docs/verified_labels.md
    #   roi_head=dict(verified=dict(class_counts=data_root + 'store/train', num_negatives=50, power=0.5))
    # Group-of boxes are ignored: a proposal that lies mostly inside one is neither positive nor negative.
    # (On images with another object; filter_empty_gt=True keeps the others out.)
    train_cfg=dict(
        rpn=dict(assigner=dict(ignore_iof_thr=0.5)),
        rcnn=dict(assigner=dict(ignore_iof_thr=0.5))),
    # Which class of a detection to name; see docs/decisions.md.
    test_cfg=dict(rcnn=dict(decision=dict(rule='back_off', threshold=0.5))))
