"""Losses that attacks climb: logits (N, K) and labels (N,), or pairs of label and target (N, 2), to one value per image."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the label."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The best wrong logit minus the right one; positive exactly where the image is misclassified.

    Source: Carlini, Wagner 2017, f6. The right class is masked with minus infinity, so that any logits will do.
    """
    right = y[:, None]
    return logits.scatter(1, right, -torch.inf).amax(1) - logits.gather(1, right).squeeze(1)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio: the margin over the gap between the largest and the third largest logit.

    Source: Croce, Hein 2020, equation 6. Deviation: the plain margin where there are fewer than three classes.
    """
    if logits.shape[1] < 3:
        return margin(logits, y)
    ordered = logits.topk(3, dim=1).values
    return margin(logits, y) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def target_margin(logits: Tensor, pairs: Tensor) -> Tensor:
    """The target's logit minus the label's."""
    both = logits.gather(1, pairs)
    return both[:, 1] - both[:, 0]


def target_dlr(logits: Tensor, pairs: Tensor) -> Tensor:
    """Targeted difference of logits ratio: over the gap between the largest logit and the mean of the third and fourth.

    Source: Croce, Hein 2020, equation 7. Deviation: the plain difference where there are fewer than four classes.
    """
    if logits.shape[1] < 4:
        return target_margin(logits, pairs)
    ordered = logits.topk(4, dim=1).values
    return target_margin(logits, pairs) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)


def likely_targets(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The `count` most likely wrong classes of every image, best first, at most K - 1: shape (N, min(count, K - 1))."""
    wrong = logits.scatter(1, y[:, None], -torch.inf)
    return wrong.topk(min(count, logits.shape[1] - 1), dim=1).indices


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}
