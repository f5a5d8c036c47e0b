"""Every loss by its printed formula, in numpy on fixed logits."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.pgd import PGD
from adamas.fit import Fit, fit
from adamas.objectives import MART, TRADES, AdversarialTraining, FreeTraining, Natural, TradeOff
from adamas.threat import Linf
from tests.helpers import Linear, SmallNet

CLEAN = [[2.0, 1.0, -1.0], [0.5, 0.0, 0.3]]
CRAFTED = [[-1.0, 3.0, 0.0], [1.0, 0.8, 0.9]]
Y = torch.tensor([0, 2])
X, THREAT = torch.zeros(2, 1, 1, 1), Linf(eps=0.25)


class Table(nn.Module):
    """Gives the clean logits for black images and the crafted ones for any other."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        black = x.flatten(1).amax(1, keepdim=True) == 0
        return torch.where(black, torch.tensor(CLEAN), torch.tensor(CRAFTED)) + self.shift + 0 * x.flatten(1)


class Brighten:
    """An attack that makes every pixel eps brighter."""

    kind, name = "attack", "brighten"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Linf) -> Tensor:
        return x + threat.eps


def softmax(logits: list[list[float]]) -> np.ndarray:
    powers = np.exp(np.array(logits))
    return powers / powers.sum(1, keepdims=True)


P, Q = softmax(CLEAN), softmax(CRAFTED)
RIGHT = (np.arange(2), Y.numpy())
KL = (P * np.log(P / Q)).sum(1)


def value(objective) -> float:
    return objective(Table(), X, Y, THREAT).item()


def test_natural():
    assert value(Natural()) == pytest.approx(-np.log(P[RIGHT]).mean())


def test_adversarial():
    assert value(AdversarialTraining(attack=Brighten())) == pytest.approx(-np.log(Q[RIGHT]).mean())


def test_trade_off():
    expected = 1 * -np.log(P[RIGHT]).mean() + 8 * -np.log(Q[RIGHT]).mean()
    assert value(TradeOff(alpha=1, beta=8, attack=Brighten())) == pytest.approx(expected)


def test_trades(monkeypatch):
    monkeypatch.setattr(TRADES, "_craft", lambda self, model, x, y, threat: x + threat.eps)
    assert value(TRADES(beta=6)) == pytest.approx(-np.log(P[RIGHT]).mean() + 6 * KL.mean())


def test_mart():
    others = Q.copy()
    others[RIGHT] = 0
    boosted = (-np.log(Q[RIGHT]) - np.log(1 - others.max(1))).mean()
    expected = boosted + 5 * (KL * (1 - P[RIGHT])).mean()
    assert value(MART(attack=Brighten())) == pytest.approx(expected)


def test_mart_stays_finite_where_the_prediction_is_certain_and_wrong():
    model, x = Linear([[200.0], [-200.0]]), torch.ones(2, 1, 1, 1)
    loss = MART(attack=PGD(steps=1))(model, x, torch.tensor([1, 1]), Linf(eps=0.1))
    loss.backward()
    assert loss.isfinite() and model.weight.grad is not None and model.weight.grad.isfinite().all()


def test_trades_climbs_its_own_divergence_from_a_small_random_start():
    """For two classes the divergence grows with the distance of the logit from its clean value, on either side."""
    model, x = Linear([[1.0, -2.0], [-1.0, 2.0]]), torch.full((64, 1, 1, 2), 0.5)
    crafted = TRADES(steps=3, step_size=0.05)._craft(model, x, torch.zeros(64, dtype=torch.long), Linf(eps=0.1))
    delta = (crafted - x).flatten(1)
    torch.testing.assert_close(delta.abs(), torch.full((64, 2), 0.1))  # at a corner of the ball
    assert (delta[:, 0] * delta[:, 1] < 0).all()  # along (1, -2) or against it
    assert 16 < (delta[:, 0] > 0).sum() < 48  # the label does not matter, the random start decides


def test_trades_makes_a_model_as_steady_as_beta_asks():
    def divergence(beta: float) -> float:
        torch.manual_seed(0)
        model, x, y = SmallNet(classes=2, width=2), torch.rand(16, 1, 8, 8), torch.arange(16) % 2
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            TRADES(beta=beta, steps=2)(model, x, y, THREAT).backward()
            optimizer.step()
        clean_part = Natural()(model, x, y, THREAT).item()
        return TRADES(beta=1, steps=2)(copy.deepcopy(model), x, y, THREAT).item() - clean_part

    assert divergence(6) < divergence(0)


# ------------------------------------------------------------------------------------------------------------- free


def test_free_training_climbs_by_the_gradients_of_its_own_updates():
    """Two replays on a linear model that stands still: no noise, then eps * sign(grad), where the next batch goes on."""
    model, threat, kept = nn.Linear(2, 2, bias=False), Linf(eps=0.1), {}
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -1], [-1, 1]]))
    x, y = torch.full((3, 2), 0.5), torch.zeros(3, dtype=torch.long)
    objective, seen = FreeTraining(replays=2), []
    for _ in range(2):
        for x_adv in objective.inputs(x, threat, kept):
            objective(model, x_adv, y, threat).backward()
            seen.append(x_adv.detach())
    worst = torch.tensor([0.4, 0.6]).expand(3, 2)
    assert torch.equal(seen[0], x) and all(torch.allclose(images, worst) for images in seen[1:])
    assert torch.allclose(next(objective.inputs(x[:2] + 0.05, threat, kept)), worst[:2] + 0.05)


def test_free_training_makes_a_network_robust_at_the_price_of_natural_training(digits):
    """As many updates as natural training, each with one backward pass."""
    robust = {}
    for objective, epochs in ((Natural(), 32), (FreeTraining(replays=4), 8)):
        torch.manual_seed(0)
        model, passes = SmallNet(), []
        hook = model.register_forward_hook(lambda module, *_, passes=passes: passes.append(module.training))
        fit(model, digits, Fit(objective=objective, epochs=epochs, batch_size=16, lr=0.05), Linf(eps=0.1))
        hook.remove()
        x, y = next(digits.test.batches(300))
        x_adv = PGD(steps=10)(model.eval(), x, y, Linf(eps=0.1))
        with torch.no_grad():
            robust[type(objective).name] = float((model(x_adv).argmax(1) == y).float().mean()), sum(passes)
    assert robust["free"][1] == robust["natural"][1]
    assert robust["free"][0] > robust["natural"][0] + 0.2
