"""The five roles of adamas are four abstract classes and the Artifact; everything else is data or a plain function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from adamas.dice import Dice
from adamas.registry import Choice, readable

Batches = Iterable[tuple[Tensor, Tensor]]
"""Pairs of images (N, C, H, W) in [0, 1] and labels (N,)."""


def per_image(values: Tensor, x: Tensor) -> Tensor:
    """One value per image, (N,) or (N, 1), shaped to broadcast over the images."""
    return values.reshape(-1, *[1] * (x.dim() - 1))


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
    def sample(self, x: Tensor, dice: Dice) -> Tensor:
        """A random image in the ball around each `x`, in [0, 1]."""

    @abstractmethod
    def ascend(self, x: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:
        """`x` moved by `step` along the steepest ascent direction of this geometry (not projected)."""

    @abstractmethod
    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Distance of each pair, shape (N,)."""

    @abstractmethod
    def shrink(self, delta: Tensor, radius: Tensor) -> Tensor:
        """The nearest change of at most `radius` (N,) for every image; eps and [0, 1] do not matter here."""

    @abstractmethod
    def dual(self, grad: Tensor) -> Tensor:
        """Dual norm of every image's gradient, (N,): how fast a linear loss rises per unit of distance."""

    @abstractmethod
    def to_plane(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        """The nearest image in [0, 1] with <w, image> + b = 0, for `w` (N, ...) and `b` (N,).

        Where the plane does not meet [0, 1], the corner nearest to it; pixels with a weight of 0 never move.
        """


Family = Literal["cross-entropy gradient", "margin-loss gradient", "minimum-norm gradient", "black-box", "transfer"]
"""How an attack looks for images; a worst case that rests on one family alone is remarked on."""


class Attack(ABC):
    """Finds inputs that a model gets wrong; leaves the model as it found it."""

    name: ClassVar[str]
    family: ClassVar[Family]

    @abstractmethod
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        """Images inside the threat around `x`, same shape and dtype."""

    @property
    @abstractmethod
    def cost(self) -> float:
        """Passes per image that is never broken: 1 for a forward pass, 2 for a backward pass."""

    def check(self, threat: Threat) -> None:  # noqa: B027
        """Raise an AdamasError unless the attack can be run under this threat."""

    @property
    def parts(self) -> tuple[Attack, ...]:
        """The attacks that this one stands for; one that is no mere list stands for itself."""
        return (self,)


class Objective(ABC):
    """A scalar training loss; what it crafts inside, it crafts by the same attacks that evaluation uses."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        """The loss of one batch, differentiable in the parameters."""

    def inputs(self, x: Tensor, threat: Threat, kept: dict[str, Tensor]) -> Iterator[Tensor]:
        """What the updates made on one batch are given in its place, one update each; `kept` lasts for an epoch."""
        yield x


class Compressor(ABC):
    """Makes a model smaller; all its state lives in the model's parameters and buffers."""

    name: ClassVar[str]

    @property
    def needs_fit(self) -> bool:
        """Whether a stage without a fit would not do what the settings say."""
        return False

    @property
    def unsettled(self) -> float:
        """The share of a stage after which the network is what will ship; no epoch before is chosen by validation."""
        return 0.0

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

    def undecayed(self, model: nn.Module) -> Iterable[nn.Parameter]:
        """Parameters that weight decay leaves alone, besides biases and norms."""
        return ()

    def finish(self, model: nn.Module) -> None:  # noqa: B027
        """Settle: exact budget, frozen ranges, train-only state dropped."""


AnyThreat = Annotated[Threat, Choice("threat")]
AnyAttack = Annotated[Attack, Choice("attack")]
AnyObjective = Annotated[Objective, Choice("objective")]
AnyCompressor = Annotated[Compressor, Choice("compressor")]
