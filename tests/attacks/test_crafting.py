"""The still model, the input gradient and the climb that every gradient attack shares."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adamas.attacks.crafting import climb, crafting, cross_entropy, input_gradient
from adamas.threat import L2, Linf
from tests.helpers import Linear, SmallNet


def test_cross_entropy_is_per_image():
    loss = cross_entropy(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))
    assert loss.tolist() == pytest.approx([0.6931472, 2.1269280])  # ln 2, ln(1 + e^2)


def test_the_input_gradient_is_the_hand_computed_one_whatever_the_batch():
    model, x, y = Linear(torch.randn(3, 4)), torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        by_hand = (model(x).softmax(1) - F.one_hot(y, 3)) @ model.weight
    torch.testing.assert_close(input_gradient(model, x, y).flatten(1), by_hand)
    torch.testing.assert_close(input_gradient(model, x[3:4], y[3:4]).flatten(1), by_hand[3:4])
    assert not x.requires_grad


def test_another_loss_is_climbed_when_given():
    model, x, y = Linear([[1.0, -2.0], [0.0, 0.0]]), torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    margin = lambda logits, y: logits[:, 1] - logits[:, 0]  # noqa: E731
    x_adv = climb(model, x, y, Linf(eps=0.1), start=x, steps=2, step_size=0.03, loss=margin)
    torch.testing.assert_close(x_adv.flatten(), torch.tensor([0.44, 0.56]))


def test_a_failure_while_crafting_leaves_the_model_as_found():
    model = SmallNet().train()
    model[1].eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), crafting(model, "train"):
        assert not any(parameter.requires_grad for parameter in model.parameters())
        model(torch.rand(4, 1, 8, 8))
        raise KeyboardInterrupt
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert [module.training for module in model.modules()] == [True, True, False, *[True] * 10]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("inner", ["eval", "train"])
def test_nested_crafting_puts_back_what_it_found(inner):
    model = SmallNet()
    with crafting(model, "train"):
        with crafting(model, inner):
            assert model.training == (inner == "train")
        assert model.training and not model[0].weight.requires_grad
    assert model.training and model[0].weight.requires_grad


def test_train_mode_crafting_sees_the_statistics_of_the_batch():
    model, x, y = SmallNet().eval(), torch.rand(8, 1, 8, 8), torch.arange(8)
    with crafting(model, "eval"):
        running = input_gradient(model, x, y)
    with crafting(model, "train"):
        batch = input_gradient(model, x, y)
    torch.testing.assert_close(running, input_gradient(model.eval(), x, y))
    torch.testing.assert_close(batch, input_gradient(model.train(), x, y))
    assert not torch.allclose(running, batch)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.3)])
def test_where_there_is_no_gradient_nothing_moves(threat):
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
    nn.init.zeros_(model[1].weight)
    assert torch.equal(climb(model, x, torch.tensor([0, 1, 0]), threat, start=x, steps=3, step_size=0.1), x)
