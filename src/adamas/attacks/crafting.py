"""What every attack shares: a model held still, passes through it that pay for the input's gradient alone, and the climb."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from adamas.attacks.losses import Loss, cross_entropy
from adamas.attacks.search import Accept, Search
from adamas.roles import Threat, per_image
from adamas.weights import effective_weights

Craft = Literal["eval", "train"]
"""Mode of the model while images are crafted: running statistics, or those of the batch (which then do not move)."""
Precision = Literal["fp32", "bf16"]


class Pass(NamedTuple):
    """One forward and backward pass: logits (N, K), loss (N,) and its gradient with respect to the images."""

    logits: Tensor
    loss: Tensor
    grad: Tensor


@dataclass(frozen=True)
class Terms:
    """How a model is attacked, for those who set the attack up; an attack itself does not look at them.

    `batch_size`: images per pass, fewer as soon as memory runs out. `samples`: passes over which logits, losses and gradients
    of a randomised model are averaged. `search`: leave an image at its first wrong prediction that `accept` agrees to.
    `active`: without it such an image is kept, but attacked to the end. `tick` hears of every image's pass (1 or, with a
    backward pass, 3).
    """

    batch_size: int | None = None
    samples: int = 1
    precision: Precision = "fp32"
    search: bool = False
    active: bool = True
    accept: Accept | None = None
    tick: Callable[[int], Any] | None = None


@dataclass
class _Limit:
    """The number of images per pass that memory was found to allow; victims of the same model share it."""

    size: int | None = None


class Victim(nn.Module):
    """A model as attacks see it; made by `crafting`, which holds the model still."""

    def __init__(self, model: nn.Module, terms: Terms):
        super().__init__()
        self.model, self.terms, self._limit = model, terms, _Limit(terms.batch_size)
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """Float32 logits of one pass."""
        with torch.autocast(x.device.type, torch.bfloat16) if self.terms.precision == "bf16" else nullcontext():
            logits = self.model(x)
        return logits if self.terms.precision == "fp32" else logits.float()

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, K) without a gradient."""
        return self._in_pieces(self._logits, x)[0]

    def wrong(self, x: Tensor, y: Tensor) -> Tensor:
        """Which images are misclassified, (N,) bool."""
        return self.logits(x).argmax(1) != y

    def differentiate(self, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> Pass:
        """Logits, loss and gradient with respect to the images in one pass; no parameter's gradient is computed."""
        return Pass(*self._in_pieces(lambda x, y: self._differentiate(x, y, loss), x, y))

    def search(self, x: Tensor, y: Tensor) -> Search:
        """Bookkeeping for one attack's search on these images."""
        return Search(x, y, active=self.terms.active, accept=self.terms.accept)

    def with_samples(self, samples: int) -> Victim:
        """The same model, every pass averaged over so many draws of its noise."""
        other = Victim(self.model, replace(self.terms, samples=samples))
        other._limit = self._limit
        return other

    @torch.no_grad()
    def _logits(self, x: Tensor) -> tuple[Tensor]:
        self._tick(len(x))
        if self.terms.samples == 1:
            return (self(x),)
        return (torch.stack([self(x) for _ in range(self.terms.samples)]).mean(0),)

    def _differentiate(self, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, ...]:
        self._tick(3 * len(x))
        passes = [self._one_pass(x, y, loss) for _ in range(self.terms.samples)]
        return passes[0] if len(passes) == 1 else tuple(torch.stack(parts).mean(0) for parts in zip(*passes, strict=True))

    def _one_pass(self, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = self(x)
            losses = loss(logits, y)
            known = torch.autograd.grad(losses.sum(), x, allow_unused=True)[0] if losses.requires_grad else None
        grad = torch.zeros_like(x) if known is None else known  # no path to the pixels: soundness flags zero gradients
        return logits.detach(), losses.detach(), grad

    def _tick(self, passes: int) -> None:
        if self.terms.tick is not None:
            self.terms.tick(passes * self.terms.samples)

    def _in_pieces(self, run: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> tuple[Tensor, ...]:
        """Run over at most as many images at a time as memory allows, halving when it runs out."""
        while True:
            size = min(self._limit.size or len(rows[0]), len(rows[0]))
            try:
                done = [run(*piece) for piece in zip(*(part.split(size) for part in rows), strict=True)]
                break
            except RuntimeError as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                self._limit.size = (size + 1) // 2
        return done[0] if len(done) == 1 else tuple(torch.cat(parts) for parts in zip(*done, strict=True))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a pass failed for want of memory, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)


@contextmanager
def crafting(model: nn.Module, craft: Craft = "eval", terms: Terms = Terms()) -> Iterator[Victim]:
    """Hold a model still: frozen parameters, effective weights computed once; mode, buffers and gradients as found after.

    Inside a training step the step's own effective weights are reused; a victim is held as it is, under its own terms.
    """
    modes = [(module, module.training) for module in model.modules()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if craft == "train" else []
    try:
        with effective_weights(model):
            for parameter in trained:
                parameter.requires_grad_(False)
            model.train(craft == "train")
            yield model if isinstance(model, Victim) else Victim(model, terms)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def climb(
    victim: Victim,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    start: Tensor,
    steps: int,
    step_size: float | None = None,
    loss: Loss = cross_entropy,
    momentum: float = 0.0,
    search: Search | None = None,
) -> Tensor:
    """`steps` projected ascent steps from `start`; the last iterate of every image, or of those that the search left standing.

    Without a `step_size` it is 2.5 * eps / steps, so that every point of the ball can be reached. `momentum` is the share of
    the last direction that the next one keeps, gradients taken by their mean absolute value.
    Source: Madry et al. 2018, section 2.1; Dong et al. 2018, equation 6.
    """
    step_size = 2.5 * threat.eps / steps if step_size is None else step_size
    x_adv, direction = start, torch.zeros_like(start)
    for _ in range(steps):
        logits, _, grad = victim.differentiate(x_adv, y, loss)
        if search is not None:
            x_adv, grad, direction = search.narrow(x_adv, logits, grad, direction)
            x, y = search.x, search.y
        if not len(x_adv):
            break
        if momentum:
            grad = direction = momentum * direction + grad / per_image(grad.flatten(1).abs().mean(1).clamp_min(1e-30), grad)
        x_adv = threat.project(threat.ascend(x_adv.detach(), grad, step_size), x)
    if search is not None and len(x_adv):
        (x_adv,) = search.narrow(x_adv, victim.logits(x_adv))
    return x_adv if search is None else search.settle(x_adv)[0]
