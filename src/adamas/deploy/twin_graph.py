"""An ONNX graph as steps in torch: operators checked, constants folded, quantizers recognised."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import onnx
import torch
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from adamas.deploy.runtime import image_inputs
from adamas.deploy.twin_ops import CONTRIBUTED, OLDER, OPERATORS
from adamas.deploy.twin_quantize import DTYPES, Codes
from adamas.errors import AdamasError

STANDARD = ("", "ai.onnx")
ABSENT, IMAGE = 0, 1
"""The slots of an optional input that is not given, and of the images."""


@dataclass(frozen=True)
class Step:
    """One operator with its attributes, the slots it reads and fills, and those that nothing reads afterwards."""

    run: Callable[..., Any]
    place: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    done: tuple[int, ...] = ()

    def __call__(self, values: list[Any]) -> None:
        try:
            results = self.run(*[values[slot] for slot in self.inputs])
        except Exception as error:
            error.add_note(f"at {self.place}")
            raise
        for slot, result in zip(self.outputs, results if isinstance(results, tuple) else (results,), strict=False):
            values[slot] = result
        for slot in self.done:
            values[slot] = None


@dataclass(frozen=True)
class Plan:
    """Steps in order, the constants that they read in their slots (None elsewhere), and the slot of the output."""

    steps: list[Step]
    values: list[Any]
    output: int


def plan(graph: onnx.GraphProto, opset: int, batch: int = 0) -> Plan:
    """What to compute from the images; whatever depends on constants only is computed here.

    Where a Reshape begins with the number `batch`, it keeps the number of images that it gets instead.
    Errors: images that are not float, operators without a twin.
    """
    image = image_inputs(graph)[0]
    if image.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise AdamasError(f"expected float images, got {_name(image.type.tensor_type.elem_type)}")
    nodes, wanted = _live(graph)
    _refuse_unknown(nodes, wanted, opset)
    builder = _Builder(image.name, batch)
    for tensor in graph.initializer:
        if tensor.name in wanted:
            builder.names[tensor.name] = builder.constant(_tensor(tensor))
    for node in nodes:
        builder.add(node, opset)
    return builder.plan(graph.output[0].name)


# ---------------------------------------------------------------------------------------------- checking operators


def _live(graph: onnx.GraphProto) -> tuple[list[NodeProto], set[str]]:
    """The nodes that the output depends on, in order, and the names of all values that they need."""
    nodes, wanted = [], {graph.output[0].name}
    for node in reversed(graph.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted |= set(node.input) - {""}
    return nodes[::-1], wanted


def _refuse_unknown(nodes: list[NodeProto], wanted: set[str], opset: int) -> None:
    found: dict[str, str] = {}
    for node in nodes:
        if problem := _problem(node, wanted, opset):
            found.setdefault(problem, _place(node))
    if found:
        named = ", ".join(f"{problem} (at {place})" for problem, place in found.items())
        raise AdamasError(
            f"expected operators that have a differentiable twin, got {named}; "
            "export the model again in basic operators, or audit the file as a black box, for example with the square attack"
        )


def _problem(node: NodeProto, wanted: set[str], opset: int) -> str:
    """What about a node has no twin; empty if nothing."""
    function = _function(node, opset)
    if function is None:
        return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
    if unknown := [attribute.name for attribute in node.attribute if attribute.name not in _parameters(function)]:
        return f"{node.op_type} with {', '.join(unknown)}"
    if node.op_type != "Split" and wanted & set(node.output[1:]):
        return f"{node.op_type} with a second output"
    return ""


def _function(node: NodeProto, opset: int) -> Callable[..., Any] | None:
    if node.domain in STANDARD:
        until, older = OLDER.get(node.op_type, (0, None))
        return older if opset < until else OPERATORS.get(node.op_type)
    return OPERATORS[node.op_type] if node.domain == "com.microsoft" and node.op_type in CONTRIBUTED else None


def _parameters(function: Callable[..., Any]) -> dict[str, str]:
    """The parameters of an operator with their annotations; torch's own functions have no attributes and name none."""
    try:
        return {name: parameter.annotation for name, parameter in inspect.signature(function).parameters.items()}
    except ValueError:
        return {}


# ------------------------------------------------------------------------------------------------------- building


class _Builder:
    """A graph on its way to a plan: every value has a slot, by name."""

    def __init__(self, image: str, batch: int):
        self.batch = batch
        self.values: list[Any] = [None, None]
        self.constants = {ABSENT}
        self.names = {"": ABSENT, image: IMAGE}
        self.codes: dict[int, Codes | None] = {}
        self.steps: list[Step] = []

    def slot(self) -> int:
        self.values.append(None)
        return len(self.values) - 1

    def constant(self, value: Any) -> int:
        slot = self.slot()
        self.values[slot] = value
        self.constants.add(slot)
        return slot

    def add(self, node: NodeProto, opset: int) -> None:
        """Compute a node that depends on constants only; make a step of any other."""
        function: Any = _function(node, opset)
        attributes = {attribute.name: _attribute(attribute) for attribute in node.attribute}
        if node.op_type == "Split":
            attributes.setdefault("num_outputs", len(node.output))
        inputs, late = self._inputs(node, _parameters(function))
        if node.op_type == "Reshape" and self.batch and not late:
            target = self.values[inputs[1]]
            target[:1] = [0] if target[:1] == [self.batch] else target[:1]
            attributes["allowzero"] = 0
        run = functools.partial(_reading, late, function, **attributes) if late else functools.partial(function, **attributes)
        step = Step(run, _place(node), inputs, tuple(self.slot() for _ in node.output))
        self.names |= dict(zip(node.output, step.outputs, strict=True)) | {"": ABSENT}
        if self.constants.issuperset(inputs):
            step(self.values)
            self.constants.update(step.outputs)
        else:
            self.steps.append(self._at_once(node.op_type, step))

    def _inputs(self, node: NodeProto, parameters: dict[str, str]) -> tuple[tuple[int, ...], list[int]]:
        """The slots that a node reads, numbers already as Python numbers, and the positions of numbers still unknown."""
        slots, late = [self.names[name] for name in node.input], []
        for i, (slot, annotation) in enumerate(zip(slots, parameters.values(), strict=False)):
            if annotation == "Numbers" and slot not in self.constants:
                late.append(i)
            elif annotation == "Numbers" and slot != ABSENT:
                slots[i] = self.constant(self.values[slot].tolist())
        return tuple(slots), late

    def _at_once(self, kind: str, step: Step) -> Step:
        """Follow codes from QuantizeLinear through Clip: DequantizeLinear becomes one step with both."""
        source, *rest = step.inputs
        if not self.constants.issuperset(rest):
            return step
        given, codes, has_zero = (
            [self.values[slot] for slot in rest],
            self.codes.get(source),
            len(rest) == 2 and ABSENT not in rest,
        )
        if kind == "QuantizeLinear" and has_zero:
            self.codes[step.outputs[0]] = Codes.of(source, *given)
        elif kind == "Clip" and codes is not None:
            self.codes[step.outputs[0]] = codes.clipped(*given)
        elif kind == "DequantizeLinear" and codes is not None and has_zero and codes.on(*given):
            return replace(step, run=codes.round_trip, inputs=(codes.slot,))
        return step

    def plan(self, output: str) -> Plan:
        """Keep the steps and constants that something reads; free every other value after its last reader."""
        read, steps = {self.names[output]}, []
        for step in reversed(self.steps):
            if not read.isdisjoint(step.outputs):
                steps.append(replace(step, done=tuple(set(step.inputs) - read - self.constants)))
                read |= set(step.inputs)
        values = [value if slot in read & self.constants else None for slot, value in enumerate(self.values)]
        return Plan(steps[::-1], values, self.names[output])


def _reading(positions: list[int], function: Callable[..., Any], *inputs: Any, **attributes: Any) -> Any:
    """Read sizes that depend on the images as Python numbers."""
    return function(*(value.tolist() if i in positions else value for i, value in enumerate(inputs)), **attributes)


def _tensor(tensor: TensorProto) -> Tensor:
    if tensor.data_type not in DTYPES:
        raise AdamasError(f"expected integers and floats of 8 bits or more, got {_name(tensor.data_type)} in {tensor.name}")
    return torch.from_numpy(numpy_helper.to_array(tensor).copy())


def _attribute(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return _tensor(value)
    return value.decode() if isinstance(value, bytes) else value


def _name(data_type: int) -> str:
    return TensorProto.DataType.Name(data_type)  # type: ignore[arg-type]


def _place(node: NodeProto) -> str:
    return node.name or node.output[0]
