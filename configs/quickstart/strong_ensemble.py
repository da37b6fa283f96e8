# An opponent of the end-to-end model: the two-layer ensemble as strong as it can be made. Its layers have the
# end-to-end model's sampler, all images instead of a number of each class, and each as many steps as that model: twice
# its cost in all.
#   bash tools/quickstart.sh        makes the data; on it,
#   python tools/train.py configs/quickstart/strong_ensemble.py
#   python tools/test.py configs/quickstart/strong_ensemble.py work_dirs/strong_ensemble/epoch_8.pth
_base_ = './two_layer_ensemble.py'

layer = dict(batch_sampler=dict(iterations=140), dataset=dict(images_per_class=None))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='hierseg.ClassAwareStreamSampler'), layer0=layer, layer1=layer)
del layer
