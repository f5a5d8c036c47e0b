"""An exported file as a classifier: ONNX Runtime on the CPU behind the interface of a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from adamas.errors import AdamasError


def open_session(path: Path | str, threads: int = 1) -> onnxruntime.InferenceSession:
    """A CPU session for one self-contained ONNX file of one image input and one output.

    Errors: no such file, not an ONNX model, weights kept in other files, other inputs or outputs, fewer than one thread.
    """
    path = Path(path)
    if not path.is_file():
        raise AdamasError(f"expected an ONNX file, there is none at {path}")
    if threads < 1:
        raise AdamasError(f"expected at least 1 thread, got {threads}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        content = path.read_bytes()
        elsewhere = _kept_elsewhere(onnx.load_model_from_string(content).graph.initializer)
        session = None if elsewhere else onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        message = (str(error).splitlines() or [""])[0]
        raise AdamasError(
            f"{path}: expected an ONNX model that ONNX Runtime can run, got {type(error).__name__}: {message}"
        ) from None
    if session is None:
        raise AdamasError(f"{path}: expected one self-contained file, got weights kept in other files: {', '.join(elsewhere)}")
    ranks = [len(value.shape) for value in session.get_inputs()]
    if ranks != [4] or len(session.get_outputs()) != 1:
        raise AdamasError(
            f"{path}: expected one input (N, C, H, W) and one output (N, classes), "
            f"got inputs of {ranks} dimensions and {len(session.get_outputs())} outputs"
        )
    return session


def _kept_elsewhere(tensors: Iterable[onnx.TensorProto]) -> list[str]:
    return [tensor.name for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL][:3]


class OnnxModel(nn.Module):
    """An ONNX file in ONNX Runtime on the CPU: images (N, C, H, W), float in [0, 1], to logits (N, classes); no gradients.

    Errors: what `open_session` refuses; images that ask for a gradient.
    """

    def __init__(self, path: Path | str, threads: int = 1):
        super().__init__()
        self.session = open_session(path, threads)
        self.input, self.output = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise AdamasError(
                "expected images without a gradient, got a white-box attack on an ONNX file, which has none; "
                "attack the model it was exported from and let the file judge, or use a black-box attack such as square"
            )
        images = x.detach().float().cpu().contiguous().numpy()
        return torch.from_numpy(self.session.run([self.output], {self.input: images})[0]).to(x.device)
