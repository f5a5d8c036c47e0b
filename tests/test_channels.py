from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.channels import Axis, channel_groups, weight_layers
from adamas.errors import AdamasError
from adamas.models.resnet import ResNet18

X = torch.rand(2, 3, 8, 8)


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return torch.cat([weight, weight])[: len(weight)] * 2


def plain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(),
        nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 10),
    )  # fmt: skip


def test_a_group_says_where_each_of_its_channels_lives():
    conv, hidden = channel_groups(plain(), X)
    assert (conv.name, conv.layers, conv.width, conv.blocked) == ("0", ("0",), 4, "")
    assert (hidden.name, hidden.layers, hidden.width) == ("5", ("5",), 6)
    rows = {f"{axis.tensor}:{axis.dim}": index.tolist() for axis, index in conv.axes.items()}
    own = [[0], [1], [2], [3]]
    assert rows == {
        "0.weight:0": own, "0.bias:0": own,
        "1.weight:0": own, "1.bias:0": own, "1.running_mean:0": own, "1.running_var:0": own,
        "5.weight:1": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]],
    }  # fmt: skip
    assert [axis.tensor for axis in conv.axes if not axis.produces] == ["5.weight"]


def test_logits_are_in_no_group():
    assert [group.layers for group in channel_groups(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), X)] == []
    all_convolutional = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert [group.layers for group in channel_groups(all_convolutional, X)] == [("0",)]


def test_residual_additions_couple_layers():
    groups = channel_groups(ResNet18(width=4).build((3, 8, 8), 10), X)
    assert [group.layers for group in groups][:3] == [("0", "3.conv2", "4.conv2"), ("3.conv1",), ("4.conv1",)]
    assert [set(group.layers) for group in groups if len(group.layers) > 1][1:] == [
        {f"{a}.conv2", f"{a}.shortcut.0", f"{a + 1}.conv2"} for a in (5, 7, 9)
    ]
    assert [group.width for group in groups] == [4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32]


class PartlyCoupled(nn.Module):
    """The first half of `c` is added to `a`, the second half to `b`."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.c(x) + torch.cat([self.a(x), self.b(x)], 1)).mean((2, 3)))


def test_a_layer_coupled_with_two_others_falls_into_two_groups():
    groups = channel_groups(PartlyCoupled(), X)
    assert [group.name for group in groups] == ["c[0..3], a", "c[4..7], b"]
    second = {axis.tensor: index.flatten().tolist() for axis, index in groups[1].axes.items()}
    assert second["b.weight"] == [0, 1, 2, 3] and second["c.weight"] == second["fc.weight"] == [4, 5, 6, 7]


def test_grouped_convolutions_split_their_channels_into_blocks_and_depthwise_ones_couple_both_sides():
    grouped = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 1, groups=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)
    )
    first, second = channel_groups(grouped, X)
    assert (first.width, first.blocks, second.width, second.blocks) == (8, 4, 12, 4)
    assert Axis("1.weight", 1, produces=False, blocks=4) in first.axes
    depthwise = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    (both,) = channel_groups(depthwise, X)
    assert both.layers == ("0", "1") and both.blocks == 1


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.GroupNorm(2, 4), "'1' is a GroupNorm, which cannot lose channels"),
        (nn.LayerNorm([4, 8, 8]), "'1' is a LayerNorm, which cannot lose channels"),
        (nn.ConvTranspose2d(4, 4, 1), "'1' is a ConvTranspose2d, which cannot lose channels"),
        (nn.Conv2d(4, 2, 1, groups=2), "tracing could not follow its channels to '1.weight'"),
    ],
)
def test_layers_that_cannot_lose_channels_block_their_group(layer, reason):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layer, nn.Conv2d(layer(torch.ones(1, 4, 8, 8)).shape[1], 4, 1))
    model.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)])
    groups = channel_groups(model, X)
    assert groups[0].blocked == reason and not groups[0].axes
    assert groups[-1].layers == ("2",) and not groups[-1].blocked


def test_parametrized_layers_block_their_groups_and_stay_intact():
    model = plain()
    parametrize.register_parametrization(model[5], "weight", Twice())
    before = model(X)
    conv, hidden = channel_groups(model, X)
    assert conv.blocked == hidden.blocked == "'5' is parametrized by Twice; remove channels before, or bake it"
    assert torch.equal(model(X), before) and parametrize.is_parametrized(model[5])


def test_frozen_layers_are_followed_and_the_model_is_left_as_it_was():
    model = plain().requires_grad_(False)
    assert len(channel_groups(model, X)) == 2
    assert model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert model[1].num_batches_tracked == 0


def test_weight_layers_takes_names_and_patterns():
    model = ResNet18(width=2).build((3, 8, 8), 10)
    assert list(weight_layers(model, ["*.conv?", "*.shortcut.*"])) == ["0", "13"]
    assert list(weight_layers(plain(), ["5"])) == ["0", "7"]


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(AdamasError) as error:
        weight_layers(nn.ModuleDict({"stem": nn.Conv2d(3, 4, 1), "head": nn.Linear(4, 2)}), ["stemm"])
    assert str(error.value) == (
        "exclude: expected the name of a convolution or linear layer, got 'stemm'; did you mean 'stem'? Valid: head, stem"
    )


def test_a_model_that_does_not_run_or_cannot_be_copied_is_refused():
    with pytest.raises(
        AdamasError, match=r"the model does not run on images of shape \(2, 1, 8, 8\) \(RuntimeError: Given groups=1"
    ):
        channel_groups(plain(), X[:, :1])
    model = plain()
    model.cached = model[0].weight * 2
    with pytest.raises(
        AdamasError, match="expected a model that can be copied, got RuntimeError: Only Tensors created explicitly"
    ):
        channel_groups(model, X)
