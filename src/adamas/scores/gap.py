"""Greedy adversarial pruning: what adversarial images push up goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from adamas.attacks.pgd import PGD
from adamas.registry import Count, register
from adamas.roles import AnyAttack, Batches, Threat
from adamas.scores import Scores, first_images, summed_gradients


@register("score", "gap")
class GAP(Scores):
    """Minus the sum of the loss's gradients at adversarial images: weights of large positive gradient go first.

    `images`: training images that are attacked; `absolute`: take minus the absolute sum, as the authors' layer-wise code does
    and their paper does not; `trajectory`: sum over the attack's iterates, not at its end alone (for attacks with `steps`).
    Source: O'Brien Weiss et al., section 3. Deviation: the model is in eval mode and the attack leaves no gradients behind;
    in the authors' code they enter the scores.
    """

    attack: AnyAttack = PGD(steps=10)
    images: Count = 4096
    absolute: bool = False
    trajectory: bool = False

    def __post_init__(self) -> None:
        if self.trajectory and not (hasattr(self.attack, "steps") and getattr(self.attack, "step_size", None)):
            raise ValueError("trajectory: expected an attack with steps and an explicit step_size, such as pgd")

    def __call__(self, model: nn.Module, layers: Mapping[str, Any], batches: Batches, threat: Threat) -> list[Tensor]:
        grads = summed_gradients(model, layers, self._attacked(model, first_images(batches, self.images), threat))
        return [-grad.abs() if self.absolute else -grad for grad in grads]

    def _attacked(self, model: nn.Module, batches: Batches, threat: Threat) -> Iterator[tuple[Tensor, Tensor]]:
        attacks: list[Any] = [self.attack]
        if self.trajectory:
            attacks = [replace(self.attack, steps=steps + 1) for steps in range(self.attack.steps)]  # type: ignore[attr-defined, call-arg]
        for x, y in batches:
            for attack in attacks:
                yield attack(model, x, y, threat), y
