# Layer 0 of the two-layer ensemble alone: a plain Mask R-CNN R101-FPN for the 213 root classes,
# 150 epochs of 700 steps.
#   bash tools/dist_train.sh configs/two_layer/layer0.py 4
# Its settings are those of configs/two_layer_ensemble.py, and from the same seed it ends with the weights that the
# ensemble's layer 0 ends with. To join the layers into a checkpoint of the ensemble:
#   python tools/misc/merge_layers.py --help
_base_ = '../two_layer_ensemble.py'

num_classes = _base_.num_classes.layer0
model = dict(_delete_=True, **_base_.model.layer0)
model_wrapper_cfg = None

shared = {key: value for key, value in _base_.train_dataloader.items() if not key.startswith('layer')}
train_dataloader = dict(_delete_=True, **shared, **_base_.train_dataloader.layer0)
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=_base_.train_cfg.max_epochs.layer0)
optim_wrapper = dict(_delete_=True, **_base_.optim_wrapper.layer0)
param_scheduler = _base_.param_scheduler.layer0
# The metric speaks of all classes, so a layer alone has its validation loss and no score.
test_dataloader = None
test_evaluator = None
test_cfg = None

validation = _base_.default_hooks.validation_loss.dataloader
shared_validation = {key: value for key, value in validation.items() if not key.startswith('layer')}
default_hooks = dict(
    param_scheduler=dict(type='ParamSchedulerHook'),
    validation_loss=dict(dataloader=dict(_delete_=True, **shared_validation, **validation.layer0)))
del shared, validation, shared_validation
