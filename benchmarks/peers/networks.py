"""The networks that attacks are compared on, and how each becomes robust enough to be worth attacking."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import adamas
from adamas.artifact import read_weights, write_weights
from adamas.data import Data, Images, Split, load
from adamas.data.cifar import Cifar10
from adamas.data.digits import Digits
from adamas.data.images import divide
from adamas.device import seeded
from adamas.models import Architecture


@dataclass(frozen=True)
class Case:
    """A trained network and the images, all of them in `data.test`, that it is attacked on."""

    name: str
    model: nn.Module
    data: Data
    threat: adamas.Linf

    def images(self) -> tuple[Tensor, Tensor]:
        """All of them as one batch."""
        return next(self.data.test.batches(len(self.data.test)))

    def plain_model(self) -> nn.Module:
        """A copy laid out as PyTorch does by default, channels first, as users hand it to an attack."""
        return copy.deepcopy(self.model).to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def convolutions(channels: int, widths: tuple[tuple[int, int], ...], features: int) -> nn.Sequential:
    """3x3 convolutions of (width, stride) with batch norm and ReLU, then one linear layer to ten classes."""
    layers: list[nn.Module] = []
    for width, stride in widths:
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 10))


def small_cifar() -> nn.Sequential:
    """For 3x32x32 images; 160,234 parameters."""
    return convolutions(3, ((32, 2), (32, 1), (64, 2), (64, 1), (128, 2)), 128 * 16)


def digits(test: int | None) -> Case:
    """Scikit-learn's digits at eps .1, made robust in seconds."""
    data = load(Digits(), Split(validation=0, test=test))
    with seeded(0):
        model = adamas.normalized(convolutions(1, ((16, 1), (32, 2)), 32 * 16), *data.channel_statistics())
    threat = adamas.Linf(eps=0.1)
    objective = adamas.AdversarialTraining(attack=adamas.PGD(steps=3))
    adamas.fit(model, data, adamas.Fit(objective=objective, epochs=10, batch_size=64, lr=0.1), threat, device="cpu")
    return Case("digits", model, data, threat)


def cifar10(data_dir: Path, weights: Path, test: int) -> Case:
    """CIFAR-10 at eps 8/255; trained in about ten minutes of one core unless `weights` are there already."""
    data = load(Cifar10(), Split(validation=0.02, test=test), data_dir=data_dir)
    with seeded(0):
        model = adamas.normalized(small_cifar(), *data.channel_statistics())
    threat = adamas.Linf(eps=8 / 255)
    if weights.is_file():
        model.load_state_dict(read_weights(weights))
    else:
        objective = adamas.AdversarialTraining(attack=adamas.FGSM(random_start=True))
        settings = adamas.Fit(objective=objective, epochs=7, lr=0.1, weight_decay=5e-4, augment="flip", ema=0.995)
        adamas.fit(model, data, settings, threat, title="training on cifar10", device="cpu")
        weights.parent.mkdir(parents=True, exist_ok=True)
        write_weights(weights, model)
    return Case("cifar10", model.eval(), data, threat)


def artifact(path: Path, data_dir: Path | None, test: int) -> Case:
    """What `adamas run` left in `path`, on the first test images of its own data and against its own threat."""
    kept = adamas.Artifact.load(path)
    recipe = kept.recipe
    if recipe.data is None or not isinstance(recipe.threat, adamas.Linf):
        raise adamas.AdamasError(f"{path}: expected an artifact with its data and an L-infinity threat, got {recipe.threat}")
    return Case(kept.card["network"], kept.model(), load(recipe.data, Split(test=test), data_dir=data_dir), recipe.threat)


def enlarged(name: str, architecture: Architecture, image_shape: tuple[int, int, int], train: int, epochs: int) -> Case:
    """A larger network, trained naturally for a few epochs on some digits blown up to its image shape."""
    channels, *size = image_shape
    small = load(Digits(), Split(validation=0))

    def blown(images: Images) -> Images:
        pixels = F.interpolate(images.pixels.float(), size, mode="bilinear").expand(-1, channels, -1, -1)
        return Images(pixels.round().to(torch.uint8).contiguous(), images.labels)

    data = divide("enlarged digits", blown(small.train), blown(small.test), small.classes, Split(train=train, validation=0), 0)
    with seeded(0):
        model = architecture.build(image_shape, len(data.classes))
    adamas.fit(model, data, adamas.Fit(epochs=epochs, batch_size=16, lr=0.02), adamas.Linf(), title=name, device="cpu")
    return Case(name, model.eval(), data, adamas.Linf(eps=8 / 255))
