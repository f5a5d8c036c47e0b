"""The training loop: one objective, one optimiser, one compressor that may hook in at two places."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Lt
from torch import nn
from torch.optim.swa_utils import AveragedModel

from adamas.check import check_model
from adamas.data import Augment, Data, Images
from adamas.device import channels_last, seeded
from adamas.device import fabric as make_fabric
from adamas.errors import AdamasError
from adamas.files import write
from adamas.objectives import Natural
from adamas.progress import progress
from adamas.registry import Count, Number, settings
from adamas.roles import AnyAttack, AnyObjective, Compressor, Threat
from adamas.weights import effective_weights

Fraction01 = Annotated[Number, Ge(0), Lt(1)]


@settings
class Fit:
    """How a model is trained in one stage.

    `schedule`: constant; step (times `gamma` at every milestone, in epochs); cosine (to zero); one_cycle (linear warm-up over
    the first `warmup` share, then cosine). `ema`: decay of the weight average that replaces the weights at the end.
    `patience`: stop after so many epochs without a better validation accuracy (under `select`, if given) and keep the best;
    epochs in which a compressor is still on its way do not count.
    """

    objective: AnyObjective = Natural()
    epochs: Count = 10
    batch_size: Count = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[Number, Ge(0)] = 0.05
    momentum: Fraction01 = 0.9
    nesterov: bool = False
    weight_decay: Annotated[Number, Ge(0)] = 0.0
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "one_cycle"
    milestones: tuple[Count, ...] = ()
    gamma: Annotated[Number, Ge(0)] = 0.1
    warmup: Fraction01 = 0.2
    augment: Augment = "none"
    ema: Fraction01 | None = None
    patience: Count | None = None
    select: AnyAttack | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"

    def __post_init__(self) -> None:
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError(f"nesterov: expected sgd with a momentum, got {self.optimizer} with momentum {self.momentum:g}")
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError(f"expected milestones with schedule step, got {self.schedule} with milestones {self.milestones}")


def learning_rate(settings: Fit, epoch: float) -> float:
    """The rate at a point of training measured in epochs, 0 <= epoch <= settings.epochs."""
    share = epoch / settings.epochs
    if settings.schedule == "step":
        return settings.lr * settings.gamma ** sum(epoch >= milestone for milestone in settings.milestones)
    if settings.schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * share)) / 2
    if settings.schedule == "one_cycle":
        if share < settings.warmup:
            return settings.lr * share / settings.warmup
        return settings.lr * (1 + math.cos(math.pi * (share - settings.warmup) / (1 - settings.warmup))) / 2
    return settings.lr


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Batches of an epoch; a single image left over sits out, since batch norm has no statistics of one."""
    full, rest = divmod(images, batch_size)
    return full + (rest > 1 or not full)


def fit(
    model: nn.Module,
    data: Data,
    settings: Fit,
    threat: Threat,
    *,
    compressor: Compressor | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    title: str = "fit",
    device: str = "auto",
) -> list[dict[str, float]]:
    """Train `model` in place on the training split and return one record per epoch.

    With a `checkpoint` path the state is kept after every epoch, and a run that was killed goes on from there, bit for bit.
    Errors: a loss that is not finite, a checkpoint of another model, nothing to validate on where `patience` or `select` need
    it; epochs already done stay in the checkpoint.
    """
    if (settings.patience or settings.select) and not len(data.validation):
        raise AdamasError("patience, select: expected validation images to judge by, got none; raise split.validation above 0")
    first = 0 if compressor is None else math.ceil(compressor.unsettled * settings.epochs - 1e-9)
    if settings.patience and first >= settings.epochs:
        raise AdamasError(
            f"patience: expected epochs in which the network is what will ship, got none of {settings.epochs}: "
            f"{compressor.name} settles in the last; leave patience out, or let it settle earlier"  # type: ignore[union-attr]
        )
    fabric = make_fabric(device, settings.precision)
    check_model(model, next(data.train.batches(2, device=next(model.parameters()).device))[0], len(data.classes))
    channels_last(model)
    optimizer = _optimizer(model, settings, () if compressor is None else compressor.undecayed(model))
    _, optimizer = fabric.setup(model, optimizer)  # moves the model; the wrapper itself forbids gradients for the input
    average = AveragedModel(model, avg_fn=_ema(settings.ema)) if settings.ema is not None else None
    state = State(model, optimizer, average, first)
    if checkpoint is not None and checkpoint.exists():
        state.restore(checkpoint)
    steps = steps_per_epoch(len(data.train), settings.batch_size)

    with progress(title, (settings.epochs - state.epoch) * steps) as advance:
        while state.epoch < settings.epochs and not state.stopped(settings.patience):
            stream = _mix(seed, state.epoch)  # of its own for every epoch, so that resuming repeats nothing
            with seeded(stream, fabric.device):
                model.train()
                loss_sum, updates, kept = torch.zeros((), device=fabric.device), 0, dict[str, torch.Tensor]()
                batches = data.train.batches(settings.batch_size, device=fabric.device, seed=stream, augment=settings.augment)
                for step, (x, y) in zip(range(steps), batches, strict=False):
                    at = state.epoch + step / steps
                    for group in optimizer.param_groups:
                        group["lr"] = learning_rate(settings, at)
                    for seen in settings.objective.inputs(x, threat, kept):
                        with effective_weights(model):
                            with fabric.autocast():
                                loss = settings.objective(model, seen, y, threat)
                            if compressor is not None:
                                loss = loss + compressor.penalty(model, at / settings.epochs)
                            fabric.backward(loss)
                        optimizer.step()
                        optimizer.zero_grad()
                        if compressor is not None:
                            compressor.after_step(model, (at + 1 / steps) / settings.epochs)
                        if average is not None:
                            average.update_parameters(model)
                        loss_sum += loss.detach()
                        updates += 1
                    advance(state.note)
                state.close_epoch(loss_sum.item() / updates, data.validation, settings, threat)
            if checkpoint is not None:
                state.save(checkpoint)
    state.settle(settings)
    return state.history


class State:
    """What a killed run needs to go on: model, optimiser, weight average, the best model so far and the history."""

    def __init__(self, model: nn.Module, optimizer: Any, average: AveragedModel | None, first: int = 0):
        self.model, self.optimizer, self.average, self.first = model, optimizer, average, first
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {"epoch": first, "accuracy": -1.0, "model": None}

    @property
    def epoch(self) -> int:
        return len(self.history)

    @property
    def note(self) -> str:
        return ", ".join(f"{key} {value:.3f}" for key, value in self.history[-1].items()) if self.history else ""

    def stopped(self, patience: int | None) -> bool:
        return patience is not None and self.epoch - self.best["epoch"] >= patience

    def close_epoch(self, loss: float, validation: Images, settings: Fit, threat: Threat) -> None:
        if not math.isfinite(loss):
            raise AdamasError(
                f"epoch {self.epoch + 1} of {settings.epochs}: the loss became {loss}, expected a finite number; "
                f"try a smaller lr than {settings.lr:g}; the {self.epoch} epochs before are kept"
            )
        record = {"loss": loss}
        if len(validation):
            shipped = self.average.module if self.average is not None else self.model
            accuracy = validation_accuracy(shipped, validation, settings, threat)
            record["validation"] = accuracy
            if settings.patience is not None and self.epoch >= self.first and accuracy > self.best["accuracy"]:
                values = {name: tensor.clone() for name, tensor in shipped.state_dict().items()}
                self.best = {"epoch": self.epoch + 1, "accuracy": accuracy, "model": values}
        self.history.append(record)

    def settle(self, settings: Fit) -> None:
        """Leave in the model what ships: the best epoch, the weight average or the last weights."""
        if settings.patience is not None and self.best["model"] is not None:
            self.model.load_state_dict(self.best["model"])
        elif self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())
        self.model.eval()

    def save(self, path: Path) -> None:
        average = None if self.average is None else self.average.state_dict()
        value = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "average": average}
        write(path, lambda temporary: torch.save(value | {"history": self.history, "best": self.best}, temporary))

    def restore(self, path: Path) -> None:
        try:
            value = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(value["model"])
            self.optimizer.load_state_dict(value["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(value["average"])
            self.history, self.best = value["history"], value["best"]
        except Exception as error:
            raise AdamasError(
                f"{path}: expected a checkpoint of this very run, got {type(error).__name__}; delete it to start the stage anew"
            ) from error


def validation_accuracy(model: nn.Module, images: Images, settings: Fit, threat: Threat) -> float:
    """Share of validation images classified right, under the attack `settings.select` if there is one."""
    model.eval()
    device = next(model.parameters()).device
    right = 0
    for x, y in images.batches(max(settings.batch_size, 256), device=device):
        if settings.select is not None:
            x = settings.select(model, x, y, threat)
        with torch.no_grad():
            right += int((model(x).argmax(1) == y).sum())
    return right / len(images)


def _optimizer(model: nn.Module, settings: Fit, undecayed: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Weight decay on weights only, not on biases, norm parameters and what the compressor names."""
    spared = {id(parameter) for parameter in undecayed}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1 and id(p) not in spared], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1 or id(p) in spared], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov)


def _ema(decay: float) -> Any:
    """Exponential average whose memory grows with the steps taken, up to `decay`."""
    return lambda average, value, count: torch.lerp(average, value, 1 - (1 + count).div(10 + count).clamp(max=decay).to(value))


def _mix(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63
