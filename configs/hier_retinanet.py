# Boxes without masks on the 300 classes of Open Images that have masks: RetinaNet R50-FPN that knows parents, children
# and grandchildren, and learns from boxes without masks as from all others.
#   bash tools/dist_train.sh configs/hier_retinanet.py 4
#   python tools/test.py configs/hier_retinanet.py work_dirs/hier_retinanet/epoch_12.pth
# 4 GPUs × 4 images = 16 images a step, the batch of mmdet's 1x schedule (SGD, lr 0.01, 12 epochs);
# with another number of GPUs add --auto-scale-lr.
_base_ = [
    './_base_/models/hier_retinanet_r50_fpn.py',
    './_base_/datasets/openimages_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    './_base_/runtime.py',
]

num_classes = 300
# ImageNet weights by address, so that torchvision is not needed. To train without them:
#   --cfg-options model.backbone.init_cfg=None model.backbone.frozen_stages=-1 model.backbone.norm_eval=False
pretrained = 'https://download.pytorch.org/models/resnet50-0676ba61.pth'

model = dict(
    backbone=dict(init_cfg=dict(checkpoint=pretrained)),
    bbox_head=dict(
        num_classes=num_classes,
        loss_cls=dict(taxonomy=_base_.taxonomy),
        # Classes that nobody looked for on an image leave its loss; 50 of them, drawn, stay as negatives.
        verified=dict(class_counts=_base_.data_root + 'store/train', num_negatives=50, power=0.5)))

# No mask is read.
validation_loss = _base_.validation_loss
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
for step in [*train_pipeline, *validation_loss.dataloader.dataset.pipeline, *test_pipeline]:
    if step.type.endswith('LoadAnnotations'):
        step.with_mask = False
# Classes come equally often, by own label or below: docs/sampling.md.
train_dataloader = dict(
    sampler=dict(type='hierseg.ClassAwareStreamSampler'), dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# Boxes against boxes, of all objects; the protocol of Open Images' detection challenge.
val_evaluator = dict(iou_type='bbox')
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=0.01))
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=3, save_best='bbox/mAP', rule='greater'),
    validation_loss=validation_loss)
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=16)
del step
