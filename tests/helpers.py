"""Small networks, data and settings that several tests need."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import adamas
from adamas.data import Data, Images
from adamas.errors import AdamasError
from adamas.objectives import Natural
from adamas.registry import parse
from adamas.roles import Objective, Threat

SOURCE = Path(adamas.__file__).parent


class SmallNet(nn.Sequential):
    """Two convolutions with batch norm, dropout that is off, two linear layers."""

    def __init__(self, classes: int = 10, channels: int = 1, width: int = 8):
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.0),
            nn.Linear(8 * width, 16), nn.ReLU(), nn.Linear(16, classes),
        )  # fmt: skip


class Linear(nn.Module):
    """Logits x @ weight.T + bias of the flattened image: a model whose gradients are known by hand."""

    def __init__(self, weight: Tensor | list[list[float]], bias: list[float] | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight, dtype=torch.float32))
        self.bias = nn.Parameter(torch.tensor(bias or [0.0] * len(self.weight)))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight, self.bias)


class Counting(nn.Module):
    """A parametrization that is the identity and counts how often it is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return weight * 1.0


class Killed(Objective):
    """The natural objective, interrupted once, at its n-th call (0: never)."""

    kind, name = "objective", "killed"

    def __init__(self, call: int):
        self.call, self.calls = call, 0

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        self.calls += 1
        if self.calls == self.call:
            raise KeyboardInterrupt
        return Natural()(model, x, y, threat)


class Sealed:
    """Stands for images that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the sealed images were asked for {name}")

    __len__ = __getitem__ = __iter__ = __getattribute__  # type: ignore[assignment]


def shapes_data(train: int = 24, validation: int = 8, test: int = 16) -> Data:
    """Bright left halves against bright right halves with noise, float pixels (1, 4, 4)."""
    generator = torch.Generator().manual_seed(7)
    total = train + validation + test
    labels = torch.arange(total) % 2
    pixels = torch.rand(total, 1, 4, 4, generator=generator) * 0.4
    pixels[labels == 0, :, :, :2] += 0.5
    pixels[labels == 1, :, :, 2:] += 0.5
    images = Images(pixels, labels)
    parts = images[:train], images[train : train + validation], images[train + validation :]
    return Data("shapes", ("left", "right"), *parts)


def first_batch(data: Data, size: int = 64) -> tuple[Tensor, Tensor]:
    return next(data.train.batches(size))


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def made(cls: type, **values: Any) -> Any:
    """An instance of a settings class, required fields filled with the first plain value that they accept."""
    for field in fields(cls):
        if field.default is MISSING and field.default_factory is MISSING and field.name not in values:
            values[field.name] = next(value for value in (0.5, 2, "x", ["x"]) if accepts(cls, field.name, value))
    return parse(cls, values)


def accepts(cls: type, name: str, value: object) -> bool:
    """Whether a field takes this plain value, whatever else is missing."""
    try:
        parse(cls, {name: value})
    except AdamasError as error:
        return not any(line.startswith(f"{name}:") and "is required" not in line for line in str(error).splitlines())
    return True


def quick(cls: type, **values: Any) -> Any:
    """Like `made`, with every default count above 20 (steps, queries) cut to 20, so that a test stays a test."""
    counts = {f.name: 20 for f in fields(cls) if type(f.default) is int and f.default > 20}
    return made(cls, **counts | values)


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package as (path inside it, syntax tree)."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text())
