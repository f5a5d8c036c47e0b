"""Evaluation on one-pixel images, where every answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from adamas.data import Data, Images
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate, Evaluation, Rate, evaluate
from adamas.threat import L2, Linf
from tests.helpers import Linear, Sealed, SmallNet

THREAT = Linf(eps="1/10")
PIXELS = [0.9, 0.58, 0.55, 0.4, 0.1, 0.45, 0.3, 0.7]
LABELS = [1, 1, 1, 1, 0, 0, 0, 0]  # above one half is class 1, so that the fourth and the last are wrong


def split_at(threshold: float) -> Linear:
    return Linear([[-10.0], [10.0]], bias=[10 * threshold, -10 * threshold])


@pytest.fixture
def pixels() -> Data:
    test = Images(torch.tensor(PIXELS).view(-1, 1, 1, 1), torch.tensor(LABELS))
    sealed: Any = Sealed()
    return Data("pixels", ("dark", "bright"), sealed, sealed, test)


@dataclass(frozen=True)
class Push:
    """Moves the pixels of one class towards the other, and remembers what it was given."""

    kind: ClassVar[str] = "attack"
    name: ClassVar[str] = "push"
    seen: ClassVar[list[Tensor]] = []
    label: int = 1
    by: float = 0.1

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Linf) -> Tensor:
        assert not model.training
        Push.seen.append(torch.rand(3))
        sign = 1 - 2 * self.label
        return torch.where((y == self.label)[:, None, None, None], x + sign * self.by, x)


def pushed(exhaustive: bool, pixels: Data, **judges: nn.Module) -> Evaluation:
    settings = Evaluate(attacks=(Push(label=1), Push(label=0)), exhaustive=exhaustive, batch_size=3)  # type: ignore[arg-type]
    return evaluate(split_at(0.5), pixels, settings, THREAT, judges=judges)


@pytest.mark.parametrize(
    ("exhaustive", "second"),
    [(False, (4, 1, Rate.of(3, 8))), (True, (6, 1, Rate.of(5, 8)))],
)
def test_known_answers_are_counted(pixels, exhaustive, second):
    result = pushed(exhaustive, pixels)
    assert result.clean == Rate.of(6, 8)
    first_row, second_row = [(row.attacked, row.broken, row.accuracy) for row in result.attacks]
    assert first_row == (6, 2, Rate.of(4, 8))  # .58 and .55 fall
    assert second_row == second  # .45 falls
    assert result.worst_case == Rate.of(3, 8)
    assert [row.attack for row in result.attacks] == ["push", "push(label=0)"]
    assert result.threat == "linf(eps=0.1)" and result.judged == {}
    assert all(row.seconds >= 0 for row in result.attacks)


@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_the_batch_size_changes_no_figure(pixels, batch_size):
    result = evaluate(split_at(0.5), pixels, Evaluate(attacks=("fgsm",), batch_size=batch_size), THREAT)  # type: ignore[arg-type]
    assert (result.clean.right, result.worst_case.right) == (6, 3)
    assert (result.attacks[0].attacked, result.attacks[0].broken) == (6, 3)


def test_judges_score_the_same_clean_and_crafted_images(pixels):
    judged = pushed(False, pixels, same=split_at(0.5), low=split_at(0.42), high=split_at(0.85)).judged
    assert (judged["same"].clean.right, judged["same"].worst_case.right) == (6, 3)
    # above .42 is class 1: .9 .58 .55 and .1 .3 are right; of these none falls (.55 becomes .45, still bright)
    assert (judged["low"].clean.right, judged["low"].worst_case.right) == (5, 5)
    # above .85 is class 1: .9 and .1 .45 .3 .7 are right; .9 falls, and .7, which the model had wrong, was never attacked
    assert (judged["high"].clean.right, judged["high"].worst_case.right) == (5, 3)


def test_a_seed_decides_the_attacks_random_numbers_and_the_callers_stream_is_left_alone(pixels):
    def drawn(seed: int) -> list[Tensor]:
        Push.seen.clear()
        evaluate(split_at(0.5), pixels, Evaluate(attacks=(Push(),), batch_size=4), THREAT, seed=seed)  # type: ignore[arg-type]
        return list(Push.seen)

    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    first, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[0], first[1])


def test_the_model_is_evaluated_in_eval_mode_and_left_as_found(digits):
    model = SmallNet().train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, digits, Evaluate(attacks=("fgsm",)), THREAT)  # type: ignore[arg-type]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_what_looks_unsound_is_flagged(pixels):
    blind = nn.Sequential(nn.ReLU(), nn.Threshold(0.5, 0.0), split_at(0.25))  # no gradient below one half
    assert evaluate(split_at(0.5), pixels, Evaluate(), THREAT).flags == []
    (flag,) = evaluate(blind, pixels, Evaluate(), THREAT).flags
    assert flag.startswith("zero gradients: 50% of the images")


def test_a_model_that_gives_no_logits_is_refused(pixels):
    with pytest.raises(AdamasError, match="expected logits, got probabilities"):
        evaluate(nn.Sequential(split_at(0.5), nn.Softmax(1)), pixels, Evaluate(), THREAT)


@dataclass(frozen=True)
class Cheat:
    """An attack that returns what it should not."""

    kind: ClassVar[str] = "attack"
    name: ClassVar[str] = "cheat"
    how: str

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Linf) -> Tensor:
        tricks = {
            "far": x * 0 + 0.5, "bright": x + threat.eps, "nan": x / 0 - x / 0, "cut": x[:1], "double": x.double(),
        }  # fmt: skip
        return tricks[self.how]


@pytest.mark.parametrize(
    ("how", "threat", "sentence"),
    [
        ("far", THREAT, r"in \[0, 1\] within linf\(eps=0\.1\), got pixels in \[0\.5, 0\.5\] and a distance of 0\.4$"),
        ("far", L2(eps=0.25), r"within l2\(eps=0\.25\), got pixels in \[0\.5, 0\.5\] and a distance of 0\.4$"),
        ("bright", Linf(eps=0.2), r"within linf\(eps=0\.2\), got pixels in \[0\.3, 1\.1\] and a distance of 0\.2$"),
        ("nan", THREAT, "expected finite images, got nan or inf"),
        ("cut", THREAT, r"expected torch\.float32 images of shape \(6, 1, 1, 1\), got torch\.float32 of shape \(1, 1, 1, 1\)"),
        ("double", THREAT, r"expected torch\.float32 images of shape \(6, 1, 1, 1\), got torch\.float64 of shape \(6,"),
    ],
)
def test_an_attack_that_cheats_is_refused(pixels, how, threat, sentence):
    with pytest.raises(AdamasError, match=rf"^attack cheat(\(how=\w+\))?: expected .*{sentence.removeprefix('expected ')}"):
        evaluate(split_at(0.5), pixels, Evaluate(attacks=(Cheat(how),)), threat)  # type: ignore[arg-type]


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (3, 8), (87, 100), (5012, 10_000), (1, 1)])
def test_the_interval_is_wilsons(right, n):
    rate, expected = Rate.of(right, n), binomtest(right, n).proportion_ci(method="wilson")
    assert (rate.value, rate.low, rate.high) == pytest.approx((right / n, expected.low, expected.high), abs=1e-9)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
