"""The training loop: by hand on small problems, bit for bit by seed, and as it was after a kill."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adamas.attacks.fgsm import FGSM
from adamas.data import Images
from adamas.errors import AdamasError
from adamas.fit import Fit, fit, learning_rate, steps_per_epoch
from adamas.models.resnet import ResNet18
from adamas.objectives import Natural
from adamas.registry import registered
from adamas.roles import Compressor, Objective
from adamas.threat import Linf
from tests.helpers import Killed, Linear, Sealed, SmallNet, shapes_data

THREAT = Linf(eps=0.1)


def linear() -> Linear:
    return Linear(torch.linspace(-0.1, 0.1, 32).view(2, 16), bias=[0.02, -0.01])


def small(seed: int = 0) -> SmallNet:
    torch.manual_seed(seed)
    return SmallNet(classes=2, width=2)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ------------------------------------------------------------------------------------------------ what is computed


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        (Fit(epochs=4, lr=0.3, schedule="constant"), [0.3, 0.3, 0.3, 0.3, 0.3]),
        (Fit(epochs=4, lr=1, schedule="step", milestones=(1, 3), gamma=0.5), [1, 0.5, 0.5, 0.25, 0.25]),
        (Fit(epochs=4, lr=1, schedule="cosine"), [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0]),
        (Fit(epochs=4, lr=1, schedule="one_cycle", warmup=0.5), [0, 0.5, 1, 0.5, 0]),
        (Fit(epochs=4, lr=1, schedule="one_cycle", warmup=0), [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0]),
    ],
)
def test_learning_rates_by_hand(settings, rates):
    assert [learning_rate(settings, epoch) for epoch in range(5)] == pytest.approx(rates)


def by_hand(settings: Fit, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias after every epoch of one batch, by SGD with momentum and decay of the weight alone, in numbers."""
    model, velocities, after = linear(), [0.0, 0.0], []
    for epoch in range(settings.epochs):
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), [model.weight, model.bias])
        with torch.no_grad():
            for i, (parameter, gradient) in enumerate(zip((model.weight, model.bias), gradients, strict=True)):
                decay = settings.weight_decay if i == 0 else 0
                velocities[i] = settings.momentum * velocities[i] + gradient + decay * parameter
                parameter -= learning_rate(settings, epoch) * velocities[i]
        after.append((model.weight.detach().clone(), model.bias.detach().clone()))
    return after


def test_sgd_by_hand(data):
    settings = Fit(epochs=3, batch_size=24, lr=0.2, weight_decay=0.1, schedule="cosine")
    model = linear()
    history = fit(model, data, settings, THREAT)
    weight, bias = by_hand(settings, data.train.pixels, data.train.labels)[-1]
    torch.testing.assert_close((model.weight, model.bias), (weight, bias))
    assert len(history) == 3 and all(record.keys() == {"loss", "validation"} for record in history)
    assert history[0]["loss"] == pytest.approx(F.cross_entropy(linear()(data.train.pixels), data.train.labels).item(), abs=1e-6)
    assert not model.training


def test_the_weight_average_by_hand(data):
    settings = Fit(epochs=4, batch_size=24, lr=0.2, schedule="constant", ema=0.22)
    after = by_hand(settings, data.train.pixels, data.train.labels)
    average = after[0]
    for count, new in enumerate(after[1:], 1):
        decay = min((1 + count) / (10 + count), 0.22)  # 2/11, then .22
        average = tuple(decay * old + (1 - decay) * value for old, value in zip(average, new, strict=True))
    model = linear()
    fit(model, data, settings, THREAT)
    torch.testing.assert_close((model.weight, model.bias), average)


def test_adamw_trains_and_frozen_parameters_stay(data):
    model = small()
    model[0].weight.requires_grad_(False)
    before = weights(model)
    history = fit(model, data, Fit(epochs=8, optimizer="adamw", lr=0.01, batch_size=8, weight_decay=0.01), THREAT)
    assert history[-1]["loss"] < history[0]["loss"]
    assert torch.equal(model[0].weight, before["0.weight"]) and not torch.equal(model[3].weight, before["3.weight"])


def test_mixed_precision_learns_and_keeps_its_weights_in_single(data):
    model = small()
    history = fit(model, data, Fit(epochs=8, batch_size=8, lr=0.05, precision="bf16-mixed"), THREAT)
    assert history[-1]["loss"] < history[0]["loss"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("objective", registered("objective").values(), ids=lambda cls: cls.name)
def test_every_objective_trains_and_crafts_in_mixed_precision(data, objective):
    model = small()
    before = weights(model)
    (record,) = fit(model, data, Fit(objective=objective(), epochs=1, batch_size=16, precision="bf16-mixed"), THREAT)
    assert math.isfinite(record["loss"])
    assert not equal(before, weights(model))


@pytest.mark.parametrize(("images", "size", "steps"), [(24, 8, 3), (24, 7, 4), (25, 8, 3), (9, 8, 1), (1, 8, 1), (3, 1, 3)])
def test_steps_of_an_epoch(images, size, steps):
    assert steps_per_epoch(images, size) == steps


def test_a_single_image_left_over_does_not_stop_batch_norm(data):
    model = ResNet18(width=2).build((1, 8, 8), 2)  # one pixel is left before its last batch norm
    pixels = F.interpolate(data.train.pixels, 8)
    nine = Images(pixels[:9], data.train.labels[:9])
    assert len(fit(model, replace(data, train=nine, validation=nine, test=nine), Fit(epochs=1, batch_size=8), THREAT)) == 1


class Recorder(Compressor):
    """A compressor that writes down when it is called, and adds 100 to the loss."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []

    def attach(self, model: nn.Module) -> None: ...

    def penalty(self, model: nn.Module, progress: float) -> float:
        self.calls.append(("penalty", progress))
        return 100.0

    def after_step(self, model: nn.Module, progress: float) -> None:
        assert all(parameter.grad is None for parameter in model.parameters())
        self.calls.append(("after_step", progress))


def test_the_compressor_is_called_twice_per_step_with_the_progress_of_the_stage(data):
    recorder: Any = Recorder()
    history = fit(linear(), data, Fit(epochs=2, batch_size=12), THREAT, compressor=recorder)
    assert [name for name, _ in recorder.calls] == ["penalty", "after_step"] * 4
    assert [progress for _, progress in recorder.calls] == pytest.approx([0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1])
    assert history[0]["loss"] > 100


# -------------------------------------------------------------------------------------------- validation and stopping


def scripted(monkeypatch, accuracies: list[float]) -> list[dict[str, Tensor]]:
    """Let validation give these accuracies; the weights it was asked about are collected."""
    seen: list[dict[str, Tensor]] = []

    def answer(model: nn.Module, *_: Any) -> float:
        seen.append(weights(model))
        return accuracies[len(seen) - 1]

    monkeypatch.setitem(fit.__globals__, "validation_accuracy", answer)
    return seen


@pytest.mark.parametrize("ema", [None, 0.9])
def test_patience_stops_and_keeps_the_best_epoch(data, monkeypatch, ema):
    seen = scripted(monkeypatch, [0.5, 0.7, 0.7, 0.6, 0.9])
    model = small()
    history = fit(model, data, Fit(epochs=9, patience=2, batch_size=8, ema=ema), THREAT)
    assert [record["validation"] for record in history] == [0.5, 0.7, 0.7, 0.6]
    assert equal(weights(model), seen[1]) and not equal(seen[1], seen[3])


def test_patience_that_never_runs_out_still_ships_the_best_epoch(data, monkeypatch):
    seen = scripted(monkeypatch, [0.5, 0.7, 0.6])
    model = small()
    fit(model, data, Fit(epochs=3, patience=5, batch_size=8), THREAT)
    assert equal(weights(model), seen[1])


def test_selection_can_be_made_under_attack(data):
    plain = fit(linear(), data, Fit(epochs=2, batch_size=8, lr=0.02), THREAT)
    attacked = fit(linear(), data, Fit(epochs=2, batch_size=8, lr=0.02, select=FGSM()), Linf(eps=0.6))
    assert attacked[-1]["loss"] == plain[-1]["loss"]
    assert attacked[-1]["validation"] < plain[-1]["validation"]


@pytest.mark.parametrize("asked", [{"patience": 3}, {"select": "fgsm"}])
def test_patience_and_selection_need_validation_images(data, asked):
    with pytest.raises(AdamasError, match="patience, select: expected validation images to judge by, got none"):
        fit(linear(), replace(data, validation=data.validation[:0]), Fit(epochs=9, **asked), THREAT)


def test_without_validation_images_the_loss_alone_is_recorded(data):
    (record,) = fit(linear(), replace(data, validation=data.validation[:0]), Fit(epochs=1), THREAT)
    assert record.keys() == {"loss"}


def test_the_test_images_are_never_looked_at(data, tmp_path):
    sealed = replace(data, test=Sealed())
    fit(small(), sealed, Fit(epochs=2, patience=1, select=FGSM(), ema=0.5), THREAT, checkpoint=tmp_path / "c.pt")


# ------------------------------------------------------------------------------------------------- seeds and resuming


def test_equal_seeds_give_equal_weights_bit_for_bit(data):
    def trained(seed: int, drawn_before: int) -> dict[str, Tensor]:
        model = small()
        torch.rand(drawn_before)
        settings = Fit(epochs=2, batch_size=8, objective={"name": "adversarial", "attack": {"name": "pgd", "steps": 2}})
        fit(model, data, settings, THREAT, seed=seed)
        return weights(model)

    assert equal(trained(1, drawn_before=0), trained(1, drawn_before=5))
    assert not equal(trained(1, drawn_before=0), trained(2, drawn_before=0))


class KilledAfterStep(Recorder):
    """A compressor interrupted once, after its n-th step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def after_step(self, model: nn.Module, progress: float) -> None:
        self.calls.append(("after_step", progress))
        if len(self.calls) == 2 * self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["objective", "after_step"])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ema": 0.8, "augment": "crop_flip"},
        {"patience": 2, "ema": 0.9, "select": {"name": "pgd", "steps": 2}},
        {"optimizer": "adamw", "lr": 0.01, "patience": 1},
    ],
)
def test_a_killed_fit_goes_on_bit_for_bit(data, tmp_path, values, where):
    def run(step: int, path: Path) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
        model, compressor = small(), KilledAfterStep(step if where == "after_step" else 0)
        objective = Killed(step if where == "objective" else 0)
        settings: Any = Fit(epochs=4, batch_size=8, objective=objective, **values)  # type: ignore[arg-type]
        history = fit(model, data, settings, THREAT, compressor=compressor, checkpoint=path, seed=3)  # type: ignore[arg-type]
        return weights(model), history

    straight, history = run(0, tmp_path / "straight.pt")
    with pytest.raises(KeyboardInterrupt):
        run(5, tmp_path / "killed.pt")  # the second of three steps in the second epoch
    torch.rand(7)
    resumed, resumed_history = run(0, tmp_path / "killed.pt")
    assert equal(straight, resumed) and history == resumed_history
    again, _ = run(1, tmp_path / "killed.pt")  # nothing is left to do
    assert equal(straight, again)


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import torch
from adamas.fit import Fit, fit
from adamas.threat import Linf
from tests.helpers import SmallNet, shapes_data

torch.set_num_threads(1)
save, calls = torch.save, []

def save_half(value, path):
    save(value, path)
    calls.append(path)
    if len(calls) == 2:
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: len(whole) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = save_half
torch.manual_seed(0)
fit(SmallNet(classes=2, width=2), shapes_data(), Fit(epochs=3, batch_size=8), Linf(), checkpoint=Path(sys.argv[1]))
"""


def test_a_process_killed_while_it_writes_its_checkpoint_goes_on_from_the_one_before(data, tmp_path):
    path, root = tmp_path / "checkpoint.pt", Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])}
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(torch.load(path, weights_only=True)["history"]) == 1
    straight, resumed = small(), small()
    fit(straight, shapes_data(), Fit(epochs=3, batch_size=8), Linf())
    fit(resumed, shapes_data(), Fit(epochs=3, batch_size=8), Linf(), checkpoint=path)
    assert equal(weights(straight), weights(resumed))


# ------------------------------------------------------------------------------------------------------------ mistakes


class Breaks(Objective):
    """The natural objective, not a number from its n-th call on."""

    kind, name = "objective", "breaks"

    def __init__(self, call: int):
        self.call, self.calls = call, 0

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Linf) -> Tensor:
        self.calls += 1
        return Natural()(model, x, y, threat) * (math.nan if self.calls >= self.call else 1)


def test_a_loss_that_is_not_a_number_is_said_and_the_epochs_before_are_kept(data, tmp_path):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(AdamasError) as error:
        fit(small(), data, Fit(epochs=3, batch_size=8, lr=0.1, objective=Breaks(call=8)), THREAT, checkpoint=path)
    assert str(error.value) == (
        "epoch 3 of 3: the loss became nan, expected a finite number; try a smaller lr than 0.1; the 2 epochs before are kept"
    )
    model, straight = small(), small()
    settings = Fit(epochs=3, batch_size=8, lr=0.1)
    assert len(fit(model, data, settings, THREAT, checkpoint=path)) == 3
    fit(straight, data, settings, THREAT)
    assert equal(weights(model), weights(straight))


def test_a_rate_far_too_large_is_said(data):
    with pytest.raises(AdamasError, match="the loss became (nan|inf), expected a finite number; try a smaller lr than 1e"):
        fit(small(), data, Fit(epochs=9, batch_size=8, lr=1e20, schedule="constant"), THREAT)


class Touch:
    """A pickle that creates a file when it is loaded without care."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_checkpoint_of_something_else_is_refused_and_kept(data, tmp_path):
    path, loot = tmp_path / "checkpoint.pt", tmp_path / "loot"
    fit(small(), data, Fit(epochs=1), THREAT, checkpoint=path)
    whole = path.read_bytes()
    torch.save({"model": Touch(loot)}, tmp_path / "evil.pt")
    others = [whole[: len(whole) // 2], b"", b"not a checkpoint", (tmp_path / "evil.pt").read_bytes()]
    sentence = r"checkpoint\.pt: expected a checkpoint of this very run, got \w+; delete it to start the stage anew"
    for content in others:
        path.write_bytes(content)
        with pytest.raises(AdamasError, match=sentence):
            fit(small(), data, Fit(epochs=2), THREAT, checkpoint=path)
        assert path.read_bytes() == content
    path.write_bytes(whole)
    for model, settings in ((linear(), Fit(epochs=2)), (small(), Fit(epochs=2, ema=0.5))):
        with pytest.raises(AdamasError, match=sentence):
            fit(model, data, settings, THREAT, checkpoint=path)
    assert not loot.exists()


def test_a_model_that_does_not_fit_is_refused_before_anything_is_spent(data):
    model = nn.Sequential(linear(), nn.Softmax(1))
    before = weights(model)
    with pytest.raises(AdamasError, match="expected logits, got probabilities"):
        fit(model, data, Fit(objective=Killed(call=1)), THREAT)  # type: ignore[arg-type]
    assert equal(weights(model), before)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"nesterov": True, "momentum": 0}, "nesterov: expected sgd with a momentum, got sgd with momentum 0"),
        ({"nesterov": True, "optimizer": "adamw"}, "nesterov: expected sgd with a momentum, got adamw"),
        ({"milestones": [5]}, r"expected milestones with schedule step, got one_cycle with milestones \(5,\)"),
        ({"schedule": "step"}, r"expected milestones with schedule step, got step with milestones \(\)"),
        ({"schedule": "cosin"}, "schedule: got 'cosin'; did you mean 'cosine'"),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1, got 0"),
        ({"ema": 1}, "ema: input should be less than 1, got 1"),
        ({"lr": -1}, "lr: input should be greater than or equal to 0, got -1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values, sentence):
    with pytest.raises(AdamasError, match=sentence):
        Fit(**values)
