"""ATMC: pruning, factorization and quantization under one budget, by projection and ADMM."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.admm import Split, augmented, due, residual
from adamas.compress.bit_allocation import allocate
from adamas.compress.factors import factor, factored, matrix
from adamas.compress.lloyd import lloyd, nearest
from adamas.compress.masks import Mask, highest
from adamas.compress.tied import Tied
from adamas.errors import AdamasError
from adamas.registry import Count, Number, Share, register
from adamas.roles import Batches, Compressor, Threat
from adamas.surgery import weight_layers
from adamas.weights import original, swap_last

log = logging.getLogger("adamas")


@register("compressor", "atmc")
class ATMC(Compressor):
    """Weights U V + C whose factors keep `keep` of all weights as non-zeros, in all layers together, of at most 2^bits values.

    After every step the largest factors of all layers stay and the others are set to zero; which ones may change until the end.
    With `bits` the factors are drawn towards their own quantized version by rho / 2 * |w - w' + u|^2: w' is the nearest to
    w + u with 2^bits values that are not zero, by exact Lloyd iterations from the values before, where w is not zero. w' and
    the dual u are renewed `cycles` times over the stage, after each of which rho grows by `growth`; the relative residual
    |w - w'|^2 / |w|^2 is logged each time. In the end every factor takes the nearest of its values, so that the budget holds
    for the quantized network; later stages train the values. `allocation`: mixed divides the bits unevenly among the factors,
    by what they gain. `factorize: false` leaves U and V out: with `bits: null` that is AL0, with `keep: 1` a codebook for
    whatever is not zero, also behind masks. Where keep is below 1, earlier masks are opened: the budget takes their place.
    Grouped convolutions and what `exclude` names stay as they are and do not count.
    Source: Gui et al. 2019, algorithm 1 and code (factors, global budget, one fixed centre at zero). Deviation: centres start
    from the last ones and not from random values, and rho grows, without which the residual does not fall; only what is not
    zero is quantized, so that the budget is never exceeded; momentum of pruned entries lives on, as in the code.
    """

    keep: Share = 0.05
    bits: Annotated[int, Ge(1), Le(8)] | None = 8
    allocation: Literal["equal", "mixed"] = "equal"
    factorize: bool = True
    rho: Annotated[Number, Gt(0)] = 0.1
    growth: Annotated[Number, Ge(1)] = 1.25
    cycles: Count = 20
    exclude: tuple[str, ...] = ()

    @property
    def unsettled(self) -> float:
        return 1.0 if self.bits else 0.0

    def attach(self, model: nn.Module) -> None:
        layers = self._layers(model)
        if not layers:
            raise AdamasError("atmc: expected at least one convolution or linear layer, got none")
        for layer in layers:
            if self.factorize and factored(layer) is None:
                factor(layer)
        for owner, name in _pieces(layers):
            parametrize.register_parametrization(owner, name, Tied(self.bits) if self.bits else Mask(getattr(owner, name)))

    @torch.no_grad()
    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        """Move the weights into their factors, meet the budget, find the first values; no data is read."""
        layers = self._layers(model)
        for layer in layers:
            if self.factorize:
                _move(layer)
        pieces = _pieces(layers)
        if self.keep < 1:
            for owner, name in pieces:
                _open(owner, name)
        self._project(layers)
        if self.bits:
            values = [getattr(owner, name) for owner, name in pieces]
            shown = [value[value != 0] for value in values]
            widths = allocate(shown, self.bits) if self.allocation == "mixed" else [self.bits] * len(pieces)
            for (owner, name), value, width in zip(pieces, values, widths, strict=True):
                swap_last(owner, name, Coding(value, width))

    def penalty(self, model: nn.Module, progress: float) -> Tensor | float:
        pieces = _coded(model)
        if not pieces:
            return 0.0
        return augmented(_pairs(pieces), self.rho, self.growth)

    @torch.no_grad()
    def after_step(self, model: nn.Module, progress: float) -> None:
        self._project(self._layers(model))
        pieces = _coded(model)
        if pieces and due(pairs := _pairs(pieces), progress, self.cycles):
            for weight, coding in pairs:
                coding.follow(weight, self.growth)
            log.info("atmc: relative residual %.3g after cycle %d", residual(pairs), int(pairs[0][1].cycle))

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Fix what is zero, and give every factor its values."""
        pieces = _coded(model)
        for owner, name, coding in pieces:
            original(owner, name).copy_(coding.coded(getattr(owner, name)))
            swap_last(owner, name, Tied(coding.bits))
        if not self.bits:
            for owner, name in _pieces(self._layers(model)):
                owner.parametrizations[name][-1].mask.copy_(getattr(owner, name) != 0)

    @torch.no_grad()
    def residual(self, model: nn.Module) -> float:
        """|w - w'|^2 / |w|^2 over all factors."""
        return residual(_pairs(_coded(model)))

    def _layers(self, model: nn.Module) -> list[Any]:
        """Those whose weight trains, or trains in factors; grouped convolutions are not factorized."""
        layers: Iterable[Any] = weight_layers(model, self.exclude).values()
        trained = [layer for layer in layers if factored(layer) is not None or original(layer).requires_grad]
        return [layer for layer in trained if not self.factorize or getattr(layer, "groups", 1) == 1]

    def _project(self, layers: list[Any]) -> None:
        """Keep the largest entries of all factors, as many as the budget allows."""
        if self.keep < 1:
            pieces = _pieces(layers)
            budget = int(self.keep * sum(original(layer).numel() for layer in layers))
            project([original(owner, name) for owner, name in pieces], budget)


def project(tensors: list[Tensor], budget: int) -> None:
    """Set all but the `budget` largest entries of all tensors to zero, in place."""
    sizes = torch.cat([tensor.abs().flatten() for tensor in tensors])
    masks = highest(sizes, min(budget, len(sizes))).split([tensor.numel() for tensor in tensors])
    for tensor, mask in zip(tensors, masks, strict=True):
        tensor.mul_(mask.view_as(tensor))


class Coding(Split):
    """A factor that is not quantized yet, beside z, its version of 2^bits values that are not zero, the `centres`."""

    centres: Tensor

    def __init__(self, weight: Tensor, bits: int):
        super().__init__(weight, weight, bits)
        self.bits = bits
        shown = weight[weight != 0]
        self.register_buffer("centres", lloyd(shown, 2**bits) if len(shown) else weight.new_zeros(2**bits))
        self.z.copy_(self.coded(weight))

    def coded(self, weight: Tensor, moved: Tensor | None = None) -> Tensor:
        """The nearest value of every entry (or of what it was moved to), where the weight is not zero."""
        return torch.where(weight != 0, nearest(weight if moved is None else moved, self.centres), 0)

    def follow(self, weight: Tensor, growth: float) -> None:
        """Find the values of w + u anew, and renew z and u by them."""
        both = weight + self.u
        shown = both[weight != 0]
        if len(shown):
            self.centres.copy_(lloyd(shown, self.centres))
        self.renew(both, self.coded(weight, both), growth)


Piece = tuple[Any, str]
"""A tensor that is stored: the module it belongs to, and its name there."""


def _pieces(layers: Iterable[Any]) -> list[Piece]:
    """The factors of layers that have some, else their weights."""
    found: list[Piece] = []
    for layer in layers:
        factors = factored(layer)
        found += [(layer, "weight")] if factors is None else factors.factors()
    return found


def _pairs(pieces: Iterable[tuple[Any, str, Coding]]) -> list[tuple[Tensor, Coding]]:
    return [(getattr(owner, name), coding) for owner, name, coding in pieces]


def _coded(model: nn.Module) -> list[tuple[Any, str, Coding]]:
    """The pieces that are being quantized."""
    parametrized: list[Any] = [module for module in model.modules() if parametrize.is_parametrized(module)]
    last = [(module, name, steps[-1]) for module in parametrized for name, steps in module.parametrizations.items()]
    return [(module, name, step) for module, name, step in last if isinstance(step, Coding)]


def _open(owner: Any, name: str) -> None:
    """Let every entry train again, from the values that masks leave."""
    original(owner, name).copy_(getattr(owner, name))
    for step in owner.parametrizations[name]:
        if isinstance(step, Mask):
            step.mask.fill_(True)


def _move(layer: Any) -> None:
    """Put a weight into its factors, as it is: into the one that has no identity."""
    factors: Any = factored(layer)
    own = layer.parametrizations.weight.original
    rest = layer.weight - factors.product().view_as(layer.weight)
    if bool(own.count_nonzero()):
        original(factors, "b" if factors.tall else "a").copy_(matrix(rest))
        own.zero_()
