"""ONNX operators on the spatial dimensions as torch functions: convolution, pooling, padding, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from adamas.errors import AdamasError

Numbers = Any
"""An input read as Python numbers: a number, a list, or None."""

LARGEST = 2**28
"""The most values that a shape written in a file may ask for."""


def affordable(shape: Sequence[int]) -> Sequence[int]:
    """The shape itself.

    Errors: more than `LARGEST` values.
    """
    if math.prod(shape) > LARGEST:
        raise AdamasError(f"expected at most {LARGEST} values in any tensor, got the shape {list(shape)}")
    return shape


def single(value: Numbers) -> Any:
    """A number that may have been written as a list of one."""
    return value[0] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------------------- moving windows


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (0, 0, 0, 0),
    strides: Sequence[int] = (1, 1),
) -> Tensor:
    edges = _edges(x, weight.shape[2:], auto_pad, dilations, pads, strides)
    if _symmetric(edges):
        return F.conv2d(x, weight, bias, strides, [begin for begin, _ in edges], dilations, group)  # type: ignore[arg-type]
    return F.conv2d(_padded(x, edges), weight, bias, strides, 0, dilations, group)  # type: ignore[arg-type]


def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    storage_order: int = 0,
    strides: Sequence[int] = (1, 1),
) -> Tensor:
    edges = _edges(x, kernel_shape, auto_pad, dilations, pads, strides)
    if ceil_mode:
        edges = _rounded_up(x, edges, kernel_shape, dilations, strides)
    if _symmetric(edges) and all(2 * begin <= size for (begin, _), size in zip(edges, kernel_shape, strict=True)):
        return F.max_pool2d(x, kernel_shape, strides, [begin for begin, _ in edges], dilations)  # type: ignore[arg-type]
    return F.max_pool2d(_padded(x, edges, -math.inf), kernel_shape, strides, 0, dilations)  # type: ignore[arg-type]


def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    strides: Sequence[int] = (1, 1),
) -> Tensor:
    if any(step != 1 for step in dilations):
        raise AdamasError(f"expected AveragePool without dilations, got {list(dilations)}")
    edges = _edges(x, kernel_shape, auto_pad, dilations, pads, strides)
    if not any(begin or end for begin, end in edges) and not ceil_mode:
        return F.avg_pool2d(x, kernel_shape, strides)  # type: ignore[arg-type]
    whole = _rounded_up(x, edges, kernel_shape, dilations, strides) if ceil_mode else edges
    rest = [(0, far - near) for (_, far), (_, near) in zip(whole, edges, strict=True)]
    counted = _padded(_padded(x.new_ones(1, 1, *x.shape[2:]), edges, float(count_include_pad)), rest)
    total = F.avg_pool2d(_padded(x, whole), kernel_shape, strides)  # type: ignore[arg-type]
    return total / F.avg_pool2d(counted, kernel_shape, strides)  # type: ignore[arg-type]


Edges = list[tuple[int, int]]
"""Padding before and after each spatial dimension."""


def _edges(
    x: Tensor, kernel: Sequence[int], auto_pad: str, dilations: Sequence[int], pads: Sequence[int], strides: Sequence[int]
) -> Edges:
    if auto_pad == "NOTSET":
        return list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    if auto_pad == "VALID":
        return [(0, 0)] * len(kernel)
    edges = []
    for size, width, dilation, stride in zip(x.shape[2:], kernel, dilations, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + dilation * (width - 1) + 1 - size, 0)
        less, more = total // 2, total - total // 2
        edges.append((less, more) if auto_pad == "SAME_UPPER" else (more, less))
    return edges


def _rounded_up(x: Tensor, edges: Edges, kernel: Sequence[int], dilations: Sequence[int], strides: Sequence[int]) -> Edges:
    """More padding after, so that the last, incomplete window counts unless it would start in the padding."""
    wider = []
    for size, (begin, end), width, dilation, stride in zip(x.shape[2:], edges, kernel, dilations, strides, strict=True):
        reach = dilation * (width - 1) + 1
        windows = math.ceil((begin + size + end - reach) / stride) + 1
        windows -= (windows - 1) * stride >= begin + size
        wider.append((begin, max(end, (windows - 1) * stride + reach - begin - size)))
    return wider


def _symmetric(edges: Edges) -> bool:
    return all(begin == end for begin, end in edges)


def _padded(x: Tensor, edges: Edges, value: float = 0.0) -> Tensor:
    affordable([*x.shape[: -len(edges)], *(size + sum(edge) for size, edge in zip(x.shape[-len(edges) :], edges, strict=True))])
    return F.pad(x, [width for edge in reversed(edges) for width in edge], value=value)


def pad(x: Tensor, pads: Numbers, value: Numbers = 0.0, axes: Numbers = None, *, mode: str = "constant") -> Tensor:
    edges = [(0, 0)] * x.dim()
    for i, axis in enumerate(range(x.dim()) if axes is None else axes):
        edges[axis % x.dim()] = pads[i], pads[i + len(pads) // 2]
    if mode == "constant":
        return _padded(x, edges, single(value) or 0.0)
    while edges and edges[0] == (0, 0):  # torch reflects and repeats the last dimensions only
        del edges[0]
    names = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    return F.pad(x, [width for edge in reversed(edges) for width in edge], names[mode]) if edges else x


# ------------------------------------------------------------------------------------------------------------- resizing


def resize(
    x: Tensor,
    roi: Numbers = None,
    scales: Numbers = None,
    sizes: Numbers = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: Literal["nearest", "linear", "cubic"] = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """Nearest or linear interpolation, one axis after the other, as a product with the matrix of its weights."""
    if antialias or mode == "cubic" or keep_aspect_ratio_policy != "stretch" or "crop" in coordinate_transformation_mode:
        raise AdamasError("expected Resize by nearest or linear interpolation of whole images, got cubic, antialias or crop")
    for i, axis in enumerate(range(x.dim()) if axes is None else axes):
        size = x.shape[axis]
        to = sizes[i] if sizes else math.floor(size * scales[i])
        if to != size:
            affordable([*x.shape[:axis], to, *x.shape[axis + 1 :]])
            at = _coordinates(size, to, to / size if sizes else scales[i], coordinate_transformation_mode)
            weights = _nearest(at, size, nearest_mode) if mode == "nearest" else _linear(at, size)
            x = (x.movedim(axis, -1) @ weights.to(x).t()).movedim(-1, axis)
    return x


def upsample(x: Tensor, scales: Numbers, *, mode: Literal["nearest", "linear"] = "nearest") -> Tensor:
    """Resize as it was in opset 10, Upsample before."""
    return resize(x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _coordinates(size: int, to: int, scale: float, mode: str) -> Tensor:
    """Where each of the `to` new values lies among the `size` old ones."""
    i = torch.arange(to, dtype=torch.float32)
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        return i * (size - 1) / max(to - 1, 1)
    return torch.zeros(1) if mode == "pytorch_half_pixel" and to == 1 else (i + 0.5) / scale - 0.5


def _nearest(at: Tensor, size: int, mode: str) -> Tensor:
    rounded = {
        "floor": at.floor(), "ceil": at.ceil(), "round_prefer_floor": (at - 0.5).ceil(), "round_prefer_ceil": (at + 0.5).floor()
    }[mode]  # fmt: skip
    return F.one_hot(rounded.clamp(0, size - 1).long(), size).float()


def _linear(at: Tensor, size: int) -> Tensor:
    at = at.clamp(0, size - 1)
    low = at.floor()
    part = (at - low)[:, None]
    return F.one_hot(low.long(), size) * (1 - part) + F.one_hot(at.ceil().long(), size) * part
