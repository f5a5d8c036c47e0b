"""What learned masks cost: their share of an adversarial training step, and the step that computes them in every forward pass.

python benchmarks/bench_masks.py [--repeats 7] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

import adamas
from adamas.models.lenet import CNN4
from adamas.models.resnet import ResNet18
from adamas.progress import console
from adamas.weights import effective_weights

STEPS = 10


def step(model: nn.Module, x: Tensor, y: Tensor, *, once: bool) -> None:
    """PGD-10 and one training pass, written out so that the cache can be left away."""
    with effective_weights(model) if once else nullcontext():
        model.eval()
        for _ in range(STEPS):
            inner = x.detach().requires_grad_()
            torch.autograd.grad(F.cross_entropy(model(inner), y), inner)
        F.cross_entropy(model.train()(x), y).backward()
    model.zero_grad()


def masks(model: nn.Module) -> None:
    """Every mask once."""
    with effective_weights(model), torch.no_grad():
        pass


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    got = parser.parse_args()
    torch.set_num_threads(got.threads)
    table = Table("network", "batch", "share of the step", "in every pass / once", title=f"HARP, PGD-{STEPS}")
    for name, architecture, shape, batch in (("cnn4", CNN4(), (1, 28, 28), 128), ("resnet18", ResNet18(), (3, 32, 32), 16)):
        torch.manual_seed(0)
        model, x, y = architecture.build(shape, 10), torch.rand(batch, *shape), torch.randint(10, (batch,))
        method = adamas.Prune(keep=0.01, scores="learned", rates="learned")  # type: ignore[arg-type]
        method.attach(model)
        method.calibrate(model, [], adamas.Linf())
        shares, ratios = [], []
        for _ in range(got.repeats + 1):
            whole = seconds(lambda model=model, x=x, y=y: step(model, x, y, once=True))
            shares.append(seconds(lambda model=model: masks(model)) / whole)
            ratios.append(seconds(lambda model=model, x=x, y=y: step(model, x, y, once=False)) / whole)
        table.add_row(name, str(batch), *(f"{statistics.median(values[1:]):.3f}" for values in (shares, ratios)))
    console.print(table)


if __name__ == "__main__":
    main()
