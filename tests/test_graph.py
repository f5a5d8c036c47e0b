"""Tracing, batch-norm folding and running an edited graph in the model's own clothes."""

from __future__ import annotations

import copy
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.errors import AdamasError
from adamas.graph import become, fold_batch_norms, insert_after, modes_kept, operation, trace
from adamas.models import normalized
from adamas.models.resnet import ResNet18
from adamas.weights import bake, private_copy


class Scale(nn.Module):
    """A parametrization that cannot be assigned to."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Clipped(nn.Module):
    """A parametrization that forgets part of what is assigned to it."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.clamp(-0.01, 0.01)


def lived_in(model: nn.Module) -> nn.Module:
    """Give every batch norm statistics and factors that are far from the identity."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            if norm.weight is not None:
                nn.init.uniform_(norm.weight, -1, 1)
                nn.init.normal_(norm.bias)
    return model


def folded(model: nn.Module) -> nn.Module:
    graph = trace(model)
    fold_batch_norms(model, graph)
    become(model, graph)
    return model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) for module in model.modules())


@pytest.mark.parametrize(
    "model",
    [
        normalized(ResNet18(width=4).build((3, 8, 8), 10), [0.5] * 3, [0.2] * 3),
        nn.Sequential(
            nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6, affine=False), nn.Flatten(), nn.Linear(216, 4), nn.BatchNorm1d(4)
        ),
    ],
    ids=["residual", "depthwise-and-linear"],
)
def test_folding_keeps_the_outputs_and_leaves_no_batch_norm(model):
    model = lived_in(copy.deepcopy(model)).eval()
    x = torch.rand(5, 3, 8, 8)
    before = model(x)
    assert torch.allclose(folded(model)(x), before, atol=1e-4)
    assert norms(model) == 0


def test_a_batch_norm_that_is_not_alone_behind_a_layer_stays():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.untracked = (
                nn.Conv2d(3, 3, 1),
                nn.BatchNorm2d(3),
                nn.BatchNorm2d(3, track_running_stats=False),
            )
            self.other = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) + y + self.untracked(self.other(x))

    model = Shared().eval()
    x = torch.rand(4, 3, 5, 5)
    before = model(x)
    assert torch.equal(folded(model)(x), before) and norms(model) == 2


def test_a_masked_weight_is_folded_through_its_parametrization():
    class Mask(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * torch.arange(len(weight)).remainder(2).view(-1, 1, 1, 1)

        def right_inverse(self, weight: Tensor) -> Tensor:
            return weight

    model = lived_in(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))).eval()
    parametrize.register_parametrization(model[0], "weight", Mask())
    x = torch.rand(2, 3, 5, 5)
    before = model(x)
    assert torch.allclose(folded(model)(x), before, atol=1e-5)
    assert (model[0].weight[::2] == 0).all()


@pytest.mark.parametrize("step", [Scale(), Clipped()], ids=["no right_inverse", "lossy right_inverse"])
def test_a_weight_that_cannot_be_assigned_is_named(step):
    model = lived_in(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)))
    nn.init.constant_(model[1].weight, 9)
    parametrize.register_parametrization(model[0], "weight", step, unsafe=True)
    with pytest.raises(AdamasError, match=rf"got layer 0 parametrized by {type(step).__name__}, .* bake the weights first"):
        folded(model)


def test_a_frozen_layer_stays_frozen():
    model = lived_in(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)))
    model[0].weight.requires_grad_(False)
    assert not folded(model)[0].weight.requires_grad


def test_the_layer_and_line_that_cannot_be_traced_are_named():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.child = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else self.child(x)

    model = nn.Sequential(nn.Flatten(), Branch()).train()
    with pytest.raises(AdamasError, match=r"got TraceError \(.*\) in layer 1 \(Branch, test_graph.py line \d+\); move code"):
        trace(model)
    assert all(module.training for module in model.modules())


def test_a_branch_inside_a_module_without_children_is_kept_whole():
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    model = folded(nn.Sequential(nn.Linear(2, 2), Branch()))
    assert model(torch.randn(3, 2)).sum() >= 0


def test_a_forward_that_reads_the_training_flag_is_refused():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.layer(x), training=self.training)

    with pytest.raises(AdamasError, match=r"one that reads self.training; use modules such as nn.Dropout"):
        trace(Dropping())


def test_a_model_that_runs_an_edited_graph_is_otherwise_the_model_it_was():
    model = normalized(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), [0.0], [1.0])
    names, x = list(model.state_dict()), torch.randn(2, 1, 3, 4)
    before = model(x)
    graph = trace(model)
    relu = next(node for node in graph.nodes if operation(model, node) is nn.ReLU)
    model.add_module("twice", nn.Linear(4, 4))
    insert_after(graph, relu, "twice")
    become(model, graph)
    assert isinstance(model, nn.Sequential) and torch.equal(model.net(model.normalize(x)), before)
    assert torch.equal(model(x), model.twice(before))
    assert list(model.state_dict()) == [*names, "twice.weight", "twice.bias"]
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert not model.eval().net[1].training and model.train().net[1].training
    assert [operation(model, node) for node in trace(model).nodes][-2:] == [nn.Linear, "output"]


def test_functions_and_methods_are_told_apart():
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x + x.flatten())

    model = Net()
    assert [operation(model, node) for node in trace(model).nodes] == [
        "placeholder",
        "flatten",
        operator.add,
        torch.relu,
        "output",
    ]


def test_modes_come_back_also_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with pytest.raises(ZeroDivisionError), modes_kept(model):
        model.eval()
        raise ZeroDivisionError
    assert model.training and model[0].training and not model[1].training


def test_baking_a_private_copy_leaves_the_original_parametrized():
    model = nn.Linear(3, 3)
    parametrize.register_parametrization(model, "weight", Scale(), unsafe=True)
    before = model.weight.clone()
    bake(private_copy(model))
    assert torch.equal(model.weight, before) and parametrize.is_parametrized(model)
