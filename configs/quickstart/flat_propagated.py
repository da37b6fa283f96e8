# An opponent of the end-to-end model: one flat detector, whose parents get their scores after inference. Data, sampler,
# verified labels and heads are the end-to-end model's; only its loss knows no hierarchy.
#   bash tools/quickstart.sh        makes the data; on it,
#   python tools/train.py configs/quickstart/flat_propagated.py
#   python tools/test.py configs/quickstart/flat_propagated.py work_dirs/flat_propagated/epoch_4.pth
_base_ = './hier_e2e.py'

model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(_delete_=True, type='hierseg.PropagatedCrossEntropy', taxonomy=_base_.taxonomy))))
