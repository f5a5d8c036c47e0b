"""Where quantizers go in a network (as ONNX Runtime's integer kernels want them), how ranges are set, and the float twin."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.nn.utils import parametrize

from adamas.compress.quantizers import ActivationQuantizer, QuantizedBias, QuantizedWeight, activation_quantizers
from adamas.errors import AdamasError
from adamas.graph import become, fold_batch_norms, insert_after, modes_kept, operation, trace
from adamas.roles import Batches
from adamas.weights import own_classes, private_copy

LAYERS = {nn.Conv2d, nn.Linear}
JOINS = {operator.add, torch.add, torch.cat, "add", "add_"}
POOLS = {nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.avg_pool2d, F.adaptive_avg_pool2d}
RELUS = {nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu", "relu_"}
MODULES_THAT_PASS = {nn.MaxPool2d, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity}
PASSES = MODULES_THAT_PASS | {F.max_pool2d, torch.flatten, "flatten", "view", "reshape", "contiguous"}
BINS = 4096


# ------------------------------------------------------------------------------------------------------ placement


def attach_quantizers(
    model: nn.Module, weight_bits: int, activation_bits: int, per_channel: bool, momentum: float | None = None
) -> None:
    """Change the structure of `model` in place: batch norm folded, weights parametrized, activation quantizers inserted.

    Errors: a model that is quantized already, cannot be traced, or has no nn.Conv2d or nn.Linear.
    """
    if activation_quantizers(model):
        raise AdamasError("expected a float model, got one that is quantized already; quantize in one stage only")
    graph = trace(model)
    if not any(operation(model, node) in LAYERS for node in graph.nodes):
        raise AdamasError("expected a model that calls nn.Conv2d or nn.Linear layers, got none to quantize")
    own_classes(model)
    fold_batch_norms(model, graph)
    _insert(model, graph, lambda: ActivationQuantizer(activation_bits, momentum))
    for name, inputs in input_quantizers(model, graph).items():
        _quantize_layer(model.get_submodule(name), QuantizedWeight(weight_bits, per_channel), inputs)
    become(model, graph)


def _quantize_layer(layer: Any, weight: QuantizedWeight, inputs: set[ActivationQuantizer]) -> None:
    parametrize.register_parametrization(layer, "weight", weight)
    if layer.bias is not None and has_integer_kernel(weight, inputs):
        parametrize.register_parametrization(layer, "bias", QuantizedBias(weight, *inputs))


def has_integer_kernel(weight: QuantizedWeight, inputs: set[ActivationQuantizer]) -> bool:
    """Whether a layer is computed in integers: at most 8 bits, and one input range, which fixes the step of its bias."""
    return len(inputs) == 1 and max(weight.bits, *(quantizer.bits for quantizer in inputs)) <= 8


def input_quantizers(model: nn.Module, graph: Graph) -> dict[str, set[ActivationQuantizer]]:
    """The quantizers of what enters each layer: more than one only if the layer is called more than once."""
    found: dict[str, set[ActivationQuantizer]] = {}
    for node in graph.nodes:
        if operation(model, node) in LAYERS:
            quantizer: Any = model.get_submodule(str(source(model, node.all_input_nodes[0]).target))
            found.setdefault(str(node.target), set()).add(quantizer)
    return found


def _insert(model: nn.Module, graph: Graph, activation: Callable[[], ActivationQuantizer]) -> None:
    quantizers, device = nn.ModuleDict(), next(model.parameters()).device
    model.add_module("activation_quantizers", quantizers)
    for node in quantized_nodes(model, graph):
        name = f"after_{node.name}"
        quantizers[name] = activation().to(device)
        insert_after(graph, node, f"activation_quantizers.{name}")


def quantized_nodes(model: nn.Module, graph: Graph) -> list[Node]:
    """The nodes whose output is quantized: what enters a layer, a join (add, cat) or an average pooling, and what leaves one.

    A ReLU belongs to the operation before it; outputs that no such operation follows (the logits) stay float.
    """
    integer = [node for node in graph.nodes if _is_integer(model, node)]
    leading = _ancestors(integer)
    entering = {source(model, before) for node in integer for before in node.all_input_nodes}
    leaving = {_with_relu(model, node) for node in integer} & leading
    return [node for node in graph.nodes if node in entering | leaving]


def _is_integer(model: nn.Module, node: Node) -> bool:
    does = operation(model, node)
    return does in LAYERS | POOLS or (does in JOINS and len(node.all_input_nodes) > 1 and "alpha" not in node.kwargs)


def _ancestors(nodes: Iterable[Node]) -> set[Node]:
    found: set[Node] = set()
    waiting = [before for node in nodes for before in node.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def source(model: nn.Module, node: Node) -> Node:
    """The node that made the values of `node`, looking back through operations that only move or select values."""
    while operation(model, node) in PASSES:
        node = node.all_input_nodes[0]
    return node


def _with_relu(model: nn.Module, node: Node) -> Node:
    following = list(node.users)
    return following[0] if len(following) == 1 and operation(model, following[0]) in RELUS else node


# --------------------------------------------------------------------------------------------------------- ranges


def calibrate_ranges(model: nn.Module, batches: Batches, count: int, percentile: float | None = None) -> None:
    """Set every activation range from up to `count` batches, in eval mode and on float activations.

    Ranges span the extremes, or from the (100 - percentile)-th to the percentile-th percentile; both contain 0.
    Errors: no batches, activations that are not finite.
    """
    images = [x for x, _ in islice(batches, count)]
    if not images:
        raise AdamasError("expected at least one batch to calibrate activation ranges with, got none")
    quantizers = activation_quantizers(model)
    for quantizer in quantizers.values():
        quantizer.low.zero_()
        quantizer.high.zero_()
    watch_activations(model, images, _widen)
    for name, quantizer in quantizers.items():
        if not bool(torch.isfinite(quantizer.high - quantizer.low)):
            raise AdamasError(f"expected finite activations at {name}, got nan or infinity; the weights have diverged")
    if percentile is not None:
        _clip(model, images, percentile / 100)


@torch.no_grad()
def watch_activations(model: nn.Module, images: list[Tensor], watch: Callable[[ActivationQuantizer, Tensor], None]) -> None:
    quantizers = activation_quantizers(model).values()
    with modes_kept(model):
        model.eval()
        try:
            for quantizer in quantizers:
                quantizer.watch = watch
            for x in images:
                model(x)
        finally:
            for quantizer in quantizers:
                quantizer.watch = None


def _widen(quantizer: ActivationQuantizer, x: Tensor) -> None:
    low, high = x.aminmax()
    quantizer.low.copy_(torch.minimum(quantizer.low, low))
    quantizer.high.copy_(torch.maximum(quantizer.high, high))


def _clip(model: nn.Module, images: list[Tensor], share: float) -> None:
    """Narrow the ranges to a share of the values at each end, from histograms of the same batches."""
    counts: dict[ActivationQuantizer, Tensor] = {}

    def count(quantizer: ActivationQuantizer, x: Tensor) -> None:
        low, high = float(quantizer.low), float(quantizer.high)
        counted = torch.histc(x.float(), BINS, low, high).double() if low < high else x.new_zeros(BINS).double()
        counts[quantizer] = counts.get(quantizer, torch.zeros_like(counted)) + counted

    watch_activations(model, images, count)
    for quantizer, histogram in counts.items():
        below = histogram.cumsum(0) / histogram.sum().clamp_min(1)
        width = (quantizer.high - quantizer.low) / BINS
        low = quantizer.low + width * (below <= 1 - share).sum()
        high = quantizer.high - width * (below >= share).sum().sub(1).clamp_min(0)
        quantizer.low.copy_(low.clamp(max=0))
        quantizer.high.copy_(high.clamp(min=0))


# ------------------------------------------------------------------------------------------------------ float twin


def float_twin(model: nn.Module) -> nn.Module:
    """A copy that computes with float weights and activations: the same network without its quantizers."""
    twin = private_copy(model)
    for name, module in list(twin.named_modules()):
        if isinstance(module, QuantizedWeight | QuantizedBias | ActivationQuantizer):
            twin.set_submodule(name, nn.Identity())
    return twin
