"""The reference AutoAttack (Croce and Hein, as packaged by pyautoattack), its parts timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adamas.device import seeded

PARTS = {"apgd-ce": "apgd", "apgd-t": "apgd_targeted", "fab-t": "fab", "square": "square"}
"""Name of each part of the standard version, and where the reference keeps it."""


@dataclass
class Part:
    """What one part did: images attacked and left standing, and seconds."""

    attacked: int = 0
    left: int = 0
    seconds: float = 0.0

    def __add__(self, other: Part) -> Part:
        return Part(self.attacked + other.attacked, self.left + other.left, self.seconds + other.seconds)


@dataclass
class Outcome:
    """Which of the images were right before and after the attack, and what that took, as a whole and by part.

    `seconds` have passed; `cpu` are those that this process computed, whatever else the machine did.
    """

    clean: list[bool]
    robust: list[bool]
    seconds: float
    cpu: float
    parts: dict[str, Part]

    def __add__(self, other: Outcome) -> Outcome:
        """The outcome of these images and the other's."""
        parts = {name: part + other.parts[name] for name, part in self.parts.items()}
        clean, robust = self.clean + other.clean, self.robust + other.robust
        return Outcome(clean, robust, self.seconds + other.seconds, self.cpu + other.cpu, parts)


def reference(model: nn.Module, x: Tensor, y: Tensor, eps: float, *, seed: int, batch_size: int = 250) -> Outcome:
    """Run the standard version as its users do; it replaces the global random stream, which is put back here."""
    from pyautoattack import AutoAttack  # pyright: ignore[reportMissingImports]

    clean = right(model, x, y).tolist()
    attack = AutoAttack(model, norm="Linf", eps=eps, seed=seed, version="standard", device=x.device)
    parts = {name: Part() for name in PARTS}
    for name, attribute in PARTS.items():
        timed = getattr(attack, attribute)
        timed.perturb = _timed(timed.perturb, parts[name], model)
    with seeded(seed, x.device):
        start, cpu = time.perf_counter(), time.process_time()
        x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=batch_size)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    robust = right(model, x_adv, y).tolist()
    return Outcome(clean, robust, seconds, cpu, parts)


def _timed(perturb: Callable[[Tensor, Tensor], Tensor], part: Part, model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    def run(x: Tensor, y: Tensor) -> Tensor:
        start = time.perf_counter()
        x_adv = perturb(x, y)
        part.seconds += time.perf_counter() - start
        part.attacked += len(x)
        part.left += int(right(model, x_adv, y).sum())
        return x_adv

    return run


def right(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 250) -> Tensor:
    """Which images are classified as their labels say, (N,) bool."""
    with torch.no_grad():
        return torch.cat([model(x).argmax(1) == y for x, y in zip(x.split(batch_size), y.split(batch_size), strict=True)])
