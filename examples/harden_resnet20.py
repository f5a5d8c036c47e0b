"""Harden a network that adamas has never seen: a published CIFAR-10 ResNet-20, its own code, its own checkpoint.

    python examples/harden_resnet20.py resnet20-12fca82f.th --data-dir DATA [--train 4000] [--test 1000]

The network below is the user's. What adamas needs is in `main`: ten lines from loaders to a report.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import adamas

# ------------------------------------------------------------------------------------------------ the user's network


class PadShortcut(nn.Module):
    """Parameter-free shortcut (option A): every second pixel, zero channels on both sides."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.channels // 2, self.channels // 2))


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, before: int, after: int):
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if before == after else PadShortcut(after - before)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(out)) + self.shortcut(x)).relu()


class ResNet20(nn.Module):
    """Three stages of three blocks, widths 16, 32, 64."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(self.pool(out).flatten(1))


def load_resnet20(checkpoint: Path) -> nn.Module:
    """The published weights behind the normalisation they were trained with."""
    values = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    net = ResNet20()
    net.load_state_dict({name.removeprefix("module."): value for name, value in values.items()})
    return adamas.normalized(net, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def cifar10_loaders(folder: Path, train: int, test: int) -> list[DataLoader[tuple[Tensor, ...]]]:
    """The user's own loaders: (images in [0, 1], labels) from the binary version of CIFAR-10."""
    loaders = []
    for names, n in (([f"data_batch_{i}.bin" for i in range(1, 6)], train), (["test_batch.bin"], test)):
        raw = b"".join((folder / "cifar-10-batches-bin" / name).read_bytes() for name in names)
        records = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, 3073)[:n]
        images = records[:, 1:].reshape(-1, 3, 32, 32).float() / 255
        loaders.append(DataLoader(TensorDataset(images, records[:, 0].long()), batch_size=250))
    return loaders


# ------------------------------------------------------------------------------------------------------- adamas


def main() -> None:
    """Compress, harden, evaluate, export and report."""
    options = argparse.ArgumentParser(description="Harden a published ResNet-20.")
    options.add_argument("checkpoint", type=Path)
    options.add_argument("--data-dir", type=Path, required=True)
    options.add_argument("--train", type=int, default=50_000, help="training images")
    options.add_argument("--test", type=int, default=10_000, help="test images")
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--out", type=Path, default=Path("runs/resnet20"))
    got = options.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")  # adamas logs the plan of what it removes
    model = load_resnet20(got.checkpoint)
    data = adamas.data.from_loaders(*cifar10_loaders(got.data_dir, got.train, got.test))
    adamas.explicit_shortcuts(model, torch.zeros(1, 3, 32, 32))  # lets channels go that a padding shortcut ties together
    robust = adamas.AdversarialTraining(attack=adamas.PGD(steps=3))
    harden = adamas.Fit(objective=robust, epochs=got.epochs, batch_size=32, lr=0.05, ema=0.995)
    recipe = adamas.Recipe(
        threat=adamas.Linf(eps=4 / 255),
        stages=(adamas.Stage(compress=adamas.Filters(keep=0.5), fit=harden), adamas.Stage(compress=adamas.PTQ())),
        evaluate=adamas.Evaluate(attacks=(adamas.PGD(steps=20),)),
    )
    print(adamas.run(recipe, model=model, data=data, out=got.out, name="half-int8"))


if __name__ == "__main__":
    main()
