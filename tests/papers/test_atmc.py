"""ATMC against algorithm 1 (Gui et al. 2019), written out with loops and brute force."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adamas.compress.atmc import ATMC
from adamas.compress.factors import factored
from adamas.data import Data, Images
from adamas.fit import Fit, fit
from adamas.threat import Linf

LR, RHO, GROWTH, EPOCHS, BUDGET = 0.05, 0.5, 2.0, 4, 5


def one_batch() -> Data:
    images = Images(torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0] * 2))
    return Data("one batch", ("a", "b", "c"), images, images[:0], images)


def cut(factors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The BUDGET largest entries of all factors."""
    least = torch.cat([f.flatten() for f in factors]).abs().sort(descending=True).values[BUDGET - 1]
    return [f * (f.abs() >= least) for f in factors]


def clustered(values: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Centres after plain k-means until nothing changes."""
    for _ in range(100):
        codes = (values[:, None] - centres).abs().argmin(1)
        centres = torch.stack([values[codes == k].mean() if (codes == k).any() else centres[k] for k in range(len(centres))])
    return centres


@pytest.mark.parametrize("bits", [None, 1])
def test_training_follows_the_algorithm(bits):
    torch.manual_seed(1)
    data, model = one_batch(), nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    x, y = data.train[:].pixels.double().flatten(1), data.train[:].labels
    dense = model[1].weight.detach().double()
    a, b, c = cut([dense, torch.zeros(3, 3).double(), torch.zeros(3, 4).double()])  # (b + 1) a + c, as 3 < 4
    duals = [torch.zeros_like(f) for f in (a, b, c)]
    rho = RHO
    if bits:
        shown = a[a != 0].sort().values
        centres = clustered(shown, shown[((torch.arange(2) + 0.5) / 2 * len(shown)).long()])
        copies = [torch.where(a != 0, centres[(a[..., None] - centres).abs().argmin(-1)], 0), b.clone(), c.clone()]
    for step in range(EPOCHS):
        factors = [f.clone().requires_grad_() for f in (a, b, c)]
        loss = F.cross_entropy(x @ ((factors[1] + torch.eye(3)) @ factors[0] + factors[2]).T, y)
        if bits:
            loss = loss + rho / 2 * sum((f - w + u).square().sum() for f, w, u in zip(factors, copies, duals, strict=True))
        gradients = torch.autograd.grad(loss, factors)
        a, b, c = cut([f.detach() - LR * g for f, g in zip(factors, gradients, strict=True)])
        if bits and step % 2:  # two renewals in four steps
            assert not b.any() and not c.any(), "the case is chosen so that only a is left"
            both = a + duals[0]
            centres = clustered(both[a != 0], centres)
            copies = [torch.where(a != 0, centres[(both[..., None] - centres).abs().argmin(-1)], 0), b, c]
            duals = [(both - copies[0]) / GROWTH, b, c]
            rho *= GROWTH

    compressor = ATMC(keep=BUDGET / 12, bits=bits, rho=RHO, growth=GROWTH, cycles=2)
    compressor.attach(model)
    compressor.calibrate(model, [], Linf())
    fit(model, data, Fit(epochs=EPOCHS, batch_size=8, lr=LR, momentum=0, schedule="constant"), Linf(), compressor=compressor)
    found = factored(model[1])
    for got, expected in zip((found.a, found.b, found.c), (a, b, c), strict=True):
        torch.testing.assert_close(got.detach().double(), expected, rtol=1e-4, atol=1e-6)
    compressor.finish(model)
    if bits:
        expected = torch.where(a != 0, centres[(a[..., None] - centres).abs().argmin(-1)], 0)
        torch.testing.assert_close(found.a.detach().double(), expected, rtol=1e-4, atol=1e-6)
