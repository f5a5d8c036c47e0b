"""Exported files: the same predictions as the simulation, integer kernels, a quarter of the size."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.ptq import PTQ
from adamas.compress.quantizers import activation_quantizers
from adamas.deploy.export import export_onnx
from adamas.deploy.parity import parity
from adamas.deploy.runtime import OnnxModel
from adamas.errors import AdamasError
from adamas.models import normalized
from adamas.models.resnet import ResNet18
from adamas.noise import Noise, without_noise
from adamas.quantize import float_twin
from adamas.threat import Linf
from adamas.weights import bake

RGB = (3, 8, 8)
IMAGES = torch.rand(64, *RGB, generator=torch.Generator().manual_seed(1))


class Mobile(nn.Module):
    """Inverted bottlenecks: depthwise convolutions, ReLU6, max pooling, a linear residual, a mean over pixels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(), nn.MaxPool2d(2))
        self.block, self.wider = self._bottleneck(8, 8), self._bottleneck(8, 16)
        self.head = nn.Linear(16, 10)

    def _bottleneck(self, before: int, after: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
            nn.Conv2d(16, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.wider(x + self.block(x)).mean((2, 3)))


def residual() -> nn.Module:
    return normalized(ResNet18(width=4).build(RGB, 10), [0.5] * 3, [0.25] * 3)


def quantized(model: nn.Module, **settings) -> nn.Module:
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.2)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    method = PTQ(**settings)
    method.attach(model)
    method.calibrate(model, [(IMAGES * 0.5, torch.zeros(64))], Linf(eps=0.1))  # so that brighter images are clipped
    return model.eval()


def exported(model: nn.Module, path: Path) -> Tensor:
    return OnnxModel(export_onnx(model, path / "model.onnx", RGB))(IMAGES)


def operators_after_optimisation(path: Path) -> Counter[str]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path.with_suffix(".optimized")).graph.node)


def test_files_of_a_trained_network_predict_what_it_predicts(trained, digits, tmp_path):
    method = PTQ()
    method.attach(trained)
    method.calibrate(trained, digits.train.batches(64, seed=0), Linf(eps=0.1))
    exact = parity(
        float_twin(trained), OnnxModel(export_onnx(float_twin(trained), tmp_path / "f.onnx", (1, 8, 8))), digits.train
    )
    whole = parity(trained, OnnxModel(export_onnx(trained, tmp_path / "i.onnx", (1, 8, 8))), digits.train)
    assert exact.agreement == 1 and exact.largest_logit_difference < 1e-4
    assert whole.agreement >= 0.997 and whole.largest_logit_difference < 0.5 and whole.n == 450


@pytest.mark.parametrize(
    ("make", "bits"),
    [(Mobile, bits) for bits in ((8, 8), (4, 4), (2, 2), (2, 8), (16, 16), (8, 16), (12, 10))] + [(residual, (8, 8))],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_file_computes_what_the_simulation_computes_at_any_width(make, bits, tmp_path):
    model = quantized(make(), weight_bits=bits[0], activation_bits=bits[1])
    with torch.no_grad():
        expected = model(IMAGES)
    got = exported(model, tmp_path)
    assert (got - expected).abs().mean() < 0.05 * expected.std(0).mean()  # the spread over images
    assert (got.argmax(1) == expected.argmax(1)).float().mean() >= 0.98


def test_every_operation_of_a_residual_network_runs_on_an_integer_kernel(tmp_path):
    path = export_onnx(quantized(residual()), tmp_path / "model.onnx", RGB)
    ran = operators_after_optimisation(path)
    assert ran["QLinearConv"] == 20 and ran["QLinearAdd"] == 8 and ran["QLinearGlobalAveragePool"] == ran["QGemm"] == 1
    assert not ran.keys() & {"Conv", "FusedConv", "Add", "Relu", "Gemm", "DequantizeLinear"}


def test_depthwise_convolutions_and_relu6_run_on_integer_kernels(tmp_path):
    ran = operators_after_optimisation(export_onnx(quantized(Mobile()), tmp_path / "model.onnx", RGB))
    assert ran["QLinearConv"] == 7 and ran["QLinearAdd"] == ran["QGemm"] == 1
    assert not ran.keys() & {"Conv", "FusedConv", "Clip", "Gemm"}


@pytest.mark.parametrize(("bits", "ratio"), [(8, 0.25), (4, 0.25), (16, 0.5)])
def test_integer_files_are_a_fraction_of_the_float_file(bits, ratio, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 128, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 64))
    quantized(model, weight_bits=bits)
    small = export_onnx(model, tmp_path / "i.onnx", RGB).stat().st_size
    large = export_onnx(float_twin(model), tmp_path / "f.onnx", RGB).stat().st_size
    assert ratio <= small / large < ratio + 0.03


def test_an_empty_channel_keeps_its_bias(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    with torch.no_grad():
        model[0].weight[:2] = 0
        model[0].weight[2] *= 1e-9
        model[0].bias.copy_(torch.tensor([0.7, 0.0, 0.3, 0.1]))
    quantized(model)
    assert torch.allclose(exported(model, tmp_path), model(IMAGES), atol=1e-5)


def test_layers_that_are_called_twice_are_exported(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(192, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.conv(self.conv(x)).flatten(1))

    model = quantized(Twice())
    assert torch.allclose(exported(model, tmp_path), model(IMAGES), atol=0.02)
    assert operators_after_optimisation(tmp_path / "model.onnx")["QLinearConv"] == 2


@pytest.mark.parametrize("bits", [(8, 16), (16, 8), (16, 16)], ids=str)
def test_large_biases_of_wide_networks_do_not_overflow(bits, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    with torch.no_grad():
        model[0].weight *= 1e-3
        model[0].bias.copy_(torch.tensor([300.0, -200.0, 100.0, 50.0]))
    quantized(model, weight_bits=bits[0], activation_bits=bits[1])
    assert torch.allclose(exported(model, tmp_path), model(IMAGES), rtol=1e-3, atol=1e-3)


def test_layers_without_bias_and_masked_weights_are_exported(tmp_path):
    class Mask(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * (weight.abs() > 0.05)

    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10, bias=False))
    parametrize.register_parametrization(model[3], "weight", Mask())
    quantized(model)
    path = export_onnx(model, tmp_path / "model.onnx", RGB)
    assert torch.allclose(OnnxModel(path)(IMAGES), model(IMAGES), atol=2e-3)  # a sum between two levels may fall either way
    assert operators_after_optimisation(path)["QGemm"] == 1
    assert torch.allclose(exported(float_twin(model), tmp_path), float_twin(model)(IMAGES), atol=1e-5)


def test_a_mask_on_top_of_quantized_weights_is_exported(tmp_path):
    class First(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * (weight.abs() < weight.abs().max())

    model = quantized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)))
    parametrize.register_parametrization(model[3], "weight", First())
    assert torch.allclose(exported(model, tmp_path), model(IMAGES), atol=2e-3)


def test_the_model_is_left_as_found(tmp_path):
    model = quantized(residual()).train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_onnx(model, tmp_path / "model.onnx", RGB)
    assert all(module.training for module in model.modules()) and len(activation_quantizers(model)) > 20
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(copy.deepcopy(model).eval()(IMAGES), model.eval()(IMAGES))


def test_the_file_takes_any_number_of_images_and_names_its_ends(tmp_path):
    runtime = OnnxModel(export_onnx(quantized(Mobile()), tmp_path / "model.onnx", RGB))
    assert (runtime.input, runtime.output) == ("image", "logits")
    assert [len(runtime(IMAGES[:n])) for n in (1, 5, 64)] == [1, 5, 64]


def test_baked_weights_and_inexpressible_models_are_refused_without_leaving_a_file(tmp_path):
    class Complex(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svdvals(x).sum(1)

    with pytest.raises(
        AdamasError, match="expected quantized weights, got baked ones at layer 0; export a quantized model before"
    ):
        export_onnx(bake(quantized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))), tmp_path / "model.onnx", RGB)
    with pytest.raises(AdamasError, match="expected a model that ONNX can express, got UnsupportedOperatorError: .*svd"):
        export_onnx(Complex(), tmp_path / "model.onnx", RGB)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_draws_noise_is_written_without_it(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Noise(0.5), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    path = export_onnx(model, tmp_path / "model.onnx", RGB)
    assert torch.allclose(OnnxModel(path)(IMAGES), without_noise(model)(IMAGES), atol=1e-5)
    assert not {node.op_type for node in onnx.load(path).graph.node} & {"RandomNormal", "RandomNormalLike"}
    assert isinstance(model[1], Noise) and not torch.allclose(model(IMAGES), OnnxModel(path)(IMAGES), atol=1e-2)


def test_files_hold_no_paths_of_the_machine_that_wrote_them(tmp_path):
    content = export_onnx(quantized(Mobile()), tmp_path / "model.onnx", RGB).read_bytes()
    assert b".py" not in content and str(tmp_path).encode() not in content
