"""Signs that a robustness figure is not what it seems; each is printed beside the figure it touches (docs/soundness.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from adamas.attacks.crafting import Terms, Victim, climb, crafting
from adamas.attacks.losses import margin
from adamas.dice import Dice
from adamas.roles import Threat
from adamas.threat import Linf
from adamas.verdict import AttackResult

CHANGED = 0.01
"""Share of the range of an image's logits by which they have to differ to count as different answers."""
BATCH_SHARE = 0.05
"""Share of images whose logits may depend on the rest of the batch."""
ZERO_SHARE = 0.05
"""Share of images that may have no gradient at all."""
VANISHING = 2.0**-23
"""Rise of the cross-entropy within the threat that its gradient must promise: one unit of float32 at 1."""
VANISHING_SHARE = 0.25
"""Share of images whose cross-entropy gradient may be smaller than that."""
STUCK_SHARE = 0.1
"""Share of images whose loss may be no higher after ten steps than before."""
STEPS = 10
"""Steps of the climbs inside the threat."""
UNBOUNDED = Linf(eps=0.5)
"""A threat that no classifier withstands: every image can be turned grey."""
UNBOUNDED_STEPS = 20
UNBOUNDED_SHARE = 0.05
"""Share of images that may withstand it."""
SURPRISING = 3
"""Images that an attack must break beyond those that should have broken them, at least."""
SURPRISING_SHARE = 0.03
"""And as a share of all images attacked."""
AFTER_CROSS_ENTROPY_SHARE = 0.1
"""The same share where all white-box attacks climbed the cross-entropy, which honest networks too can outlast a little."""
CLIMBS = ("fgsm", "ifgsm", "pgd", "apgd", "apgd_t")
"""Attacks of which, within a family, the one with more passes should break more."""


def probe_flags(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> list[str]:
    """Flags of a few images (N, C, H, W) in [0, 1] that the model gets right, before any attack is run.

    At most 108 forward-equivalents per image, 30 to 60 for a sound model.
    Source: Carlini et al. 2019, section 5; Athalye et al. 2018, section 3.1; Croce et al. 2022.
    """
    if not len(x):
        return []
    with crafting(model, terms=Terms(search=True)) as victim:
        unsteady = [*_unsteady(victim, x)]
        gradients, followed = _gradients(victim, x, y, threat)
        x, y = x[followed], y[followed]  # one cause, one flag: what has no gradient is not asked what it leads to
        climbs = [] if unsteady else [*_climbs(victim, x, y, threat)]
        return [*unsteady, *gradients, *climbs, *_unbounded(victim, x, y)]


def _unsteady(victim: Victim, x: Tensor) -> Iterator[str]:
    """Answers that depend on more than the image: on chance, or on the other images of the batch."""
    logits = victim.logits(x)
    again = _different(logits, victim.logits(x))
    if again.any():
        yield (
            f"randomised output: two passes give different logits for {_share(again)}; "
            "attack the expectation over the noise (eot) and evaluate the mean of many draws (samples)"
        )
        return
    apart = _different(logits, torch.cat([victim.logits(half) for half in x.chunk(2)]))
    if apart.float().mean() > BATCH_SHARE:
        yield (
            f"batch statistics: the other images of the batch change the logits of {_share(apart)}; "
            "evaluate with statistics fixed in training, or with batch_size: 1"
        )


def _different(logits: Tensor, others: Tensor) -> Tensor:
    ranges = logits.amax(1) - logits.amin(1)
    return (logits - others).abs().amax(1) > CHANGED * ranges


def _gradients(victim: Victim, x: Tensor, y: Tensor, threat: Threat) -> tuple[list[str], Tensor]:
    """Flags of the gradients at the images themselves, and which images have one."""
    rise = threat.eps * threat.dual(victim.differentiate(x, y).grad)
    zero = threat.dual(victim.differentiate(x, y, margin).grad) == 0
    vanishing = (rise < VANISHING) & ~zero
    flags = []
    if zero.float().mean() > ZERO_SHARE:
        flags.append(
            f"zero gradients: {_share(zero)} give gradient attacks nothing to follow; "
            "add a black-box attack (square) and a transferred one"
        )
    if vanishing.float().mean() > VANISHING_SHARE:
        flags.append(
            f"vanishing gradients: the cross-entropy of {_share(vanishing)} is too flat for float32; "
            "add attacks on the margin of the logits (apgd_t, or pgd with loss: margin)"
        )
    return flags, ~zero


def _climbs(victim: Victim, x: Tensor, y: Tensor, threat: Threat) -> Iterator[str]:
    """What one step and ten steps up the margin, from the same random start, make of the images."""
    if not len(x):
        return
    start = threat.sample(x, Dice(x))
    once, many = (_climbed(victim, x, y, threat, start, steps) for steps in (1, STEPS))
    stuck = ~(many > margin(victim.logits(start), y))
    if stuck.float().mean() > STUCK_SHARE:
        yield (
            f"loss not rising with steps: {STEPS} steps along the gradient leave the loss of {_share(stuck)} no higher than "
            "it was; add a black-box attack (square) and a transferred one"
        )
    one, ten = int((once > 0).sum()), int((many > 0).sum())
    if _surprising(one - ten, len(x), SURPRISING_SHARE):
        yield (
            f"FGSM beats PGD: from the same start one step breaks {one} of {len(x)} images and {STEPS} steps break {ten}; "
            "add restarts, smaller steps and a black-box attack (square)"
        )


def _climbed(victim: Victim, x: Tensor, y: Tensor, threat: Threat, start: Tensor, steps: int) -> Tensor:
    """The margin of every image at the end of a climb, infinite where the image was broken on the way."""
    search, step_size = victim.search(x, y), threat.eps if steps == 1 else None
    last = climb(victim, x, y, threat, start=start, steps=steps, step_size=step_size, loss=margin, search=search)
    values = x.new_full((len(x),), torch.inf)
    if len(search):
        values[search.rows] = margin(victim.logits(last), search.y)
    return values


def _unbounded(victim: Victim, x: Tensor, y: Tensor) -> Iterator[str]:
    """What a threat without bounds leaves standing."""
    if not len(x):
        return
    search = victim.search(x, y)
    climb(victim, x, y, UNBOUNDED, start=x, steps=UNBOUNDED_STEPS, loss=margin, search=search)
    if len(search) > UNBOUNDED_SHARE * len(x):
        yield (
            f"robust accuracy above zero at eps = large: {len(search)} of {len(x)} images withstand {UNBOUNDED}, "
            "which can turn every image grey; gradient attacks fail here: add black-box (square) and transferred ones"
        )


def comparison_flags(attacks: Sequence[AttackResult]) -> list[str]:
    """Flags from attacks' results compared with each other, in the order in which an evaluation runs them.

    Source: Carlini et al. 2019, section 5; Athalye et al. 2018, section 3.1.
    """
    return [*_weaker_adversaries(attacks), *_fewer_steps(attacks)]


def _weaker_adversaries(attacks: Sequence[AttackResult]) -> Iterator[str]:
    """Adversaries who know less than white-box attacks, and break what these left standing."""
    white = [attack for attack in attacks if "gradient" in attack.family]
    if not white:
        return
    right = attacks[0].attacked
    margins = any(attack.family != "cross-entropy gradient" for attack in white)
    share = SURPRISING_SHARE if margins else AFTER_CROSS_ENTROPY_SHARE
    for attack in (attack for attack in attacks if attack not in white):
        saw_all = attack.attacked == right  # an exhaustive evaluation, or nothing was broken before
        beyond = attack.broken - max(one.broken for one in white) if saw_all else attack.broken
        if _surprising(beyond, right, share):
            kind = "transfer" if attack.family == "transfer" else "black box"
            yield (
                f"{kind} beats white box: {attack.attack} breaks {beyond} of {right} images more than the white-box attacks; "
                "their gradients mislead: add margin losses (apgd_t), restarts, and transfer from an undefended network"
            )


def _fewer_steps(attacks: Sequence[AttackResult]) -> Iterator[str]:
    """Of attacks on the same images that differ in effort, the shorter breaking more than the longer."""
    climbs = [attack for attack in attacks if attack.attack.split("(")[0] in CLIMBS]
    for shorter, longer in combinations(climbs, 2):
        alike = shorter.family == longer.family and shorter.attacked == longer.attacked == attacks[0].attacked
        if alike and _surprising(shorter.broken - longer.broken, longer.attacked, SURPRISING_SHARE):
            yield (
                f"FGSM beats PGD: {shorter.attack} breaks {shorter.broken} of {shorter.attacked} images, {longer.attack}, with "
                f"more passes, {longer.broken}; check its step size, add restarts and a black-box attack (square)"
            )


def _surprising(images: int, attacked: int, share: float) -> bool:
    return images >= SURPRISING and images > share * attacked


def _share(marked: Tensor) -> str:
    return f"{marked.float().mean():.0%} of the images ({int(marked.sum())} of {len(marked)})"
