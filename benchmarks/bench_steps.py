"""How much adamas adds to the bare cost of its forward and backward passes: PGD, natural and adversarial training.

    python benchmarks/bench_steps.py [--repeats 7] [--threads 1]

Each figure is the median ratio of two interleaved timings in one process; 1.00 is the floor.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

import adamas
from adamas.attacks.crafting import crafting
from adamas.data import Data, Images, Split
from adamas.data.images import divide
from adamas.device import channels_last
from adamas.models.cnn8 import CNN8
from adamas.models.resnet import ResNet18
from adamas.progress import console

THREAT = adamas.Linf(eps=8 / 255)
STEPS = 10


def synthetic(shape: tuple[int, int, int], n: int) -> Data:
    """Random images: only the time matters."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(n) % 10)
    return divide("synthetic", images, images[:10], tuple("0123456789"), Split(validation=0), 0)


def bare_gradients(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The floor of PGD: as many forward passes and backward passes to the input, parameters frozen."""
    with crafting(model):
        for _ in range(STEPS):
            inner = x.detach().requires_grad_()
            torch.autograd.grad(F.cross_entropy(model(inner), y, reduction="sum"), inner)


def bare_epoch(model: nn.Module, data: Data, batch: int, adversarial: bool) -> None:
    """The floor of training: passes and optimiser steps alone."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for x, y in data.train.batches(batch):
        if adversarial:
            bare_gradients(model.eval(), x, y)
        F.cross_entropy(model.train()(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def ratio(ours: Callable[[], object], floor: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median, least and largest of ours / floor over interleaved repeats, after one warm-up of each."""
    ratios = []
    for repeat in range(repeats + 1):
        seconds = []
        for run in (floor, ours) if repeat % 2 else (ours, floor):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        floor_time, our_time = seconds if repeat % 2 else seconds[::-1]
        ratios.append(our_time / floor_time)
    return statistics.median(ratios[1:]), min(ratios[1:]), max(ratios[1:])


def steps_of(model: nn.Module, data: Data, batch: int) -> list[tuple[str, Callable[[], object], Callable[[], object]]]:
    """What is timed: name, ours, the floor."""
    x, y = next(data.train.batches(batch))
    attack = adamas.PGD(steps=STEPS)
    natural = adamas.Fit(epochs=1, batch_size=batch, lr=0.01)
    robust = adamas.Fit(objective=adamas.AdversarialTraining(attack=attack), epochs=1, batch_size=batch, lr=0.01)
    return [
        (f"PGD-{STEPS}", lambda: attack(model.eval(), x, y, THREAT), lambda: bare_gradients(model.eval(), x, y)),
        ("natural training", lambda: adamas.fit(model, data, natural, THREAT), lambda: bare_epoch(model, data, batch, False)),
        ("adversarial training", lambda: adamas.fit(model, data, robust, THREAT), lambda: bare_epoch(model, data, batch, True)),
    ]


def main() -> None:
    """Print one row per network and step."""
    options = argparse.ArgumentParser()
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--threads", type=int, default=1)
    got = options.parse_args()
    torch.set_num_threads(got.threads)
    console.quiet = True  # no line per timed fit
    listing = Table("network", "step", "ours / floor", "min", "max", title=f"{got.threads} thread(s), {got.repeats} repeats")
    networks = {
        "cnn8, 1x28x28, batch 128": (CNN8(), (1, 28, 28), 128),
        "resnet18, 3x32x32, batch 16": (ResNet18(), (3, 32, 32), 16),
    }
    for name, (architecture, shape, batch) in networks.items():
        torch.manual_seed(0)
        model = architecture.build(shape, 10)
        channels_last(model)  # both sides in the faster layout
        for step, ours, floor in steps_of(model, synthetic(shape, 2 * batch), batch):
            median, least, most = ratio(ours, floor, got.repeats)
            listing.add_row(name, step, f"{median:.3f}", f"{least:.3f}", f"{most:.3f}")
    console.quiet = False
    console.print(listing)


if __name__ == "__main__":
    main()
