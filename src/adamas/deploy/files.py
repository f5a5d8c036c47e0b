"""What ships: the exported files of one model, whether they agree with it, and how fast they are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from adamas.compress.quantizers import activation_quantizers
from adamas.data import Images
from adamas.deploy.export import export_onnx
from adamas.deploy.parity import parity
from adamas.deploy.runtime import OnnxModel
from adamas.noise import without_noise
from adamas.quantize import float_twin

FP32, INT8 = "model.fp32.onnx", "model.int8.onnx"


@dataclass(frozen=True)
class Files:
    """The exported files of one artifact by name; the quantized one ships where there is one."""

    folder: Path
    names: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        return [self.folder / name for name in self.names]

    @property
    def shipped(self) -> Path:
        return self.paths[-1]


def exported(folder: Path) -> Files:
    """The ONNX files that are in an artifact's directory."""
    return Files(folder, tuple(name for name in (FP32, INT8) if (folder / name).exists()))


def export_files(model: nn.Module, folder: Path, image_shape: tuple[int, int, int]) -> Files:
    """Export the float network and, for a quantized model, the integer one that it simulates; older files go."""
    (folder / INT8).unlink(missing_ok=True)
    export_onnx(float_twin(model), folder / FP32, image_shape)
    if activation_quantizers(model):
        export_onnx(model, folder / INT8, image_shape)
    return exported(folder)


def check_parity(model: nn.Module, files: Files, images: Images) -> dict[str, Any]:
    """Agreement of every exported file with the network it was made from, its noise off, on these images."""
    model = without_noise(model)
    return {
        path.name: dataclasses.asdict(parity(model if path.name == INT8 else float_twin(model), OnnxModel(path), images))
        for path in files.paths
    }
