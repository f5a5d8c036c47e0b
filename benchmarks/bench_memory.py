"""Peak memory of attacks over that of one forward and backward pass to the input; every method in a process of its own.

python benchmarks/bench_memory.py [--batch 64]
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor, nn

import adamas
from adamas.models.resnet import ResNet18
from adamas.progress import console

THREAT = adamas.Linf(eps=8 / 255)


def passes(model: nn.Module, x: Tensor, y: Tensor, times: int) -> None:
    """Forward and backward passes to the input, one after the other."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for _ in range(times):
        x = x.detach().requires_grad_()
        torch.autograd.grad(nn.functional.cross_entropy(model(x), y), x)


METHODS: dict[str, Callable[[nn.Module, Tensor, Tensor], object]] = {
    "one forward and backward pass": lambda model, x, y: passes(model, x, y, 1),
    "four of them": lambda model, x, y: passes(model, x, y, 4),
    "pgd": lambda model, x, y: adamas.PGD(steps=3)(model, x, y, THREAT),
    "apgd": lambda model, x, y: adamas.APGD(steps=5)(model, x, y, THREAT),
    "apgd_t": lambda model, x, y: adamas.APGDT(steps=5, targets=2)(model, x, y, THREAT),
    "fab_t": lambda model, x, y: adamas.FAB(steps=5, targets=2)(model, x, y, THREAT),
    "square": lambda model, x, y: adamas.Square(queries=20)(model, x, y, THREAT),
}


def peak(name: str, batch: int, out: multiprocessing.Queue) -> None:
    """Megabytes that the method needs at most beyond what is there before."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = ResNet18(width=32).build((3, 32, 32), 10).eval()
    x = torch.rand(batch, 3, 32, 32)
    with torch.no_grad():
        y = torch.cat([model(image[None]).argmax(1) for image in x])  # every image is right, so that all are attacked
    METHODS[name](model, x[:2], y[:2])  # whatever is loaded on first use
    ctypes.CDLL(None).malloc_trim(0)
    before = _kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts a new high-water mark
    METHODS[name](model, x, y)
    out.put((_kilobytes("VmHWM") - before) / 1024)


def _kilobytes(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) if found else 0


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    batch, context, table = parser.parse_args().batch, multiprocessing.get_context("spawn"), Table("method", "MB", "ratio")
    floor = 0.0
    os.environ["MALLOC_MMAP_THRESHOLD_"] = (
        "1000000"  # else the C library keeps what is freed, a third more even for bare passes
    )
    for name in METHODS:
        out = context.Queue()
        process = context.Process(target=peak, args=(name, batch, out))
        process.start()
        used = out.get()
        process.join()
        floor = floor or used
        table.add_row(name, f"{used:.0f}", f"{used / floor:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
