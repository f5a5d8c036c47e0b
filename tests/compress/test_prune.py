from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.magnitude import Magnitude, Mask, largest
from adamas.errors import AdamasError
from adamas.models.cnn8 import CNN8
from adamas.threat import Linf
from adamas.weights import bake

THREAT = Linf()


def two() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -8], [7, 2]]))
        model[1].weight.copy_(torch.tensor([[0.1, -0.4], [0.3, 6]]))
    return model


def pruned(model: nn.Module, **settings) -> nn.Module:
    method = Magnitude(**settings)
    method.attach(model)
    method.calibrate(model, [], THREAT)
    return model


def nonzeros(model: nn.Module) -> int:
    return sum(int(layer.weight.count_nonzero()) for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))


def test_the_largest_weights_of_all_layers_together_stay():
    model = pruned(two(), keep=0.375)
    assert model[0].weight.tolist() == [[0, -8], [7, 0]] and model[1].weight.tolist() == [[0, 0], [0, 6]]


def test_each_layer_keeps_its_own_share():
    model = pruned(two(), keep=0.5, scope="layer")
    assert model[0].weight.tolist() == [[0, -8], [7, 0]]
    assert torch.equal(model[1].weight.bool(), torch.tensor([[False, True], [False, True]]))


def test_every_layer_keeps_one_weight_at_least():
    model = two()
    with torch.no_grad():
        model[1].weight.mul_(0.01)
    assert pruned(model, keep=0.25)[1].weight.count_nonzero() == 1 and nonzeros(model) == 2
    assert nonzeros(pruned(two(), keep=0.01, scope="layer")) == 2


def test_attaching_alone_changes_nothing():
    model, x = two(), torch.rand(3, 2)
    before = model(x)
    Magnitude().attach(model)
    assert torch.equal(model(x), before) and model[0].parametrizations.weight[0].mask.all()


@pytest.mark.parametrize("keep", [0.01, 0.1, 1 / 3, 0.5, 1.0])
@pytest.mark.parametrize("scores", [[torch.zeros(40), torch.zeros(2, 30)], [torch.arange(40.0) // 8, torch.ones(2, 30)]])
def test_the_budget_is_exact_with_ties_and_zeros(keep, scores):
    masks = largest(scores, max(keep, 0.02))
    assert sum(int(mask.sum()) for mask in masks) == round(100 * max(keep, 0.02))
    assert [mask.shape for mask in masks] == [score.shape for score in scores]


def test_ties_go_to_the_first():
    (mask,) = largest([torch.tensor([1.0, 2, 1, 1, 2])], 0.6)
    assert mask.tolist() == [True, True, False, False, True]


def test_a_budget_below_one_weight_per_layer_is_refused():
    message = r"keep: expected at least one weight in each of 2 layers, got 1 of 8 at keep 0.1; the smallest keep is 0.25"
    with pytest.raises(AdamasError, match=message):
        pruned(two(), keep=0.1)


def test_cnn8_keeps_exactly_the_budget_and_ships_it():
    model = bake(pruned(CNN8(width=8).build((1, 28, 28), 10), keep=0.1))
    total = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))
    assert nonzeros(model) == round(0.1 * total) and not any(parametrize.is_parametrized(layer) for layer in model)


def test_masked_weights_stay_zero_through_momentum_and_decay():
    model = pruned(CNN8(width=4).build((1, 8, 8), 10), keep=0.2)
    masks = [layer.parametrizations.weight[0].mask.clone() for layer in model if parametrize.is_parametrized(layer)]
    start = [layer.weight.detach().clone() for layer in model if parametrize.is_parametrized(layer)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.rand(8, 1, 8, 8)), torch.arange(8)).backward()
        optimizer.step()
    bake(model)
    layers = [layer for layer in model if isinstance(layer, (nn.Conv2d, nn.Linear))]
    for layer, mask, before in zip(layers, masks, start, strict=True):
        assert (layer.weight[~mask] == 0).all() and not torch.equal(layer.weight, before)


def test_excluded_layers_stay_dense_and_out_of_the_budget():
    model = pruned(two(), keep=0.25, exclude=("1",))
    assert not parametrize.is_parametrized(model[1]) and model[0].weight.count_nonzero() == 1
    with pytest.raises(AdamasError, match="exclude: expected the name of a convolution or linear layer, got '2'"):
        pruned(two(), exclude=("2",))
    with pytest.raises(AdamasError, match="magnitude: expected at least one convolution or linear layer to prune, got none"):
        pruned(two(), exclude=("*",))


class Negated(nn.Module):
    """The largest weights become the smallest."""

    def forward(self, weight: Tensor) -> Tensor:
        return 10 - weight.abs()

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def test_masks_stack_on_what_is_there_and_on_each_other():
    model = two()
    parametrize.register_parametrization(model[0], "weight", Negated())
    assert pruned(model, keep=0.5, scope="layer")[0].weight.tolist() == [[9, 0], [0, 8]]
    pruned(model, keep=0.25, scope="layer")
    assert model[0].weight.tolist() == [[9, 0], [0, 0]]
    first, second = (module for module in model[0].parametrizations.weight if isinstance(module, Mask))
    assert first.mask.sum() == 2 and second.mask.sum() == 1


def test_the_state_dict_holds_everything():
    model, fresh = pruned(two(), keep=0.5), two()
    Magnitude(keep=0.5).attach(fresh)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(torch.eye(2)), model(torch.eye(2)))
