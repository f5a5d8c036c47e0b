"""Post-training quantization: round weights and activations of a trained network to integers."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt, Le
from torch import nn

from adamas.compress.quantizers import Bits
from adamas.quantize import attach_quantizers, calibrate_ranges
from adamas.registry import Count, Number, register
from adamas.roles import Batches, Compressor, Threat


@register("compressor", "ptq")
class PTQ(Compressor):
    """Uniform quantization of weights (symmetric) and activations (affine), ranges set once from training batches.

    Batch norm is folded first. Fitting afterwards trains the weights through the quantizers, ranges fixed.
    Source: Thorsteinsson et al. 2024, section 3 and code. Deviation: ranges come from `batches` training batches, never from
    test data; quantizers sit where integer kernels need them; weights per output channel unless `per_channel` is false.
    """

    weight_bits: Bits = 8
    activation_bits: Bits = 8
    per_channel: bool = True
    calibration: Literal["minmax", "percentile"] = "minmax"
    percentile: Annotated[Number, Gt(50), Le(100)] = 99.9
    batches: Count = 16

    def attach(self, model: nn.Module) -> None:
        attach_quantizers(model, self.weight_bits, self.activation_bits, self.per_channel)

    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        calibrate_ranges(model, batches, self.batches, self.percentile if self.calibration == "percentile" else None)
