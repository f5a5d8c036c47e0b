from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from adamas.artifact import CARD, FORMAT, WEIGHTS, Artifact, fingerprint, read_weights, write_weights
from adamas.attacks.autoattack import AutoAttack
from adamas.attacks.fgsm import FGSM
from adamas.attacks.fmn import FMN
from adamas.attacks.pgd import PGD
from adamas.curve import security_curve
from adamas.data import Split, load
from adamas.data.digits import Digits
from adamas.device import seeded
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate, evaluate
from adamas.files import write_json
from adamas.models import normalized
from adamas.pipeline import run_stage
from adamas.recipe import Recipe
from adamas.registry import parse, plain
from adamas.report import benchmark
from adamas.report.benchmark import RECORD, model_key, records_table, write_record
from adamas.report.density import Density, density
from adamas.report.taxonomy import Taxonomy
from adamas.subject import subject
from adamas.threat import Linf

ADVERSARIAL = {"name": "adversarial", "attack": {"name": "pgd", "steps": 1}}
DENSE, ROBUST = {"fit": {"epochs": 12, "lr": 0.1}}, {"fit": {"objective": ADVERSARIAL, "epochs": 1}}
HYDRA = {"compress": {"name": "prune", "keep": 0.1, "scores": "learned", "rates": "uniform"}} | ROBUST
RECIPE = {
    "data": "digits", "model": {"name": "cnn8", "width": 8}, "threat": {"name": "linf", "eps": 0.05}, "seed": 3,
    "split": {"train": 200, "test": 30}, "evaluate": {"attacks": ["fgsm"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    """make(stage, stage, key=value) runs the stages of a tiny recipe and keeps what a record needs of the artifact."""
    out, images = tmp_path_factory.mktemp("runs"), load(Digits(), Split(train=200, test=30), seed=3)

    def run(*stages: dict[str, Any], **changes: Any) -> Artifact:
        recipe = parse(Recipe, RECIPE | {"stages": list(stages)} | changes)
        path = out / f"{len(list(out.iterdir()))}"
        with seeded(3):
            model = normalized(recipe.model.build((1, 8, 8), 10), [0.3], [0.4])
        for stage in recipe.stages:
            run_stage(model, stage, images, recipe.threat, seed=3, device="cpu")
        card = {
            "format": FORMAT, "name": "tiny", "recipe": plain(recipe), "network": recipe.model.name, "image_shape": [1, 8, 8],
            "classes": list(images.classes), "data": {"name": images.name}, "stages": [],
            "weights": fingerprint(write_weights(path / WEIGHTS, model)),
        }  # fmt: skip
        write_json(path / CARD, card)
        return Artifact.load(path)

    return run


@pytest.fixture(scope="module")
def hydra(make: Any) -> Artifact:
    return make(ROBUST, HYDRA, ROBUST)


@pytest.fixture(scope="module")
def dense(make: Any) -> Artifact:
    return make(DENSE)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack's and the curve's budgets, cut so that a test stays a test."""
    monkeypatch.setattr(AutoAttack, "parts", (FGSM(), PGD(steps=3)))
    monkeypatch.setattr(benchmark, "NEAREST", FMN(steps=10))


# ------------------------------------------------------------------------------------------------------ density


def test_weights_are_counted_layer_by_layer(hydra: Artifact) -> None:
    found = density(hydra, hydra.model())
    dense = [9 * 8, 9 * 8 * 8, 9 * 8 * 16, 9 * 16 * 16, 9 * 16 * 32, 9 * 32 * 32, 32 * 32, 32 * 10]
    assert [layer.weights for layer in found.layers] == dense and found.weights == sum(dense) == 19_272
    shipped = read_weights(hydra.path / WEIGHTS)
    masks = [shipped[f"{layer.layer}.parametrizations.weight.0.mask"] for layer in found.layers]
    assert [layer.nonzeros for layer in found.layers] == [int(mask.sum()) for mask in masks]
    assert [layer.nonzeros for layer in found.layers] == pytest.approx([0.1 * size for size in dense], abs=1.5)
    assert found.nonzeros == 1_927 == round(0.1 * 19_272)
    assert (found.unit, found.target, found.agree) == ("weights", 0.1, True)
    assert found.verified == found.density == pytest.approx(1 - found.sparsity) == 1_927 / 19_272


@pytest.mark.parametrize("method", ["filters", "admm_filters"])
def test_filters_are_counted_in_channels_of_the_dense_network(make: Any, method: str) -> None:
    halved = make({"compress": {"name": method, "keep": 0.5, "round_to": 1, "exclude": ["net.0"]}} | ROBUST)
    found = density(halved, halved.model())
    assert [(layer.channels, layer.kept) for layer in found.layers if layer.convolution] == [
        (8, 8), (8, 4), (16, 8), (16, 8), (32, 16), (32, 16),
    ]  # fmt: skip
    assert (found.unit, found.target, found.verified, found.agree) == ("channels", 0.5, 52 / 104, True)
    assert found.density == 60 / 112
    by_hand = 72 + 576 // 2 + (1152 + 2304 + 4608 + 9216) // 4 + 1024 // 2 + 320
    assert (found.weights, found.nonzeros) == (19_272, by_hand)
    wide = make({"compress": {"name": method, "keep": 0.5, "round_to": 8}} | ROBUST)
    assert density(wide, wide.model()).agree is False  # 8 of 8 channels in the first two layers


def test_layers_that_a_pruner_was_not_given_count_in_the_network_only(make: Any) -> None:
    artifact = make({"compress": {"name": "prune", "keep": 0.25, "exclude": ["net.15"]}}, {"compress": "ptq"})
    found = density(artifact, artifact.model())
    assert [layer.layer for layer in found.layers if layer.excluded] == ["net.15"]
    last = found.layers[-1].nonzeros
    assert last > 300 and found.nonzeros - last <= 4_738 == 0.25 * (19_272 - 320)  # rounding to integers makes more zeros
    assert found.verified == (found.nonzeros - last) / 18_952 and found.density == found.nonzeros / 19_272


def test_a_mask_that_was_not_shipped_is_found_out(hydra: Artifact, tmp_path: Path) -> None:
    state = read_weights(hydra.path / WEIGHTS)
    save_file({n: torch.ones_like(v) if n.endswith(".mask") else v for n, v in state.items()}, tmp_path / WEIGHTS)
    write_json(tmp_path / CARD, hydra.card | {"weights": fingerprint(tmp_path / WEIGHTS)})
    record = write_record(tmp_path, n=2)
    assert record["density"]["agree"] is False and record["density"]["nonzeros"] == 19_272
    assert record["model_key"].endswith("_US_0")
    assert "sparsity 0: no weight is zero and no channel is gone" in record["flags"]
    half = {n: (v & (torch.rand(v.shape) < 0.5) if n.endswith(".mask") else v) for n, v in state.items()}
    save_file(half, tmp_path / WEIGHTS)
    write_json(tmp_path / CARD, hydra.card | {"weights": fingerprint(tmp_path / WEIGHTS)})
    [flag] = [flag for flag in write_record(tmp_path, n=2)["flags"] if flag.startswith("density")]
    assert flag.startswith("density: expected 0.1 of the weights, as asked for, counted 0.05")


def test_a_budget_of_operations_is_no_target_of_weights(make: Any) -> None:
    artifact = make({"compress": {"name": "prune", "keep": 0.5, "budget": "macs"}})
    found = density(artifact, artifact.model())
    assert (found.target, found.agree) == (None, None) and 0.3 < found.density < 0.9


def test_masks_on_masks_keep_the_smaller_share(make: Any) -> None:
    steps = [{"compress": {"name": "prune", "keep": keep}} for keep in (0.5, 0.2)]
    artifact = make(*steps)
    found = density(artifact, artifact.model())
    assert (found.target, found.nonzeros, found.agree) == (0.2, round(0.2 * 19_272), True)


def test_fixed_selections_are_no_weights(make: Any) -> None:
    artifact = make({"compress": "prune"}, model={"name": "resnet20", "depth": 8, "width": 4})
    found = density(artifact, artifact.model())
    assert found.weights == sum(9 * a * b for a, b in ((1, 4), (4, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))) + 160
    assert found.agree


# ---------------------------------------------------------------------------------------------------- model key


def keyed(model: Any, data: str, key: str | None, structure: str | None, left: float, pruned: bool = True) -> str | None:
    stages = [{"compress": "prune"}] if pruned else [{"compress": "ptq"}]
    raw = plain(parse(Recipe, {"model": model, "stages": stages}))
    counted = Density("weights", left, left, True, left, 100, round(100 * left), [])
    artifact = Artifact(Path(), {"recipe": raw, "data": {"name": data}})
    return model_key(artifact, Taxonomy(key=key, structure=structure), counted)


def test_keys_are_those_of_the_benchmark() -> None:
    us, s = "Unstructured (US)", "Structured (S) filters"
    harp = "HARP_Zhao2023Holistic"
    assert keyed("resnet18", "cifar10", harp, us, 0.01) == "HARP_Zhao2023Holistic_R18_CIFAR10_US_99"
    assert keyed("vgg16_bn", "svhn", harp, s, 0.5) == "HARP_Zhao2023Holistic_V16_SVHN_S_50"
    assert keyed("resnet20", "fashion_mnist", harp, us, 0.1134) == "HARP_Zhao2023Holistic_resnet20_fashion-mnist_US_88.66"
    assert keyed({"name": "resnet18", "width": 32}, "digits", harp, us, 0.1) == f"{harp}_resnet18-width=32_digits_US_90"
    assert keyed("resnet18", "cifar10", harp, f"{us}, {s}", 0.1) == f"{harp}_R18_CIFAR10_US+S_90"
    assert keyed("resnet18", "cifar10", harp, None, 1.0, pruned=False) == f"{harp}_R18_CIFAR10_dense_0"
    assert keyed("resnet18", "cifar10", harp, None, 0.1) is None and keyed("resnet18", "cifar10", None, us, 0.1) is None


# ------------------------------------------------------------------------------------------------------- record


def test_the_record_names_the_method_that_made_it(hydra: Artifact) -> None:
    record = write_record(hydra.path, n=3)
    assert record == json.loads((hydra.path / RECORD).read_text())
    assert record["model_key"] == "HYDRA_Sehwag2020Hydra_cnn8-width=8_digits_US_90" and record["filled"] == []
    assert record["taxonomy"]["ap_key"] == "HYDRA_Sehwag2020Hydra" and record["density"]["agree"] is True


def test_the_record_holds_what_was_measured(dense: Artifact) -> None:
    record = write_record(dense.path, n=20)
    assert (record["n"], record["seed"], record["data"]["name"]) == (20, 3, "digits")
    assert [(part["threat"], part["eps"]) for part in record["robust"]] == [
        ("linf(eps=0.031)", 0.031), ("linf(eps=8/255)", 8 / 255),
    ]  # fmt: skip
    found = subject(dense.path, n=20)
    for part in record["robust"]:
        threat = Linf(eps=part["eps"])
        one = evaluate(found.model, found.data, Evaluate(attacks=(AutoAttack(),)), threat, seed=3)
        assert part["autoattack"]["right"] == one.worst_case.right and part["autoattack"]["n"] == 20
        assert part["autoattack"]["low"] < part["autoattack"]["value"] < part["autoattack"]["high"]
        assert [attack["attack"] for attack in part["attacks"]] == ["fgsm", "pgd(steps=3)"]
        assert record["clean"]["right"] == one.clean.right > 4
    curve = security_curve(found.model, found.data, Linf(), FMN(steps=10), epsilons=[0.1], seed=3)
    written = record["security_curve"]
    assert curve.plain()["distances"] == written["distances"] and len(written["distances"]) == 20
    assert written["epsilons"] == sorted({*(i / 200 for i in range(31)), 0.031, 8 / 255})
    shares = dict(zip(written["epsilons"], written["rates"], strict=True))
    assert shares[0.1]["right"] == sum(d is None or d > 0.1 for d in written["distances"])
    assert record["robust"][1]["fmn"] == shares[8 / 255] and shares[0.0] == record["clean"]
    assert not list(dense.path.glob("benchmark-*"))


def test_figures_stay_while_nothing_changes(hydra: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_record(hydra.path, n=12, seed=1)
    calls: list[str] = []
    monkeypatch.setattr(benchmark, "evaluate", lambda *a, **k: calls.append(k["title"]) or evaluate(*a, **k))
    again = write_record(hydra.path, n=12, seed=1, fill=["key=Mine_Doe2026Small", "link=https://example.org/paper"])
    assert not calls and again["robust"] == first["robust"]
    assert again["model_key"] == "Mine_Doe2026Small_cnn8-width=8_digits_US_90" and again["filled"] == ["key", "link"]
    assert again["taxonomy"]["link_to_paper"] == "https://example.org/paper"
    assert write_record(hydra.path, n=12, seed=2)["key"] != first["key"] and len(calls) == 2
    write_json(hydra.path / RECORD, {"key": write_record(hydra.path, n=12, seed=1)["key"]})  # cut short by hand
    assert write_record(hydra.path, n=12, seed=1)["robust"][0]["autoattack"] == first["robust"][0]["autoattack"]


def test_an_interrupted_record_goes_on(hydra: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "security_curve", killed)
    with pytest.raises(KeyboardInterrupt):
        write_record(hydra.path, n=9)
    monkeypatch.undo()
    monkeypatch.setattr(benchmark, "NEAREST", FMN(steps=10))
    monkeypatch.setattr(AutoAttack, "parts", (FGSM(), PGD(steps=3)))
    monkeypatch.setattr(FGSM, "__call__", killed)  # its outcomes are kept: nobody attacks again
    assert write_record(hydra.path, n=9)["n"] == 9
    assert not list(hydra.path.glob("benchmark-*"))


def test_other_threats(hydra: Artifact) -> None:
    record = write_record(hydra.path, n=6, epsilons=["0.1", "4/255", "0.1"])
    assert [part["threat"] for part in record["robust"]] == ["linf(eps=4/255)", "linf(eps=0.1)"]
    record = write_record(hydra.path, n=6, norm="l2")
    assert [part["threat"] for part in record["robust"]] == ["l2(eps=0.5)"]
    assert record["security_curve"]["threat"] == "l2" and record["security_curve"]["epsilons"][-1] == 2.0


def test_a_dense_network_has_sparsity_zero(dense: Artifact) -> None:
    record = write_record(dense.path, n=6)
    assert (record["density"]["sparsity"], record["density"]["target"], record["density"]["agree"]) == (0, 1, True)
    assert record["flags"][0] == "sparsity 0: no weight is zero and no channel is gone" and record["model_key"] is None
    filled = write_record(dense.path, n=6, fill=["key=NT_Doe2026Dense"])
    assert filled["model_key"] == "NT_Doe2026Dense_cnn8-width=8_digits_dense_0"
    assert filled["taxonomy"]["A: Pretraining "] == "Natural Training (NT)"


def test_a_curve_below_autoattack_is_flagged(dense: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoAttack, "parts", (PGD(steps=1, step_size=1e-6, random_start=False),))
    record = write_record(dense.path, n=20, epsilons=["0.3"])
    assert record["robust"][0]["fmn"]["right"] < record["robust"][0]["autoattack"]["right"]
    flag = "linf(eps=0.3): fmn leaves fewer images right than autoattack; its figure is the one to quote"
    assert flag in record["flags"]


def test_the_table_has_one_line_per_record(dense: Artifact, hydra: Artifact) -> None:
    records = [write_record(hydra.path, n=6), write_record(dense.path, n=6, epsilons=["0.1"])]
    console = Console(file=io.StringIO(), width=200)
    console.print(records_table(records))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("HYDRA_Sehwag2020Hydra_cnn8-width=8_digits_US_90", "0.09999", "not known without", "of weights", "met"):
        assert part in text, part
    assert "linf(eps=8/255)" in text and "linf(eps=0.1)" in text and "–" in text and "! sparsity 0" in text


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"fill": ["kye=A_Doe2026B"]}, "unknown key 'kye'; did you mean 'key'"),
        ({"fill": ["key=mine"]}, "key: expected Name_AuthorYearWord such as HARP_Zhao2023Holistic, got 'mine'"),
        ({"fill": ["key"]}, "expected an override like"),
        ({"fill": ["pipeline=C"]}, r"pipeline: got 'C'\. Valid: A, B, D"),
        ({"norm": "linff"}, "unknown threat 'linff'; did you mean 'linf'"),
        ({"norm": "l1"}, r"attack autoattack: expected the threat linf or l2, got l1"),
        ({"epsilons": ["8"]}, "did you mean 8/255"),
        ({"epsilons": ["x"]}, "eps: "),
        ({"device": "tpu9"}, "device: expected auto, cpu, cuda or mps"),
    ],
)
def test_mistakes_are_sentences(hydra: Artifact, asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AdamasError, match=sentence):
        write_record(hydra.path, n=5, **asked)


def test_what_is_no_artifact_or_has_no_data_is_refused(hydra: Artifact, tmp_path: Path) -> None:
    with pytest.raises(AdamasError, match="expected an artifact directory with card.json"):
        write_record(tmp_path / "model.fp32.onnx")
    (tmp_path / WEIGHTS).write_bytes((hydra.path / WEIGHTS).read_bytes())
    write_json(tmp_path / CARD, hydra.card | {"recipe": hydra.card["recipe"] | {"data": None}})
    with pytest.raises(AdamasError, match="its data came from the user's own loaders"):
        write_record(tmp_path)
    write_json(tmp_path / CARD, hydra.card | {"recipe": hydra.card["recipe"] | {"model": None}})
    with pytest.raises(AdamasError, match="this artifact's network .* is not one of adamas's"):
        write_record(tmp_path)
    write_json(tmp_path / CARD, hydra.card)
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(AdamasError, match=r"benchmark\.json: expected JSON"):
        write_record(tmp_path, n=5)
