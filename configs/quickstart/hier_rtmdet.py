# The real-time model, slim enough to learn from scratch on two CPU cores in minutes.
#   bash tools/quickstart.sh        does everything; or, on its data,
#   python tools/train.py configs/quickstart/hier_rtmdet.py
#   python tools/test.py configs/quickstart/hier_rtmdet.py work_dirs/hier_rtmdet/epoch_4.pth
_base_ = [
    '../_base_/models/hier_rtmdet_ins.py',
    '../_base_/datasets/openimages_instance.py',
    '../_base_/runtime.py',
    '../_base_/quickstart.py',
]

data_root = _base_.quickstart_root
taxonomy = data_root + 'store/train/taxonomy.json'

model = dict(
    backbone=dict(deepen_factor=0.167, widen_factor=0.375),
    neck=dict(in_channels=[96, 192, 384], out_channels=96),
    bbox_head=dict(
        in_channels=96,
        feat_channels=96,
        num_classes=22,
        loss_cls=dict(taxonomy=taxonomy),
        # About as many of 22 as 50 are of 300.
        verified=dict(class_counts=data_root + 'store/train', num_negatives=4, power=0.5)),
    test_cfg=dict(nms=dict(iou_threshold=0.5), max_per_img=30))

train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
for step in [*train_pipeline, *test_pipeline]:
    if step.type == 'Resize':
        step.scale = _base_.quickstart_scale
dataset = dict(data_root=data_root, taxonomy=taxonomy)
train_dataloader = dict(
    **_base_.slim_loading,
    sampler=dict(type='hierseg.ClassAwareStreamSampler'),
    # 4 epochs of 140 steps, as many as the others have.
    batch_sampler=dict(_delete_=True, type='hierseg.StreamBatchSampler', iterations=140),
    dataset=dict(store=data_root + 'store/train', pipeline=train_pipeline, **dataset))
val_dataloader = dict(
    **_base_.slim_loading,
    dataset=dict(store=data_root + 'store/validation', pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(store=data_root + 'store/validation')
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = _base_.slim_optim_wrapper
optim_wrapper.optimizer.lr = 4e-3
param_scheduler = _base_.slim_param_scheduler

validation_loss = _base_.validation_loss
validation_loss.update(num_batches=5)
validation_loss.dataloader.update(_base_.slim_loading)
validation_loss.dataloader.dataset.update(
    store=data_root + 'store/validation',
    pipeline=[step for step in train_pipeline if step.type != 'RandomFlip'],
    **dataset)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=1, max_keep_ckpts=1), validation_loss=validation_loss)
randomness = dict(seed=0)
del step, dataset
