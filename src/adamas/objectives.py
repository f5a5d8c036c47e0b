"""Training losses: natural, adversarial, and the trade-offs between the two."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adamas.attacks.crafting import Craft, climb, crafting
from adamas.attacks.pgd import PGD
from adamas.registry import Count, Number, Pixels, register
from adamas.roles import AnyAttack, Objective, Threat


@register("objective", "natural")
class Natural(Objective):
    """Cross-entropy on clean images."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        return F.cross_entropy(model(x), y)


@register("objective", "adversarial")
class AdversarialTraining(Objective):
    """Cross-entropy on adversarial images alone.

    Source: Madry et al. 2018, equation 2.1.
    """

    attack: AnyAttack = PGD(steps=10)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        return F.cross_entropy(model(self.attack(model, x, y, threat)), y)


@register("objective", "trade_off")
class TradeOff(Objective):
    """alpha * CE(clean) + beta * CE(adversarial).

    Source: Li, Wang, Xin 2021, equation 8 (alpha 1, beta 8); Goodfellow et al. 2015 and ATMC's code use one half each.
    """

    alpha: Number = 0.5
    beta: Number = 0.5
    attack: AnyAttack = PGD(steps=10)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        x_adv = self.attack(model, x, y, threat)
        return self.alpha * F.cross_entropy(model(x), y) + self.beta * F.cross_entropy(model(x_adv), y)


@register("objective", "trades")
class TRADES(Objective):
    """CE(clean) + beta * KL(clean prediction || adversarial prediction); the images are crafted to maximise that divergence.

    Source: Zhang et al. 2019, equation 5; the climb starts .001 * N(0, 1) away from the image, as in their code.
    Deviation: none in the loss; the clean prediction inside the climb is computed once.
    """

    beta: Number = 6.0
    steps: Count = 10
    step_size: Pixels | None = None
    craft: Craft = "eval"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        x_adv = self._craft(model, x, y, threat)
        logits = model(x)
        divergence = _kl(logits.log_softmax(1), model(x_adv).log_softmax(1)).mean()
        return F.cross_entropy(logits, y) + self.beta * divergence

    def _craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        with crafting(model, self.craft) as victim:
            clean = victim.logits(x).log_softmax(1)
            start = threat.project(x + 0.001 * torch.randn_like(x), x)
            return climb(
                victim, x, y, threat, start=start, steps=self.steps, step_size=self.step_size,
                loss=lambda logits, _: _kl(clean, logits.log_softmax(1)),
            )  # fmt: skip


@register("objective", "mart")
class MART(Objective):
    """Boosted cross-entropy on adversarial images plus a divergence weighted by how wrong the clean prediction is.

    BCE(adv) + weight * mean(KL(p || p_adv) * (1 - p_y)), where BCE = -log p_adv_y - log(1 - max of the other p_adv).
    Source: Wang et al. 2020, equations 9-11; weight 5 as in their experiments.
    """

    weight: Number = 5.0
    attack: AnyAttack = PGD(steps=10)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        x_adv = self.attack(model, x, y, threat)
        log_p, log_p_adv = model(x).log_softmax(1), model(x_adv).log_softmax(1)
        right = y[:, None]
        other = log_p_adv.exp().scatter(1, right, 0).amax(1)
        boosted = F.nll_loss(log_p_adv, y) - torch.log1p(-other.clamp(max=1 - 1e-6)).mean()
        doubt = 1 - log_p.gather(1, right).squeeze(1).exp()
        return boosted + self.weight * (_kl(log_p, log_p_adv) * doubt).mean()


@register("objective", "free")
class FreeTraining(Objective):
    """Cross-entropy on images plus a noise that climbs by the gradients of the updates themselves, so it costs no extra pass.

    Every batch is used for `replays` updates one after the other, so give a stage that many times fewer epochs. The noise of a
    batch is where the one of the batch before starts from, and zero at the start of an epoch; it climbs by `step_size`, by
    default the whole eps.
    Source: Shafahi et al. 2019, algorithm 1. Deviation: the noise starts every epoch at zero, so that a resumed run repeats it.
    """

    replays: Count = 4
    step_size: Pixels | None = None

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        return F.cross_entropy(model(x), y)

    def inputs(self, x: Tensor, threat: Threat, kept: dict[str, Tensor]) -> Iterator[Tensor]:
        noise = kept.get("noise", torch.zeros_like(x))[: len(x)]
        step = self.step_size or threat.eps
        for _ in range(self.replays):
            seen = threat.project(x + noise, x).requires_grad_()
            yield seen
            climbed = seen.detach() if seen.grad is None else threat.ascend(seen.detach(), seen.grad, step)
            noise = threat.project(climbed, x) - x
        kept["noise"] = noise


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) per image, shape (N,)."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
