# The seed report's system on the 300 segmentable classes of Open Images: Mask R-CNN R101-FPN twice, layer 0 for the
# 213 root classes, layer 1 for the 87 deeper ones; one command trains both.
#   bash tools/dist_train.sh configs/two_layer_ensemble.py 4
#   python tools/test.py configs/two_layer_ensemble.py work_dirs/two_layer_ensemble/epoch_310.pth
# Epochs are counted through both layers: 1 to 150 train layer 0, 151 to 310 layer 1.
# From the report: the models, 4 GPUs × 2 images, 150 epochs of 700 steps and 160 of 280, the validation loss, a fixed
# number of images per class. It leaves open (and here is): that number (1,500, the 20th place's, who had the same two
# layers), the optimiser (SGD with momentum), its rate (0.01 at batch 8: MMDetection's 0.02 at 16, scaled, and the
# 20th place's number too), its steps (at 8/12 and 11/12 of a layer's epochs, as in MMDetection's 1x schedule) and the
# image size (MMDetection's 1333 × 800).
_base_ = [
    './_base_/models/two_layer_mask_rcnn_r50_fpn.py',
    './_base_/datasets/openimages_layers.py',
    './_base_/runtime.py',
]

num_classes = dict(layer0=213, layer1=87)
# ImageNet weights by address, so that torchvision is not needed. To train without them:
#   --cfg-options model.layer0.backbone.init_cfg=None model.layer0.backbone.frozen_stages=-1 \
#     model.layer0.backbone.norm_eval=False (and the same for layer1)
pretrained = 'https://download.pytorch.org/models/resnet101-63fe2227.pth'
backbone = dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint=pretrained))

model = dict(
    taxonomy=_base_.taxonomy,
    layer0=dict(
        backbone=backbone,
        roi_head=dict(
            bbox_head=dict(num_classes=num_classes['layer0']), mask_head=dict(num_classes=num_classes['layer0']))),
    layer1=dict(
        backbone=backbone,
        roi_head=dict(
            bbox_head=dict(num_classes=num_classes['layer1']), mask_head=dict(num_classes=num_classes['layer1']))))

train_cfg = dict(type='hierseg.LayerwiseTrainLoop', max_epochs=dict(layer0=150, layer1=160))
val_dataloader = None
val_evaluator = None
test_cfg = dict(type='TestLoop')

sgd = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001))
optim_wrapper = dict(constructor='hierseg.LayerwiseOptimWrapperConstructor', layer0=sgd, layer1=sgd)
warm_up = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)
param_scheduler = dict(
    layer0=[warm_up, dict(type='MultiStepLR', by_epoch=True, milestones=[100, 138], gamma=0.1)],
    layer1=[warm_up, dict(type='MultiStepLR', by_epoch=True, milestones=[107, 147], gamma=0.1)])

default_hooks = dict(
    param_scheduler=dict(type='hierseg.LayerwiseHook'),
    validation_loss=_base_.validation_loss,
    checkpoint=dict(interval=1, max_keep_ckpts=3))
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=8)
del backbone, sgd, warm_up
