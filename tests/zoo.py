"""Twenty networks whose robustness is known beforehand: ten defences that only hide the gradient, ten honest models.

`BROKEN` and `HONEST` map a name to a function from the digits `Data` to a network in eval mode, from images (N, 1, 8, 8) in
[0, 1] to logits (N, 10). Every call returns a copy of its own; what lies behind is trained once per process, from fixed seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adamas.attacks.pgd import PGD
from adamas.compress.filters import Filters
from adamas.compress.ptq import PTQ
from adamas.data import Data
from adamas.device import seeded
from adamas.fit import Fit, fit
from adamas.models.cnn8 import CNN8
from adamas.models.resnet import ResNet18
from adamas.objectives import AdversarialTraining
from adamas.threat import Linf
from adamas.weights import private_copy
from tests.helpers import SmallNet

Build = Callable[[Data], nn.Module]

BROKEN: dict[str, Build] = {}
HONEST: dict[str, Build] = {}
THREAT = Linf(eps=0.15)
"""What the adversarially trained network was trained against."""


def listed(table: dict[str, Build]) -> Callable[[Build], Build]:
    """List a network under its function's name; made once per data set, handed out as copies."""

    def add(build: Build) -> Build:
        made = cache(build)
        table[build.__name__] = lambda data: private_copy(made(data)).eval()
        return table[build.__name__]

    return add


def fitted(make: Callable[[], nn.Module], data: Data, *, seed: int = 0, **settings: Any) -> nn.Module:
    """A new network, trained for a second or two."""
    with seeded(seed):
        net = make()
    fit(net, data, Fit(**{"epochs": 16, "batch_size": 32, "lr": 0.1} | settings), THREAT, device="cpu")
    return net.eval()


# -------------------------------------------------------------------------------------------------- honest models


@listed(HONEST)
def small_net(data: Data) -> nn.Module:
    """The undefended network: ordinary training, not robust, and every gradient attack shows it."""
    return fitted(SmallNet, data)


@listed(HONEST)
def adversarially_trained(data: Data) -> nn.Module:
    """The undefended network, trained on under attack: robust for real, to some degree. Source: Madry et al. 2018."""
    return fitted(lambda: small_net(data), data, lr=0.05, objective=AdversarialTraining(attack=PGD(steps=3)))


@listed(HONEST)
def mlp(data: Data) -> nn.Module:
    """One hidden layer."""
    return fitted(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), data)


@listed(HONEST)
def linear_softmax(data: Data) -> nn.Module:
    """Multinomial logistic regression."""
    return fitted(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data)


@listed(HONEST)
def cnn8(data: Data) -> nn.Module:
    """Eight layers, no batch norm."""
    return fitted(lambda: CNN8(width=8).build((1, 8, 8), 10), data, optimizer="adamw", lr=3e-3)


@listed(HONEST)
def resnet18(data: Data) -> nn.Module:
    """Shortcuts and depth, width 4."""
    return fitted(lambda: ResNet18(width=4).build((1, 8, 8), 10), data, epochs=14, optimizer="adamw", lr=0.01)


@listed(HONEST)
def smooth(data: Data) -> nn.Module:
    """Activations without kinks, tanh (which saturates) and GELU."""
    return fitted(
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.GELU(),
            nn.Flatten(), nn.Linear(256, 32), nn.Tanh(), nn.Linear(32, 10),
        ),
        data,
    )  # fmt: skip


@listed(HONEST)
def filter_pruned(data: Data) -> nn.Module:
    """Half the filters of a trained network removed, then trained on. Source: Li et al. 2017."""
    net = fitted(lambda: SmallNet(width=16), data)
    Filters(keep=0.5).calibrate(net, data.train.batches(32), THREAT)
    return fitted(lambda: net, data, epochs=4, lr=0.02)


@listed(HONEST)
def int8(data: Data) -> nn.Module:
    """Weights and activations of 8 bits after training; it rounds, but with straight-through gradients."""
    net, compressor = small_net(data), PTQ()
    compressor.attach(net)
    compressor.calibrate(net, data.train.batches(32), THREAT)
    return net


@listed(HONEST)
def vision_transformer(data: Data) -> nn.Module:
    """One block of attention over sixteen patches, average pooling, no batch norm."""
    return fitted(ViT, data, epochs=20, optimizer="adamw", lr=0.01)


class ViT(nn.Module):
    """Overlapping 3x3 patches, positions, one attention block with layer norm, mean over the tokens."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.block = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        seen = self.norm1(tokens)
        tokens = tokens + self.attention(seen, seen, seen, need_weights=False)[0]
        return self.head((tokens + self.block(self.norm2(tokens))).mean(1))


# ----------------------------------------------------------------------------------------------- broken defences


@listed(BROKEN)
def quantized_input(data: Data) -> nn.Module:
    """Pixels rounded to six levels; the gradient is zero everywhere.

    Proposed: Xu et al. 2018 (feature squeezing), Guo et al. 2018 (bit-depth reduction).
    Broken: He et al. 2017, Athalye et al. 2018 (straight-through backward pass).
    """
    return nn.Sequential(Rounded(5), small_net(data))


class Rounded(nn.Module):
    """x rounded to multiples of 1 / `steps`, with torch's gradient of it: zero."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.steps).round() / self.steps


@listed(BROKEN)
def saturated_logits(data: Data) -> nn.Module:
    """Logits times 1000: in float32 the softmax is exactly one-hot, and the cross-entropy of a right answer exactly flat.

    Proposed: Papernot et al. 2016 (defensive distillation, which ends in such logits).
    Broken: Carlini & Wagner 2017 (a loss on logits).
    """
    return nn.Sequential(small_net(data), Scaled(1000.0))


class Scaled(nn.Module):
    """Logits divided by a temperature of 1 / `scale`."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, logits: Tensor) -> Tensor:
        return self.scale * logits


@listed(BROKEN)
def k_winners(data: Data) -> nn.Module:
    """Of each layer's activations only the largest tenth pass: gradients exist, and jump from one step to the next.

    Proposed: Xiao et al. 2020 (k-winners-take-all). Broken: Tramer et al. 2020 (gradients averaged over a neighbourhood).
    """
    return fitted(
        lambda: nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), KWinners(0.1),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), KWinners(0.1),
            nn.Flatten(), nn.Linear(512, 10),
        ),
        data, lr=0.3,
    )  # fmt: skip


class KWinners(nn.Module):
    """The largest `share` of an image's activations, zero for the others."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(1, round(self.share * flat.shape[1]))).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


@listed(BROKEN)
def noisy_input(data: Data) -> nn.Module:
    """Gaussian noise on the pixels, in training and at inference, from torch's global stream: two passes differ.

    Noise as large as the threat lends some robustness of its own, so the pretence is smaller than elsewhere.
    Proposed: Liu et al. 2018 (random self-ensemble), Dhillon et al. 2018. Broken: Athalye et al. 2018 (expectation over noise).
    """
    return fitted(lambda: nn.Sequential(Noise(0.25), SmallNet(width=16)), data, epochs=30)


class Noise(nn.Module):
    """x + `std` * N(0, 1), in either mode."""

    def __init__(self, std: float):
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn_like(x)


@listed(BROKEN)
def thermometer(data: Data) -> nn.Module:
    """Each pixel becomes eight bits, "brighter than 1/16, 3/16, ...", and the network is trained on these.

    Proposed: Buckman et al. 2018. Broken: Athalye et al. 2018.
    """
    return fitted(lambda: nn.Sequential(Thermometer(8), SmallNet(channels=8)), data)


class Thermometer(nn.Module):
    """(N, 1, H, W) to (N, levels, H, W) of zeros and ones, with a gradient of zero."""

    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        thresholds = (torch.arange(self.levels, device=x.device) + 0.5).view(1, -1, 1, 1) / self.levels
        return (torch.sign(x - thresholds) + 1) / 2


@listed(BROKEN)
def constant_gradient(data: Data) -> nn.Module:
    """The network's own answers, and a backward pass that returns the same pattern whatever the image.

    Proposed: the limit of Shan et al. 2020 (trapdoors that catch the gradient). Broken: Carlini 2020, and any transferred or
    black-box attack: Papernot et al. 2017.
    """
    return Misleading(small_net(data))


class Misleading(nn.Module):
    """`net` forward; backward, a checkerboard of +1 and -1."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return _Checkerboard.apply(x, self.net(x.detach()))  # type: ignore[return-value]


class _Checkerboard(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor) -> Tensor:
        rows, columns = torch.meshgrid(*(torch.arange(n, device=x.device) for n in x.shape[2:]), indexing="ij")
        ctx.pattern = (1.0 - 2.0 * ((rows + columns) % 2)).expand_as(x)
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.pattern, None


@listed(BROKEN)
def rounded_features(data: Data) -> nn.Module:
    """Activations rounded to halves inside the network, without a straight-through gradient.

    Proposed: Galloway et al. 2018 (binary networks), Panda et al. 2019. Broken: Athalye et al. 2018; Gupta & Ajanthan 2022.
    """
    layers = list(small_net(data))  # type: ignore[call-overload]
    return nn.Sequential(*layers[:6], Rounded(2), *layers[6:])


@listed(BROKEN)
def batch_statistics(data: Data) -> nn.Module:
    """Batch norm by the statistics of the batch at hand, in eval mode too: an image's answer depends on its neighbours.

    Proposed: Wang et al. 2021 (dent, test-time adaptation). Broken: Croce et al. 2022.
    """
    net = small_net(data)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = layer.running_var = None
    return net


@listed(BROKEN)
def conflicting_vote(data: Data) -> nn.Module:
    """A hard majority vote of three networks; what gradient there is leaks from where the first one disagrees with the others.

    Climbing it turns one member and makes the two others firmer.
    Proposed: Pang et al. 2019, Kariyappa & Qureshi 2019 (diverse ensembles). Broken: He et al. 2017, Tramer et al. 2020.
    """
    return Vote(small_net(data), *(fitted(SmallNet, data, seed=seed) for seed in (1, 2)))


class Vote(nn.Module):
    """Number of votes per class, plus a hundredth of (first member's logits - mean logits)."""

    def __init__(self, *members: nn.Module):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.stack([member(x) for member in self.members])
        votes = F.one_hot(logits.argmax(2), logits.shape[2]).float().sum(0)
        return votes + 0.01 * (logits[0] - logits.mean(0))


@listed(BROKEN)
def jpeg(data: Data) -> nn.Module:
    """The image compressed as JPEG of quality 50 would, coefficients rounded, gradient zero.

    Proposed: Dziugaite et al. 2016, Guo et al. 2018. Broken: Shin & Song 2017 (a differentiable JPEG), Athalye et al. 2018.
    """
    return nn.Sequential(JPEG(), small_net(data))


class JPEG(nn.Module):
    """Blocks of 8x8 grey pixels in [0, 1] to their lossy selves: cosine transform, table, rounding, and back.

    Source: ITU-T T.81, annex A.3.3 (transform) and table K.1 (luminance, quality 50).
    """

    basis: Tensor
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        k, n = torch.arange(8.0)[:, None], torch.arange(8.0)
        scale = torch.full((8, 1), 0.5).index_fill_(0, torch.tensor([0]), math.sqrt(1 / 8))
        self.register_buffer("basis", scale * torch.cos(math.pi * (2 * n + 1) * k / 16))
        self.register_buffer("table", torch.tensor(LUMINANCE, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        coefficients = self.basis @ (255 * x - 128) @ self.basis.T
        kept = (coefficients / self.table).round() * self.table
        return ((self.basis.T @ kept @ self.basis + 128).round() / 255).clamp(0, 1)


LUMINANCE = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
