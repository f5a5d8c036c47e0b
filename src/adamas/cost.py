"""What a model costs: parameters, non-zeros, size counted three ways, multiply-accumulates. Counted on effective weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from adamas.device import device_of
from adamas.errors import AdamasError
from adamas.graph import modes_kept
from adamas.weights import read_channels, stored


@dataclass(frozen=True)
class Cost:
    """Sizes of one model.

    `paper_bits`: non-zeros times their bits, as compression papers count (positions and scales are free).
    `packed_bytes`: every tensor bit-packed, as bitmap plus non-zeros where that is smaller, with one 32-bit scale per
    output channel of a quantized tensor; before entropy coding. `macs`: multiply-accumulates of one image.
    `codebook_bits`: see the function. `input_channels`: what convolutions larger than 1x1 read, all together;
    `unread_channels`: those of them whose weights are all zero.
    """

    params: int
    nonzeros: int
    paper_bits: int
    packed_bytes: int
    macs: int
    codebook_bits: int
    input_channels: int = 0
    unread_channels: int = 0


@torch.no_grad()
def cost(model: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    """Count what would be exported: every parameter at its effective value, never a mask or a target."""
    params = nonzeros = paper_bits = packed_bits = coded_bits = 0
    for tensor, bits in _effective_parameters(model):
        filled = int(tensor.count_nonzero())
        params += tensor.numel()
        nonzeros += filled
        paper_bits += filled * bits
        packed_bits += min(tensor.numel() * bits, tensor.numel() + filled * bits)
        packed_bits += 32 * len(tensor) if bits < 32 else 0
        coded_bits += codebook_bits(tensor) if tensor.dim() > 1 else 0
    read = [channel for module in model.modules() for channel in _read(module)]
    packed_bytes, operations = math.ceil(packed_bits / 8), macs(model, image_shape)
    return Cost(params, nonzeros, paper_bits, packed_bytes, operations, coded_bits, len(read), read.count(False))


def _read(module: nn.Module) -> list[bool]:
    """For every input channel of a convolution larger than 1x1, whether any of its weights is not zero."""
    if not isinstance(module, nn.Conv2d) or max(module.kernel_size) == 1:
        return []
    return read_channels(module.weight, module.groups).tolist()


def codebook_bits(weight: Tensor) -> int:
    """Bits of the non-zeros of one weight as numbers of a codebook with it, or as they are where that is less.

    Source: Gui et al. 2019, code of the model size.
    """
    shown = weight[weight != 0]
    plain = 32 * len(shown)
    if len(shown[:4096].unique()) > 1024:
        return plain
    levels = len(shown.unique())
    return min(plain, len(shown) * math.ceil(math.log2(max(1, levels))) + 32 * levels)


def _effective_parameters(model: nn.Module) -> list[tuple[Tensor, int]]:
    """Every tensor a layer computes with, or its factors, once where layers share it, and the bits of one value."""
    found: dict[object, tuple[Tensor, int]] = {}
    for path, module in model.named_modules():
        if "parametrizations" in path.split("."):
            continue  # originals are counted through their layer, at their effective value; the rest does not ship
        found |= {id(parameter): (parameter, 32) for parameter in module.parameters(recurse=False)}
        if parametrize.is_parametrized(module):
            steps: Any = module.parametrizations
            for name in (name for name in steps if isinstance(steps[name].original, nn.Parameter)):  # buffers are fixed
                found |= {(id(module), name, part): value for part, value in enumerate(stored(module, name))}
    return list(found.values())


def macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image (C, H, W)."""
    still = copy.deepcopy(model).eval()
    example = torch.zeros(1, *image_shape, device=device_of(model))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        still(example)
    return counter.get_total_flops() // 2


def uses(model: nn.Module, layers: Mapping[str, nn.Module], example: Tensor) -> list[int]:
    """How often every weight of each layer is multiplied for one image; `example` is one image (1, C, H, W).

    Errors: a layer that the forward pass does not reach.
    """
    seen = dict.fromkeys(layers, 0)

    def count(name: str, channels: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            seen[name] += output.numel() // channels

        return hook

    handles = [layer.register_forward_hook(count(name, len(layer.weight))) for name, layer in layers.items()]  # type: ignore[arg-type]
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()(example)
    finally:
        for handle in handles:
            handle.remove()
    for name, times in seen.items():
        if not times:
            raise AdamasError(f"expected a forward pass that reaches every pruned layer, got none through {name}; exclude it")
    return list(seen.values())
