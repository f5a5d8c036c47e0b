"""PGD-10: what every library adds to the bare passes through the network, and the robust accuracy each of them finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bench_steps import STEPS, bare_gradients
from peers.libraries import LIBRARIES, Craft, Steps
from peers.networks import Case, enlarged
from peers.reference import right
from peers.timing import COLUMNS, interleaved
from rich.table import Table
from torch import Tensor, nn

import adamas
from adamas.models.cnn8 import CNN8
from adamas.models.resnet import ResNet18
from adamas.panel import check_inside

FLOOR = f"floor: {STEPS} x forward and backward"
PGD = Steps(eps=8 / 255, step_size=2 / 255, steps=STEPS)
OURS = adamas.PGD(steps=PGD.steps, step_size=PGD.step_size)


def of_adamas(model: nn.Module, threat: adamas.Linf) -> dict[str, Craft]:
    """Our own rows; `model` is laid out as `adamas.evaluate` lays it out."""
    return {"adamas": lambda x, y: OURS(model, x, y, threat)}


def compare(repeats: int, quick: bool) -> list[Table]:
    """One table per network; a quick one leaves ResNet-18 out."""
    tables = [_compare(enlarged("cnn8", CNN8(), (1, 28, 28), train=960, epochs=2), 32 if quick else 128, repeats)]
    if not quick:
        tables.append(_compare(enlarged("resnet18", ResNet18(), (3, 32, 32), train=640, epochs=1), 16, repeats))
    return tables


def _compare(case: Case, batch: int, repeats: int) -> Table:
    x, y = next(case.data.test.batches(batch))
    plain, fast = case.plain_model(), case.plain_model().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    crafts = {name: library(plain, PGD) for name, library in LIBRARIES.items()} | of_adamas(fast, case.threat)
    methods: dict[str, Callable[[], Any]] = {
        FLOOR: lambda: bare_gradients(plain, x, y),
        "floor, channels_last": lambda: bare_gradients(fast, x, y),
    }
    methods |= {name: lambda craft=craft: craft(x, y) for name, craft in crafts.items()}

    def accuracy(x_adv: Tensor | None) -> float | None:
        if x_adv is None:
            return None
        check_inside(OURS, x_adv, x, case.threat)
        return float(right(plain, x_adv, y).float().mean())

    title = (
        f"PGD-{STEPS}, {case.name} on {tuple(x.shape[1:])}, batch {batch}, clean {float(right(plain, x, y).float().mean()):.3f}"
    )
    table = Table(*COLUMNS, title=title)
    for row in interleaved(methods, repeats).rows(FLOOR, accuracy):
        table.add_row(*row)
    return table
