"""The differentiable twin of an ONNX file: its graph rebuilt in torch, so that white-box attacks see through the file."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from adamas.deploy.runtime import first_line, image_inputs, in_batches, read_model
from adamas.deploy.twin_graph import IMAGE, STANDARD, Plan, plan
from adamas.deploy.twin_windows import affordable
from adamas.errors import AdamasError


class Twin(nn.Module):
    """The graph of an ONNX file in torch: images (N, C, H, W), float in [0, 1], to what the file gives for them, (N, classes).

    Weights are buffers, dequantized once; rounding passes gradients straight through, clipping stops them. Integers are
    sizes and indices and stay on the CPU. Errors: images of another shape than the file's input.
    """

    def __init__(self, plan: Plan, batch: int, image_shape: list[int]):
        super().__init__()
        self.steps, self.values, self.output = plan.steps, list(plan.values), plan.output
        self.batch, self.image_shape = batch, image_shape  # 0 where any number will do
        self.weights: list[int] = []
        for slot, value in enumerate(plan.values):
            if isinstance(value, Tensor) and value.is_floating_point():
                self.register_buffer(f"weight_{slot}", value)
                self.weights.append(slot)
                self.values[slot] = None

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or any(size not in (0, got) for size, got in zip(self.image_shape, x.shape[1:], strict=True)):
            expected = ", ".join(str(size or letter) for size, letter in zip(self.image_shape, "CHW", strict=True))
            raise AdamasError(f"expected images (N, {expected}), got {tuple(x.shape)}")
        return in_batches(self.run, x, self.batch)

    def run(self, x: Tensor) -> Tensor:
        """The graph as it is, on one batch."""
        values = list(self.values)
        values[IMAGE] = x
        for slot in self.weights:
            values[slot] = getattr(self, f"weight_{slot}")
        for step in self.steps:
            step(values)
        return values[self.output]


def twin(path: Path | str) -> Twin:
    """Rebuild the graph of an ONNX file, float or with QuantizeLinear / DequantizeLinear, as a module with gradients.

    Only the operators of `twin_ops` are run. A file for batches of one size takes any number of images all the same.
    Errors: what `read_model` refuses, a graph that is not valid, operators without a twin, outputs other than (N, classes).
    """
    model = read_model(path)
    try:
        onnx.checker.check_model(model)
        with torch.no_grad():
            return _rebuilt(model.graph, max(used.version for used in model.opset_import if used.domain in STANDARD))
    except Exception as error:
        place = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        got = f"expected a valid graph, got {type(error).__name__}: {first_line(error)}"
        raise AdamasError(f"{path}: {error if isinstance(error, AdamasError) else got}{place}") from error


def _rebuilt(graph: onnx.GraphProto, opset: int) -> Twin:
    """A twin that has run once, if the file says how large images are, and that takes any number of them if it can."""
    batch, *image = (size.dim_value for size in image_inputs(graph)[0].type.tensor_type.shape.dim)
    exact, count = Twin(plan(graph, opset), batch, image), batch or 2
    if not all(image):
        return exact
    x = torch.rand(affordable([2 * count, *image]), generator=torch.Generator().manual_seed(0))
    got = exact.run(x[:count])
    if got.dim() != 2 or len(got) != count:
        raise AdamasError(f"expected one output (N, classes), got {tuple(got.shape)} for {count} images")
    loose = Twin(plan(graph, opset, batch), 0, image)
    return loose if batch and _agree(loose, exact, x) else exact


def _agree(loose: Twin, exact: Twin, x: Tensor) -> bool:
    """Whether all images at once give what batches of the right size give; rounding may fall either way."""
    try:
        got = loose(x)
    except Exception:
        return False
    expected = exact(x)
    return got.shape == expected.shape and float((got - expected).abs().mean()) <= 0.01 * float(expected.std())
