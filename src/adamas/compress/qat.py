"""Quantization-aware training: the network trains with its rounding, and ranges follow the activations."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from torch import nn

from adamas.compress.quantizers import Bits, activation_quantizers
from adamas.quantize import attach_quantizers, calibrate_ranges
from adamas.registry import Count, Number, register
from adamas.roles import Batches, Compressor, Threat


@register("compressor", "qat")
class QAT(Compressor):
    """Uniform quantization from the first step on; ranges are moving averages of the extremes of training batches.

    Attacks, which run in eval mode, see the ranges but do not move them; `finish` freezes them.
    Source: Thorsteinsson et al. 2024, section 3 and code; Jacob et al. 2018, section 3.1. Deviation: batch norm is folded
    before training and ranges start from `batches` calibration batches instead of from the first batch.
    """

    weight_bits: Bits = 8
    activation_bits: Bits = 8
    per_channel: bool = True
    momentum: Annotated[Number, Ge(0), Lt(1)] = 0.99
    batches: Count = 16

    def attach(self, model: nn.Module) -> None:
        attach_quantizers(model, self.weight_bits, self.activation_bits, self.per_channel, self.momentum)

    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        calibrate_ranges(model, batches, self.batches)

    def finish(self, model: nn.Module) -> None:
        for quantizer in activation_quantizers(model).values():
            quantizer.freeze()
