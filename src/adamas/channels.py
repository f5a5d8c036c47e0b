"""Which channels of a network hang together, so that they can only be removed together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from adamas.errors import AdamasError, nearest
from adamas.noise import without_noise
from adamas.weights import bake, private_copy

State = dict[str, Tensor]


@dataclass(frozen=True)
class Axis:
    """A place where channels live: dimension `dim` of the state-dict entry `tensor`.

    `produces` tells the filters, biases and statistics that make a channel from the weights that read it; `blocks` is the
    number of groups of a grouped convolution, all of which must stay equally wide.
    """

    tensor: str
    dim: int
    produces: bool
    blocks: int = 1

    @property
    def layer(self) -> str:
        return self.tensor.rpartition(".")[0]

    def stored_as(self, state: State) -> list[str]:
        """The entries of a state dict that hold the tensor: itself, or what it is computed from entry by entry."""
        if self.tensor in state:
            return [self.tensor]
        leaf = self.tensor.rpartition(".")[2]
        inside = f"{self.layer}.parametrizations.{leaf}.".lstrip(".")
        shape = state[f"{inside}original"].shape
        return [name for name, tensor in state.items() if name.startswith(inside) and tensor.shape == shape]

    def length(self, state: State) -> int:
        """How many channels the axis has; a grouped convolution stores only those that one of its groups reads."""
        return state[self.stored_as(state)[0]].shape[self.dim] * (1 if self.produces else self.blocks)


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """`width` channels of coupled layers; channel j is row j of every entry of `axes`, and all its rows go together.

    `layers` are the convolutions and linear layers that produce the channels. `axes` maps each axis to the positions of
    the channels on it, shape (width, positions per channel): one position in a convolution, height * width in a linear
    layer behind a flatten. The channels are ordered in `blocks` equal runs that must stay equally wide; `blocked` says
    why none of them can be removed, and then `axes` is empty.
    """

    name: str
    layers: tuple[str, ...]
    width: int
    axes: dict[Axis, Tensor]
    blocks: int = 1
    blocked: str = ""


def weight_layers(model: nn.Module, exclude: Sequence[str] = ()) -> dict[str, _ConvNd | nn.Linear]:
    """The convolutions and linear layers by name, without those whose name matches a pattern of `exclude`.

    Errors: a pattern that matches no such layer.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, (_ConvNd, nn.Linear))}
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise AdamasError(
                f"exclude: expected the name of a convolution or linear layer, got {pattern!r}{nearest(pattern, layers)}"
            )
    return {name: layer for name, layer in layers.items() if not any(fnmatchcase(name, pattern) for pattern in exclude)}


def rehearsal(model: nn.Module) -> nn.Module:
    """A copy for trials: float32 on the CPU, where no reduced-precision kernel blurs a comparison, in eval mode, without noise.

    Errors: a model that cannot be copied, because it keeps computed tensors as attributes.
    """
    try:
        return private_copy(without_noise(model)).cpu().float().eval()
    except RuntimeError as error:
        raise AdamasError(f"expected a model that can be copied, got {_sentence(error)}") from error


def run(model: nn.Module, example: Tensor) -> Tensor:
    """The logits of a rehearsal copy without gradients, shape (N, classes).

    Errors: the model raises, whatever it raises.
    """
    x = example.detach().cpu().float()
    try:
        with torch.no_grad():
            return model(x)
    except Exception as error:
        raise AdamasError(f"the model does not run on images of shape {tuple(x.shape)} ({_sentence(error)})") from error


def _sentence(error: Exception) -> str:
    """The error's class and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def channel_groups(model: nn.Module, example: Tensor) -> list[ChannelGroup]:
    """All groups of output channels that can only be removed together, in model order, the logits left out.

    `example` is a batch of images (N, C, H, W) that the model accepts; the model is left as it is.
    Source: Fang et al. 2023, DepGraph; the tracing is that of torch-pruning.
    Errors: the model does not run on the example.
    """
    traced = bake(rehearsal(model)).requires_grad_(True)
    run(traced, example)
    names: dict[Any, str] = {value: name for name, value in (*traced.named_parameters(), *traced.named_modules())}
    groups: list[ChannelGroup] = []
    for places in _coupled(traced, example, names):
        alike = defaultdict(list)
        for channel in places:
            alike[frozenset((axis, len(at)) for axis, at in channel.items())].append(channel)
        groups += [_group(channels, model, traced) for channels in alike.values() if _LOGITS not in channels[0]]
    return groups


_LOGITS = Axis("", 0, True)
Places = dict[Axis, list[int]]
"""Where one channel lives: its positions on every axis."""


def _coupled(model: nn.Module, example: Tensor, names: Mapping[Any, str]) -> Iterator[list[Places]]:
    """For every layer in model order, the places of those of its channels that no earlier layer is coupled with."""
    from torch_pruning import DependencyGraph  # here, because loading an artifact does without it

    graph: Any = DependencyGraph().build_dependency(model, (example.detach().cpu().float(),), verbose=False)
    seen: dict[nn.Module, set[int]] = defaultdict(set)
    for layer in weight_layers(model).values():
        make = graph.get_pruner_of_module(layer).prune_out_channels
        fresh = sorted(set(range(len(layer.weight))) - seen[layer])
        if layer not in graph.module2node or not fresh:
            continue
        places: dict[int, Places] = {channel: defaultdict(list) for channel in fresh}
        for item in graph.get_pruning_group(layer, make, fresh):
            node, reads = item.dep.target, "in_channels" in item.dep.handler.__name__
            if not reads:
                seen[node.module].update(item.idxs)
            for axis in _axes(node, names.get(node.module), reads):
                for position, channel in zip(item.idxs, item.root_idxs, strict=True):
                    places[channel][axis].append(position)
        yield list(places.values())


def _axes(node: Any, name: str | None, reads: bool) -> list[Axis]:
    """The stored tensors that have these channels; operations, which have no name, store nothing."""
    module = node.module
    logits = [] if node.outputs or reads else [_LOGITS]
    if name is None or (isinstance(module, nn.PReLU) and module.num_parameters == 1):
        return logits
    if isinstance(module, nn.Parameter):
        return [Axis(name, node.pruning_dim, True)]
    depthwise = isinstance(module, _ConvNd) and module.groups == module.in_channels == module.out_channels
    blocks = module.groups if isinstance(module, _ConvNd) and not depthwise else 1
    if reads:
        return [Axis(f"{name}.weight".lstrip("."), 1, False, blocks)]
    own = [key for key, tensor in module.state_dict().items() if tensor.dim()]
    return [Axis(f"{name}.{key}".lstrip("."), 0, True, blocks) for key in own] + logits


def _group(channels: list[Places], model: nn.Module, traced: nn.Module) -> ChannelGroup:
    """One group from channels that live on the same axes, ordered by the blocks of its grouped convolutions."""
    axes = {axis: torch.tensor([places[axis] for places in channels]) for axis in channels[0]}
    state, layers = traced.state_dict(), weight_layers(traced)
    blocked = next(filter(None, (_obstacle(axis, index, model, state) for axis, index in axes.items())), "")
    runs: list[tuple[int, ...]] = [()] * len(channels)
    for axis, index in axes.items():
        if axis.blocks > 1 and not blocked:
            size = axis.length(state) // axis.blocks
            runs = [(*run, position // size) for run, position in zip(runs, index[:, 0].tolist(), strict=True)]
    if len({runs.count(run) for run in runs}) > 1:
        blocked = "its channels are spread unevenly over the groups of a grouped convolution"
    order = sorted(range(len(channels)), key=runs.__getitem__)
    produced = [axis for axis in axes if axis.produces]
    filters = {layer: axis for layer in layers for axis in reversed(produced) if axis.layer == layer}
    return ChannelGroup(
        name=", ".join(layer + _part(axes[axis], axis.length(state)) for layer, axis in filters.items()),
        layers=tuple(filters),
        width=len(channels),
        axes={} if blocked else {axis: index[order] for axis, index in axes.items()},
        blocks=len(set(runs)),
        blocked=blocked,
    )


def _part(index: Tensor, length: int) -> str:
    """Which channels of a layer are meant, where it is not all of them."""
    return "" if index.numel() == length > int(index.max()) else f"[{int(index.min())}..{int(index.max())}]"


_RIGID = (_ConvTransposeNd, nn.GroupNorm, nn.LayerNorm, nn.RNNBase, nn.MultiheadAttention, nn.Embedding)


def _obstacle(axis: Axis, index: Tensor, model: nn.Module, state: State) -> str:
    layer: Any = model.get_submodule(axis.layer)
    steps = [step for steps in layer.parametrizations.values() for step in steps] if is_parametrized(layer) else ()
    for step in steps:
        if not getattr(step, "elementwise", False):
            kind = type_before_parametrizations(step).__name__
            return f"{axis.layer!r} is parametrized by {kind}; remove channels before, or bake it"
    if isinstance(layer, _RIGID):
        return f"{axis.layer!r} is a {type(layer).__name__}, which cannot lose channels"
    if axis.tensor not in state or int(index.max()) >= axis.length(state):
        return f"tracing could not follow its channels to {axis.tensor!r}"
    return ""
