"""The still model, the input gradient and the climb that every gradient attack shares."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adamas.attacks.crafting import Terms, climb, crafting
from adamas.threat import L2, Linf
from tests.attacks.reference import ZERO
from tests.helpers import Linear, SmallNet


class Recording(Linear):
    """Remembers the size of every batch it sees, and has memory for `fits` images."""

    def __init__(self, weight: Tensor | list[list[float]], fits: int = 100):
        super().__init__(weight)
        self.fits, self.sizes = fits, ()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes += (len(x),)
        if len(x) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


class Noisy(nn.Module):
    """The first logit counts the calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.cat([x.flatten(1) * 0 + self.calls, x.flatten(1) * 0], 1)


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with crafting(model, "train" if model.training else "eval") as victim:
        return victim.differentiate(x, y).grad


def test_the_input_gradient_is_the_hand_computed_one_whatever_the_batch():
    model, x, y = Linear(torch.randn(3, 4)), torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        by_hand = (model(x).softmax(1) - F.one_hot(y, 3)) @ model.weight
    torch.testing.assert_close(input_gradient(model, x, y).flatten(1), by_hand)
    torch.testing.assert_close(input_gradient(model, x[3:4], y[3:4]).flatten(1), by_hand[3:4])
    assert not x.requires_grad


def test_one_pass_gives_logits_loss_and_gradient_and_asks_the_model_once():
    model, x, y = Recording([[1.0, -2.0], [-1.0, 2.0]]), torch.rand(5, 1, 1, 2), torch.tensor([0, 1, 1, 0, 0])
    with crafting(model) as victim:
        logits, loss, grad = victim.differentiate(x, y)
    assert model.sizes == (5,) and grad.shape == x.shape
    torch.testing.assert_close(logits, model(x).detach())
    torch.testing.assert_close(loss, F.cross_entropy(model(x), y, reduction="none").detach())


def test_passes_are_cut_to_the_batch_size_and_halved_when_memory_runs_out():
    whole = Recording([[1.0, -2.0], [-1.0, 2.0]])
    x, y = torch.rand(7, 1, 1, 2), torch.tensor([0, 1, 1, 0, 0, 1, 0])
    with crafting(whole) as victim:
        expected = victim.differentiate(x, y)
    cut, small = Recording(whole.weight.detach()), Recording(whole.weight.detach(), fits=2)
    for model, sizes in ((cut, (4, 3)), (small, (4, 2, 2, 2, 1))):
        with crafting(model, terms=Terms(batch_size=4)) as victim:
            for ours, theirs in zip(victim.differentiate(x, y), expected, strict=True):
                torch.testing.assert_close(ours, theirs)
            assert model.sizes == sizes
            torch.testing.assert_close(victim.logits(x), expected.logits)
    assert small.sizes == (4, 2, 2, 2, 1, 2, 2, 2, 1)  # what did not fit is not tried again


def test_other_failures_of_the_model_are_not_taken_for_want_of_memory():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), crafting(Linear([[1.0, 2.0]])) as victim:
        victim.logits(torch.rand(4, 1, 1, 3))


def test_a_randomised_model_is_averaged_over_samples():
    model, x, y = Noisy(), torch.full((3, 1, 1, 1), 0.5), torch.tensor([0, 1, 0])
    with crafting(model, terms=Terms(samples=4)) as victim:
        logits, loss, _ = victim.differentiate(x, y)
        assert model.calls == 4 and logits[:, 0].tolist() == [2.5, 2.5, 2.5]  # the mean of 1, 2, 3, 4
        assert victim.with_samples(2).logits(x)[:, 0].tolist() == [5.5, 5.5, 5.5] and model.calls == 6
    by_hand = sum(F.cross_entropy(torch.tensor([[k, 0.0]]), torch.tensor([0])) for k in (1.0, 2.0, 3.0, 4.0)) / 4
    assert loss[0] == pytest.approx(float(by_hand)) and loss[0] == loss[2]


def test_low_precision_gives_float_logits_near_the_full_ones():
    model, x, y = SmallNet().eval(), torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    with crafting(model) as full, crafting(model, terms=Terms(precision="bf16")) as low:
        exact, rough = full.differentiate(x, y), low.differentiate(x, y)
    assert rough.logits.dtype == rough.grad.dtype == torch.float32
    assert not torch.equal(exact.logits, rough.logits)
    torch.testing.assert_close(exact.logits, rough.logits, atol=0.05, rtol=0.05)


def test_every_pass_is_told_of():
    passes: list[int] = []
    with crafting(SmallNet(), terms=Terms(tick=passes.append, samples=2)) as victim:
        victim.logits(torch.rand(3, 1, 8, 8))
        victim.differentiate(torch.rand(4, 1, 8, 8), torch.arange(4))
    assert passes == [2 * 3, 2 * 3 * 4]


def test_another_loss_is_climbed_when_given():
    model, x, y = Linear([[1.0, -2.0], [0.0, 0.0]]), torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    margin = lambda logits, y: logits[:, 1] - logits[:, 0]  # noqa: E731
    with crafting(model) as victim:
        x_adv = climb(victim, x, y, Linf(eps=0.1), start=x, steps=2, step_size=0.03, loss=margin)
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
    with crafting(model, "eval") as victim:
        running = victim.differentiate(x, y).grad
    with crafting(model, "train") as victim:
        batch = victim.differentiate(x, y).grad
    torch.testing.assert_close(running, input_gradient(model.eval(), x, y))
    torch.testing.assert_close(batch, input_gradient(model.train(), x, y))
    assert not torch.allclose(running, batch)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.3)])
def test_where_there_is_no_gradient_nothing_moves(threat):
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
    nn.init.zeros_(model[1].weight)
    with crafting(model) as victim:
        assert torch.equal(climb(victim, x, torch.tensor([0, 1, 0]), threat, start=x, steps=3, step_size=0.1), x)


def test_momentum_keeps_a_share_of_the_last_direction():
    """Two pixels, gradients (1, -1) and then (-1, -1) by their signs: with momentum .5 the second step follows (-.5, -1.5)."""

    def turning(logits: Tensor, y: Tensor) -> Tensor:
        first, second = logits[:, 0], logits[:, 1]
        return torch.where(first > 0.55, -first, first) - second

    model, x = Linear([[1.0, 0.0], [0.0, 1.0]]), torch.full((1, 1, 1, 2), 0.5)
    with crafting(model) as victim:
        at = climb(victim, x, ZERO, L2(eps=9), start=x, steps=2, step_size=0.1, loss=turning, momentum=0.5)
    step = 0.1 / 2**0.5, 0.1 / 2.5**0.5
    torch.testing.assert_close(at.flatten(), torch.tensor([0.5 + step[0] - 0.5 * step[1], 0.5 - step[0] - 1.5 * step[1]]))


class Compared(nn.Module):
    """Pixels are compared, which leaves no way back to them; with a parameter after that or without."""

    def __init__(self, parameter: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2)) if parameter else torch.ones(2)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) > 0.5).float()[:, :2] * self.weight


@pytest.mark.parametrize("parameter", [True, False])
def test_a_model_without_a_way_back_to_the_pixels_has_zero_gradients(parameter):
    with crafting(Compared(parameter)) as victim:
        assert victim.differentiate(torch.rand(3, 1, 1, 2), torch.tensor([0, 1, 0])).grad.eq(0).all()
