"""Packed artifacts: what ships comes back bit for bit from one small file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.artifact import CARD, WEIGHTS, Artifact, fingerprint, write_weights
from adamas.compress.masks import Mask
from adamas.cost import cost
from adamas.deploy.export import export_onnx
from adamas.deploy.pack import Packing, pack, unpack
from adamas.errors import AdamasError
from adamas.files import write_json
from adamas.models import normalized
from adamas.packed.file import read_packed, write_packed
from adamas.recipe import Recipe
from adamas.registry import parse, plain
from adamas.surgery import weight_layers
from adamas.threat import Linf
from adamas.weights import bake, private_copy
from tests.helpers import SmallNet

DIGITS = (1, 8, 8)
PRUNED = {"name": "prune", "keep": 0.1}
INT8 = {"name": "ptq"}


def randomized(net: nn.Module) -> nn.Module:
    """Weights of a normal distribution, as trained ones nearly are, and norms that have seen data."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, std=0.1)
    return net


def shipped(folder: Path, model: dict[str, Any], shape: tuple[int, int, int], *compressors: dict[str, Any]) -> Artifact:
    """An artifact of a random network, compressed on random images."""
    stages = [{"compress": compressor} for compressor in compressors] or [{"fit": {"epochs": 1}}]
    recipe = parse(Recipe, {"data": {"name": "digits"}, "model": model, "threat": {"name": "linf"}, "stages": stages})
    assert recipe.model is not None
    net = randomized(normalized(recipe.model.build(shape, 10), [0.5] * shape[0], [0.25] * shape[0]))
    images = [(torch.rand(16, *shape), torch.zeros(16, dtype=torch.int64))]
    for stage in recipe.stages:
        if stage.compress is not None:
            stage.compress.attach(net)
            stage.compress.calibrate(net, images, Linf(eps=0.1))
            stage.compress.finish(net)
    write_weights(folder / WEIGHTS, net)
    records = [{"stage": "some", "seconds": 1.5, "epochs": [{"loss": 0.5}] * 9, "notes": ["a note"]} for _ in stages]
    card = {"format": 1, "name": "net", "title": "", "recipe": plain(recipe), "network": "net", "image_shape": list(shape)}
    card |= {"classes": [str(i) for i in range(10)], "data": {"name": "digits", "fingerprint": "0"}, "stages": records}
    write_json(folder / CARD, card | {"weights": fingerprint(folder / WEIGHTS)})
    return Artifact.load(folder)


def same(first: nn.Module, second: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Logits equal in every bit, and every tensor that a layer computes with."""
    x = torch.rand(16, *shape)
    with torch.no_grad():
        logits = [model(x).view(torch.int32) for model in (first, second)]
    plain = [bake(private_copy(model)).state_dict() for model in (first, second)]
    return (
        torch.equal(*logits)
        and plain[0].keys() == plain[1].keys()
        and all(torch.equal(tensor, plain[1][name]) for name, tensor in plain[0].items())
    )


CASES: dict[str, list[dict[str, Any]]] = {
    "fp32": [],
    "pruned": [PRUNED],
    "int8": [INT8],
    "filters": [{"name": "filters", "keep": 0.5}],
    "pruned, int8": [PRUNED, INT8],
    "int8, pruned": [INT8, PRUNED],
    "pruned twice, 4 bits": [PRUNED | {"keep": 0.5}, PRUNED, {"name": "ptq", "weight_bits": 4}],
    "filters, pruned, 3 bits": [{"name": "filters", "keep": 0.5}, PRUNED, {"name": "qat", "weight_bits": 3}],
    "2 bits": [{"name": "ptq", "weight_bits": 2, "activation_bits": 4}],
    "one scale": [INT8 | {"per_channel": False}],
    "16 bits": [{"name": "ptq", "weight_bits": 16, "activation_bits": 16}],
    "binary": [{"name": "binary_relax", "layers": "all"}],
    "ternary, channels cut, int8": [{"name": "binary_relax", "levels": "ternary", "layers": "all"}, "zero_channels", INT8],
    "pruned, codebooks": [PRUNED, {"name": "atmc", "factorize": False, "keep": 1, "bits": 4}],
    "factors": [{"name": "atmc", "keep": 0.1, "bits": None}],
    "factors, codebooks": [{"name": "atmc", "keep": 0.1, "bits": 4}],
    "low rank": [{"name": "low_rank", "keep": 0.1}],
}
RATIOS = {
    "fp32": 1.1,
    "pruned": 5.5,
    "int8": 3.6,
    "filters": 1.1,
    "pruned, int8": 13,
    "2 bits": 12,
    "16 bits": 1.8,
    "binary": 20,
}
"""Dense bytes over bytes on disk, at least."""


@pytest.mark.parametrize("case", CASES)
def test_a_packed_artifact_computes_the_very_same(case, tmp_path):
    artifact = shipped(tmp_path / "net", {"name": "cnn8", "width": 16}, DIGITS, *CASES[case])
    packing = pack(artifact)
    packed = Artifact.load(tmp_path / "net/model.adamas")
    assert same(artifact.model(), packed.model(), DIGITS)
    assert cost(packed.model(), DIGITS) == cost(artifact.model(), DIGITS)
    assert packing.total == packing.path.stat().st_size == sum(packing.parts.values())
    assert packing.dense / packing.total > RATIOS.get(case, 2)
    if case not in ("16 bits", "factors, codebooks"):  # where hardly one occurs twice, frequencies say too little
        texts = sum(packing.parts[part] for part in ("card", "index", "container"))
        assert packing.total - texts <= 1.2 * packing.entropy_bound + 300 and texts < 1600


def test_a_resnet18_at_one_per_cent_and_8_bits_takes_at_most_240_kB(tmp_path):
    shape = (3, 32, 32)
    sparse = {"name": "prune", "keep": 0.01, "rates": {"name": "uniform"}}
    artifact = shipped(tmp_path, {"name": "resnet18"}, shape, sparse, INT8)
    packing = pack(artifact)
    model = artifact.model()
    nonzeros = sum(int(layer.weight.count_nonzero()) for layer in weight_layers(model).values())
    assert packing.dense > 44.6e6 and 100_000 < nonzeros < 113_000
    assert packing.path.stat().st_size <= 240_000
    assert packing.total <= 1.1 * packing.entropy_bound
    assert same(model, Artifact.load(packing.path).model(), shape)


def test_an_enresnet20_of_one_bit_takes_at_most_60_kB(tmp_path):
    shape = (3, 32, 32)
    packing = pack(shipped(tmp_path, {"name": "enresnet", "noise_eval": False}, shape, {"name": "binary_relax"}))
    assert packing.dense > 1.08e6 and packing.path.stat().st_size <= 60_000
    assert packing.total <= 1.1 * packing.entropy_bound


@pytest.fixture
def small(tmp_path: Path) -> Artifact:
    return shipped(tmp_path / "net", {"name": "cnn8", "width": 4}, DIGITS, PRUNED, INT8)


def test_the_int8_file_exported_from_it_is_the_same(small, tmp_path):
    packed = Artifact.load(pack(small).path)
    files = [export_onnx(made.model(), tmp_path / f"{i}.onnx", DIGITS) for i, made in enumerate((small, packed))]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_training_goes_on_from_it_without_filling_what_is_pruned(small):
    model = Artifact.load(pack(small).path).model()
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(torch.rand(8, *DIGITS)).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            steps: Any = module.parametrizations.weight  # type: ignore[union-attr]
            weight, hidden = module.weight, next(step for step in steps if isinstance(step, Mask)).mask  # type: ignore[union-attr]
            assert not weight[~hidden].any()  # type: ignore[index]


def test_unpacking_gives_an_artifact_that_computes_the_same(small, tmp_path):
    made = unpack(pack(small, tmp_path / "small.adamas").path, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [CARD, WEIGHTS]
    assert same(small.model(), made.model(), DIGITS) and not made.packed
    first, again = (read_packed(pack(one, tmp_path / "again.adamas").path) for one in (small, made))
    assert first.entries == again.entries and all(np.array_equal(part, again.parts[name]) for name, part in first.parts.items())
    with pytest.raises(AdamasError, match="out: expected a packed file, got an artifact's directory"):
        unpack(tmp_path / "out", tmp_path / "more")


def test_the_card_comes_along_without_the_records_of_epochs(small):
    packing = pack(small)
    packed = Artifact.load(packing.path)
    assert packed.recipe == small.recipe and packed.folder == small.folder
    assert packed.card | {"stages": []} == small.card | {"stages": []}
    assert [stage["epochs"] for stage in packed.card["stages"]] == [[], []] and small.card["stages"][0]["epochs"]
    assert packing.parts["card"] < 1500
    assert str(packed) == f"{packing.path}: net, packed in {packing.total:,} bytes"


def test_a_packed_file_has_no_evaluation_and_says_so(small):
    path = pack(small).path
    with pytest.raises(AdamasError, match="got a packed file, which has none; measure with `adamas evaluate .*model.adamas`"):
        Artifact.load(path).evaluation  # noqa: B018


def test_a_network_of_the_users_own_is_packed_with_its_code(tmp_path):
    net = randomized(SmallNet())
    artifact = shipped(tmp_path, {"name": "cnn8"}, DIGITS)
    write_weights(tmp_path / WEIGHTS, net)
    card = artifact.card | {"recipe": artifact.card["recipe"] | {"model": None}, "network": "SmallNet"}
    write_json(tmp_path / CARD, card | {"weights": fingerprint(tmp_path / WEIGHTS)})
    packing = pack(Artifact.load(tmp_path), net=SmallNet())
    packed = Artifact.load(packing.path)
    assert same(net.eval(), packed.model(SmallNet()), DIGITS)
    assert same(net, unpack(packing.path, tmp_path / "out", SmallNet()).model(SmallNet()), DIGITS)
    with pytest.raises(
        AdamasError, match=r"this artifact's network \(SmallNet\) is not one of adamas's; pass a fresh instance"
    ):
        packed.model()
    with pytest.raises(AdamasError, match="expected the .* tensors of this model, got"):
        packed.model(nn.Linear(2, 2))


# --------------------------------------------------------------------------------------------------- hostile cards


def forged(packing: Packing, change: dict[str, Any], state: dict[str, Tensor] | None = None) -> Path:
    """The file again, with another card (a path of keys joined by dots) and a right checksum."""
    found = read_packed(packing.path)
    card = copy.deepcopy(found.card)
    for keys, value in change.items():
        *path, last = keys.split(".")
        inner = card
        for key in path:
            inner = inner[key]
        inner[last] = value
    write_packed(packing.path, card, state or found.state(), {})
    return packing.path


HOSTILE = [
    ({"recipe.model": {"name": "cnn8", "width": 10**5}}, "expected a network of at most 268,435,456 bytes for so small a file"),
    ({"recipe.model": {"name": "cnn8", "width": 10**9}}, "model.adamas: expected a (card|network)"),
    (
        {"recipe.model": {"name": "resnet20", "depth": 6 * 10**7 + 2, "width": 16}},
        "expected a network of at most 268,435,456 bytes",
    ),
    ({"image_shape": [1, 10**6, 10**6]}, "model.adamas: expected a (card|network)"),
    ({"image_shape": ["a", 8, 8]}, "expected a card that the network can be built from, got"),
    ({"image_shape": 3}, "expected a card that the network can be built from, got"),
    ({"classes": 3}, "expected a card that the network can be built from, got TypeError"),
    ({"recipe.model": {"name": "resnet18"}}, "expected the .* tensors of this model, got"),
    ({"recipe.stages": [{"compress": PRUNED}] * 65}, "expected at most 64 stages, got 65"),
    ({"recipe.stages": [{"compress": INT8}] * 2}, "expected a float model, got one that is quantized already"),
    ({"recipe.model.name": "cnn9"}, "did you mean 'cnn8'"),
]


@pytest.mark.parametrize(("change", "sentence"), HOSTILE)
def test_a_card_that_asks_for_another_network_is_refused_without_its_memory(change, sentence, small):
    packed = Artifact.load(forged(pack(small), change))
    with pytest.raises(AdamasError, match=sentence):
        packed.model()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"format": 9}, "model.adamas: expected format 1, got 9"), ({"format": None}, "expected format 1, got None")],
)
def test_a_card_of_another_format_is_refused(change, sentence, small):
    with pytest.raises(AdamasError, match=sentence):
        Artifact.load(forged(pack(small), change))


def test_a_card_without_its_keys_is_refused(small):
    path = pack(small).path
    write_packed(path, {"format": 1, "name": "x"}, read_packed(path).state(), {})
    with pytest.raises(AdamasError, match="model.adamas: expected recipe, network, .*, got a card without"):
        Artifact.load(path)


def test_tensors_of_other_shapes_are_refused(small):
    packing = pack(small)
    state = read_packed(packing.path).state()
    name = next(name for name, tensor in state.items() if tensor.dim() == 4)
    path = forged(packing, {}, state | {name: torch.zeros(4, 4, 9, 9)})
    with pytest.raises(AdamasError, match="expected a tensor of shape .* or with other channels, got"):
        Artifact.load(path).model()
