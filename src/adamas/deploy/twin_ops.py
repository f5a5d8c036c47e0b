"""ONNX operators as small torch functions: inputs are positions, attributes are keywords, absent inputs are None."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adamas.deploy.twin_quantize import DTYPES, dequantize_linear, quantize_linear
from adamas.deploy.twin_windows import Numbers, affordable, average_pool, conv, max_pool, pad, resize, single, upsample
from adamas.errors import AdamasError

# -------------------------------------------------------------------------------------- linear layers and normalisation


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    a, b = a.t() if transA else a, b if transB else b.t()
    if alpha == beta == 1 and (c is None or c.shape == b.shape[:1]):
        return F.linear(a, b, c)
    product = alpha * F.linear(a, b)
    return product if c is None else product + beta * c


def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
) -> Tensor:
    if training_mode or not spatial:
        raise AdamasError("expected BatchNormalization by channel with stored statistics, got one in training mode or by pixel")
    return F.batch_norm(x, mean, var, scale, bias, eps=epsilon)


def instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def layer_normalization(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    shape = x.shape[axis:]
    return F.layer_norm(x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), epsilon)


def dropout(x: Tensor, ratio: Numbers = 0.5, training_mode: Numbers = False, *, seed: int = 0) -> Tensor:
    if training_mode:
        raise AdamasError("expected Dropout that is off, got training_mode=1")
    return x


# ---------------------------------------------------------------------------------------------------- values one by one


def together(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Move operands to the device of the first one that is not on the CPU, where sizes are computed."""

    @functools.wraps(function)
    def aligned(*operands: Tensor, **attributes: Any) -> Tensor:
        device = next((x.device for x in operands if x.device.type != "cpu"), None)
        return function(*(operands if device is None else (x.to(device) for x in operands)), **attributes)

    return aligned


def over_all(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return together(lambda *operands: functools.reduce(function, operands))


def div(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def clip(x: Tensor, min: Numbers = None, max: Numbers = None) -> Tensor:
    low, high = single(min), single(max)
    return x if low is None and high is None else torch.clamp(x, low, high)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, x * slope)


def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return F.softmax(x, axis)


def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return F.log_softmax(x, axis)


def flattened(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Softmax as it was before opset 13: over all dimensions from `axis` on."""

    def over_rest(x: Tensor, *, axis: int = 1) -> Tensor:
        return function(x.flatten(axis), axis=-1).reshape(x.shape)

    return over_rest


def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(DTYPES[to])


# ------------------------------------------------------------------------------------------------- shapes and selection


def reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axes: Numbers = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        if not axes and noop_with_empty_axes:
            return x
        return function(x, tuple(axes or range(x.dim())), keepdim=bool(keepdims))

    return reduce


def global_pool(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x: function(x, tuple(range(2, x.dim())), keepdim=True)


def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


def reshape(x: Tensor, shape: Numbers, *, allowzero: int = 0) -> Tensor:
    return x.reshape([x.shape[i] if size == 0 and not allowzero else size for i, size in enumerate(shape)])


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def squeeze(x: Tensor, axes: Numbers = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def unsqueeze(x: Tensor, axes: Numbers) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    return x.permute(*(reversed(range(x.dim())) if perm is None else perm))


def concat(*parts: Tensor, axis: int) -> Tensor:
    return torch.cat(parts, axis)


def slices(x: Tensor, starts: Numbers, ends: Numbers, axes: Numbers = None, steps: Numbers = None) -> Tensor:
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = axes[i] % x.dim() if axes else i, steps[i] if steps else 1
        if step > 0:
            x = x[(slice(None),) * axis + (slice(start, end, step),)]
        else:
            x = x.index_select(axis, torch.tensor(range(x.shape[axis])[start:end:step], device=x.device))
    return x


def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis %= x.dim()
    flat = indices.flatten()
    flat = torch.where(flat < 0, flat + x.shape[axis], flat).to(x.device)
    return x.index_select(axis, flat).reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def split(x: Tensor, split: Numbers = None, *, axis: int = 0, num_outputs: int) -> tuple[Tensor, ...]:
    return torch.split(x, split or math.ceil(x.shape[axis] / num_outputs), axis)


def expand(x: Tensor, shape: Numbers) -> Tensor:
    return x.expand(affordable(torch.broadcast_shapes(x.shape, tuple(shape))))


def constant(
    *,
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_int: int | None = None,
    value_ints: list[int] | None = None,
) -> Tensor:
    given = (each for each in (value, value_float, value_floats, value_int, value_ints) if each is not None)
    return torch.as_tensor(next(given))


def constant_of_shape(shape: Numbers, *, value: Tensor | None = None) -> Tensor:
    value = torch.zeros(1) if value is None else value
    return value.reshape(()).expand(affordable(shape)).clone()


def numbers_in_range(start: Numbers, limit: Numbers, delta: Numbers) -> Tensor:
    affordable([math.ceil((limit - start) / delta)])
    return torch.arange(start, limit, delta)


# ------------------------------------------------------------------------------------------------------------ the table

OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs, "Ceil": torch.ceil, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "Log": torch.log,
    "Neg": torch.neg, "Not": torch.logical_not, "Reciprocal": torch.reciprocal, "Sigmoid": torch.sigmoid, "Sign": torch.sign,
    "Sqrt": torch.sqrt, "Tanh": torch.tanh, "Identity": lambda x: x, "Relu": torch.relu, "HardSwish": lambda x: F.hardswish(x),
    "Selu": lambda x: F.selu(x), "Mish": lambda x: F.mish(x), "Softplus": lambda x: F.softplus(x), "LeakyRelu": leaky_relu,
    "PRelu": prelu, "Elu": elu, "HardSigmoid": hard_sigmoid, "Gelu": gelu, "Clip": clip, "Cast": cast, "Dropout": dropout,
    "Softmax": softmax, "LogSoftmax": log_softmax, "Add": together(torch.add), "Sub": together(torch.sub),
    "Mul": together(torch.mul), "Div": together(div), "Mod": together(mod), "Pow": together(torch.pow),
    "Where": together(torch.where), "Equal": together(torch.eq), "Greater": together(torch.gt),
    "GreaterOrEqual": together(torch.ge), "Less": together(torch.lt), "LessOrEqual": together(torch.le),
    "And": together(torch.logical_and), "Or": together(torch.logical_or),
    "Sum": over_all(torch.add), "Max": over_all(torch.maximum), "Min": over_all(torch.minimum),
    "Conv": conv, "Gemm": gemm, "MatMul": together(torch.matmul), "MaxPool": max_pool, "AveragePool": average_pool,
    "GlobalAveragePool": global_pool(torch.mean), "GlobalMaxPool": global_pool(torch.amax),
    "BatchNormalization": batch_normalization, "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization, "QuantizeLinear": quantize_linear, "DequantizeLinear": dequantize_linear,
    "ReduceMean": reduction(torch.mean), "ReduceSum": reduction(torch.sum), "ReduceMax": reduction(torch.amax),
    "ReduceMin": reduction(torch.amin), "Flatten": flatten, "Reshape": reshape, "Squeeze": squeeze, "Unsqueeze": unsqueeze,
    "Transpose": transpose, "Concat": together(concat), "Slice": slices, "Gather": gather, "Split": split, "Pad": pad,
    "Resize": resize, "Upsample": upsample, "Shape": shape, "Expand": expand, "Range": numbers_in_range, "Constant": constant,
    "ConstantOfShape": constant_of_shape,
}  # fmt: skip
"""What the twin can compute, by operator name."""

OLDER: dict[str, tuple[int, Callable[..., Any]]] = {
    "Softmax": (13, flattened(softmax)),
    "LogSoftmax": (13, flattened(log_softmax)),
    "Resize": (11, upsample),
}
"""Operators that meant something else before some opset."""

CONTRIBUTED = {"QuantizeLinear", "DequantizeLinear", "Gelu"}
"""Operators that the domain com.microsoft defines in the same way."""
