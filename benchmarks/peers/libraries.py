"""PGD in L-infinity as the users of each library write it: settings and a model in, a function of images and labels out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

Craft = Callable[[Tensor, Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] and labels (N,) to crafted images."""


@dataclass(frozen=True)
class Steps:
    """Projected gradient descent with a random start; distances in pixel units of a [0, 1] image."""

    eps: float
    step_size: float
    steps: int


def torchattacks(model: nn.Module, pgd: Steps) -> Craft:
    """torchattacks, which differentiates with respect to the images alone."""
    from torchattacks import PGD  # pyright: ignore[reportMissingImports]

    return PGD(model, eps=pgd.eps, alpha=pgd.step_size, steps=pgd.steps, random_start=True)


def foolbox(model: nn.Module, pgd: Steps) -> Craft:
    """foolbox, which differentiates with respect to every parameter that asks for it."""
    from foolbox import PyTorchModel  # pyright: ignore[reportMissingImports]
    from foolbox.attacks import LinfPGD  # pyright: ignore[reportMissingImports]

    attack = LinfPGD(abs_stepsize=pgd.step_size, steps=pgd.steps, random_start=True)
    wrapped = PyTorchModel(model.eval(), bounds=(0, 1))
    return lambda x, y: attack(wrapped, x, y, epsilons=pgd.eps)[1]


def art(model: nn.Module, pgd: Steps) -> Craft:
    """ART's torch path, which takes and returns numpy arrays and differentiates like foolbox."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch  # pyright: ignore[reportMissingImports]
    from art.estimators.classification import PyTorchClassifier  # pyright: ignore[reportMissingImports]

    def craft(x: Tensor, y: Tensor) -> Tensor:
        classifier = PyTorchClassifier(
            model=model, loss=nn.CrossEntropyLoss(), input_shape=tuple(x.shape[1:]), nb_classes=10, clip_values=(0, 1),
            device_type=x.device.type,
        )  # fmt: skip
        attack = ProjectedGradientDescentPyTorch(
            classifier, norm=np.inf, eps=pgd.eps, eps_step=pgd.step_size, max_iter=pgd.steps, num_random_init=1,
            batch_size=len(x), verbose=False,
        )  # fmt: skip
        return x.new_tensor(attack.generate(x.cpu().numpy(), y.cpu().numpy()))

    return craft


LIBRARIES: dict[str, Callable[[nn.Module, Steps], Craft]] = {"torchattacks": torchattacks, "foolbox": foolbox, "ART": art}
