"""Evaluation on one-pixel images, where every answer is known."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.fgsm import FGSM
from adamas.attacks.pgd import PGD
from adamas.attacks.transfer import Transfer
from adamas.data import Data, Images
from adamas.device import seeded
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate, Evaluation, evaluate, in_order
from adamas.fit import Fit, fit
from adamas.noise import Noise, without_noise
from adamas.registry import label, parse
from adamas.roles import Attack, Family
from adamas.threat import L1, L2, Linf
from adamas.verdict import Rate
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
class Push(Attack):
    """Moves the pixels of one class towards the other, and remembers what it was given."""

    kind: ClassVar[str] = "attack"
    name: ClassVar[str] = "push"
    family: ClassVar[Family] = "transfer"
    cost: ClassVar[float] = 1.0
    seen: ClassVar[list[Tensor]] = []
    label: int = 1
    by: float = 0.1

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Linf) -> Tensor:
        assert not model.training
        Push.seen.append(torch.rand(3))
        sign = 1 - 2 * self.label
        return torch.where((y == self.label)[:, None, None, None], x + sign * self.by, x)


def pushed(exhaustive: bool, pixels: Data, **judges: nn.Module) -> Evaluation:
    settings = Evaluate(attacks=(Push(label=1), Push(label=0)), exhaustive=exhaustive, batch_size=3, chunk=4)  # type: ignore[arg-type]
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


@pytest.mark.parametrize(("batch_size", "chunk"), [(1, 8), (8, 1), (3, 5), (100, 100)])
def test_the_batch_size_changes_no_figure(pixels, batch_size, chunk):
    settings = Evaluate(attacks=("fgsm",), batch_size=batch_size, chunk=chunk)  # type: ignore[arg-type]
    result = evaluate(split_at(0.5), pixels, settings, THREAT)
    assert (result.clean.right, result.worst_case.right) == (6, 3)
    assert (result.attacks[0].attacked, result.attacks[0].broken) == (6, 3)


def test_judges_score_the_same_clean_and_crafted_images(pixels):
    judged = pushed(False, pixels, same=split_at(0.5), low=split_at(0.42), high=split_at(0.85)).judged
    assert (judged["same"].clean.right, judged["same"].worst_case.right) == (6, 3)
    # above .42 is class 1: .9 .58 .55 and .1 .3 are right; of these none falls (.55 becomes .45, still bright)
    assert (judged["low"].clean.right, judged["low"].worst_case.right) == (5, 5)
    # above .85 is class 1: .9 and .1 .45 .3 .7 are right; .9 falls; .7, which the model has wrong, is attacked and stands
    assert (judged["high"].clean.right, judged["high"].worst_case.right) == (5, 4)
    assert [(a.attacked, a.broken) for a in judged["high"].attacks] == [(5, 1), (4, 0)]


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
    assert not torch.equal(first[0], other[0])


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


def test_probabilities_are_flagged_and_attacked_through_their_logarithm(pixels):
    result = evaluate(nn.Sequential(split_at(0.5), nn.Softmax(1)), pixels, Evaluate(attacks=("fgsm",)), THREAT)  # type: ignore[arg-type]
    assert (result.clean.right, result.worst_case.right) == (6, 3)
    assert any(flag.startswith("probabilities instead of logits: attacks follow their logarithm") for flag in result.flags)


def test_outputs_that_are_not_finite_end_the_evaluation_with_the_likely_cause(pixels):
    broken, settings = nn.Sequential(split_at(0.5), Poles()), Evaluate(attacks=(Push(),), checks=False)
    with pytest.raises(AdamasError, match=r"expected finite logits, got nan or inf on an image in \[0, 1\]; such an image"):
        evaluate(broken, pixels, settings, THREAT)


class Poles(nn.Module):
    """Logits that are not finite where they turn over."""

    def forward(self, logits: Tensor) -> Tensor:
        return torch.where(logits.abs().amin(1, keepdim=True) < 0.4, logits / 0, logits)


def test_white_boxes_run_first_the_cheapest_of_each_kind_and_lists_are_taken_apart():
    elsewhere = Transfer(source=split_at(0.5), origin="parent", attack=FGSM())
    listed = parse(Evaluate, {"attacks": ["square", {"name": "pgd", "steps": 50}, "fgsm", "screen"]}).attacks
    ordered = [label(attack) for attack in in_order([elsewhere, *listed])]
    assert ordered == ["fgsm", "pgd(steps=50)", "apgd", "apgd_t", "fgsm on parent", "square"]


def test_a_randomised_model_is_judged_by_its_mean(pixels):
    """Noise of .3 on the threshold: a single pass errs, the mean of 400 passes does not."""

    class Noisy(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 0.3 * torch.randn_like(x))

    noisy = Noisy([[-10.0], [10.0]], bias=[5.0, -5.0])
    mean = evaluate(noisy, pixels, Evaluate(attacks=(), samples=400, checks=False), THREAT)
    assert mean.clean.right == 6
    assert {evaluate(noisy, pixels, Evaluate(attacks=(), checks=False), THREAT, seed=s).clean.right for s in range(5)} != {6}


@dataclass(frozen=True)
class Cheat(Attack):
    """An attack that returns what it should not."""

    kind: ClassVar[str] = "attack"
    name: ClassVar[str] = "cheat"
    family: ClassVar[Family] = "transfer"
    cost: ClassVar[float] = 1.0
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


# ------------------------------------------------------------------------------------- killed, split, merged, cut short


def settings(**changes: Any) -> Evaluate:
    return parse(Evaluate, {"attacks": ["fgsm", {"name": "pgd", "steps": 3}], "chunk": 25, "batch_size": 20} | changes)


class Stops(nn.Module):
    """A model that is stopped at its n-th pass."""

    def __init__(self, model: nn.Module, passes: int):
        super().__init__()
        self.model, self.left = model, passes

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.model(x)


def figures(result: Evaluation) -> Any:
    return result.clean, [(a.attack, a.attacked, a.broken) for a in result.attacks], result.worst_case


@pytest.mark.parametrize("passes", [9, 25, 40])
def test_a_killed_evaluation_goes_on_with_what_it_has(trained, digits, tmp_path, passes):
    plainly = settings(checks=False, streamline=False)  # every pass goes through the model itself
    whole = evaluate(trained, digits, plainly, THREAT, state=tmp_path / "whole")
    stopped = Stops(trained, 10**9)
    before = evaluate(stopped, digits, plainly, THREAT, state=tmp_path / "straight")
    stopped.left = passes
    with pytest.raises(KeyboardInterrupt):
        evaluate(stopped, digits, plainly, THREAT, state=tmp_path / "killed")
    kept = len(list((tmp_path / "killed").glob("images-*.json")))
    budget = stopped.left = 10**9
    after = evaluate(stopped, digits, plainly, THREAT, state=tmp_path / "killed")
    assert kept >= 1 and figures(after) == figures(before) == figures(whole)
    assert (tmp_path / "killed/outcomes.json").read_bytes() == (tmp_path / "straight/outcomes.json").read_bytes()
    used = budget - stopped.left
    stopped.left = budget
    evaluate(stopped, digits, plainly, THREAT, state=tmp_path / "again")
    assert used < budget - stopped.left  # what was kept is not paid twice


def test_shares_of_the_images_merge_to_the_same_bytes(trained, digits, tmp_path):
    whole = evaluate(trained, digits, settings(), THREAT, state=tmp_path / "whole")
    shares = [evaluate(trained, digits, settings(), THREAT, state=tmp_path / "parts", part=(k, 3)) for k in (2, 3, 1)]
    assert sorted(share.clean.n for share in shares) == [25, 45, 50] and whole.clean.n == 120
    again = evaluate(trained, digits, settings(), THREAT, state=tmp_path / "parts")
    assert figures(again) == figures(whole)
    assert (tmp_path / "parts/outcomes.json").read_bytes() == (tmp_path / "whole/outcomes.json").read_bytes()
    with pytest.raises(
        AdamasError, match=r"part: expected k/m with 1 <= k <= m <= 5, the number of chunks of 25 images, got 2/6"
    ):
        evaluate(trained, digits, settings(), THREAT, part=(2, 6))


def test_the_state_of_another_model_seed_or_threat_is_refused(trained, digits, tmp_path):
    evaluate(trained, digits, settings(), THREAT, state=tmp_path)
    for changed in ({"seed": 1}, {"threat": Linf(eps=0.05)}, {"settings": settings(round=True)}, {"model": SmallNet().eval()}):
        arguments = {"model": trained, "settings": settings(), "threat": THREAT} | changed
        with pytest.raises(AdamasError, match="expected the state of this evaluation, got another's"):
            evaluate(data=digits, state=tmp_path, **arguments)  # type: ignore[arg-type]


# --------------------------------------------------------------------- shortcuts lose nothing, and each has its switch


def letters(model: nn.Module, data: Data, folder: Path, **changes: Any) -> str:
    """The worst case of every image under PGD-20 with restarts, one letter per image."""
    chosen = settings(attacks=[{"name": "pgd", "steps": 20, "restarts": 2}], checks=False, **changes)
    evaluate(model, data, chosen, THREAT, state=folder)
    return json.loads((folder / "outcomes.json").read_text())["attacks"][0]["model"]


def test_no_shortcut_loses_anything(trained, digits, tmp_path):
    full = letters(trained, digits, tmp_path / "full", active=False, streamline=False)
    active = letters(trained, digits, tmp_path / "active", streamline=False)
    lean = letters(trained, digits, tmp_path / "lean")
    low = letters(trained, digits, tmp_path / "low", precision="bf16")
    assert full.count("0") > 20 and full.count("1") > 20
    for ours in (active, lean, low):  # an image or two may turn by the rounding of floats
        assert sum(a == "1" and b == "0" for a, b in zip(ours, full, strict=True)) <= 2


class Coarse(nn.Module):
    """Right in float32, but in low precision its threshold is elsewhere: successes there do not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[-10.0], [10.0]]))

    def forward(self, x: Tensor) -> Tensor:
        low = torch.is_autocast_enabled("cpu")
        return (x.flatten(1) - (0.53 if low else 0.5)) @ self.weight.T.float()


def test_what_low_precision_finds_and_float32_denies_is_sought_again_in_float32(pixels):
    """.55 falls in float32 for eps .1, but a low-precision search alone stops at the first pixel below .53."""
    attack = PGD(steps=10, step_size=0.012, random_start=False)
    for precision in ("fp32", "bf16"):
        result = evaluate(Coarse(), pixels, Evaluate(attacks=(attack,), precision=precision, checks=False), THREAT)  # type: ignore[arg-type]
        assert (result.clean.right, result.worst_case.right) == (6, 3), precision


def test_rounding_to_8_bits_is_part_of_the_attack_and_changes_the_figure(digits, trained):
    """With eps below half a level nothing is left of a candidate after rounding."""
    threat = Linf(eps=0.4 / 255)
    on_grid = Data(digits.name, digits.classes, digits.train, digits.validation, _in_8_bits(digits.test))
    rounded = evaluate(trained, on_grid, settings(round=True), threat)
    assert rounded.worst_case == rounded.clean and all(a.broken == 0 for a in rounded.attacks)
    wide = evaluate(trained, on_grid, settings(round=True), THREAT)
    assert wide.worst_case.right < wide.clean.right


def _in_8_bits(images: Images) -> Images:
    pixels = images.pixels.float() / (255 if images.pixels.dtype == torch.uint8 else 1)
    return Images((pixels * 255).round().to(torch.uint8), images.labels)


def test_a_batch_that_does_not_fit_is_halved_and_the_figures_stay(trained, digits):
    class Small(nn.Module):
        def __init__(self, model: nn.Module):
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 7 and torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.model(x)

    plain, cut = (evaluate(m, digits, settings(checks=False), THREAT) for m in (trained, Small(trained)))
    assert abs(plain.worst_case.right - cut.worst_case.right) <= 1 and plain.clean == cut.clean


@pytest.mark.parametrize("attack", ["autoattack", "square", {"name": "eot", "attack": "cw_linf_adam"}])
def test_an_attack_that_cannot_do_the_threat_is_refused_before_anything_is_spent(trained, digits, attack):
    passes = []
    trained.register_forward_hook(lambda *_: passes.append(1))
    with pytest.raises(AdamasError, match=r"expected the threat linf.*, got l1\(eps=3.0\)"):
        evaluate(trained, digits, settings(attacks=["fgsm", attack]), L1(eps=3.0))
    assert passes == []


# -------------------------------------------------------------------------------------- networks that draw noise


@pytest.fixture(scope="module")
def noisy(digits) -> nn.Module:
    """A small network with noise between its layers, trained for a second."""
    with seeded(0):
        layers = list(SmallNet())
        model = nn.Sequential(*layers[:3], Noise(0.5), *layers[3:6], Noise(0.5), *layers[6:])
        fit(model, digits, Fit(epochs=8, batch_size=32, lr=0.1), THREAT, device="cpu")
    return model.eval()


@pytest.fixture
def few(digits) -> Data:
    return replace(digits, test=digits.test[:60])


def test_noise_is_averaged_over_8_draws_unless_asked_otherwise_and_stands_beside_noise_off(noisy, few):
    found = evaluate(noisy, few, settings(), THREAT)
    off = evaluate(without_noise(noisy), few, settings(), THREAT)
    assert found.samples == 8 and off.samples == 1 and off.noise_off is None
    assert found.noise_off is not None
    assert (found.noise_off.clean, found.noise_off.worst_case) == (off.clean, off.worst_case)
    assert [(a.attack, a.broken) for a in found.noise_off.attacks] == [(a.attack, a.broken) for a in off.attacks]
    assert any(flag.startswith("randomised output") for flag in found.flags) and found.worst_case != off.worst_case
    assert evaluate(noisy, few, settings(samples=2, checks=False), THREAT).samples == 2


@pytest.mark.parametrize("attacks", [["fgsm", {"name": "pgd", "steps": 3}], [{"name": "eot", "attack": "fgsm", "samples": 10}]])
def test_neither_batch_size_nor_chunk_nor_the_callers_stream_changes_a_figure_of_a_noisy_network(noisy, few, attacks):
    def at(batch_size: int, chunk: int, seed: int = 0) -> Any:
        chosen = settings(attacks=attacks, batch_size=batch_size, chunk=chunk, checks=False, samples=3)
        return figures(evaluate(noisy, few, chosen, THREAT, seed=seed))

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    whole = at(60, 60)
    assert torch.equal(torch.rand(3), expected)
    torch.rand(5)
    assert whole == at(60, 60)
    for clean, tried, worst in (at(7, 60), at(32, 20)):  # an image or two may turn by the rounding of floats
        assert clean == whole[0] and abs(worst.right - whole[2].right) <= 1
        assert [(a[0], abs(a[2] - b[2]) <= 1) for a, b in zip(tried, whole[1], strict=True)] == [(a[0], True) for a in tried]
    assert any(at(60, 60, seed) != whole for seed in (1, 2, 3))


def test_the_order_of_the_images_changes_no_figure_of_a_noisy_network(noisy, few):
    order = torch.arange(len(few.test)).flip(0)
    turned = replace(few, test=Images(few.test.pixels[order], few.test.labels[order]))
    one, other = (evaluate(noisy, data, settings(checks=False, samples=3), THREAT) for data in (few, turned))
    assert one.clean == other.clean and abs(one.worst_case.right - other.worst_case.right) <= 1


def test_judges_score_the_images_that_were_made_without_noise(noisy, few):
    quiet = without_noise(noisy)
    found = evaluate(noisy, few, settings(checks=False), THREAT, judges={"file": quiet})
    assert found.noise_off is not None and list(found.judged) == ["file"]
    assert found.judged["file"].worst_case == found.noise_off.worst_case
    assert found.judged["file"].clean == found.noise_off.clean


def test_a_noisy_evaluation_goes_on_where_it_was_and_shares_its_work(noisy, few, tmp_path):
    plainly = settings(checks=False, samples=2, chunk=30)
    whole = evaluate(noisy, few, plainly, THREAT, state=tmp_path / "whole")
    for k in (2, 1):
        evaluate(noisy, few, plainly, THREAT, state=tmp_path / "parts", part=(k, 2))
    again = evaluate(noisy, few, plainly, THREAT, state=tmp_path / "parts")
    assert figures(again) == figures(whole) and again.noise_off is not None
    for name in ("outcomes.json", "noise_off/outcomes.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_noise_that_is_off_at_inference_is_no_noise(digits):
    model = nn.Sequential(Noise(0.5, in_eval=False), SmallNet()).eval()
    found = evaluate(model, digits, settings(checks=False), THREAT)
    assert found.samples == 1 and found.noise_off is None
