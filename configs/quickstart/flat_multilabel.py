# An opponent of the end-to-end model: one flat detector with a sigmoid for each class, trained on labels that are
# expanded to all ancestors, as UniDet's (Zhou et al., CVPR 2022). Everything but the loss is the end-to-end model's.
#   bash tools/quickstart.sh        makes the data; on it,
#   python tools/train.py configs/quickstart/flat_multilabel.py
#   python tools/test.py configs/quickstart/flat_multilabel.py work_dirs/flat_multilabel/epoch_4.pth
_base_ = './hier_e2e.py'

model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(scheme='sigmoid'))))
