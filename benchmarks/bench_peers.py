"""How fast and how strong adamas attacks, against torchattacks, foolbox, ART and the reference AutoAttack, in one process.

    python benchmarks/bench_peers.py [--repeats 5] [--threads 1] [--quick] [--which pgd] [--data-dir DIR] [--artifact DIR]

Runs in the environment that `make bench` builds; `--which` leaves the other comparisons out. The networks that are evaluated
are one for scikit-learn's digits, with `--data-dir` one for CIFAR-10, and any artifact of `adamas run`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from peers import autoattack, networks, pgd, restarts

from adamas.progress import console


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="rounds; each runs every method once, in shuffled order")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="fewer images, the small networks alone")
    parser.add_argument(
        "--which", action="append", choices=["pgd", "restarts", "autoattack"], help="only this; may be repeated"
    )
    parser.add_argument("--images", type=int, default=1000, help="test images per evaluation, at most")
    parser.add_argument("--data-dir", type=Path, help="evaluate a CIFAR-10 network too, trained on the first use")
    parser.add_argument("--artifact", type=Path, help="evaluate this directory of `adamas run` too")
    parser.add_argument("--keep", type=Path, default=Path("runs/bench"), help="where weights are kept")
    return parser.parse_args()


def cases(got: argparse.Namespace) -> Iterator[networks.Case]:
    """The trained networks that are evaluated."""
    yield networks.digits(60 if got.quick else None)
    if got.data_dir and not got.quick:
        yield networks.cifar10(got.data_dir, got.keep / "small_cifar.safetensors", got.images)
    if got.artifact:
        yield networks.artifact(got.artifact, got.data_dir, got.images)


def main() -> None:
    """Print one table per comparison and network."""
    got = options()
    repeats = 1 if got.quick else got.repeats
    which = got.which or ["pgd", "restarts", "autoattack"]
    torch.set_num_threads(got.threads)
    console.print(f"{got.threads} thread(s); medians of {repeats} round(s)")
    if "pgd" in which:
        for table in pgd.compare(repeats, got.quick):
            console.print(table)
    if which == ["pgd"]:
        return
    for case in cases(got):
        if "restarts" in which:
            console.print(restarts.compare(case, repeats))
        if "autoattack" in which:
            console.print(*autoattack.compare(case), sep="\n")


if __name__ == "__main__":
    main()
