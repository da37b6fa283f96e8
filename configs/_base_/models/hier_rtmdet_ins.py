# RTMDet-Ins that knows a taxonomy: mmdet's layers of its small model, with a hierarchical head.
# A config that builds on it sets `taxonomy` and `num_classes` of the head, and for other sizes deepen_factor,
# widen_factor and channels; see configs/hier_rtmdet_s.py.
custom_imports = dict(imports=['hierseg.registry'], allow_failed_imports=False)

norm_cfg = dict(type='BN')
act_cfg = dict(type='SiLU', inplace=True)
model = dict(
    type='RTMDet',
    # mmdet's default turns plain BN into SyncBN where there is more than one process.
    use_syncbn=False,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[103.53, 116.28, 123.675],
        std=[57.375, 57.12, 58.395],
        bgr_to_rgb=False,
        pad_mask=True,
        pad_size_divisor=32),
    backbone=dict(
        type='CSPNeXt',
        arch='P5',
        expand_ratio=0.5,
        deepen_factor=0.33,
        widen_factor=0.5,
        channel_attention=True,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg),
    neck=dict(
        type='CSPNeXtPAFPN',
        in_channels=[128, 256, 512],
        out_channels=128,
        num_csp_blocks=1,
        expand_ratio=0.5,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg),
    bbox_head=dict(
        type='hierseg.HierarchicalRTMDetInsHead',
        in_channels=128,
        feat_channels=128,
        stacked_convs=2,
        share_conv=True,
        pred_kernel_size=1,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='hierseg.HierarchicalQualityLoss', scheme='path_sum', beta=2.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_mask=dict(type='DiceLoss', loss_weight=2.0, eps=5e-6, reduction='mean')),
    # Group-of boxes are ignored: a point whose box lies mostly inside one is neither positive nor negative.
    train_cfg=dict(
        assigner=dict(type='hierseg.HierarchicalSoftLabelAssigner', topk=13, ignore_iof_thr=0.5)),
    test_cfg=dict(
        nms_pre=1000,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100,
        mask_thr_binary=0.5,
        # Which class of a detection to name; see docs/decisions.md.
        decision=dict(rule='back_off', threshold=0.5)))
