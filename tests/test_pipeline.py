"""The main line: stages kept by content, resume, the user's own model, and what an artifact says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import adamas
from adamas import pipeline
from adamas.artifact import EVALUATION, WEIGHTS
from adamas.data import Data
from adamas.deploy.runtime import OnnxModel

QUICK = adamas.Fit(epochs=1, batch_size=128, lr=0.05)
RECIPE = adamas.Recipe(
    model="cnn8",
    threat=adamas.Linf(eps=0.1),
    stages=(adamas.Stage(fit=QUICK), adamas.Stage(compress=adamas.Filters(keep=0.5)), adamas.Stage(compress=adamas.PTQ())),
    evaluate=adamas.Evaluate(attacks=(adamas.PGD(steps=2),)),
    deploy={"batch_sizes": [1]},
)


@pytest.fixture(scope="module")
def data() -> Data:
    from adamas.data.digits import Digits

    return adamas.data.load(Digits(), adamas.data.Split(train=300, test=60))


@pytest.fixture(scope="module")
def made(data: Data, tmp_path_factory: pytest.TempPathFactory) -> adamas.Artifact:
    return adamas.run(RECIPE, data=data, out=tmp_path_factory.mktemp("runs"), name="chain")


def images(data: Data) -> Tensor:
    return data.validation.pixels.float() / 255


def test_artifact_restores_the_very_model_that_shipped(made: adamas.Artifact, data: Data) -> None:
    model = adamas.Artifact.load(made.path).model()
    runtime = OnnxModel(made.path / "model.int8.onnx")
    with torch.no_grad():
        assert (model(images(data)).argmax(1) == runtime(images(data)).argmax(1)).float().mean() >= 0.97
    assert made.evaluation["parity"]["model.int8.onnx"]["agreement"] >= 0.98


def test_card_and_evaluation_hold_what_a_claim_needs(made: adamas.Artifact) -> None:
    card, evaluation = made.card, made.evaluation
    filters = {"name": "filters", "keep": 0.5, "scores": {"name": "magnitude"}, "rates": {"name": "uniform"}}
    assert card["recipe"]["stages"][1]["compress"] == filters | {"round_to": 8, "exclude": []}
    assert {"seed", "split", "threat", "evaluate"} <= card["recipe"].keys()
    assert {"versions", "processor", "threads", "commit", "data", "weights"} <= card.keys()
    assert "held back" not in card["stages"][1]["notes"][0]
    assert "32 =>      16" in card["stages"][1]["notes"][0]
    assert evaluation["clean"]["n"] == 60
    assert evaluation["cost"]["params"] < 100_000
    assert evaluation["bytes_on_disk"]["model.int8.onnx"] == (made.path / "model.int8.onnx").stat().st_size
    assert evaluation["judged"]["model.int8.onnx"]["clean"]["n"] == 60
    assert {"p50", "p95", "min"} <= evaluation["latency"]["model.int8.onnx"]["1"].keys()
    assert {path.name for path in made.path.iterdir()} >= {"README.md", "report.html", "model.fp32.onnx", "card.json"}
    assert made.path.name in str(made)
    assert "NaN" not in (made.path / EVALUATION).read_text()


def test_finished_run_is_not_repeated(made: adamas.Artifact, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "measure", None)
    monkeypatch.setattr(pipeline, "run_stage", None)
    again = adamas.run(RECIPE, data=data, out=made.path.parent, name="chain")
    assert again.card == made.card


def test_a_run_stopped_before_its_report_gets_one_later(data: Data, tmp_path: Path) -> None:
    recipe = replace(RECIPE, stages=RECIPE.stages[:1])
    made = adamas.run(recipe, data=data, out=tmp_path, timed=False)
    assert not (made.path / "report.html").exists()
    again = adamas.run(recipe, data=data, out=tmp_path)
    assert "latency" in again.evaluation
    assert (made.path / "report.html").exists()


def test_another_recipe_under_the_same_name_leaves_nothing_of_the_old_one(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized = replace(RECIPE, stages=(RECIPE.stages[0], RECIPE.stages[2]))
    adamas.run(quantized, data=data, out=tmp_path)
    floats = adamas.run(replace(RECIPE, stages=RECIPE.stages[:1]), data=data, out=tmp_path)
    assert floats.evaluation["bytes_on_disk"].keys() == {WEIGHTS, "model.fp32.onnx"}
    assert not (floats.path / "model.int8.onnx").exists()
    monkeypatch.setattr(pipeline, "measure", None)  # as if killed before the new model was measured
    with pytest.raises(TypeError):
        adamas.run(quantized, data=data, out=tmp_path)
    assert not (floats.path / EVALUATION).exists()


def test_recipes_that_begin_alike_share_their_first_stages(
    made: adamas.Artifact, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    original = pipeline.run_stage
    monkeypatch.setattr(
        pipeline,
        "run_stage",
        lambda model, stage, *a, **k: trained.append(str(stage.compress)) or original(model, stage, *a, **k),
    )
    other = replace(RECIPE, stages=(*RECIPE.stages[:2], adamas.Stage(compress=adamas.PTQ(weight_bits=4))))
    adamas.run(other, data=data, out=made.path.parent, name="four-bits")
    assert len(trained) == 1
    assert "weight_bits=4" in trained[0]


def test_another_setting_data_or_seed_meets_no_old_result(data: Data, tmp_path: Path) -> None:
    one_stage = replace(RECIPE, stages=RECIPE.stages[:1])
    fewer = replace(data, train=data.train[:200], fingerprint="other")
    adamas.run(one_stage, data=data, out=tmp_path, name="a")
    adamas.run(replace(one_stage, seed=1), data=data, out=tmp_path, name="b")
    adamas.run(replace(one_stage, threat=adamas.Linf(eps=0.2)), data=data, out=tmp_path, name="c")
    adamas.run(one_stage, data=fewer, out=tmp_path, name="d")
    assert len(list((tmp_path / "stages").iterdir())) == 4


def test_a_failing_stage_keeps_the_stages_before_and_names_itself(data: Data, tmp_path: Path) -> None:
    broken = adamas.Stage(fit=adamas.Fit(epochs=1, lr=1e30, schedule="constant"))
    recipe = replace(RECIPE, stages=(RECIPE.stages[0], broken))
    with pytest.raises(adamas.AdamasError, match=r"stages\.1 \(natural, 1 epochs\): epoch 1 of 1: the loss became"):
        adamas.run(recipe, data=data, out=tmp_path)
    assert len(list((tmp_path / "stages").glob(f"*/{WEIGHTS}"))) == 1


class Foreign(nn.Module):
    """Somebody's network: not registered, functional calls, its own names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(self.norm(self.stem(x)).relu(), 2)
        return self.head(x.flatten(1))


def test_the_users_own_model_is_left_as_found_and_comes_back_hardened(data: Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    mine = Foreign()
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    artifact = adamas.run(replace(RECIPE, model=None), model=mine, data=data, out=tmp_path)
    assert mine.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())
    hardened = artifact.model(Foreign())
    assert hardened.get_submodule("stem").weight.shape[0] == 8
    with pytest.raises(adamas.AdamasError, match=r"network \(Foreign\) is not one of adamas's; pass a fresh instance"):
        artifact.model()
    with pytest.raises(
        adamas.AdamasError, match="expected a state dict|expected the weights|does not belong|missing|unexpected"
    ):
        artifact.model(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))


def test_an_artifact_can_be_taken_further(made: adamas.Artifact, data: Data, tmp_path: Path) -> None:
    first = adamas.run(replace(RECIPE, stages=RECIPE.stages[:1]), data=data, out=tmp_path, name="first")
    further = adamas.run(replace(RECIPE, stages=RECIPE.stages[:2]), data=data, out=tmp_path / "other", name="x", start=first)
    assert [stage["stage"] for stage in further.card["stages"]] == ["natural, 1 epochs", "filters"]
    assert further.evaluation["cost"]["params"] == made.evaluation["cost"]["params"]


def test_missing_parts_are_named() -> None:
    with pytest.raises(adamas.AdamasError, match="data: expected a data set in the recipe, or data=..., got neither"):
        adamas.run(adamas.Recipe(model="cnn8"))
    with pytest.raises(adamas.AdamasError, match="model: expected a model in the recipe, or model=..., got neither"):
        adamas.run(adamas.Recipe(data="digits"))
    with pytest.raises(adamas.AdamasError, match="expected a name with letters or digits"):
        pipeline.slug("a/../b")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda p: (p / "card.json").unlink(),
            "expected an artifact with card.json and weights.safetensors, got a directory without",
        ),
        (lambda p: (p / "card.json").write_text("{"), "card.json: expected JSON"),
        (lambda p: (p / "card.json").write_text(json.dumps({"format": 99})), "expected format 1, got 99"),
        (
            lambda p: (p / "card.json").write_text(json.dumps({"format": 1, "name": "x"})),
            "expected recipe, network, .* without",
        ),
        (lambda p: (p / WEIGHTS).write_bytes(b"xx"), "expected the weights that card.json was written for"),
    ],
)
def test_damaged_artifacts_are_refused_in_one_sentence(made: adamas.Artifact, tmp_path: Path, damage, message: str) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("card.json", WEIGHTS):
        (copy / name).write_bytes((made.path / name).read_bytes())
    damage(copy)
    with pytest.raises(adamas.AdamasError, match=message):
        adamas.Artifact.load(copy)


def test_an_artifact_that_is_not_there() -> None:
    with pytest.raises(adamas.AdamasError, match="expected an artifact directory .* there is no directory nowhere"):
        adamas.Artifact.load("nowhere")


def test_sweep_reports_failures_at_the_end_and_keeps_the_rest(data: Data, tmp_path: Path) -> None:
    good = adamas.Recipe(
        data="digits", split={"train": 200, "test": 20}, model="cnn8", stages=RECIPE.stages[:1],
        evaluate=RECIPE.evaluate, deploy=RECIPE.deploy,
    )  # fmt: skip
    bad = replace(good, stages=(adamas.Stage(compress=adamas.Filters(exclude=("nonsense",))),))
    with pytest.raises(
        adamas.AdamasError, match=r"bad: stages\.0 .*nonsense.*\n1 of 2 rows are finished and kept in"
    ) as caught:
        adamas.sweep({"bad": bad, "good": good}, out=tmp_path, group="g")
    assert "\n" in str(caught.value)
    assert "latency" in adamas.Artifact.load(tmp_path / "g" / "good").evaluation
    with pytest.raises(adamas.AdamasError, match="expected rows that differ in letters and digits"):
        adamas.sweep({"a^b": good, "a_b": good}, out=tmp_path)


def test_images_of_earlier_stages_attack_the_last_one(made: adamas.Artifact, data: Data, tmp_path: Path) -> None:
    sources = [
        {"stage": 0, "attack": {"name": "pgd", "steps": 2}},
        {"stage": 1, "attack": "fgsm"},
        {"stage": -1, "attack": "fgsm"},
    ]
    recipe = replace(RECIPE, transfer=sources, evaluate=replace(RECIPE.evaluate, exhaustive=True))
    out = made.path.parent
    artifact = adamas.run(recipe, data=data, out=out, name="transferred")
    found = {attack["attack"]: attack for attack in artifact.evaluation["attacks"]}
    assert list(found) == ["pgd(steps=2)", "fgsm on stages.1", "fgsm on the start", "pgd(steps=2) on stages.0"]
    parent = adamas.run(replace(RECIPE, stages=RECIPE.stages[:1]), data=data, out=out, name="parent").model()
    own = adamas.evaluate(
        artifact.model(), data, recipe.evaluate, recipe.threat, also=[adamas.Transfer(parent, "stages.0", adamas.PGD(steps=2))]
    )
    assert found["pgd(steps=2) on stages.0"]["broken"] == next(a.broken for a in own.attacks if "stages.0" in a.attack)


def test_the_model_as_it_came_attacks_too(made: adamas.Artifact, data: Data, tmp_path: Path) -> None:
    """Of a model of the user's own, and of an artifact that a run goes on from: there the start is the last stage before."""
    dense = made.model()
    recipe = replace(RECIPE, model=None, stages=(adamas.Stage(compress=adamas.Prune(keep=0.5)),), transfer=[{"stage": -1}])
    longer = replace(made.recipe, stages=(*made.recipe.stages, recipe.stages[0]), transfer=[{"stage": 2}])
    for name, artifact in {
        "own": adamas.run(recipe, data=data, model=dense, out=tmp_path, name="own"),
        "on": adamas.run(longer, data=data, start=made, out=tmp_path, name="on"),
    }.items():
        own = adamas.evaluate(
            artifact.model(dense) if name == "own" else artifact.model(), data, artifact.recipe.evaluate, recipe.threat,
            also=[adamas.Transfer(dense, "the start", adamas.PGD())],
        )  # fmt: skip
        measured = {attack["attack"]: attack["broken"] for attack in artifact.evaluation["attacks"]}
        assert {attack.attack: attack.broken for attack in own.attacks} == measured and "pgd on the start" in measured


def test_only_stages_of_this_run_can_be_transferred_from(made: adamas.Artifact, data: Data, tmp_path: Path) -> None:
    with pytest.raises(adamas.AdamasError, match="transfer: expected a stage from -1 to 2, got 3"):
        replace(RECIPE, transfer=[{"stage": 3}])
    longer = replace(made.recipe, stages=(*made.recipe.stages, adamas.Stage(fit=QUICK)), transfer=[{"stage": 1}])
    with pytest.raises(adamas.AdamasError, match="transfer: expected a stage from 2 on, got 1, which an earlier run has done"):
        adamas.run(longer, data=data, out=tmp_path, start=made)
