"""The reference AutoAttack (Croce and Hein, as packaged by pyautoattack), its parts timed and their passes counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adamas.device import seeded

PARTS = {"apgd-ce": "apgd", "apgd-t": "apgd_targeted", "fab-t": "fab", "square": "square"}
"""Name of each part of the standard version, and where the reference keeps it."""


@dataclass
class Part:
    """What one part did: images attacked and left standing, seconds, and single-image passes through the model."""

    attacked: int = 0
    left: int = 0
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0


@dataclass
class Outcome:
    """Which of the images were right before and after the attack, and what that took, by part and in total.

    `seconds` have passed; `cpu` are those that this process computed, whatever else the machine did.
    """

    clean: list[bool]
    robust: list[bool]
    seconds: float
    cpu: float
    parts: dict[str, Part]
    total: Part

    @classmethod
    def of(cls, record: dict[str, Any]) -> Outcome:
        """Back from the plain values that `dataclasses.asdict` gives."""
        parts = {name: Part(**part) for name, part in record["parts"].items()}
        return cls(record["clean"], record["robust"], record["seconds"], record["cpu"], parts, Part(**record["total"]))


class Counted(nn.Module):
    """A model that counts the images that pass forwards and backwards through it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._backward)
        return logits

    def _backward(self, grad: Tensor) -> None:
        self.backwards += len(grad)


def reference(model: nn.Module, x: Tensor, y: Tensor, eps: float, *, seed: int, batch_size: int = 250) -> Outcome:
    """Run the standard version as its users do; it replaces the global random stream, which is put back here."""
    from pyautoattack import AutoAttack  # pyright: ignore[reportMissingImports]

    counted = Counted(model).eval()
    clean = right(model, x, y).tolist()
    attack = AutoAttack(counted, norm="Linf", eps=eps, seed=seed, version="standard", device=x.device)
    parts = {name: Part() for name in PARTS}
    for name, attribute in PARTS.items():
        timed = getattr(attack, attribute)
        timed.perturb = _timed(timed.perturb, parts[name], counted)
    with seeded(seed, x.device):
        start, cpu = time.perf_counter(), time.process_time()
        x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=batch_size)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    robust = right(model, x_adv, y).tolist()
    return Outcome(clean, robust, seconds, cpu, parts, Part(forwards=counted.forwards, backwards=counted.backwards))


def _timed(perturb: Callable[[Tensor, Tensor], Tensor], part: Part, counted: Counted) -> Callable[[Tensor, Tensor], Tensor]:
    def run(x: Tensor, y: Tensor) -> Tensor:
        start, forwards, backwards = time.perf_counter(), counted.forwards, counted.backwards
        x_adv = perturb(x, y)
        part.seconds += time.perf_counter() - start
        part.forwards += counted.forwards - forwards
        part.backwards += counted.backwards - backwards
        part.attacked += len(x)
        part.left += int(right(counted.model, x_adv, y).sum())
        return x_adv

    return run


def right(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 250) -> Tensor:
    """Which images are classified as their labels say, (N,) bool."""
    with torch.no_grad():
        return torch.cat([model(x).argmax(1) == y for x, y in zip(x.split(batch_size), y.split(batch_size), strict=True)])
