"""Weights as a product of two matrices and a rest: what is stored and trained are the factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Factored(nn.Module):
    """The weight U V + C of a layer as a parametrization; the weight as a matrix is (filters, inputs of a filter).

    Of full rank r, the smaller of its sides, one factor is an identity plus what is trained: `b` (a + 1) + `c` where r is the
    number of inputs, else (`b` + 1) `a` + `c`. Of a smaller rank it is `b` `a` alone. The layer's own weight is added, and is
    zero. Source: Gui et al. 2019, section 3.1, and code for the identities.
    """

    def __init__(self, weight: Tensor, rank: int | None = None):
        super().__init__()
        rows, columns = matrix(weight).shape
        self.low = rank is not None
        inner = min(rows, columns) if rank is None else rank
        self.tall = inner == columns
        self.a = nn.Parameter(weight.new_zeros(inner, columns))
        self.b = nn.Parameter(weight.new_zeros(rows, inner))
        if not self.low:
            self.c = nn.Parameter(weight.new_zeros(rows, columns))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.product().view_as(weight)

    def product(self) -> Tensor:
        """What the factors make, shape (filters, inputs of a filter)."""
        product = self.b @ self.a
        return product if self.low else product + (self.b if self.tall else self.a) + self.c

    def right_inverse(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            return weight - self.product().view_as(weight)

    def factors(self) -> list[tuple[nn.Module, str]]:
        """Where what is stored is found: module and name of each factor."""
        return [(self, name) for name in ("ab" if self.low else "abc")]


def matrix(weight: Tensor) -> Tensor:
    """A weight as a matrix, one row per filter."""
    return weight.reshape(len(weight), -1)


def factored(layer: Any) -> Factored | None:
    """The factors of a layer's weight, if it has any."""
    steps = layer.parametrizations.weight if parametrize.is_parametrized(layer, "weight") else ()
    return next((step for step in steps if isinstance(step, Factored)), None)


def factor(layer: Any, rank: int | None = None) -> Factored:
    """Give a layer's weight factors, which make nothing yet, beside the weight itself, which does not train any more."""
    found = Factored(layer.weight.detach(), rank)
    parametrize.register_parametrization(layer, "weight", found)
    layer.parametrizations.weight.original.requires_grad_(False)
    return found
