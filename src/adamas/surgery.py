"""Channel surgery: a plan of what goes, and a smaller network that provably computes the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, lcm

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from adamas.channels import Axis, ChannelGroup, State, channel_groups, rehearsal, run, weight_layers
from adamas.cost import macs
from adamas.errors import AdamasError

__all__ = [
    "ChannelGroup",
    "Plan",
    "channel_groups",
    "plan_widths",
    "rehearse",
    "remove_channels",
    "resize_to",
    "shrink",
    "weight_layers",
]


# ----------------------------------------------------------------------------------------------------- what goes


@dataclass(frozen=True, eq=False)
class Plan:
    """Which channels stay in every group, what is held back and why, and what the whole model costs before and after.

    `params` and `macs` (multiply-adds of one image) are known once the plan has been rehearsed.
    """

    groups: tuple[ChannelGroup, ...]
    kept: tuple[tuple[int, ...], ...]
    held_back: dict[str, str] = field(default_factory=dict)
    params: tuple[int, int] | None = None
    macs: tuple[int, int] | None = None

    @property
    def widths(self) -> dict[str, tuple[int, int]]:
        """Channels before and after, by group name."""
        return {group.name: (group.width, len(kept)) for group, kept in zip(self.groups, self.kept, strict=True)}

    @property
    def removes(self) -> bool:
        """Whether any channel goes."""
        return any(after < before for before, after in self.widths.values())

    def check(self) -> None:
        """Raise an AdamasError where all that was to go is held back."""
        if not self.removes and (self.held_back or not self.groups):
            reasons = [f"{_shortened(name)}: {reason}" for name, reason in self.held_back.items()]
            raise AdamasError(
                f"expected channels that can be removed, got none: {'; '.join(reasons[:3]) or 'no group of channels'}"
            )

    def __str__(self) -> str:
        rows = [(_shortened(name), *widths) for name, widths in self.widths.items()]
        rows += [(unit, *cost) for unit, cost in (("params", self.params), ("MACs", self.macs)) if cost]
        table = [(name, f"{before:,}", f"{after:,}", f"{after / before:.1%}") for name, before, after in rows]
        size = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [f"{n:<{size[0]}}  {b:>{size[1]}} => {a:>{size[2]}}  {share:>{size[3]}}" for n, b, a, share in table]
        return "\n".join(lines + [f"held back: {_shortened(name)}: {reason}" for name, reason in self.held_back.items()])


def _shortened(name: str) -> str:
    first, *rest = name.split(", ")
    return f"{first} + {len(rest)} coupled" if rest else first


def plan_widths(
    groups: Sequence[ChannelGroup], scores: Sequence[Tensor], keep: float | Sequence[float], round_to: int = 8
) -> Plan:
    """Keep the best share `keep` in (0, 1] of the channels of every group, by scores of shape (width,), higher = better.

    `keep` is one share for all groups or one for each.

    The number kept is width * keep rounded up to a whole number, then up to a multiple of `round_to` (and of the blocks of
    a grouped convolution), at most the width; among equal scores the first channels stay.
    Source: Thorsteinsson et al. 2024 keep width - int(width * sparsity), the same as `round_to` 1. Deviation: multiples
    of 8 by default, because odd widths run slower than the next multiple.
    Errors: keep or round_to out of range, scores that do not fit or are not finite.
    """
    shares = [keep] * len(groups) if isinstance(keep, float | int) else keep
    if not all(0 < share <= 1 for share in shares) or round_to < 1:
        raise AdamasError(f"expected keep in (0, 1] and round_to of at least 1, got {keep} and {round_to}")
    kept, held_back = [], {}
    for group, score, share in zip(groups, scores, shares, strict=True):
        if score.shape != (group.width,) or not bool(score.isfinite().all()):
            raise AdamasError(f"{group.name}: expected {group.width} finite scores, got {score}")
        wanted = max(1, ceil(group.width * (share - 1e-9)))  # .07 of 100 must give 7, not 8
        multiple = lcm(round_to, group.blocks)
        number = min(group.width, multiple * ceil(wanted / multiple))
        if group.blocked and wanted < group.width:
            held_back[group.name] = group.blocked
        elif wanted < number == group.width:
            held_back[group.name] = (
                f"{wanted} of its {group.width} channels, rounded up to a multiple of {multiple}, are all of them"
            )
        whole = group.blocked or number == group.width
        kept.append(tuple(range(group.width)) if whole else _best(score, number, group.blocks))
    return Plan(tuple(groups), tuple(kept), held_back)


def _best(score: Tensor, number: int, blocks: int) -> tuple[int, ...]:
    """The positions of the `number` highest scores, equally many from each of the equal runs, in order."""
    runs = score.detach().cpu().view(blocks, -1)
    best = runs.sort(dim=1, descending=True, stable=True).indices[:, : number // blocks].sort(dim=1).values
    return tuple((best + torch.arange(blocks)[:, None] * runs.shape[1]).flatten().tolist())


# ----------------------------------------------------------------------------------------------- rehearsal, removal


def remove_channels(model: nn.Module, plan: Plan, example: Tensor) -> Plan:
    """Remove channels physically, in place, and return the plan as carried out; smaller ordinary layers are left.

    The plan is rehearsed on a copy first (see `rehearse`). Mode, device, dtype and requires_grad stay as they are; what
    shrinks is a new parameter without a gradient, so make the optimiser afterwards.
    Errors: every group is held back.
    """
    plan = rehearse(model, plan, example)
    plan.check()
    shrink(model, plan)
    return plan


def rehearse(model: nn.Module, plan: Plan, example: Tensor) -> Plan:
    """Carry a plan out on a copy, hold back the groups at fault, and count what the model costs before and after.

    In eval mode, the smaller network must run on `example` (N, C, H, W) and give the logits of the same network with all
    that makes the removed channels (filters, biases, batch-norm tensors) zeroed, within 1e-4 of the largest logit. If it
    does not, the groups are admitted one by one, and each that breaks this is held back with its reason.
    """
    held_back = dict(plan.held_back)
    if _fault(model, plan, example):
        wanted, plan = plan.kept, replace(plan, kept=tuple(tuple(range(group.width)) for group in plan.groups))
        for i, group in enumerate(plan.groups):
            attempt = replace(plan, kept=(*plan.kept[:i], wanted[i], *plan.kept[i + 1 :]))
            reason = _fault(model, attempt, example) if len(wanted[i]) < group.width else ""
            if reason:
                held_back[group.name] = reason
            else:
                plan = attempt
    before, after = rehearsal(model), rehearsal(model)
    shrink(after, plan)
    channels, height, width = example.shape[1:]
    params, params_after = (sum(p.numel() for p in net.parameters()) for net in (before, after))
    macs_before, macs_after = (macs(net, (channels, height, width)) for net in (before, after))
    held_back = {group.name: held_back[group.name] for group in plan.groups if group.name in held_back}
    return replace(plan, held_back=held_back, params=(params, params_after), macs=(macs_before, macs_after))


def _fault(model: nn.Module, plan: Plan, example: Tensor) -> str:
    """Why a plan cannot be carried out, or nothing."""
    zeroed, smaller = rehearsal(model), rehearsal(model)
    zeroed.load_state_dict(_zeroed(zeroed.state_dict(), plan))
    expected = run(zeroed, example)
    try:
        shrink(smaller, plan)
        got = run(smaller, example)
    except AdamasError as error:
        return f"without these channels {error}"
    if got.shape != expected.shape:
        return f"without these channels the logits have shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
    gap, largest = float((got - expected).abs().max()), float(expected.abs().max())
    if gap <= 1e-4 * largest:
        return ""
    return f"without these channels the logits differ by {gap:.2g} from those with the channels zeroed (largest {largest:.2g})"


def _removed(plan: Plan) -> Iterator[tuple[Axis, Tensor]]:
    """Every axis that loses channels, with the positions that go."""
    for group, kept in zip(plan.groups, plan.kept, strict=True):
        goes = torch.ones(group.width, dtype=torch.bool)
        goes[list(kept)] = False
        if goes.any():
            yield from ((axis, index[goes].flatten()) for axis, index in group.axes.items())


def _zeroed(state: State, plan: Plan) -> State:
    """The state dict with everything that makes the removed channels set to zero."""
    state = dict(state)
    for axis, goes in _removed(plan):
        for name in axis.stored_as(state) if axis.produces else ():
            state[name] = state[name].index_fill(axis.dim, goes, 0)
    return state


def shrink(model: nn.Module, plan: Plan) -> None:
    """Cut the removed channels out of the state dict, and make the model fit what is left."""
    state: State = dict(model.state_dict())
    stays: dict[Axis, Tensor] = {}
    for axis, goes in _removed(plan):
        stays.setdefault(axis, torch.ones(axis.length(state), dtype=torch.bool))[goes] = False
    for axis, mask in stays.items():
        for name in axis.stored_as(state):
            state[name] = _cut(state[name], axis, mask.to(state[name].device))
    resize_to(model, state)
    model.load_state_dict(state)


def _cut(tensor: Tensor, axis: Axis, stays: Tensor) -> Tensor:
    runs = stays.view(axis.blocks, -1)
    if len(set(runs.sum(1).tolist())) > 1:
        raise AdamasError(f"{axis.layer!r} would have groups of unequal width")
    if axis.blocks == 1 or axis.produces:
        return tensor.index_select(axis.dim, stays.nonzero().flatten())
    return torch.cat([rows[:, read] for rows, read in zip(tensor.chunk(axis.blocks), runs, strict=True)])


# ----------------------------------------------------------------------------------------- a model for given shapes


def resize_to(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give every parameter and buffer the shape it has in a state dict, in place, so that loading it strictly works.

    Convolutions (also grouped and depthwise), linear layers, norms and parametrized tensors follow; resized tensors hold
    zeros until they are loaded. Nothing else is needed to load a pruned model: the shapes say it all.
    Errors: missing or unexpected keys, tensors that differ in more than their channels.
    """
    own = model.state_dict()
    _check_keys(own, state)
    resized = [name for name, tensor in own.items() if isinstance(tensor, Tensor) and tensor.shape != state[name].shape]
    for name in resized:
        old, new = tuple(own[name].shape), tuple(state[name].shape)
        if len(old) != len(new) or old[2:] != new[2:] or 0 in new:
            raise AdamasError(f"{name}: expected a tensor of shape {old} or with other channels, got {new}")
    for name in resized:
        path, _, leaf = name.rpartition(".")
        owner = model.get_submodule(path)
        old = getattr(owner, leaf)
        new = old.detach().new_zeros(state[name].shape)
        setattr(owner, leaf, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    for path in {_layer_of(name) for name in resized}:
        _follow(path, model.get_submodule(path))


def _layer_of(name: str) -> str:
    """The path of the layer that a state-dict entry belongs to, also when the entry is parametrized."""
    return name.partition("parametrizations.")[0].rpartition(".")[0]


def _check_keys(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise AdamasError(
            f"expected the {len(own)} tensors of this model, got {len(state)}: "
            f"{len(missing)} missing ({', '.join(missing[:3]) or 'none'}), "
            f"{len(unexpected)} unexpected ({', '.join(unexpected[:3]) or 'none'}); build the model the weights were saved from"
        )


def _follow(path: str, layer: nn.Module) -> None:
    """Set a layer's declared widths to the shapes of its tensors."""
    if isinstance(layer, _ConvNd):
        with torch.no_grad():
            out, read = layer.weight.shape[:2]
        if layer.groups == layer.in_channels == layer.out_channels:
            layer.groups = out
        if out % layer.groups:
            raise AdamasError(f"{path}: expected a multiple of its {layer.groups} groups of filters, got {out}")
        layer.in_channels, layer.out_channels = read * layer.groups, out
    elif isinstance(layer, nn.Linear):
        with torch.no_grad():
            layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _NormBase):
        layer.num_features = next(len(tensor) for tensor in layer.state_dict().values() if tensor.dim())
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.numel()
