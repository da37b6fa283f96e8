# The end-to-end model, slim enough to learn from scratch on two CPU cores in minutes.
#   bash tools/quickstart.sh        does everything; or, on its data,
#   python tools/train.py configs/quickstart/hier_e2e.py
#   python tools/test.py configs/quickstart/hier_e2e.py work_dirs/quickstart/hier_e2e/last.pth
_base_ = [
    '../_base_/models/hier_mask_rcnn_r50_fpn.py',
    '../_base_/datasets/openimages_instance.py',
    'mmdet::_base_/default_runtime.py',
]

data_root = 'data/quickstart/'
taxonomy = data_root + 'store/train/taxonomy.json'
num_classes = 22
scale = (160, 160)

channels = 64
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        depth=18, base_channels=32, stem_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=channels),
    rpn_head=dict(
        in_channels=channels, feat_channels=channels,
        # Objects of 20 to 100 pixels.
        anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        mask_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(
            in_channels=channels, fc_out_channels=256, num_classes=num_classes,
            loss_cls=dict(taxonomy=taxonomy)),
        mask_head=dict(in_channels=channels, conv_out_channels=channels, num_convs=2, num_classes=num_classes)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=30)))

meta_keys = (
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction',
    'verified_positive', 'verified_negative')
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False,
    dataset=dict(
        store=data_root + 'store/train', data_root=data_root, taxonomy=taxonomy, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False,
    dataset=dict(
        store=data_root + 'store/validation', data_root=data_root, taxonomy=taxonomy, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(store=data_root + 'store/validation')
test_evaluator = val_evaluator

max_epochs = 6
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.02),
    clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, eta_min=1e-5, convert_to_iter_based=True),
]
randomness = dict(seed=0)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=1, max_keep_ckpts=1))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='hierseg.HierLocalVisualizer', vis_backends=vis_backends, name='visualizer')
