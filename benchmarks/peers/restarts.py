"""Robust accuracy by PGD-20 with five restarts: every image to the end of every restart, against `adamas.evaluate`."""

from __future__ import annotations

import torch
from peers.libraries import Steps, torchattacks
from peers.networks import Case
from peers.reference import right
from peers.timing import COLUMNS, interleaved
from rich.table import Table
from torch import Tensor, nn

import adamas

STEPS, RESTARTS, BATCH = 20, 5, 250
NAIVE = "torchattacks, every image in every restart"


def compare(case: Case, repeats: int) -> Table:
    """Robust accuracy and time of both."""
    plain, ours = case.plain_model(), case.plain_model()
    x, y = case.images()
    settings = adamas.Evaluate(attacks=(adamas.PGD(steps=STEPS, restarts=RESTARTS),), batch_size=BATCH)
    methods = {
        NAIVE: lambda: naive(plain, x, y, case.threat.eps),
        "adamas.evaluate": lambda: adamas.evaluate(ours, case.data, settings, case.threat).worst_case.value,
    }
    table = Table(*COLUMNS, title=f"PGD-{STEPS}, {RESTARTS} restarts, {case.name}, {len(x)} images")
    for row in interleaved(methods, repeats, warm_up=False).rows(NAIVE, lambda share: share):
        table.add_row(*row)
    return table


def naive(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    """Share of images that no restart breaks."""
    attack = torchattacks(model, Steps(eps=eps, step_size=2.5 * eps / STEPS, steps=STEPS))
    standing = right(model, x, y, BATCH)
    for _ in range(RESTARTS):
        for rows in torch.arange(len(x)).split(BATCH):
            standing[rows] &= right(model, attack(x[rows], y[rows]), y[rows], BATCH)
    return float(standing.float().mean())
