"""A file as a classifier: what it gives, and what is refused in one sentence."""

from __future__ import annotations

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from adamas.deploy.export import export_onnx
from adamas.deploy.runtime import OnnxModel, read_model
from adamas.errors import AdamasError


@pytest.fixture
def file(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    return model, export_onnx(model, tmp_path / "model.onnx", (1, 2, 2))


def handmade(path, rank: int, outputs: int = 1):
    """A file that copies its input of some rank to some outputs."""
    shape = ["n", *[2] * (rank - 1)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", *(f"y{i}" for i in range(outputs)))]
    nodes = [helper.make_node("Identity", ["x"], [f"y{i}"]) for i in range(outputs)]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_logits_are_those_of_the_model(file):
    model, path = file
    x = torch.rand(5, 1, 2, 2)
    assert torch.allclose(OnnxModel(path, threads=2)(x), model(x), atol=1e-6)
    assert torch.allclose(OnnxModel(path)(x.transpose(2, 3)), model(x.transpose(2, 3)), atol=1e-6)


def test_asking_for_a_gradient_is_refused_instead_of_being_zero(file):
    x = torch.rand(1, 1, 2, 2, requires_grad=True)
    with pytest.raises(AdamasError, match="white-box attack on an ONNX file, which has none; attack the model it was exported"):
        OnnxModel(file[1])(x)
    with torch.no_grad():
        assert OnnxModel(file[1])(x).shape == (1, 3)


def test_missing_and_broken_files_are_named(tmp_path, file):
    with pytest.raises(AdamasError, match=r"expected an ONNX file, there is none at .*no\.onnx"):
        OnnxModel(tmp_path / "no.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(AdamasError, match=r"text\.onnx: expected an ONNX model, got DecodeError"):
        OnnxModel(tmp_path / "text.onnx")
    (tmp_path / "cut.onnx").write_bytes(file[1].read_bytes()[:-20])
    with pytest.raises(AdamasError, match=r"cut\.onnx: expected an ONNX model, got DecodeError"):
        OnnxModel(tmp_path / "cut.onnx")


def test_threads_and_shapes_are_checked(tmp_path, file):
    with pytest.raises(AdamasError, match="expected at least 1 thread, got 0"):
        OnnxModel(file[1], threads=0)
    with pytest.raises(AdamasError, match=r"one input \(N, C, H, W\) .*, got inputs of \[2\] dimensions and 1 outputs"):
        OnnxModel(handmade(tmp_path / "flat.onnx", 2))
    with pytest.raises(AdamasError, match=r"got inputs of \[4\] dimensions and 2 outputs"):
        OnnxModel(handmade(tmp_path / "two.onnx", 4, outputs=2))


def test_weights_in_other_files_are_refused(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 600))
    proto = onnx.load(export_onnx(model, tmp_path / "model.onnx", (1, 2, 2)))
    onnx.save(proto, tmp_path / "split.onnx", save_as_external_data=True, location="elsewhere.bin", size_threshold=100)
    with pytest.raises(
        AdamasError, match=r"split\.onnx: expected one self-contained file, got weights kept in other files: 1\.weight"
    ):
        OnnxModel(tmp_path / "split.onnx")


def test_constants_and_inner_graphs_in_other_files_are_refused(tmp_path):
    proto = onnx.load(handmade(tmp_path / "model.onnx", 4))
    secret = helper.make_tensor("secret", TensorProto.FLOAT, [1], [0.0])
    secret.ClearField("float_data")
    secret.data_location = TensorProto.EXTERNAL
    secret.external_data.add(key="location", value="elsewhere.bin")
    constant = helper.make_node("Constant", [], ["c"], value=secret)
    inner = helper.make_graph([constant], "inner", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])])
    for node in (constant, helper.make_node("If", ["x"], ["d"], then_branch=inner, else_branch=inner)):
        altered = onnx.ModelProto.FromString(proto.SerializeToString())
        altered.graph.node.append(node)
        (tmp_path / "altered.onnx").write_bytes(altered.SerializeToString())
        with pytest.raises(AdamasError, match=r"altered\.onnx: .* got weights kept in other files: secret"):
            read_model(tmp_path / "altered.onnx")


def test_what_onnx_runtime_cannot_run_is_named(tmp_path):
    proto = onnx.load(handmade(tmp_path / "model.onnx", 4))
    proto.graph.node[0].op_type = "Unheard"
    (tmp_path / "odd.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(AdamasError, match=r"odd\.onnx: expected an ONNX model that ONNX Runtime can run, got .*Unheard"):
        OnnxModel(tmp_path / "odd.onnx")


def test_files_for_one_number_of_images_run_any(tmp_path):
    proto = onnx.load(handmade(tmp_path / "model.onnx", 4))
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(proto, tmp_path / "three.onnx")
    x, runtime = torch.rand(7, 2, 2, 2), OnnxModel(tmp_path / "three.onnx")
    assert all(torch.equal(runtime(x[:n]), x[:n]) for n in (1, 3, 4, 7))
