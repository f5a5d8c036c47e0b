"""An exported file as a classifier: ONNX Runtime on the CPU behind the interface of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from adamas.errors import AdamasError


def read_model(path: Path | str) -> onnx.ModelProto:
    """What one self-contained ONNX file of one image input and one output says; nothing in it is run.

    Errors: no such file, not an ONNX model, weights kept in other files, other inputs or outputs.
    """
    path = Path(path)
    if not path.is_file():
        raise AdamasError(f"expected an ONNX file, there is none at {path}")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:
        raise AdamasError(f"{path}: expected an ONNX model, got {type(error).__name__}: {first_line(error)}") from None
    if elsewhere := [tensor.name for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]:
        raise AdamasError(
            f"{path}: expected one self-contained file, got weights kept in other files: {', '.join(elsewhere[:3])}"
        )
    ranks = [len(value.type.tensor_type.shape.dim) for value in image_inputs(model.graph)]
    if ranks != [4] or len(model.graph.output) != 1:
        raise AdamasError(
            f"{path}: expected one input (N, C, H, W) and one output (N, classes), "
            f"got inputs of {ranks} dimensions and {len(model.graph.output)} outputs"
        )
    return model


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Every tensor of a file, wherever it is: initializers, attributes, inner graphs, functions."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


def image_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs of a graph that are not weights."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def in_batches(run: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """Run on batches of exactly `size` images, the last one filled up with copies of its first; of any size where it is 0."""
    if size in (0, len(x)):
        return run(x)
    parts = []
    for part in x.split(size):
        filled = torch.cat([part, part[:1].expand(size - len(part), *part.shape[1:])])
        parts.append(run(filled)[: len(part)])
    return torch.cat(parts)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def open_session(path: Path | str, threads: int = 1) -> onnxruntime.InferenceSession:
    """A CPU session for one self-contained ONNX file of one image input and one output.

    Errors: what `read_model` refuses, fewer than one thread, a model that ONNX Runtime cannot run.
    """
    if threads < 1:
        raise AdamasError(f"expected at least 1 thread, got {threads}")
    content = read_model(path).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        message = f"expected an ONNX model that ONNX Runtime can run, got {type(error).__name__}: {first_line(error)}"
        raise AdamasError(f"{path}: {message}") from None


class OnnxModel(nn.Module):
    """An ONNX file in ONNX Runtime on the CPU: images (N, C, H, W), float in [0, 1], to logits (N, classes); no gradients.

    A file for batches of one size only runs any number of images in such batches.
    Errors: what `open_session` refuses; images that ask for a gradient.
    """

    def __init__(self, path: Path | str, threads: int = 1):
        super().__init__()
        self.session = open_session(path, threads)
        image, logits = self.session.get_inputs()[0], self.session.get_outputs()[0]
        self.input, self.output = image.name, logits.name
        self.batch = image.shape[0] if isinstance(image.shape[0], int) else 0

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise AdamasError(
                "expected images without a gradient, got a white-box attack on an ONNX file, which has none; "
                "attack the model it was exported from and let the file judge, or use a black-box attack such as square"
            )
        return in_batches(self._run, x.detach().float().cpu(), self.batch).to(x.device)

    def _run(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run([self.output], {self.input: x.contiguous().numpy()})[0])
