from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from adamas.channels import channel_groups
from adamas.compress.filters import Filters, l1_scores
from adamas.errors import AdamasError
from adamas.models.cnn8 import CNN8
from adamas.surgery import resize_to
from adamas.threat import Linf

THREAT = Linf()
X = torch.rand(2, 1, 28, 28)
BATCHES = [(X, torch.zeros(2, dtype=torch.long))]


def widths(model: nn.Module) -> list[int]:
    return [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(
    ("keep", "round_to", "expected", "params"),
    [
        (0.5, 1, [16, 16, 32, 32, 64, 64], 204_282),
        (0.2, 1, [7, 7, 13, 13, 26, 26], 66_728),
        (0.2, 8, [8, 8, 16, 16, 32, 32], 84_994),
    ],
)
def test_cnn8_gets_the_widths_and_parameters_of_the_paper(keep, round_to, expected, params):
    model = CNN8().build((1, 28, 28), 10)
    Filters(keep=keep, round_to=round_to).calibrate(model, BATCHES, THREAT)
    assert widths(model) == expected
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert model[13].in_features == expected[-1] * 16 and model[13].out_features == 128  # linear layers keep their outputs


def test_the_filters_of_largest_norm_stay():
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 784, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -4, 2, 3]).view(4, 1, 1, 1))
    expected = model[3].weight.view(2, 4, 784)[:, [1, 3]].flatten(1)
    Filters(round_to=1).calibrate(model, BATCHES, THREAT)
    assert model[0].weight.flatten().tolist() == [-4, 3] and torch.equal(model[3].weight, expected)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False), nn.Linear(2, 2)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[1.0], [2]]).view(2, 1, 1, 1))
            self.b.weight.copy_(torch.tensor([[3.0, -3], [1, 2]]).view(2, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.fc((x + self.b(x)).mean((2, 3)))


def test_scores_add_up_over_coupled_layers_and_leave_frozen_ones_out():
    model = Residual()
    (group,) = channel_groups(model, X)
    assert l1_scores(model, group).tolist() == [7, 5]
    model.b.requires_grad_(False)
    assert l1_scores(model, group).tolist() == [1, 2]
    model.a.requires_grad_(False)
    assert l1_scores(model, group).tolist() == [7, 5]  # with nothing trained, everything counts


def test_excluded_layers_and_what_is_coupled_with_them_keep_their_channels():
    model = CNN8(width=8).build((1, 28, 28), 10)
    Filters(exclude=("0", "1*"), round_to=1).calibrate(model, BATCHES, THREAT)
    assert widths(model) == [8, 4, 8, 8, 16, 32]
    with pytest.raises(AdamasError, match="expected channels that can be removed, got none: no group of channels"):
        Filters(exclude=("b",)).calibrate(Residual(), BATCHES, THREAT)
    with pytest.raises(AdamasError, match="exclude: expected the name of a convolution or linear layer, got 'c'"):
        Filters(exclude=("c",)).calibrate(Residual(), BATCHES, THREAT)


def test_the_plan_can_be_had_beforehand_and_is_logged(caplog):
    model = CNN8(width=8).build((1, 28, 28), 10)
    method = Filters(round_to=4)
    assert method.plan(model, X).widths["0"] == (8, 4) and model[0].out_channels == 8
    with caplog.at_level(logging.INFO, logger="adamas"):
        method.calibrate(model, BATCHES, THREAT)
    (record,) = caplog.records
    assert record.name == "adamas" and "params" in record.message and "=>" in record.message


def test_the_shapes_alone_bring_the_network_back():
    model = CNN8(width=8).build((1, 28, 28), 10)
    method = Filters(keep=0.3, round_to=2)
    method.attach(model)
    method.calibrate(model, BATCHES, THREAT)
    fresh = CNN8(width=8).build((1, 28, 28), 10)
    method.attach(fresh)
    resize_to(fresh, model.state_dict())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(X), model(X))


def test_without_a_batch_there_is_a_sentence():
    with pytest.raises(AdamasError, match="filters: expected a batch of images to try the smaller network on, got none"):
        Filters().calibrate(CNN8(width=8).build((1, 28, 28), 10), [], THREAT)
