"""What removing channels gains where it counts: latency of exported ResNet-18s in ONNX Runtime, as a ratio to the dense one.

python benchmarks/bench_channels.py [--seconds 120] [--threads 1]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from rich.table import Table

import adamas
from adamas.compress.filters import Filters
from adamas.cost import macs
from adamas.deploy.export import export_onnx
from adamas.deploy.latency import latency
from adamas.models.resnet import ResNet18
from adamas.progress import console

SHAPE = (3, 32, 32)
KEEPS = 1.0, 0.5, 0.25, 0.1


def main() -> None:
    """Print one table; speed does not depend on the weights, so they are random."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=1)
    got = parser.parse_args()
    x = torch.rand(2, *SHAPE)
    with tempfile.TemporaryDirectory() as folder:
        files, cost = {}, {}
        for keep in KEEPS:
            model = ResNet18().build(SHAPE, 10).eval()
            if keep < 1:
                Filters(keep=keep).calibrate(model, [(x, torch.zeros(2))], adamas.Linf())
            files[f"{keep:g}"] = export_onnx(model, Path(folder) / f"{keep:g}.onnx", SHAPE)
            cost[f"{keep:g}"] = macs(model, SHAPE), sum(p.numel() for p in model.parameters())
        times = latency(files, SHAPE, seconds=got.seconds, threads=got.threads)
    table = Table("channels kept", "MACs", "weights", "batch 1, ms", "ratio", "batch 64, ms", "ratio", title="ResNet-18")
    for name, by_batch in times.items():
        row = [name, f"{cost[name][0] / cost['1'][0]:.3f}", f"{cost[name][1] / cost['1'][1]:.3f}"]
        for batch, value in by_batch.items():
            row += [f"{value.p50:.1f}", f"{value.p50 / times['1'][batch].p50:.3f}"]
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
