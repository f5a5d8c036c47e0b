"""Who decides whether a candidate counts: the model itself and every other classifier asked, on images checked before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from adamas.errors import AdamasError
from adamas.outcomes import Letters
from adamas.registry import label
from adamas.roles import Attack, Threat

MODEL = "model"
"""What the attacked model itself is called among the classifiers."""


class Panel:
    """The classifiers that score every candidate for some images, and which of these images still stand with each.

    `classifiers` begins with the attacked model; `batch_size` is the most images that one of them sees at once. With `on_grid`
    a candidate counts as it is after rounding to 8 bits.
    """

    def __init__(
        self, classifiers: Mapping[str, nn.Module], x: Tensor, y: Tensor, threat: Threat, batch_size: int, on_grid: bool = False
    ):
        self.classifiers, self.x, self.y, self.threat = classifiers, x, y, threat
        self.batch_size, self.on_grid = batch_size, on_grid
        if on_grid and not torch.equal(_on_grid(x), x):
            raise AdamasError("round: expected 8-bit images, whose pixels are multiples of 1/255, got pixels between them")

    def start(self, clean: Letters, attacks: Sequence[Letters]) -> Letters:
        """Classify the clean images, or take their outcomes and those of finished attacks as they were kept."""
        if clean:
            self.clean = {name: self._are("1", clean[name]) for name in self.classifiers}
        else:
            self.clean = {name: ~self._wrong(model, self.x, self.y) for name, model in self.classifiers.items()}
        self.standing = {name: right.clone() for name, right in self.clean.items()}
        for letters in attacks:
            for name, there in self.standing.items():
                there &= ~self._are("0", letters[name])
        return {name: _letters(right, torch.ones_like(right)) for name, right in self.clean.items()}

    def begin(self, attack: Attack, exhaustive: bool) -> Tensor:
        """Start an attack: the rows it is to attack, those that any classifier still gets right."""
        self.attack = attack
        self.before = self.clean if exhaustive else {name: there.clone() for name, there in self.standing.items()}
        self.now = {name: there.clone() for name, there in self.before.items()}
        return self.unbroken.nonzero().squeeze(1)

    @property
    def unbroken(self) -> Tensor:
        """Images that some classifier still gets right, whatever the present attack has tried so far, (N,) bool."""
        return torch.stack(list(self.now.values())).any(0)

    def score(self, rows: Tensor, x_adv: Tensor) -> Tensor:
        """Score candidates for some rows; which of them no classifier gets right any more, (M,) bool."""
        if not len(rows):
            return self.unbroken[rows]
        x, y = self.x[rows], self.y[rows]
        check_inside(self.attack, x_adv, x, self.threat)
        if self.on_grid:
            x_adv = rounded(x_adv, x, self.threat)
        for name, model in self.classifiers.items():
            self.now[name][rows] &= ~self._wrong(model, x_adv, y)
        return ~self.unbroken[rows]

    def end(self) -> dict[str, str]:
        """Finish the attack: the outcome of every image."""
        for name, now in self.now.items():
            self.standing[name] &= now
        return {name: _letters(now, self.before[name]) for name, now in self.now.items()}

    def _are(self, letter: str, letters: str) -> Tensor:
        return torch.tensor([one == letter for one in letters], device=self.x.device)

    def _wrong(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat(
            [wrong(model, *piece) for piece in zip(x.split(self.batch_size), y.split(self.batch_size), strict=True)]
        )


class Averaged(nn.Module):
    """A randomised model's mean logits over some draws of its noise: the classifier that is then evaluated."""

    def __init__(self, model: nn.Module, samples: int):
        super().__init__()
        self.model, self.samples = model, samples

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.model(x) for _ in range(self.samples)]).mean(0)


@torch.no_grad()
def wrong(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which images are misclassified, (N,) bool. Errors: outputs that are not finite."""
    logits = model(x)
    if not logits.isfinite().all():
        raise AdamasError(
            "expected finite logits, got nan or inf on an image in [0, 1]; such an image would count as broken by mistake; "
            "is the checkpoint intact, and does the network divide or take logarithms somewhere?"
        )
    return logits.argmax(1) != y


def _letters(stood: Tensor, attacked: Tensor) -> str:
    codes = torch.where(attacked, stood.long(), torch.full_like(stood.long(), 2)).tolist()
    return "".join("01-"[code] for code in codes)


def rounded(x_adv: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """The 8-bit image nearest to each candidate; where that leaves the threat, the nearest one towards the clean image."""
    near = _on_grid(x_adv)
    inward = x + ((x_adv - x) * 255 + 1e-4 * (x_adv - x).sign()).trunc() / 255
    outside = threat.distance(near, x) > threat.eps * (1 + 1e-5) + 1e-6
    return torch.where(outside.view(-1, *[1] * (x.dim() - 1)), _on_grid(inward), near)


def _on_grid(x: Tensor) -> Tensor:
    return (x * 255).round() / 255


def check_inside(attack: Attack, x_adv: Tensor, x: Tensor, threat: Threat) -> None:
    """Raise an AdamasError unless every crafted image is in [0, 1] and inside the threat, in the dtype evaluated."""
    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        raise AdamasError(
            f"attack {label(attack)}: expected {x.dtype} images of shape {tuple(x.shape)}, "
            f"got {x_adv.dtype} of shape {tuple(x_adv.shape)}"
        )
    if not len(x):
        return
    if not x_adv.isfinite().all():
        raise AdamasError(f"attack {label(attack)}: expected finite images, got nan or inf")
    furthest = float(threat.distance(x_adv, x).max())
    low, high = float(x_adv.min()), float(x_adv.max())
    if furthest > threat.eps * (1 + 1e-5) + 1e-6 or low < 0 or high > 1:
        raise AdamasError(
            f"attack {label(attack)}: expected images in [0, 1] within {threat}, "
            f"got pixels in [{low:.6g}, {high:.6g}] and a distance of {furthest:.6g}"
        )
