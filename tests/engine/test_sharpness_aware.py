"""Sharpness-aware minimisation takes the gradient uphill, adaptive clipping bounds each unit, a group its own norm."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.engine.test_update import batches, net, policy, updater
from trainer.checkpoint.io import checkpoint_path, read
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.engine.gradients import clip_norms, clip_units
from trainer.lr import ConfigError
from trainer.optim.groups import Group
from trainer.run import fit

SMALL = (
    *("data.batch_size=32", "model.hidden=[16]", "model.dropout=0.3", "trainer.accumulate=2", "logger=none"),
    *("trainer.duration=20", "trainer.validate=10", "trainer.steps_per_execution=4", "trainer.keep=0"),
)


def test_a_sharpness_aware_update_is_the_formula_in_double_precision():
    ours, theirs = net(), net()
    update = updater(ours, kind=torch.optim.SGD, momentum=0.9)
    update.treatment = GradientTreatment(sam=0.1)
    weights = list(theirs.parameters())
    buffers = [torch.zeros_like(weight) for weight in weights]
    for t, batch in enumerate(batches(5)):
        update([batch])

        def gradients(at, batch=batch):
            outputs = torch.func.functional_call(theirs, dict(zip(dict(theirs.named_parameters()), at)), batch.inputs)
            return torch.autograd.grad(nn.functional.mse_loss(outputs, batch.targets), at)

        first = gradients(weights)
        norm = math.sqrt(sum((g**2).sum().item() for g in first))
        up = [(w + 0.1 * g / norm).detach().requires_grad_() for w, g in zip(weights, first)]
        buffers = [0.9 * b + g for b, g in zip(buffers, gradients(up))]
        weights = [(w - policy().lr(t) * b).detach().requires_grad_() for w, b in zip(weights, buffers)]
    for a, b in zip(ours.parameters(), weights):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_the_ascent_leaves_no_bit_behind_and_the_norms_see_the_first_pass_alone():
    model, plain = (nn.Sequential(net(), nn.BatchNorm1d(2).double(), nn.Dropout(0.5)) for _ in range(2))
    up, straight = updater(model), updater(plain)
    up.treatment = GradientTreatment(sam=0.5)
    for optimizer in (up.optimizer, straight.optimizer):
        optimizer.step = lambda: None
    before = [parameter.clone() for parameter in model.parameters()]
    for update in (up, straight):
        update.control.write = lambda *_: None
        update(batches(2))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), plain.buffers()))
    assert up.metric_buffer.measures[0] == straight.metric_buffer.measures[0]
    assert up.metric_buffer.measures[1] != straight.metric_buffer.measures[1]


def test_two_micro_batches_ascend_by_the_gradient_of_both():
    split, whole = net(), net()
    pieces = batches(2)
    one = pieces[0]._replace(batch=tuple(torch.cat([piece.batch[i] for piece in pieces]) for i in (0, 1)))
    for model, update in ((split, pieces), (whole, [one])):
        stepped = updater(model)
        stepped.treatment = GradientTreatment(sam=0.2)
        stepped(update)
    for a, b in zip(split.parameters(), whole.parameters()):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_adaptive_clipping_bounds_each_unit_by_its_weights_as_the_paper_says():
    torch.manual_seed(0)
    shapes = ((3, 4), (5, 2, 3, 3), (6,), (1, 2))
    parameters = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
    parameters[0].data[1] = 0.0
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * 0.05
    expected = []
    for parameter in parameters:
        units = [...] if parameter.ndim == 1 else range(len(parameter))
        clipped = parameter.grad.clone()
        for unit in units:
            g, w = parameter.grad[unit].norm().item(), max(parameter.data[unit].norm().item(), 1e-3)
            if g / w > 0.04:
                clipped[unit] *= 0.04 * w / g
        expected.append(clipped)
    unclipped = [parameter.grad.clone() for parameter in parameters]
    clip_units(parameters, 0.04)
    assert all(torch.allclose(p.grad, e, rtol=1e-12, atol=0) for p, e in zip(parameters, expected))
    same = [torch.equal(a, b) for p, q in zip(parameters, unclipped) for a, b in zip(p.grad, q)]
    assert any(same)
    assert not all(same)


def test_a_group_with_a_limit_is_clipped_by_its_own_norm_and_the_rest_together_by_the_common_one():
    groups = [[nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2)] for _ in range(3)]
    values = ([3.0, 0.0, 4.0, 0.0], [6.0, 0.0, 0.0, 8.0], [0.0, 5.0, 12.0, 0.0])
    for group, numbers in zip(groups, values):
        for parameter, pair in zip(group, (numbers[:2], numbers[2:])):
            parameter.grad = torch.tensor(pair, dtype=torch.float64)
    norm = clip_norms(groups, [None, 2.0, None], 1.0)
    assert norm.item() == pytest.approx(math.sqrt(25 + 100 + 169))
    gradients = [torch.cat([p.grad for p in group]).tolist() for group in groups]
    assert gradients[1] == pytest.approx([x * 2 / 10 for x in values[1]], rel=1e-6)
    rest = math.sqrt(25 + 169)
    assert gradients[0] == pytest.approx([x / rest for x in values[0]], rel=1e-6)
    assert gradients[2] == pytest.approx([x / rest for x in values[2]], rel=1e-6)


def test_without_a_common_limit_only_the_group_with_its_own_is_clipped():
    groups = [[nn.Parameter(torch.zeros(1))], [nn.Parameter(torch.zeros(1))], [nn.Parameter(torch.zeros(1))]]
    for group in groups[:2]:
        group[0].grad = torch.full((1,), 5.0)
    clip_norms(groups, [None, 1.0, 1.0], None)
    assert [group[0].grad.item() for group in groups[:2]] == pytest.approx([5.0, 1.0])


def test_the_clip_of_a_group_reaches_the_update(assembled):
    assembly = assembled(*SMALL, "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false")
    spec = assembly.module.spec
    assert [group.name for group in spec.groups] == ["decay", "no_decay"]
    limited = [spec.groups[0], replace(spec.groups[1], clip=1e-9)]
    assert isinstance(limited[1], Group)
    assembly.module.spec = replace(spec, groups=limited)
    before = [parameter.clone() for parameter in limited[1].parameters], spec.groups[0].parameters[0].clone()
    fit(assembly)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(before[0], limited[1].parameters))
    assert not torch.allclose(before[1], spec.groups[0].parameters[0], atol=1e-2)


@pytest.mark.parametrize("chosen", ["trainer.sam=0.05", "trainer.agc=0.01"])
def test_a_run_with_it_resumes_to_the_same_bits_and_differs_from_one_without(assembled, chosen):
    whole, plain = (assembled(*SMALL, *extra, folder=f"run{len(extra)}") for extra in ([chosen], []))
    for assembly in (whole, plain):
        fit(assembly)
    resumed = assembled(*SMALL, chosen, folder="resumed", resumed=checkpoint_path(whole.checkpointing.folder, 10))
    fit(resumed)
    ends = [read(checkpoint_path(run.checkpointing.folder, 20))["state_dict"] for run in (whole, resumed, plain)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert not all(torch.equal(value, ends[2][name]) for name, value in ends[0].items())


@pytest.mark.parametrize("chosen", ["trainer.sam=0", "trainer.sam=-0.1", "trainer.agc=0", "trainer.agc=text"])
def test_a_number_that_makes_no_sense_is_refused(assembled, chosen):
    with pytest.raises(ConfigError, match=chosen.split("=")[0]):
        assembled(*SMALL, chosen)
