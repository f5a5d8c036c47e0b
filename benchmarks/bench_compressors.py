"""What compressors cost in training: their share of an adversarial step, and k-means on ten million weights.

python benchmarks/bench_compressors.py [--repeats 3] [--threads 1] [--weights 10000000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

import adamas
from adamas.compress.lloyd import lloyd, nearest
from adamas.models.enresnet import EnResNet
from adamas.models.lenet import CNN4, LeNet
from adamas.models.resnet import ResNet18
from adamas.progress import console
from adamas.weights import effective_weights

STEPS = 10
HARP = adamas.Prune(keep=0.01, scores="learned", rates="learned")  # type: ignore[arg-type]
METHODS = {
    "HARP": HARP,
    "binary": adamas.BinaryRelax(levels="binary"),
    "ternary": adamas.BinaryRelax(levels="ternary"),
    "4 bit": adamas.BinaryRelax(levels="uniform"),
    "AL0": adamas.ATMC(keep=0.01, bits=None, factorize=False),
    "ATMC-32": adamas.ATMC(keep=0.01, bits=None),
    "ATMC-8": adamas.ATMC(keep=0.01),
}
NETWORKS = {
    "cnn4": (CNN4(), (1, 28, 28), 128),
    "lenet": (LeNet(), (1, 28, 28), 128),
    "enresnet20": (EnResNet(), (3, 32, 32), 64),
    "resnet18": (ResNet18(), (3, 32, 32), 16),
}


def step(model: nn.Module, x: Tensor, y: Tensor, *, once: bool) -> None:
    """PGD-10 and one training pass, written out so that the cache can be left away."""
    with effective_weights(model) if once else nullcontext():
        model.eval()
        for _ in range(STEPS):
            inner = x.detach().requires_grad_()
            torch.autograd.grad(F.cross_entropy(model(inner), y), inner)
        F.cross_entropy(model.train()(x), y).backward()
    model.zero_grad()


def own(method: adamas.Compressor, model: nn.Module) -> None:
    """What the method adds to a step: effective weights and penalty with their gradients, and what follows the step."""
    with effective_weights(model):
        weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        loss = torch.stack([weight.sum() for weight in weights]).sum() + method.penalty(model, 0.5)  # type: ignore[union-attr]
        loss.backward()
    method.after_step(model, 0.0)  # between the few renewals of a stage
    model.zero_grad()


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def shares(repeats: int) -> Table:
    """Every method on every network that it takes."""
    table = Table("network", "batch", "method", "share of the step", "in every pass / once", title=f"PGD-{STEPS}")
    for name, (architecture, shape, batch) in NETWORKS.items():
        for title, method in METHODS.items():
            torch.manual_seed(0)
            model, x, y = architecture.build(shape, 10), torch.rand(batch, *shape), torch.randint(10, (batch,))
            method.attach(model)
            method.calibrate(model, [], adamas.Linf())
            parts, ratios = [], []
            for _ in range(repeats + 1):
                whole = seconds(lambda model=model, x=x, y=y: step(model, x, y, once=True))
                parts.append(seconds(lambda model=model, method=method: own(method, model)) / whole)
                ratios.append(seconds(lambda model=model, x=x, y=y: step(model, x, y, once=False)) / whole)
            table.add_row(name, str(batch), title, *(f"{statistics.median(values[1:]):.3f}" for values in (parts, ratios)))
    return table


def clustering(weights: int, repeats: int) -> Table:
    """Exact Lloyd iterations, 256 and 16 values, beside sorting alone, which is their floor."""
    values = torch.randn(weights, generator=torch.Generator().manual_seed(0))
    table = Table("values", "Lloyd, s", "over sorting", "and every weight's nearest, s", title=f"{weights:,} weights")
    for count in (16, 256):
        ratios, times = [], []
        for _ in range(repeats):
            sort = seconds(lambda: np.sort(values.numpy()))
            search = seconds(lambda count=count: lloyd(values, count))
            centres = lloyd(values, count)
            assign = seconds(lambda centres=centres: nearest(values, centres))
            ratios.append(search / sort)
            times.append((search, search + assign))
        medians = [f"{statistics.median(column):.2f}" for column in (*zip(*times, strict=True), ratios)]
        table.add_row(str(count), medians[0], medians[2], medians[1])
    return table


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", type=int, default=10_000_000)
    got = parser.parse_args()
    torch.set_num_threads(got.threads)
    console.print(shares(got.repeats))
    console.print(clustering(got.weights, got.repeats))


if __name__ == "__main__":
    main()
