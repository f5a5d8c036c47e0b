"""Prune a network that adamas has never seen by greedy adversarial pruning, and by magnitudes for comparison.

    python examples/prune_resnet20.py resnet20-12fca82f.th --data-dir DATA [--train 4000] [--test 1000]

The figure that matters here is the transfer gap, clean accuracy less accuracy on images crafted on the published network:
greedy adversarial pruning is said to close it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harden_resnet20 import cifar10_loaders, load_resnet20

import adamas
from adamas.rates.globally import Global
from adamas.scores.gap import GAP
from adamas.scores.magnitude import Magnitude


def main() -> None:
    """One row per pruner and compression: all 272,282 parameters over those that are not zero."""
    options = argparse.ArgumentParser(description="Prune a published ResNet-20.")
    options.add_argument("checkpoint", type=Path)
    options.add_argument("--data-dir", type=Path, required=True)
    options.add_argument("--train", type=int, default=50_000, help="training images")
    options.add_argument("--test", type=int, default=10_000, help="test images")
    options.add_argument("--compression", type=float, nargs="+", default=[2.0, 8.0, 32.0])
    options.add_argument("--epochs", type=int, default=1)
    options.add_argument("--out", type=Path, default=Path("runs/pruned_resnet20"))
    got = options.parse_args()

    model = load_resnet20(got.checkpoint)
    data = adamas.data.from_loaders(*cifar10_loaders(got.data_dir, got.train, got.test))
    prunable = sum(p.numel() for name, p in model.named_parameters() if "conv" in name)  # the classifier stays
    rest = sum(parameter.numel() for parameter in model.parameters()) - prunable
    attack = adamas.PGD(steps=10, step_size=2 / 255)
    for compression in got.compression:
        keep = ((prunable + rest) / compression - rest) / prunable
        for scores in (Magnitude(), GAP(images=got.train, attack=attack)):
            prune = adamas.Prune(keep=keep, scores=scores, rates=Global(), ramp=0, exclude=("*linear",))
            recipe = adamas.Recipe(
                threat=adamas.Linf(eps=8 / 255),
                stages=(adamas.Stage(compress=prune, fit=adamas.Fit(epochs=got.epochs, lr=0.01)),),
                evaluate=adamas.Evaluate(attacks=(attack,), exhaustive=True),
                transfer=(adamas.FromStage(stage=-1, attack=attack),),
            )
            print(adamas.run(recipe, model=model, data=data, out=got.out, name=f"{scores.name}-{compression:g}"))


if __name__ == "__main__":
    main()
