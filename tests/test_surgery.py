from __future__ import annotations

import copy
import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.channels import ChannelGroup
from adamas.compress.prune import Prune
from adamas.errors import AdamasError
from adamas.models.cnn8 import CNN8
from adamas.models.resnet import ResNet18
from adamas.surgery import Plan, channel_groups, plan_widths, rehearse, remove_channels, resize_to

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A forward function over named layers."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **layers: nn.Module):
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)

    def head(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def conv(before: int, after: int, size: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, padding=size // 2, **options)


def line(*layers: nn.Module, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))


def dense() -> Net:
    def forward(net: Net, x: Tensor) -> Tensor:
        a = net.c1(x)
        y = torch.cat([a, net.c2(F.relu(net.b1(a)))], 1)
        return net.head(torch.cat([y, net.c3(F.relu(net.b2(y)))], 1))

    layers = {"c1": conv(3, 16), "b1": nn.BatchNorm2d(16), "c2": conv(16, 8), "b2": nn.BatchNorm2d(24), "c3": conv(24, 8)}
    return Net(forward, **layers, fc=nn.Linear(32, 10))


def squeeze() -> Net:
    def forward(net: Net, x: Tensor) -> Tensor:
        y = F.relu(net.c(x))
        gate = torch.sigmoid(net.e2(F.relu(net.e1(y.mean((2, 3), keepdim=True)))))
        return net.head(net.d(y * gate))

    return Net(forward, c=conv(3, 16), e1=conv(16, 4, 1), e2=conv(4, 16, 1), d=conv(16, 16), fc=nn.Linear(16, 10))


def option_a() -> Net:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x))
        return net.head(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)) + net.c(F.relu(net.b(x))))

    return Net(forward, a=conv(3, 8), b=conv(8, 8), c=conv(8, 16, stride=2), fc=nn.Linear(16, 10))


def constant() -> Net:
    net = Net(lambda net, x: net.head(net.d(net.constant * net.c(x))), c=conv(3, 16), d=conv(16, 16), fc=nn.Linear(16, 10))
    net.register_buffer("constant", torch.rand(1, 16, 1, 1))
    return net


def scaled() -> Net:
    net = Net(lambda net, x: net.head(F.relu(net.scale * net.c(x) + net.shift)), c=conv(3, 16), fc=nn.Linear(16, 10))
    net.scale, net.shift = nn.Parameter(torch.rand(16, 1, 1)), nn.Parameter(torch.rand(1, 16, 1, 1))
    return net


def viewed() -> Net:
    return Net(
        lambda net, x: net.fc(F.avg_pool2d(F.relu(net.d(net.c(x))), 2).view(-1, 256)),
        c=conv(3, 16),
        d=conv(16, 16),
        fc=nn.Linear(256, 10),
    )


def nhwc() -> Net:
    return Net(
        lambda net, x: net.fc(net.d(net.c(x)).permute(0, 2, 3, 1).flatten(1)),
        c=conv(3, 8),
        d=conv(8, 8),
        fc=nn.Linear(512, 10),
    )


def halved(model: nn.Module, x: Tensor = X, round_to: int = 1) -> Plan:
    groups = channel_groups(model, x)
    return remove_channels(model, plan_widths(groups, [torch.rand(group.width) for group in groups], 0.5, round_to), x)


def shaken(model: nn.Module) -> nn.Module:
    """The model with batch-norm statistics and weights that are not those of a fresh one."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean.uniform_(-1, 1)
            layer.running_var.uniform_(0.5, 2)
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -1, 1)
    return model


# ---------------------------------------------------------------------------------------------------- what works

WORKS = {
    "plain": lambda: line(conv(3, 16), nn.BatchNorm2d(16), nn.ReLU(), conv(16, 16), nn.SiLU(inplace=True)),
    "bare batch norm": lambda: line(conv(3, 16), nn.BatchNorm2d(16, affine=False), nn.ReLU(), conv(16, 16)),
    "batch statistics": lambda: line(conv(3, 16), nn.BatchNorm2d(16, track_running_stats=False), nn.ReLU(), conv(16, 16)),
    "depthwise": lambda: line(conv(3, 24), nn.BatchNorm2d(24), nn.ReLU6(), conv(24, 24, groups=24), conv(24, 16, 1)),
    "grouped": lambda: line(conv(3, 16), nn.ReLU(), conv(16, 32, groups=4), nn.BatchNorm2d(32), nn.ReLU(), conv(32, 16)),
    "flatten": lambda: nn.Sequential(
        conv(3, 16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 6), nn.Linear(6, 10)
    ),
    "batch norm behind flatten": lambda: nn.Sequential(conv(3, 4), nn.Flatten(), nn.BatchNorm1d(256), nn.Linear(256, 10)),
    "prelu": lambda: line(conv(3, 16), nn.PReLU(16), conv(16, 16), nn.PReLU()),
    "instance norm": lambda: line(conv(3, 16), nn.InstanceNorm2d(16, affine=True), nn.ReLU(), conv(16, 16)),
    "residual": lambda: ResNet18(width=4).build((3, 8, 8), 10),
    "concatenation": dense,
    "squeeze and excite": squeeze,
    "own parameters": scaled,
    "bfloat16": lambda: line(conv(3, 16), nn.ReLU(), conv(16, 16)).bfloat16(),
    "frozen": lambda: line(conv(3, 16), nn.ReLU(), conv(16, 16)).requires_grad_(False),
    "eval mode": lambda: line(conv(3, 16), nn.Dropout(), conv(16, 16)).eval(),
}


@pytest.mark.parametrize("name", WORKS)
def test_half_of_all_channels_go_and_the_logits_are_those_of_the_zeroed_network(name):
    model = shaken(WORKS[name]())
    groups, whole = channel_groups(model, X), copy.deepcopy(model)
    plan = remove_channels(model, plan_widths(groups, [torch.rand(group.width) for group in groups], 0.5, 1), X)

    assert not plan.held_back and all(after == before // 2 for before, after in plan.widths.values())
    assert plan.params == tuple(sum(p.numel() for p in m.parameters()) for m in (whole, model))
    zero_by_hand(whole, plan)
    x, tolerance = X.to(next(model.parameters()).dtype), 1e-2 if name == "bfloat16" else 1e-5
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), whole.eval()(x), rtol=tolerance, atol=tolerance)


def zero_by_hand(model: nn.Module, plan: Plan) -> None:
    """Zero every filter, bias and statistic of the channels that a plan removes."""
    state = model.state_dict()
    for group, kept in zip(plan.groups, plan.kept, strict=True):
        gone = [channel for channel in range(group.width) if channel not in kept]
        for axis, index in group.axes.items():
            if axis.produces:
                state[axis.tensor].movedim(axis.dim, 0)[index[gone].flatten()] = 0


@pytest.mark.parametrize("name", WORKS)
def test_mode_dtype_and_requires_grad_stay_and_a_fresh_model_takes_the_shapes(name):
    torch.manual_seed(0)
    model = WORKS[name]()
    before = {key: (p.dtype, p.requires_grad) for key, p in model.named_parameters()}, model.training
    halved(model)
    assert before == ({key: (p.dtype, p.requires_grad) for key, p in model.named_parameters()}, model.training)
    fresh = WORKS[name]()
    resize_to(fresh, model.state_dict())
    fresh.load_state_dict(model.state_dict())
    declared = [str(layer) for layer in model.modules() if not list(layer.children())]
    assert declared == [str(layer) for layer in fresh.modules() if not list(layer.children())]
    x = X.to(next(model.parameters()).dtype)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), fresh.eval()(x))


def test_declared_widths_follow():
    model = WORKS["grouped"]()
    halved(model)
    assert (model[0].out_channels, model[2].in_channels, model[2].out_channels, model[2].groups) == (8, 8, 16, 4)
    assert model[2].weight.shape == (16, 2, 3, 3) and model[3].num_features == 16 and model[-1].in_features == 8
    model = WORKS["depthwise"]()
    halved(model)
    assert (model[3].in_channels, model[3].out_channels, model[3].groups) == (12, 12, 12)
    model = WORKS["flatten"]()
    halved(model)
    assert (model[4].in_features, model[4].out_features, model[5].in_features) == (8 * 16, 3, 3)


def test_the_smaller_model_trains():
    model = ResNet18(width=4).build((3, 8, 8), 10)
    halved(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.state_dict())
    F.cross_entropy(model(X), torch.arange(4)).backward()
    optimizer.step()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_resnet18_halves_every_width_within_seconds():
    model = ResNet18().build((3, 32, 32), 10)
    start = time.perf_counter()
    plan = halved(model, torch.rand(2, 3, 32, 32), round_to=8)
    assert time.perf_counter() - start < 10
    assert not plan.held_back and plan.params == (11_173_962, 2_797_610)
    assert sorted(after for _, after in plan.widths.values()) == [32] * 3 + [64] * 3 + [128] * 3 + [256] * 3


# --------------------------------------------------------------------------------------------- what is held back

HELD_BACK = {
    "group norm": (lambda: line(conv(3, 16), nn.GroupNorm(4, 16), conv(16, 16)), ["0"], "is a GroupNorm"),
    "group norm without weights": (
        lambda: line(conv(3, 16), nn.GroupNorm(4, 16, affine=False), conv(16, 16)), ["0"], "the logits differ by"
    ),
    "sigmoid": (lambda: line(conv(3, 16), nn.Sigmoid(), conv(16, 16)), ["0"], "the logits differ by"),
    "fixed view": (viewed, ["d"], "the model does not run on images of shape"),
    "channels last": (nhwc, ["d"], "the logits differ by"),
    "constant": (constant, ["c"], "size of tensor a (16) must match the size of tensor b (8)"),
    "padding shortcut": (option_a, ["a, c[0..7]", "a[8..15], c[8..15]"], "without these channels"),
    "channel multiplier": (
        lambda: line(conv(3, 8), conv(8, 16, groups=8), conv(16, 16)), ["0"],
        "4 of its 8 channels, rounded up to a multiple of 8, are all of them",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD_BACK)
def test_only_the_group_at_fault_is_held_back_with_its_reason(name):
    make, held, reason = HELD_BACK[name]
    model = make()
    plan = halved(model)
    assert list(plan.held_back) == held and reason in plan.held_back[held[0]]
    for group, (before, after) in plan.widths.items():
        assert after == (before if group in plan.held_back else before // 2)
    assert plan.removes and model(X).shape == (4, 10)


def test_two_layers_that_fill_one_group_each_of_a_grouped_convolution_cannot_go_one_by_one():
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.head(net.d(torch.sigmoid(net.s(net.g(torch.cat([net.a(x), net.b(x)], 1))))))

    def make() -> Net:
        layers = {"a": conv(3, 8), "b": conv(3, 8), "g": conv(16, 16, groups=2), "s": conv(16, 16), "d": conv(16, 16)}
        return Net(forward, **layers, fc=nn.Linear(16, 10))

    plan = halved(make())
    uneven = "without these channels 'g' would have groups of unequal width"
    assert list(plan.held_back) == ["a", "b", "s"] and plan.held_back["a"] == plan.held_back["b"] == uneven
    model = make()
    groups = [group for group in channel_groups(model, X) if group.layers != ("s",)]
    plan = remove_channels(model, plan_widths(groups, [torch.rand(group.width) for group in groups], 0.5, 1), X)
    assert not plan.held_back and model.g.weight.shape == (8, 4, 3, 3)


def test_with_everything_held_back_the_first_reasons_are_told_and_the_model_is_untouched():
    model = line(conv(3, 16), nn.Sigmoid())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        AdamasError, match=r"expected channels that can be removed, got none: 0: without these channels the logits differ"
    ):
        halved(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(AdamasError, match="got none: no group of channels"):
        halved(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)))


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_parametrized_layers_are_refused_with_a_sentence():
    model = line(conv(3, 16), nn.ReLU(), conv(16, 16), nn.ReLU(), conv(16, 16), nn.ReLU(), conv(16, 16))
    parametrize.register_parametrization(model[2], "weight", Twice())
    plan = halved(model)
    assert plan.held_back == dict.fromkeys(["0", "2"], "'2' is parametrized by Twice; remove channels before, or bake it")
    assert plan.widths == {"0": (16, 16), "2": (16, 16), "4": (16, 8), "6": (16, 8)}
    assert parametrize.is_parametrized(model[2]) and model(X).shape == (4, 10)


# ---------------------------------------------------------------------------------------------------- the plan


def group(name: str, width: int, blocks: int = 1) -> ChannelGroup:
    return ChannelGroup(name, (name,), width, {}, blocks)


@pytest.mark.parametrize(
    ("width", "keep", "round_to", "kept"),
    [
        (32, 0.2, 1, 7), (64, 0.2, 1, 13), (128, 0.2, 1, 26), (32, 0.2, 8, 8), (128, 0.2, 8, 32),
        (100, 0.07, 1, 7), (10, 0.3, 1, 3), (7, 5 / 7, 1, 5), (12, 0.5, 8, 8), (9, 0.95, 8, 9),
        (4, 0.001, 1, 1), (24, 1.0, 16, 24), (5, 0.5, 8, 5),
    ],
)  # fmt: skip
def test_kept_widths(width, keep, round_to, kept):
    plan = plan_widths([group("c", width)], [torch.rand(width)], keep, round_to)
    assert plan.widths == {"c": (width, kept)}


@pytest.mark.parametrize("keep", [0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
def test_without_rounding_the_widths_are_those_of_the_paper(keep):
    for width in range(2, 130):
        plan = plan_widths([group("c", width)], [torch.rand(width)], keep, 1)
        assert plan.widths["c"][1] == width - int(width * round(1 - keep, 9) + 1e-9)


def test_the_best_channels_stay_and_the_first_of_equals():
    plan = plan_widths([group("c", 6)], [torch.tensor([1.0, 5, 3, 3, 3, 0])], 0.5, 1)
    assert plan.kept == ((1, 2, 3),)


def test_every_block_of_a_grouped_convolution_keeps_as_many():
    plan = plan_widths([group("c", 8, blocks=2)], [torch.tensor([9.0, 8, 7, 6, 1, 2, 3, 4])], 0.3, 1)
    assert plan.kept == ((0, 1, 6, 7),)  # 3 wanted, 4 is the next multiple of 2


@pytest.mark.parametrize(
    ("keep", "round_to", "scores", "message"),
    [
        (0.0, 1, torch.rand(4), r"expected keep in \(0, 1\] and round_to of at least 1, got 0.0 and 1"),
        (1.1, 1, torch.rand(4), r"expected keep in \(0, 1\]"),
        (0.5, 0, torch.rand(4), r"expected keep in \(0, 1\]"),
        (0.5, 1, torch.rand(3), "c: expected 4 finite scores, got tensor"),
        (0.5, 1, torch.tensor([1.0, 2, torch.nan, 3]), "c: expected 4 finite scores, got tensor"),
    ],
)
def test_bad_plans_are_refused(keep, round_to, scores, message):
    with pytest.raises(AdamasError, match=message):
        plan_widths([group("c", 4)], [scores], keep, round_to)


def test_a_plan_prints_as_a_table():
    model = line(conv(3, 16), nn.Sigmoid(), conv(16, 8, 1), conv(8, 16, 1))
    groups = channel_groups(model, X)
    plan = rehearse(model, plan_widths(groups, [torch.arange(float(group.width)) for group in groups], 0.5), X)
    assert model[3].out_channels == 16 and plan.macs == (64 * (432 + 128 + 128) + 160, 64 * (432 + 128 + 64) + 80)
    *table, first, second = str(plan).splitlines()
    assert table == [
        "0           16 =>     16  100.0%",
        "2            8 =>      8  100.0%",
        "3           16 =>      8   50.0%",
        "params     898 =>    746   83.1%",
        "MACs    44,192 => 40,016   90.6%",
    ]
    assert first.startswith("held back: 0: without these channels the logits differ by")
    assert second == "held back: 2: 4 of its 8 channels, rounded up to a multiple of 8, are all of them"


# -------------------------------------------------------------------------------------------- shape-driven rebuild


def test_masks_and_originals_are_resized_too():
    model = CNN8(width=4).build((3, 8, 8), 10)
    halved(model)
    Prune(keep=0.3).attach(model)
    Prune(keep=0.3).calibrate(model, [], None)
    Prune(keep=0.3).finish(model)
    fresh = CNN8(width=4).build((3, 8, 8), 10)
    Prune(keep=0.3).attach(fresh)
    resize_to(fresh, model.state_dict())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(X), model(X)) and fresh[0].out_channels == 2
    assert fresh[0].parametrizations.weight[0].mask.dtype == torch.bool


def test_a_foreign_state_dict_is_refused_by_its_keys():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(AdamasError) as error:
        resize_to(model, {"0.weight": torch.ones(3, 4), "body.bias": torch.ones(3)})
    assert str(error.value) == (
        "expected the 4 tensors of this model, got 2: 3 missing (0.bias, 2.bias, 2.weight), 1 unexpected (body.bias); "
        "build the model the weights were saved from"
    )


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5, 5), (0, 3, 3, 3)])
def test_a_tensor_that_differs_in_more_than_channels_is_refused_before_anything_changes(shape):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    state = {**model.state_dict(), "1.bias": torch.ones(2), "0.weight": torch.ones(shape)}
    with pytest.raises(
        AdamasError, match=r"0.weight: expected a tensor of shape \(4, 3, 3, 3\) or with other channels, got \("
    ):
        resize_to(model, state)
    assert model[1].bias.shape == (4,)


def test_filters_that_do_not_fill_their_groups_are_refused():
    model = nn.Sequential(nn.Conv2d(4, 8, 1, groups=2, bias=False))
    with pytest.raises(AdamasError, match="0: expected a multiple of its 2 groups of filters, got 5"):
        resize_to(model, {"0.weight": torch.ones(5, 2, 1, 1)})
