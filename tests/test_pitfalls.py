"""What users of attack toolboxes suffer from, each as a test that it does not happen here."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.apgd import APGD
from adamas.attacks.apgd_targeted import APGDT
from adamas.attacks.autoattack import AutoAttack
from adamas.attacks.eot import EOT
from adamas.attacks.fab import FAB
from adamas.attacks.pgd import PGD
from adamas.attacks.square import Square
from adamas.compress.ptq import PTQ
from adamas.data import Data, Images, from_loaders
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate, Evaluation, evaluate
from adamas.models import normalized
from adamas.threat import L2, Linf
from tests.helpers import SmallNet, accuracy, first_batch

THREAT = Linf(eps=0.1)
QUICK = Evaluate(attacks=(PGD(steps=5), Square(queries=20)), checks=False)


def attacked(model: nn.Module, data: Data, threat: Linf = THREAT, **changes: object) -> Evaluation:
    return evaluate(model, data, QUICK, threat, **changes)  # type: ignore[arg-type]


def test_a_quantized_model_is_attacked_by_its_gradient(trained, digits):
    before = attacked(trained, digits)
    quantizer = PTQ()
    quantizer.attach(trained)
    quantizer.calibrate(trained, digits.train.batches(64, seed=1), THREAT)
    quantizer.finish(trained)
    after = attacked(trained, digits)
    assert after.clean.right > 90 and abs(after.worst_case.right - before.worst_case.right) <= 5


def test_a_normalisation_inside_the_model_leaves_eps_a_distance_of_pixels(trained, digits):
    """The same function with a first layer that stretches pixels by four: the budget must not become four times as large."""
    shape = [1 / 4]
    stretched = normalized(nn.Sequential(Squeeze(), copy.deepcopy(trained)), [0.0], shape)
    assert attacked(stretched, digits).worst_case.right == pytest.approx(attacked(trained, digits).worst_case.right, abs=2)


class Squeeze(nn.Module):
    """Takes a normalisation back."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 4


def test_images_that_were_normalised_already_are_refused_with_the_likely_cause(digits):
    pixels = (digits.test.pixels.float() / 255 - 0.5) / 0.25
    loader = [(pixels, digits.test.labels)]
    with pytest.raises(
        AdamasError, match=r"pixels in \[0, 1\], got \[-2, .*put the normalisation into the model's first layer"
    ):
        from_loaders(loader, loader)


def test_labels_out_of_range_are_refused(digits):
    with pytest.raises(AdamasError, match=r"labels in 0\.\.8, got 0\.\.9"):
        from_loaders(
            [(digits.test.pixels, digits.test.labels)] * 2,
            [(digits.test.pixels, digits.test.labels)],
            classes=tuple("012345678"),
        )


def test_an_eps_on_the_scale_of_255_is_refused():
    with pytest.raises(AdamasError, match=r"eps: expected at most 1, .* did you mean 8/255\?"):
        Linf(eps=8)


def test_a_model_in_train_mode_is_evaluated_in_eval_mode_and_given_back_as_it_was(trained, digits):
    expected = attacked(trained, digits)
    trained.train()
    trained[1].eval()
    found = attacked(trained, digits)
    assert (found.clean, found.worst_case) == (expected.clean, expected.worst_case)
    assert trained.training and trained[4].training and not trained[1].training
    assert all(p.grad is None and p.requires_grad for p in trained.parameters())


def test_the_callers_random_numbers_go_on_as_if_nothing_had_happened(trained, digits):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    attacked(trained, digits, seed=8)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("classes", [2, 3, 4, 8])
def test_autoattack_takes_any_number_of_classes(classes, monkeypatch):
    model, x, y = SmallNet(classes=classes).eval(), torch.rand(6, 1, 8, 8), torch.arange(6) % classes
    parts = (APGD(steps=5), APGDT(steps=5), FAB(steps=5), Square(queries=10))
    for part in parts:
        x_adv = part(model, x, y, THREAT)
        assert THREAT.distance(x_adv, x).max() <= 0.1 + 1e-6 and x_adv.isfinite().all()


def test_autoattack_means_the_published_parts_and_budgets():
    standard = AutoAttack().parts
    assert standard == (APGD(), APGDT(), FAB(), Square())
    ce, targeted, fab, square = standard
    assert (ce.loss, ce.steps, ce.restarts, ce.rho) == ("cross_entropy", 100, 1, 0.75)  # type: ignore[attr-defined]
    assert (targeted.steps, targeted.targets, targeted.restarts) == (100, 9, 1)  # type: ignore[attr-defined]
    assert (fab.steps, fab.targets, fab.restarts) == (100, 9, 1)  # type: ignore[attr-defined]
    assert (square.queries, square.p_init, square.restarts) == (5000, 0.8, 1)  # type: ignore[attr-defined]
    assert AutoAttack(version="rand").parts == (
        EOT(attack=APGD(), samples=20), EOT(attack=APGD(loss="dlr"), samples=20),
    )  # fmt: skip
    with pytest.raises(AdamasError, match="unknown key 'steps'"):
        AutoAttack(steps=10)  # type: ignore[call-arg]


def in_other_batches(model: nn.Module, data: Data, order: Tensor, batch: int) -> list[bool]:
    """Which images stand, in the order of the data, when they were evaluated in another order and in other batches."""
    turned = Data(data.name, data.classes, data.train, data.validation, data.test[order])
    stands: dict[int, bool] = {}
    x, y = next(turned.test.batches(len(order)))
    for rows in torch.arange(len(order)).split(batch):
        for attack in (PGD(steps=5), Square(queries=20)):
            torch.manual_seed(0)
            x_adv = attack(model, x[rows], y[rows], THREAT)
            right = model(x_adv).argmax(1) == y[rows]
            for row, here in zip(rows.tolist(), right.tolist(), strict=True):
                stands[int(order[row])] = stands.get(int(order[row]), True) and here
    return [stands[i] for i in range(len(order))]


def test_an_images_fate_depends_on_neither_batch_nor_order(trained, digits):
    there, back = torch.arange(120), torch.arange(119, -1, -1)
    first = in_other_batches(trained, digits, there, 120)
    for order, batch in ((back, 120), (there, 7), (back, 1)):
        other = in_other_batches(trained, digits, order, batch)
        assert sum(a != b for a, b in zip(first, other, strict=True)) <= 2  # floats are summed in another order


@pytest.mark.parametrize("defence", [lambda x: (x * 7).round() / 7, lambda x: (x > 0.5).float()])
def test_masked_gradients_are_never_reported_without_a_word(trained, digits, defence: Callable[[Tensor], Tensor]):
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = trained

        def forward(self, x: Tensor) -> Tensor:
            return self.net(defence(x))

    found = evaluate(Masked(), digits, Evaluate(attacks=(PGD(steps=5),)), THREAT)
    assert any("zero gradients" in flag for flag in found.flags)


def test_a_long_evaluation_is_never_silent(trained, digits, capsys, monkeypatch):
    monkeypatch.setattr("adamas.progress.QUIET", 0.0)
    evaluate(trained, digits, Evaluate(attacks=(PGD(steps=3),), checks=False), THREAT, title="net")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3
    assert any("pgd(steps=3), " in line and "images stand, robust so far" in line and "min left" in line for line in lines)


def test_what_does_not_survive_rounding_does_not_count(trained, digits):
    """Half a level of budget: exact images fool the model now and then, 8-bit images cannot differ from the clean ones."""
    test = Images((digits.test.pixels.float() / 255 * 255).round().to(torch.uint8), digits.test.labels)
    data = Data(digits.name, digits.classes, digits.train, digits.validation, test)
    found = evaluate(trained, data, Evaluate(attacks=(PGD(steps=5),), round=True, checks=False), Linf(eps=0.49 / 255))
    assert found.worst_case == found.clean


def test_l2_and_linf_are_not_mixed_up(trained, digits):
    x, y = first_batch(digits, 30)
    near = PGD(steps=20)(trained, x, y, L2(eps=0.3))
    assert (near - x).flatten(1).norm(dim=1).max() <= 0.3 + 1e-5
    assert accuracy(trained, near, y) <= accuracy(trained, x, y)
