"""The twin of a file: the same logits as ONNX Runtime, gradients straight through, and everything else refused by name."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from adamas.attacks.pgd import PGD
from adamas.compress.ptq import PTQ
from adamas.deploy.export import export_onnx
from adamas.deploy.runtime import OnnxModel
from adamas.deploy.twin import Twin, twin
from adamas.deploy.twin_ops import OPERATORS
from adamas.errors import AdamasError
from adamas.models import normalized
from adamas.models.resnet import ResNet18
from adamas.threat import Linf

RGB = (3, 8, 8)
IMAGES = torch.rand(64, *RGB, generator=torch.Generator().manual_seed(1))
GENERATOR = torch.Generator().manual_seed(2)
WEIGHTS = {
    name: torch.randn(shape, generator=GENERATOR)
    for name, shape in {
        "w": (4, 3, 3, 3), "depth": (6, 1, 3, 3), "b4": (4,), "b5": (5,), "m": (192, 5), "mt": (5, 192), "row": (1, 5),
        "w8": (8, 8), "c": (3, 1, 1), "s": (3,), "t": (3,), "mean": (3,), "n8": (8,), "k8": (8,), "one": (1,),
    }.items()
} | {"var": torch.rand(3, generator=GENERATOR) + 0.5, "g": torch.rand(3, generator=GENERATOR) + 0.1}  # fmt: skip


def written(path, body: str, *, opset: int = 17, image: str = "N,3,8,8", weights: dict[str, Tensor] = WEIGHTS):
    """A file from x (N, 3, 8, 8) to y by the nodes of `body`, in ONNX's text form; h is flattened to y; weights by name."""
    ends = "" if "y =" in body else "y = Flatten (h)"
    model = onnx.parser.parse_model(
        f'<ir_version: {8 if opset < 20 else 10}, opset_import: ["": {opset}, "com.microsoft": 1]> '
        f"twin (float[{image}] x) => (float[N,K] y) {{ {body}\n {ends} }}"
    )
    named = {name for node in model.graph.node for name in node.input}
    tensors = {name: tensor for name, tensor in weights.items() if name in named}
    model.graph.initializer.extend(numpy_helper.from_array(tensor.numpy(), name) for name, tensor in tensors.items())
    onnx.save(model, path / "model.onnx")
    return path / "model.onnx"


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(model(x).square().sum(), x)[0]


def check(path, x: Tensor = IMAGES[:3], tolerance: float = 1e-5) -> Twin:
    built = twin(path)
    got, expected = built(x), OnnxModel(path)(x)
    assert got.shape == expected.shape
    assert torch.allclose(got, expected, rtol=tolerance, atol=tolerance), (got - expected).abs().max()
    return built


# ------------------------------------------------------------------------------------------------------- operators

INTS = "{name} = Constant <value = int64[{n}] {{{values}}}> ()\n"


def ints(**named: list[int]) -> str:
    return "".join(INTS.format(name=name, n=len(values), values=",".join(map(str, values))) for name, values in named.items())


ELEMENTWISE = [
    "Abs (x)", "Neg (x)", "Erf (x)", "Exp (x)", "Tanh (x)", "Sigmoid (x)", "Softplus (x)", "Relu (d)", "LeakyRelu (d)",
    "LeakyRelu <alpha=0.3> (d)", "Selu (d)", "Elu (d)", "Elu <alpha=2.0> (d)", "PRelu (d, c)", "HardSigmoid (d)", "Sqrt (x)",
    "Sign (d)",
    "HardSigmoid <alpha=0.5, beta=0.4> (d)", "HardSwish (d)", "Softmax (d)", "Softmax <axis=1> (d)", "LogSoftmax (d)",
    "Reciprocal (e)", "Log (e)", "Floor (d)", "Ceil (d)", "Identity (d)", "Dropout (d)", "Pow (x, two)", "Add (d, c)",
    "Sub (c, d)", "Mul (d, c)", "Div (d, c)", "Sum (x, d, c)", "Max (x, d, c)", "Min (x, d, c)",
    "MatMul (d, w8)", "Mod <fmod=1> (d, e)",
]  # fmt: skip
CONVOLUTIONS = [
    "Conv (x, w)", "Conv (x, w, b4)", "Conv <pads=[1,1,1,1], strides=[2,2], kernel_shape=[3,3]> (x, w, b4)",
    "Conv <pads=[1,0,2,1], strides=[2,1]> (x, w, b4)", "Conv <dilations=[2,1], pads=[2,1,2,1]> (x, w)",
    "Conv <group=3, pads=[1,1,1,1]> (x, depth)", 'Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w)',
    'Conv <auto_pad="SAME_LOWER", strides=[2,3]> (x, w)', 'Conv <auto_pad="VALID"> (x, w)',
]  # fmt: skip
POOLS = [
    f"{kind} <kernel_shape=[{kernel}], strides=[{strides}]{more}> (x)"
    for kind in ("MaxPool", "AveragePool")
    for kernel, strides, more in [
        ("2,2", "2,2", ""), ("3,2", "1,3", ""), ("3,3", "2,2", ", pads=[1,1,1,1]"), ("3,3", "2,2", ", pads=[0,1,1,0]"),
        ("3,3", "2,2", ", ceil_mode=1"), ("3,3", "3,3", ", ceil_mode=1, pads=[1,1,1,1]"), ("2,2", "3,3", ", ceil_mode=1"),
        ("3,3", "2,2", ', auto_pad="SAME_UPPER"'), ("2,2", "1,1", ', auto_pad="SAME_LOWER"'),
        ("3,3", "2,2", ", ceil_mode=1, pads=[0,0,1,1]"), ("2,2", "2,2", ", pads=[1,1,1,1]"),
    ]
] + [
    "MaxPool <kernel_shape=[2,3], dilations=[3,2], pads=[0,1,0,1]> (x)",
    "AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1> (x)",
    "AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[0,1,1,0], count_include_pad=1> (x)",
    "GlobalAveragePool (x)", "GlobalMaxPool (x)",
]  # fmt: skip
NORMALISATIONS = [
    "BatchNormalization <epsilon=0.01> (x, s, t, mean, var)", "InstanceNormalization <epsilon=0.01> (x, s, t)",
    "LayerNormalization <epsilon=0.01> (x, n8, k8)", "LayerNormalization (x, n8)", "LayerNormalization <axis=2> (x, w8, w8)",
    "LayerNormalization <axis=-2> (x, one)",
]  # fmt: skip
LINEAR = [
    "f = Flatten (x)\n y = Gemm (f, m, b5)", "f = Flatten (x)\n y = Gemm <transB=1> (f, mt, b5)",
    "f = Flatten (x)\n y = Gemm (f, m)", "f = Flatten (x)\n y = Gemm <alpha=0.5, beta=2.0> (f, m, row)",
    "f = Flatten (x)\n y = Gemm <alpha=0.5> (f, m)", "f = Flatten (x)\n y = Gemm (f, m, one)",
    "f = Flatten (x)\n r = Transpose (f)\n y = Gemm <transA=1, transB=1> (r, mt, b5)", "f = Flatten (x)\n y = MatMul (f, m)",
]  # fmt: skip
SHAPES = [
    ints(a=[2, 3]) + "h = ReduceSum (x, a)", ints(a=[1]) + "h = ReduceSum <keepdims=0> (x, a)",
    "h = ReduceSum <noop_with_empty_axes=1> (x)", "h = ReduceMean <axes=[2,-1], keepdims=0> (x)",
    "h = ReduceMax <axes=[1]> (x)", "h = ReduceMin <axes=[1]> (x)", "h = Flatten <axis=2> (x)\n y = Reshape (h, to)",
    "y = Reshape (x, to)", ints(q=[0, 6, -1]) + "h = Reshape (x, q)", "h = Transpose <perm=[0,3,1,2]> (x)",
    ints(a=[2, 3]) + "p = GlobalMaxPool (x)\n y = Squeeze (p, a)", "h = Concat <axis=2> (x, d, x)",
    ints(a=[-1, 2]) + "h = Unsqueeze (x, a)", ints(a=[1], b=[-1], i=[2], j=[1]) + "h = Slice (x, a, b, i, j)",
    ints(a=[-1], b=[-9223372036854775807], i=[3], j=[-2]) + "h = Slice (x, a, b, i, j)",
    ints(a=[0, 1, 2], b=[9, 3, 7]) + "h = Slice (x, a, b)", ints(i=[2, -1]) + "h = Gather <axis=3> (x, i)",
    "i = Constant <value_int=1> ()\n h = Gather <axis=1> (x, i)", ints(p=[1, 2]) + "i, h = Split <axis=1> (x, p)",
    "i, h = Split <axis=2> (x)", ints(p=[0, 0, 1, 2, 0, 0, 0, 1]) + "h = Pad (x, p)",
    ints(p=[0, 1, 1, 2, 0, 0, -1, 1]) + "v = Constant <value_float=0.5> ()\n h = Pad (x, p, v)",
    ints(p=[0, 0, 1, 2, 0, 0, 3, 1]) + 'h = Pad <mode="reflect"> (x, p)',
    ints(p=[0, 0, 1, 2, 0, 0, 3, 1]) + 'h = Pad <mode="edge"> (x, p)',
    "l = Constant <value_float=0.2> ()\n u = Constant <value_float=0.7> ()\n h = Clip (x, l, u)",
    "u = Constant <value_float=0.7> ()\n h = Clip (x, , u)", "h = Clip (x)",
    "q = Greater (d, x)\n r = Not (q)\n h = Where (r, x, d)",
    "q = GreaterOrEqual (d, c)\n r = Less (e, c)\n a = And (q, r)\n o = Or (a, r)\n h = Where (o, x, d)",
    "q = LessOrEqual (d, c)\n h = Cast <to=1> (q)",
    "f = Cast <to=11> (d)\n r = Exp (f)\n h = Cast <to=1> (r)",
    # sizes that depend on the number of images
    ints(z=[0], k=[-1]) + "v = Shape (x)\n i = Gather (v, z)\n q = Concat <axis=0> (i, k)\n y = Reshape (x, q)",
    ints(z=[0], o=[1], r=[3, 8, 1]) + "v = Shape (x)\n i = Slice (v, z, o)\n q = Concat <axis=0> (i, r)\n p = Expand (n1, q)\n"
    "l = Concat <axis=3> (x, p)\n h = Identity (l)",
    ints(o=[1]) + "i = Shape <start=0, end=1> (x)\n f = ConstantOfShape <value=float[1] {0.5}> (i)\n a = Unsqueeze (f, o)\n"
    "r = Flatten (x)\n y = Add (r, a)",
    "i = Constant <value_int=8> ()\n z = Constant <value_int=0> ()\n o = Constant <value_int=2> ()\n r = Range (z, i, o)\n"
    "h = Gather <axis=2> (x, r)",
    ints(z=[0], i=[2], j=[-1]) + "v = Shape (x)\n n = Gather (v, z)\n q = Mul (n, i)\n r = Div (q, i)\n"
    "w0 = Mod (q, i)\n r0 = Add (r, w0)\n f = Cast <to=1> (r0)\n"
    "l = Cast <to=7> (f)\n k = Equal (l, n)\n u = Where (k, l, j)\n p = Concat <axis=0> (u, j)\n y = Reshape (x, p)",
]  # fmt: skip
RESIZES = [
    f'h = Resize <mode="{mode}", coordinate_transformation_mode="{where}"{more}> (x, , {given})'
    for mode, where, more in [
        ("nearest", "asymmetric", ', nearest_mode="floor"'), ("nearest", "half_pixel", ""),
        ("nearest", "half_pixel", ', nearest_mode="round_prefer_ceil"'), ("nearest", "asymmetric", ', nearest_mode="ceil"'),
        ("linear", "half_pixel", ""), ("linear", "align_corners", ""), ("linear", "pytorch_half_pixel", ""),
        ("linear", "asymmetric", ""),
    ]
    for given in ("scales", ", sizes")
]  # fmt: skip
SIZES = {
    "scales": torch.tensor([1, 1, 1.5, 2.0]), "sizes": torch.tensor([3, 3, 5, 16]), "to": torch.tensor([-1, 192]),
    "n1": torch.full((1, 1, 8, 1), 0.3), "two": torch.tensor(2.0),
}  # fmt: skip
BODIES = [f"h = {call}" for call in ELEMENTWISE + CONVOLUTIONS + POOLS + NORMALISATIONS] + LINEAR + SHAPES + RESIZES


@pytest.mark.parametrize("body", BODIES)
def test_every_operator_gives_what_onnx_runtime_gives(body, tmp_path):
    body = f"d = Sub (x, c)\n e = Add (x, two)\n {body}"
    image = "3,3,8,8" if "sizes" in body else "N,3,8,8"
    built = check(written(tmp_path, body, image=image, weights=SIZES | WEIGHTS))
    assert not any(value.requires_grad for value in built.buffers())


FORMS: list[tuple[int, str]] = [
    (10, "h = Clip <min=0.2, max=0.7> (x)"), (12, "h = Softmax <axis=1> (x)"), (12, "h = LogSoftmax <axis=2> (x)"),
    (11, "h = Softmax (x)"), (9, "h = Upsample (x, scales)"), (10, 'h = Resize <mode="linear"> (x, scales)'),
    (11, "p = GlobalMaxPool (x)\n y = Squeeze <axes=[2,3]> (p)"), (11, "h = Unsqueeze <axes=[1,5]> (x)"),
    (11, "h = ReduceSum <axes=[2]> (x)"), (11, "i, h = Split <axis=1, split=[1,2]> (x)"),
    (10, "h = Dropout <ratio=0.3> (x)"),
    (9, "h = Slice <starts=[1], ends=[3], axes=[2]> (x)"), (10, "h = Pad <pads=[0,0,1,1,0,0,1,1], value=0.5> (x)"),
    (18, "i, h = Split <axis=2, num_outputs=2> (x)"), (18, ints(a=[-1]) + "h = ReduceMean (x, a)"),
    (18, "h = Mish (x)"),
    (20, "h = Gelu (x)"), (20, 'h = Gelu <approximate="tanh"> (x)'), (17, "h = com.microsoft.Gelu (x)"),
    (18, ints(p=[1, 2, 1, 0], a=[2, 3]) + "h = Pad (x, p, , a)"),
    (19, "h = AveragePool <kernel_shape=[3,3], strides=[3,3], ceil_mode=1, pads=[1,1,1,1], count_include_pad=1> (x)"),
]  # fmt: skip


@pytest.mark.parametrize(("opset", "body"), FORMS)
def test_older_and_newer_forms_of_operators(opset, body, tmp_path):
    check(written(tmp_path, body, opset=opset, weights=SIZES | WEIGHTS))


def test_every_operator_of_the_table_is_tried():
    tried = " ".join([*BODIES, *(body for _, body in FORMS)])
    assert {name for name in OPERATORS if f"= {name} " not in tried} == {"QuantizeLinear", "DequantizeLinear"}  # further down


@pytest.mark.parametrize("body", [body for body in SHAPES if "Shape" in body])
def test_sizes_stay_on_the_processor_and_weights_move(body, tmp_path):
    body = f"d = Sub (x, c)\n e = Add (x, two)\n {body}"
    built = twin(written(tmp_path, body, weights=SIZES | WEIGHTS))
    assert built.to("meta")(IMAGES.to("meta")).shape == (64, *built.to("meta")(IMAGES[:1].to("meta")).shape[1:])


# ---------------------------------------------------------------------------------------------------- quantization


class Residual(nn.Module):
    """A convolution by groups, batch norm, ReLU6, max pooling, a residual and a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(), nn.MaxPool2d(2))
        self.block, self.last = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last((x + self.block(x)).flatten(1))


@pytest.fixture(scope="module", params=[(8, 8), (4, 4), (16, 16), (2, 8), (12, 10), (8, 16)], ids=str)
def simulated(request, tmp_path_factory):
    """A quantized network and its file."""
    torch.manual_seed(0)
    model, (weight_bits, activation_bits) = Residual(), request.param
    method = PTQ(weight_bits=weight_bits, activation_bits=activation_bits)
    method.attach(model)
    method.calibrate(model, [(IMAGES * 0.5, torch.zeros(64))], Linf(eps=0.1))  # so that brighter images are clipped
    return model.eval(), export_onnx(model, tmp_path_factory.mktemp("files") / "model.onnx", RGB)


def test_an_integer_file_and_its_twin_agree(simulated):
    model, path = simulated
    got, expected = twin(path)(IMAGES), OnnxModel(path)(IMAGES)
    with torch.no_grad():
        assert (got.argmax(1) == expected.argmax(1)).all() and (got.argmax(1) == model(IMAGES).argmax(1)).all()
    assert (got - expected).abs().mean() < 1e-3 * expected.std(0).mean()


def test_the_twin_of_a_file_has_the_gradient_that_training_simulates(simulated):
    model, path = simulated
    got, expected = gradient(twin(path), IMAGES), gradient(model, IMAGES)
    assert expected.abs().mean() > 0
    assert (got - expected).abs().mean() < 0.1 * expected.abs().mean()
    assert ((got - expected).abs() < 1e-4 * expected.abs().max()).float().mean() > 0.8


CODES = {
    "step": torch.tensor(0.25), "zero": torch.tensor(1, dtype=torch.uint8), "low": torch.tensor(0, dtype=torch.uint8),
    "high": torch.tensor(3, dtype=torch.uint8), "other": torch.tensor(0.5), "steps": torch.full((1,), 0.25),
    "zeros": torch.ones(1, dtype=torch.uint8), "wide": torch.tensor(-9, dtype=torch.int16),
    "many": torch.tensor([0.01, 0.02, 0.04]), "int8": torch.tensor([0, 3, -100], dtype=torch.int8),
    "unsigned": torch.tensor(300, dtype=torch.uint16), "b32": torch.tensor([2**30 + 1, -70000, 7], dtype=torch.int32),
    "zeros32": torch.zeros(3, dtype=torch.int32), "w8": torch.tensor([[[[-100]]], [[[127]]], [[[5]]]], dtype=torch.int8),
}  # fmt: skip
ROUND_TRIP = "q = QuantizeLinear (x, step, zero)\n k = Clip (q, low, high)\n y = DequantizeLinear (k, step, zero)"


@pytest.mark.parametrize(
    ("body", "steps"),
    [
        (f"f = Flatten (x)\n {ROUND_TRIP.replace('x,', 'f,')}", 2),
        (ROUND_TRIP.replace("k = Clip (q", "f = Flatten (q)\n k = Clip (f"), 4),
        (f"f = Flatten (x)\n {ROUND_TRIP.replace('(x, step, zero', '(f, steps, zeros').replace('low', '')}", 2),
    ],
)  # fmt: skip
def test_rounding_passes_the_gradient_straight_through_and_clipping_stops_it(body, steps, tmp_path):
    built = twin(written(tmp_path, body, image="N,1,1,6", weights=CODES))
    x = torch.tensor([[[[-0.5, -0.3, 0.1, 0.3, 0.5, 0.65]]]], requires_grad=True)  # codes -1, 0, 1, 2, 3, 4 of 0..3
    y = built(x)
    assert y.tolist() == [[-0.25, -0.25, 0.0, 0.25, 0.5, 0.5]]
    y.backward(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]))
    assert x.grad is not None and x.grad.flatten().tolist() == [0.0, 2.0, 3.0, 4.0, 5.0, 0.0]
    assert len(built.steps) == steps


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (17, "q = QuantizeLinear <axis=1> (x, many, int8)\n h = DequantizeLinear <axis=1> (q, many, int8)"),
        (17, "q = QuantizeLinear <axis=-3> (x, many)\n l = MaxPool <kernel_shape=[2,2]> (q)\n h = DequantizeLinear (l, many)"),
        (17, "q = QuantizeLinear (x, step, zero)\n h = DequantizeLinear (q, other, zero)"),
        (17, "q = QuantizeLinear (x, step)\n h = DequantizeLinear (q, step)"),
        (17, "q = com.microsoft.QuantizeLinear (x, step, wide)\n h = com.microsoft.DequantizeLinear (q, step, wide)"),
        (21, "q = QuantizeLinear (x, step, unsigned)\n h = DequantizeLinear (q, step, unsigned)"),
        (17, "k = DequantizeLinear <axis=0> (w8, many, int8)\n r = DequantizeLinear <axis=0> (b32, many, zeros32)\n"
             "h = Conv <group=3> (x, k, r)"),
    ],
)  # fmt: skip
def test_codes_of_every_width_by_tensor_and_by_channel(opset, body, tmp_path):
    check(written(tmp_path, body, opset=opset, weights=CODES), tolerance=1e-6)


def test_weights_are_dequantized_once(tmp_path):
    body = "k = DequantizeLinear <axis=0> (w8, many, int8)\n h = Conv <group=3> (x, k)"
    built = twin(written(tmp_path, body, weights=CODES))
    (weight,) = built.buffers()
    assert weight.flatten().tolist() == pytest.approx([-1.0, 2.48, 4.2]) and len(built.steps) == 2


@pytest.mark.parametrize("kind", ["QUInt8", "QInt8", "QUInt16"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_files_that_onnx_runtime_quantized(kind, per_channel, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        batches = iter(IMAGES.split(32))

        def get_next(self):
            x = next(self.batches, None)
            return None if x is None else {"image": x.numpy()}

    path = export_onnx(Residual().eval(), tmp_path / "float.onnx", RGB)
    settings = {"activation_type": getattr(quantization.QuantType, kind), "per_channel": per_channel}
    quantization.quantize_static(path, tmp_path / "q.onnx", Reader(), quantization.QuantFormat.QDQ, **settings)
    built = check(tmp_path / "q.onnx", IMAGES, tolerance=1e-4)
    assert gradient(built, IMAGES).abs().mean() > 0.5 * gradient(twin(path), IMAGES).abs().mean()


# --------------------------------------------------------------------------------------------------- as a classifier


def test_white_box_attacks_see_through_a_file(trained, digits, tmp_path):
    path = export_onnx(trained, tmp_path / "model.onnx", (1, 8, 8))
    x, y = next(digits.test.batches(60))
    built = twin(path)
    assert torch.allclose(gradient(built, x), gradient(trained, x), atol=1e-3)
    x_adv = PGD(steps=5)(built, x, y, Linf(eps=0.15))
    file = OnnxModel(path)
    assert (file(x).argmax(1) == y).float().mean() > 0.8 and (file(x_adv).argmax(1) == y).float().mean() < 0.4


def test_modes_precision_and_layout_change_nothing(tmp_path):
    model = normalized(ResNet18(width=4).build(RGB, 10), [0.5] * 3, [0.25] * 3).eval()
    built = check(export_onnx(model, tmp_path / "model.onnx", RGB))
    expected = built(IMAGES)
    assert torch.equal(built.train()(IMAGES), expected) and not list(built.parameters())
    assert torch.allclose(built.to(torch.float64)(IMAGES.double()).float(), expected, atol=1e-5)
    last = copy.deepcopy(built).to(torch.float32).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert torch.allclose(last(IMAGES.contiguous(memory_format=torch.channels_last)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "any_number"),
    [
        ("h = Sub (x, c)", True),
        ("f = Reshape (x, flat)\n y = Gemm (f, m, b5)", True),
        ("f = Reshape <allowzero=1> (x, rest)\n y = Gemm (f, m, b5)", True),
        ("f = Reshape (x, flat)\n y = Add (f, each)", False),
        ("f = Reshape (x, mixed)\n y = Reshape (f, flat)", False),
    ],
)
def test_files_for_one_number_of_images_take_any(body, any_number, tmp_path):
    given = {"flat": torch.tensor([2, 192]), "rest": torch.tensor([2, -1]), "mixed": torch.tensor([6, 64])}
    given["each"] = torch.tensor([[1.0], [2.0]]).expand(2, 192).contiguous()
    path = written(tmp_path, body, image="2,3,8,8", weights=WEIGHTS | given)
    built = check(path, IMAGES[:5])
    assert built.batch == (0 if any_number else 2)
    assert torch.allclose(gradient(built, IMAGES[:5])[2:4], gradient(built, IMAGES[2:4]), atol=1e-5)


def test_sizes_of_images_may_be_left_open(tmp_path):
    path = written(tmp_path, "p = GlobalAveragePool (x)\n h = Conv <pads=[1,1,1,1]> (p, w)", image="N,C,H,W")
    check(path, torch.rand(2, 3, 5, 9))


def test_what_the_output_does_not_need_is_left_out(tmp_path):
    built = twin(written(tmp_path, "i = NonZero (x)\n j = Conv (x, w)\n h = Relu (x)"))
    assert len(built.steps) == 2 and not list(built.buffers())


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "i = NonZero (x)\n j = Cast <to=1> (i)\n k = Einsum <equation=\"ij->i\"> (j)\n l = com.microsoft.FusedGemm (k, k)\n"
            "r = NonZero (l)\n h = Cast <to=1> (r)",
            r"model\.onnx: expected operators that have a differentiable twin, got NonZero \(at i\), Einsum \(at k\), "
            r"com\.microsoft\.FusedGemm \(at l\); export the model again in basic operators, or audit the file as a black box",
        ),
        ("l, i = MaxPool <kernel_shape=[2,2]> (x)\n h = Cast <to=1> (i)", r"got MaxPool with a second output \(at l\);"),
        ("h = com.microsoft.Gelu <bad=1> (x)", r"got Gelu with bad \(at h\);"),
        ("h = Relu (missing)", r"model\.onnx: expected a valid graph, got ValidationError: Nodes .* topologically"),
        ("h = Conv (x, depth)", r"model\.onnx: expected a valid graph, got RuntimeError: .* \(at h\)"),
        ('h = Resize <mode="cubic"> (x, , scales)', r"expected Resize by nearest or linear interpolation .* \(at h\)"),
        ("h = Dropout (x, , true)", r"model\.onnx: expected Dropout that is off, got training_mode=1 \(at h\)"),
        ("h, i, j = BatchNormalization <training_mode=1> (x, s, t, mean, var)", r"got one in training mode .* \(at h\)"),
        ("y = Relu (x)", r"expected one output \(N, classes\), got \(2, 3, 8, 8\) for 2 images"),
        ("f = Flatten (x)\n y = Transpose (f)", r"expected one output \(N, classes\), got \(192, 2\) for 2 images"),
        ("k = ConstantOfShape (huge)\n h = Add (x, k)", r"expected at most 268435456 values .* \[65536, 65536\] \(at k\)"),
        ("k = Range (r0, r1, r2)\n h = Add (x, k)", r"expected at most 268435456 values .* shape \[10{12}\] \(at k\)"),
        ("h = Expand (x, huge)", r"expected a valid graph, got RuntimeError: .* \(at h\)"),
        (ints(p=[0, 0, 65536, 0, 0, 0, 0, 65536]) + "h = Pad (x, p)", r"expected at most 268435456 values .*\(at h\)"),
        ("h = Resize (x, , larger)", r"expected at most 268435456 values .*\(at h\)"),
        ("h = AveragePool <kernel_shape=[2,2], dilations=[2,2]> (x)", r"AveragePool without dilations, got \[2, 2\] \(at h\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_rebuilt_is_named(body, message, tmp_path):
    given = {
        "true": torch.tensor(True), "huge": torch.tensor([65536, 65536]), "r0": torch.tensor(0), "r1": torch.tensor(10**12),
        "r2": torch.tensor(1), "larger": torch.tensor([1.0, 1.0, 4096.0, 4096.0]),
    }  # fmt: skip
    with pytest.raises(AdamasError, match=message):
        twin(written(tmp_path, body, opset=19, weights=SIZES | WEIGHTS | given))


def test_images_of_another_shape_are_refused(tmp_path):
    built = twin(written(tmp_path, "h = Relu (x)"))
    with pytest.raises(AdamasError, match=r"expected images \(N, 3, 8, 8\), got \(2, 1, 8, 8\)"):
        built(torch.rand(2, 1, 8, 8))
    built = twin(written(tmp_path, "h = Relu (x)", image="N,3,H,W"))
    with pytest.raises(AdamasError, match=r"expected images \(N, 3, H, W\), got \(3, 8, 8\)"):
        built(torch.rand(3, 8, 8))


def test_other_types_of_numbers_are_refused(tmp_path):
    path = written(tmp_path, "h = Cast <to=1> (x)")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.save(model, path)
    with pytest.raises(AdamasError, match=r"model\.onnx: expected float images, got UINT8"):
        twin(path)
    model = onnx.load(written(tmp_path, "k = DequantizeLinear (w4, step)\n h = Add (x, k)", opset=21, weights=CODES))
    model.graph.initializer.append(helper.make_tensor("w4", onnx.TensorProto.INT4, [8], [1] * 8))
    onnx.save(model, path)
    with pytest.raises(AdamasError, match="expected integers and floats of 8 bits or more, got INT4 in w4"):
        twin(path)


def test_cut_and_altered_files_are_refused_or_still_classify(tmp_path):
    content = written(tmp_path, "l = Conv (x, w, b4)\n k = Relu (l)\n h = MaxPool <kernel_shape=[2,2]> (k)").read_bytes()
    random, path, refused = np.random.default_rng(0), tmp_path / "bad.onnx", 0
    for trial in range(60):
        bad = bytearray(content[: random.integers(len(content))] if trial % 3 == 0 else content)
        for place in random.integers(len(bad), size=2 if bad else 0):
            bad[place] = random.integers(256)
        path.write_bytes(bad)
        try:
            twin(path)
        except AdamasError as error:
            refused += 1
            assert str(error).startswith(f"{path}: expected")
    assert refused >= 20
