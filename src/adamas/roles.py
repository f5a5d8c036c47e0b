"""The five roles of adamas are four abstract classes and the Artifact; everything else is data or a plain function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, ClassVar

from torch import Tensor, nn

from adamas.registry import Choice, readable

Batches = Iterable[tuple[Tensor, Tensor]]
"""Pairs of images (N, C, H, W) in [0, 1] and labels (N,)."""


class Threat(ABC):
    """What the adversary may do to an image; all distances are in pixel units of a [0, 1] image."""

    name: ClassVar[str]
    eps: float

    def __str__(self) -> str:
        return f"{self.name}(eps={readable(self.eps)})"

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest image to `x_adv` that is in [0, 1] and inside the ball around `x`."""

    @abstractmethod
    def sample(self, x: Tensor) -> Tensor:
        """A random image in the ball around each `x`, in [0, 1]."""

    @abstractmethod
    def ascend(self, x: Tensor, grad: Tensor, step: float) -> Tensor:
        """`x` moved by `step` along the steepest ascent direction of this geometry (not projected)."""

    @abstractmethod
    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Distance of each pair, shape (N,)."""


class Attack(ABC):
    """Finds inputs that a model gets wrong; leaves the model as it found it."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        """Images inside the threat around `x`, same shape and dtype."""


class Objective(ABC):
    """A scalar training loss; what it crafts inside, it crafts by the same attacks that evaluation uses."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        """The loss of one batch, differentiable in the parameters."""


class Compressor(ABC):
    """Makes a model smaller; all its state lives in the model's parameters and buffers."""

    name: ClassVar[str]

    @abstractmethod
    def attach(self, model: nn.Module) -> None:
        """Change the structure in place, without data; loading an artifact replays this."""

    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:  # noqa: B027
        """Set masks, ranges, factors or widths from training data."""

    def penalty(self, model: nn.Module, progress: float) -> Tensor | float:
        """Added to the objective; `progress` runs from 0 to 1 over the stage."""
        return 0.0

    def after_step(self, model: nn.Module, progress: float) -> None:  # noqa: B027
        """Projection, dual variables, annealing; called after every optimiser step."""

    def finish(self, model: nn.Module) -> None:  # noqa: B027
        """Settle: exact budget, frozen ranges, train-only state dropped."""


AnyThreat = Annotated[Threat, Choice("threat")]
AnyAttack = Annotated[Attack, Choice("attack")]
AnyObjective = Annotated[Objective, Choice("objective")]
AnyCompressor = Annotated[Compressor, Choice("compressor")]
