# The end-to-end model on the 300 segmentable classes of Open Images: one Mask R-CNN R101-FPN that
# knows parents, children and grandchildren.
#   bash tools/dist_train.sh configs/hier_e2e.py 4
#   python tools/test.py configs/hier_e2e.py work_dirs/hier_e2e/epoch_12.pth
# 4 GPUs × 4 images = 16 images a step, the batch of mmdet's 1x schedule (SGD, lr 0.02, 12 epochs);
# with another number of GPUs add --auto-scale-lr.
_base_ = [
    './_base_/models/hier_mask_rcnn_r50_fpn.py',
    './_base_/datasets/openimages_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    './_base_/runtime.py',
]

num_classes = 300
num_root_classes = 213
# ImageNet weights by address, so that torchvision is not needed. To train without them:
#   --cfg-options model.backbone.init_cfg=None model.backbone.frozen_stages=-1 model.backbone.norm_eval=False
pretrained = 'https://download.pytorch.org/models/resnet101-63fe2227.pth'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    roi_head=dict(
        bbox_head=dict(num_classes=num_classes, loss_cls=dict(taxonomy=_base_.taxonomy)),
        mask_head=dict(num_classes=num_root_classes),
        # Classes that nobody looked for on an image leave its loss; 50 of them, drawn, stay as negatives.
        verified=dict(class_counts=_base_.data_root + 'store/train', num_negatives=50, power=0.5)))

# Classes come equally often, by own label or below. Of the samplers that balance, the one that scored best:
# docs/sampling.md.
train_dataloader = dict(sampler=dict(type='hierseg.ClassAwareStreamSampler'))

default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=3, save_best='segm/mAP', rule='greater'),
    validation_loss=_base_.validation_loss)
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=16)
