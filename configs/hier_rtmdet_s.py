# The real-time model on the 300 segmentable classes of Open Images, in its recommended size: RTMDet-Ins, one stage,
# 640 × 640, that knows parents, children and grandchildren. Beside it: hier_rtmdet_tiny.py and hier_rtmdet_m.py.
#   bash tools/dist_train.sh configs/hier_rtmdet_s.py 4
#   python tools/test.py configs/hier_rtmdet_s.py work_dirs/hier_rtmdet_s/epoch_40.pth
# 4 GPUs × 16 images = 64 images a step at a rate of 0.001: mmdet's 0.004 for 256, scaled; with another number of GPUs
# add --auto-scale-lr. 40 epochs show as many images as mmdet's 300 epochs of COCO do: 36 with mosaics and mix-up, 4
# without (mmdet: 280 and 20).
_base_ = [
    './_base_/models/hier_rtmdet_ins.py',
    './_base_/datasets/openimages_instance.py',
    './_base_/runtime.py',
]

num_classes = 300
max_epochs = 40
mixed_epochs = 36
base_lr = 0.001
image_size = (640, 640)
# ImageNet weights by address. To train without them: --cfg-options model.backbone.init_cfg=None
pretrained = 'https://mmassets.onedl.ai/mmdetection/v3.0/rtmdet/cspnext_rsb_pretrain/cspnext-s_imagenet_600e.pth'

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', prefix='backbone.', checkpoint=pretrained)),
    bbox_head=dict(
        num_classes=num_classes,
        loss_cls=dict(taxonomy=_base_.taxonomy),
        # Classes that nobody looked for on an image leave its loss; 50 of them, drawn, stay as negatives.
        verified=dict(class_counts=_base_.data_root + 'store/train', num_negatives=50, power=0.5)))

loading = _base_.train_pipeline[:2]
packing = _base_.train_pipeline[-1]
gray = dict(img=(114, 114, 114))
# Partners are the images that follow in the stream: docs/design.md.
train_pipeline = [
    *loading,
    dict(type='hierseg.Mosaic', img_scale=image_size, pad_val=114.0),
    dict(type='hierseg.RandomResizeCrop', scale=(1280, 1280), ratio_range=(0.5, 2.0), crop_size=image_size),
    dict(type='YOLOXHSVRandomAug'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=image_size, pad_val=gray),
    dict(type='hierseg.MixUp', img_scale=image_size, ratio_range=(1.0, 1.0), pad_val=114.0),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1)),
    packing,
]
train_pipeline_stage2 = [
    *loading,
    dict(type='hierseg.RandomResizeCrop', scale=image_size, ratio_range=(0.5, 2.0), crop_size=image_size),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1)),
    dict(type='YOLOXHSVRandomAug'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=image_size, pad_val=gray),
    packing,
]
test_pipeline = _base_.test_pipeline
for step in test_pipeline:
    if step.type == 'Resize':
        step.scale = image_size

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    # Classes come equally often, by own label or below: docs/sampling.md.
    sampler=dict(type='hierseg.ClassAwareStreamSampler'),
    # All images have one size.
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
validation_loss = _base_.validation_loss
validation_loss.dataloader.batch_size = 16
validation_loss.dataloader.dataset.pipeline = [
    *loading,
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='Pad', size=image_size, pad_val=gray),
    packing,
]

train_cfg = dict(
    type='EpochBasedTrainLoop',
    max_epochs=max_epochs,
    val_interval=4,
    dynamic_intervals=[(mixed_epochs, 1)])
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=base_lr, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0, bypass_duplicate=True))
# Flat for the first half, then a cosine down to a twentieth.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR',
        eta_min=base_lr * 0.05,
        begin=max_epochs // 2,
        end=max_epochs,
        T_max=max_epochs // 2,
        by_epoch=True,
        convert_to_iter_based=True)]

averaging = dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True, priority=49)
custom_hooks = [
    averaging,
    dict(type='PipelineSwitchHook', switch_epoch=mixed_epochs, switch_pipeline=train_pipeline_stage2)]
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=3, save_best='segm/mAP', rule='greater'),
    validation_loss=validation_loss)
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=64)
del step
