"""A model's forward pass as a graph: trace it, fold batch norm into the layer before, and run the edited graph."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node, Tracer
from torch.nn.utils import parametrize

from adamas.errors import AdamasError


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Restore the training or eval mode of every module when the block ends."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


class _Tracer(Tracer):
    """Keeps whole what torch.nn defines and every module without children besides its parametrizations."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if parametrize.type_before_parametrizations(m).__module__.startswith("torch.nn"):
            return not isinstance(m, nn.Sequential)
        return all(name == "parametrizations" for name, _ in m.named_children())


def trace(model: nn.Module) -> Graph:
    """The operations of `model.forward` in order; the model is left as found.

    Errors: a forward that branches on values, needs Python numbers from tensors, or reads `self.training` itself.
    """
    try:
        with modes_kept(model):
            training, evaluation = _Tracer().trace(model.train()), _Tracer().trace(model.eval())
    except Exception as error:
        message = (str(error).splitlines() or [""])[0]
        raise AdamasError(
            f"expected a model whose forward can be traced, got {type(error).__name__} ({message}) in {_place(error, model)}; "
            "move code that branches on values into a module of its own without children, which is kept whole"
        ) from error
    if str(training) != str(evaluation):
        raise AdamasError(
            "expected a model whose forward runs the same operations in training and eval mode, got one that reads "
            "self.training; use modules such as nn.Dropout instead of F.dropout"
        )
    return evaluation


def _place(error: Exception, model: nn.Module) -> str:
    """The innermost layer and line of the user's code that an error passed through."""
    names = {module: name or "the model itself" for name, module in model.named_modules()}
    place = "the model"
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner, file = frame.f_locals.get("self"), Path(frame.f_code.co_filename)
        if isinstance(owner, nn.Module) and owner in names and Path(torch.__file__).parent not in file.parents:
            place = f"layer {names[owner]} ({type(owner).__name__}, {file.name} line {line})"
    return place


def operation(model: nn.Module, node: Node) -> Any:
    """What a node does: the class of the module it calls, the function, or the name of the method."""
    if node.op == "call_module":
        return parametrize.type_before_parametrizations(model.get_submodule(str(node.target)))
    return node.target if node.op in ("call_function", "call_method") else node.op


def calls(graph: Graph) -> Counter[str]:
    """How often the graph calls each module."""
    return Counter(str(node.target) for node in graph.nodes if node.op == "call_module")


def insert_after(graph: Graph, node: Node, name: str) -> None:
    """Send the output of `node` through the module called `name` before anything else uses it."""
    with graph.inserting_after(node):
        new = graph.call_module(name, (node,))
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


# --------------------------------------------------------------------------------------------- batch-norm folding


def fold_batch_norms(model: nn.Module, graph: Graph) -> None:
    """Fold every batch norm that directly follows a convolution or linear layer into it, in place, from its running statistics.

    The layer gains a bias and the batch norm becomes an identity; outputs in eval mode stay the same up to rounding.
    Errors: a weight whose parametrization cannot be assigned to.
    """
    pairs = _foldable(model, graph)
    for layer_node, _ in pairs:
        _check_assignable(str(layer_node.target), model.get_submodule(str(layer_node.target)))
    for layer_node, norm_node in pairs:
        name = str(norm_node.target)
        _fold(str(layer_node.target), model.get_submodule(str(layer_node.target)), model.get_submodule(name))
        model.set_submodule(name, nn.Identity())
        norm_node.replace_all_uses_with(layer_node)
        graph.erase_node(norm_node)


def _foldable(model: nn.Module, graph: Graph) -> list[tuple[Node, Node]]:
    """Pairs (layer, batch norm) where the layer feeds only this batch norm and both are called once."""
    called = calls(graph)
    pairs = []
    for node in graph.nodes:
        if operation(model, node) not in (nn.BatchNorm1d, nn.BatchNorm2d):
            continue
        before, norm = node.all_input_nodes[0], model.get_submodule(str(node.target))
        alone = len(before.users) == called[str(before.target)] == called[str(node.target)] == 1
        if alone and operation(model, before) in (nn.Conv2d, nn.Linear) and norm.running_var is not None:
            pairs.append((before, node))
    return pairs


def _check_assignable(name: str, layer: Any) -> None:
    if parametrize.is_parametrized(layer, "weight"):
        for step in layer.parametrizations.weight:
            if not callable(getattr(step, "right_inverse", None)):
                raise _unfoldable(name, step)


def _unfoldable(name: str, step: nn.Module) -> AdamasError:
    return AdamasError(
        f"expected a weight that batch norm can be folded into, got layer {name} parametrized by {type(step).__name__}, which "
        "cannot take a new value; bake the weights first (adamas.weights.bake)"
    )


@torch.no_grad()
def _fold(name: str, layer: Any, norm: Any) -> None:
    gain = torch.rsqrt(norm.running_var + norm.eps) * (1 if norm.weight is None else norm.weight)
    bias = (0 if layer.bias is None else layer.bias) - norm.running_mean
    folded = layer.weight * gain.view(-1, *[1] * (layer.weight.dim() - 1))
    layer.weight = folded if parametrize.is_parametrized(layer, "weight") else nn.Parameter(folded, layer.weight.requires_grad)
    layer.bias = nn.Parameter(bias * gain + (0 if norm.bias is None else norm.bias))
    if not torch.allclose(layer.weight, folded, rtol=1e-4, atol=1e-6):
        raise _unfoldable(name, layer.parametrizations.weight[-1])


# --------------------------------------------------------------------------------------------------- run the graph


def become(model: nn.Module, graph: Graph) -> None:
    """Make `model`, in place, run `graph`: only its class changes, to a subclass whose forward is the graph's code.

    Submodules, their names and classes stay, so state dicts, deep copies, `train()` and `model.net` work as before; a
    container inside (say `model.net`) keeps its own forward, which does not know the graph.
    """
    before = type(model)
    code: Any = type(GraphModule(model, graph)).forward
    model.__class__ = type(f"Traced{before.__name__}", (before,), {"forward": code, "__module__": __name__})
