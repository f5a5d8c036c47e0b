"""Is this a classifier that adamas can work with? Asked once, before anything is spent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adamas.errors import AdamasError
from adamas.graph import modes_kept


def check_model(model: nn.Module, x: Tensor, classes: int, *, probabilities: bool = False) -> None:
    """Raise an AdamasError unless `model` maps images (N, C, H, W) to finite logits (N, classes), or to `probabilities`."""
    try:
        with modes_kept(model), torch.no_grad():
            logits = model.eval()(x)
    except Exception as error:  # whatever a foreign forward raises
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise AdamasError(f"the model refused images of shape {tuple(x.shape[1:])} (channels, height, width): {why}") from error
    if not isinstance(logits, Tensor) or logits.shape != (len(x), classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise AdamasError(f"expected logits of shape {(len(x), classes)} for {classes} classes, got {got}")
    if not logits.isfinite().all():
        raise AdamasError(
            "expected finite logits, got nan or inf; is the checkpoint intact and the normalisation applied once?"
        )
    if is_probability(logits) and not probabilities:
        raise AdamasError(
            "expected logits, got probabilities (every row is in [0, 1] and sums to 1): remove the softmax, "
            "it hides the gradients that attacks and training need"
        )


def is_probability(outputs: Tensor) -> bool:
    """Whether every row is non-negative and sums to 1."""
    return bool(
        (outputs >= 0).all() and torch.allclose(outputs.sum(1), torch.ones(len(outputs), device=outputs.device), atol=1e-4)
    )


def checked_logits(model: nn.Module, x: Tensor, classes: int) -> tuple[list[str], nn.Module]:
    """Check a model for evaluation; one that returns probabilities is flagged and given back as one that returns logits."""
    check_model(model, x, classes, probabilities=True)
    with torch.no_grad():
        if not is_probability(model(x)):
            return [], model
    flag = "probabilities instead of logits: attacks follow their logarithm; where they round to 0 or 1 no gradient is left"
    return [flag], LogProbabilities(model)


class LogProbabilities(nn.Module):
    """A model that returns probabilities, as one that returns logits: their logarithms, which have the same softmax."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).clamp_min(torch.finfo(torch.float32).tiny).log()
