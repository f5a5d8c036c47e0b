"""Write a model as one ONNX file: float weights, or integers with the very scales that training simulated."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.utils import parametrize

from adamas.compress.quantizers import TINY, ActivationQuantizer, QuantizedWeight, activation_quantizers
from adamas.errors import AdamasError
from adamas.files import write
from adamas.graph import become, insert_after, operation, trace
from adamas.noise import without_noise
from adamas.quantize import has_integer_kernel, input_quantizers, source
from adamas.weights import bake, private_copy

OPSET = 17
WIDE = "com.microsoft::"
"""Domain of the 16-bit forms of QuantizeLinear and DequantizeLinear, which the standard has only from opset 21 on."""


def export_onnx(model: nn.Module, path: Path | str, image_shape: tuple[int, int, int]) -> Path:
    """Write `model` to `path`: input "image" (N, C, H, W) in [0, 1], output "logits" (N, classes), any N; model left as found.

    A quantized model becomes integer weights and biases with QuantizeLinear / DequantizeLinear around every operation. A
    network that draws noise (`adamas.noise`) is written with its noise off: nobody could audit a file that draws its own.
    Errors: quantized activations with baked weights, a model that ONNX cannot express.
    """
    copy = private_copy(without_noise(model)).cpu().eval()
    layers = _stored_layers(copy) if activation_quantizers(copy) else []
    bake(copy)
    if layers:
        _write_integers(copy, layers)
    return write(Path(path), lambda temporary: _to_onnx(copy, torch.zeros(2, *image_shape), temporary))


def _write_integers(model: nn.Module, layers: list[tuple[Any, _Stored, _Stored | None]]) -> None:
    """Replace, in place, everything quantized by what the file holds of it."""
    _repeat_quantizers(model)
    for layer, weight, bias in layers:
        _store(layer, weight, bias)
    for name, quantizer in activation_quantizers(model).items():
        model.set_submodule(name, _QuantizeDequantize(quantizer))


def _to_onnx(model: nn.Module, example: Tensor, path: Path) -> None:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (example,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            )
        onnx.checker.check_model(str(path))
    except Exception as error:
        message = (str(error).splitlines() or [""])[0]
        raise AdamasError(f"expected a model that ONNX can express, got {type(error).__name__}: {message}") from error


# --------------------------------------------------------------------------------------------- layers as integers


def _stored_layers(model: nn.Module) -> list[tuple[Any, _Stored, _Stored | None]]:
    """Every quantized layer with its weight and bias as integers; a bias with several input steps stays float (None)."""
    return [_integers(model, name, inputs) for name, inputs in input_quantizers(model, trace(model)).items()]


@torch.no_grad()
def _integers(model: nn.Module, name: str, inputs: set[ActivationQuantizer]) -> tuple[Any, _Stored, _Stored | None]:
    layer: Any = model.get_submodule(name)
    steps = layer.parametrizations.weight if parametrize.is_parametrized(layer, "weight") else ()
    quantizer = next((step for step in steps if isinstance(step, QuantizedWeight)), None)
    if quantizer is None:
        raise AdamasError(
            f"expected quantized weights, got baked ones at layer {name}; export a quantized model before baking it"
        )
    weight, unit = layer.weight, quantizer.unit
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias
    finest = (bias.abs() / 2**30).clamp_min(TINY)  # the finest step at which a bias fits into 32 bits
    if has_integer_kernel(quantizer, inputs):
        step = next(iter(inputs)).grid()[0]
        unit = torch.maximum(unit, finest / step)  # only an (almost) empty channel is coarser, for the sake of its bias
        return layer, _Stored(weight, unit, torch.int8), _Stored(bias, unit * step, torch.int32)
    wide = quantizer.bits > 8
    free = wide or any(activation.bits > 8 for activation in inputs)  # left float, the runtime would round it and overflow
    return (
        layer,
        _Stored(weight, unit, torch.int16 if wide else torch.int8),
        _Stored(bias, finest, torch.int32) if free else None,
    )


def _store(layer: Any, weight: _Stored, bias: _Stored | None) -> None:
    parametrize.register_parametrization(layer, "weight", weight, unsafe=True)
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros(len(weight.codes)))  # a Gemm without bias has no integer kernel
    if bias is not None:
        parametrize.register_parametrization(layer, "bias", bias, unsafe=True)


class _Stored(nn.Module):
    """A parametrization that ignores the float tensor: integer codes and one scale per output channel."""

    codes: Tensor
    scale: Tensor
    zeros: Tensor

    def __init__(self, values: Tensor, scale: Tensor, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("codes", (values / scale.view(-1, *[1] * (values.dim() - 1))).round().to(dtype))
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zeros", torch.zeros(len(values), dtype=dtype))  # integer kernels insist on zero points

    def forward(self, _: Tensor) -> Tensor:
        return _Dequantize.apply(self.codes, self.scale, self.zeros)  # type: ignore[return-value]


class _Dequantize(Function):
    @staticmethod
    def forward(ctx: Any, codes: Tensor, scale: Tensor, zeros: Tensor) -> Tensor:
        return codes * scale.view(-1, *[1] * (codes.dim() - 1))

    @staticmethod
    def symbolic(g: Any, codes: Any, scale: Any, zeros: Any) -> Any:
        domain = WIDE if codes.type().dtype() == torch.int16 else ""
        values = g.op(f"{domain}DequantizeLinear", codes, scale, zeros, axis_i=0)
        values.setType(codes.type().with_dtype(torch.float32))
        return values


# ---------------------------------------------------------------------------------------- activations as integers


def _repeat_quantizers(model: nn.Module) -> None:
    """Quantize again, with the same range, after reshapes and max pooling: kernels want their quantizer next to them.

    Rounding a second time changes nothing.
    """
    graph = trace(model)
    for node in list(graph.nodes):
        before = source(model, node)
        if before is not node and operation(model, before) is ActivationQuantizer:
            insert_after(graph, node, str(before.target))
    become(model, graph)


class _QuantizeDequantize(nn.Module):
    """What an activation quantizer becomes in the file: QuantizeLinear, a clip to narrow grids, DequantizeLinear."""

    def __init__(self, quantizer: ActivationQuantizer):
        super().__init__()
        self.bits, (self.scale, self.zero) = quantizer.bits, quantizer.grid()

    def forward(self, x: Tensor) -> Tensor:
        return _QuantizeDequantizeLinear.apply(x, self.scale, self.zero, self.bits)  # type: ignore[return-value]


class _QuantizeDequantizeLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, zero: int, bits: int) -> Tensor:
        return x.clone()

    @staticmethod
    def symbolic(g: Any, x: Any, scale: float, zero: int, bits: int) -> Any:
        last, step = 2**bits - 1, _constant(g, scale, torch.float32)
        if bits > 8:
            if bits < 16:  # the runtime has no Clip of 16-bit integers
                x = g.op("Clip", x, *[_constant(g, (edge - zero) * scale, torch.float32) for edge in (0, last)])
            code = _constant(g, zero - 2**15, torch.int16)
            q = g.op(f"{WIDE}QuantizeLinear", x, step, code)
            rounded = g.op(f"{WIDE}DequantizeLinear", q, step, code)
            rounded.setType(x.type())
            return rounded
        code = _constant(g, zero, torch.uint8)
        q = g.op("QuantizeLinear", x, step, code)
        if bits < 8:  # clipping the integers keeps the operation before them an integer kernel
            q = g.op("Clip", q, _constant(g, 0, torch.uint8), _constant(g, last, torch.uint8))
        return g.op("DequantizeLinear", q, step, code)


def _constant(g: Any, value: float, dtype: torch.dtype) -> Any:
    return g.op("Constant", value_t=torch.tensor(value, dtype=dtype))
