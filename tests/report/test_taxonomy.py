from __future__ import annotations

from typing import Any

import pytest

from adamas.recipe import Recipe
from adamas.registry import parse, settings
from adamas.report.taxonomy import Taxonomy, taxonomy
from adamas.roles import Compressor, Objective

NT, AT = "Natural Training (NT)", "Adversarial Training (AT) PGD"
US, S = "Unstructured (US)", "Structured (S) filters"
LOCAL, GLOBAL = "Local Pruning (L)", "Global Pruning (G)"
LWM, LIS, HGM = "Lowest Weight Magnitude (LWM)", "Least Importance Score (LIS)", "Highest Gradient Magnitude (HGM)"
NATURAL, ROBUST, TRADES = {"fit": {}}, {"fit": {"objective": "adversarial"}}, {"fit": {"objective": "trades"}}


def found(*stages: Any, network: str = "cnn8") -> Taxonomy:
    return taxonomy(parse(Recipe, {"model": "cnn8", "stages": list(stages)}), network)


def prune(scores: Any = "magnitude", rates: Any = "uniform", **more: Any) -> dict[str, Any]:
    return {"compress": {"name": "prune", "scores": scores, "rates": rates, **more}}


def test_the_three_methods_of_the_benchmark_have_its_entries() -> None:
    harp = found(TRADES, prune("learned", "learned") | TRADES, TRADES).entry()
    assert harp == {
        "link_to_paper": "https://openreview.net/pdf?id=sAJDi9lD06L",
        "ap_key": "HARP_Zhao2023Holistic",
        "Type of Pipeline:": "A-Methods Pruning After Training",
        "A: Pretraining ": "Adversarial Training (AT) TRADES",
        "A: Finetuning": "Adversarial Training (AT) TRADES",
        "A: OneShot (1S) vs Iterative (IT)": "1S",
        "Pruning structure": US,
        "Pruning locality": GLOBAL,
        "Pruning criterion": LIS,
    }
    hydra = found(ROBUST, prune("learned") | ROBUST, ROBUST)
    assert (hydra.key, hydra.locality, hydra.criterion) == ("HYDRA_Sehwag2020Hydra", LOCAL, LIS)
    radmm = found(ROBUST, {"compress": "admm"} | ROBUST, ROBUST)
    assert (radmm.key, radmm.locality, radmm.criterion) == ("RADMM_Ye2019Adversarial", LOCAL, "Solver Based LWM (SOLWM)")
    filters = found(ROBUST, {"compress": "admm_filters"} | ROBUST, ROBUST)
    assert (filters.key, filters.link, filters.structure) == (radmm.key, radmm.link, S)
    assert (filters.locality, filters.criterion) == (LOCAL, "Solver Based LWM (SOLWM)")
    channels = found(ROBUST, {"compress": {"name": "filters", "scores": "learned", "rates": "learned"}} | ROBUST, ROBUST)
    assert (channels.key, channels.structure) == ("HARP_Zhao2023Holistic", S)


@pytest.mark.parametrize(
    "stages",
    [
        [NATURAL, prune("learned", "learned") | ROBUST, ROBUST],  # not robust before
        [ROBUST, prune("learned", "learned") | ROBUST],  # not fine-tuned
        [prune("learned", "learned") | ROBUST, ROBUST],  # not trained before
        [ROBUST, prune("learned", "size") | ROBUST, ROBUST],
        [ROBUST, prune("magnitude", "learned") | ROBUST, ROBUST],
        [ROBUST, {"compress": {"name": "admm", "rates": "erk"}} | ROBUST, ROBUST],
        [ROBUST, prune("learned", keep=0.5) | ROBUST, prune("learned", keep=0.1) | ROBUST, ROBUST],
        [ROBUST, prune(), ROBUST],
    ],
)
def test_what_was_made_otherwise_has_no_key(stages: list[Any]) -> None:
    assert (found(*stages).key, found(*stages).link) == (None, None)


@pytest.mark.parametrize(
    ("stage", "locality", "criterion"),
    [
        (prune("magnitude", "uniform"), LOCAL, LWM),
        (prune("magnitude", "global"), GLOBAL, LWM),
        (prune("magnitude", "lamp"), GLOBAL, LWM),
        (prune("taylor", "erk"), GLOBAL, LIS),
        (prune("gradient", "size"), GLOBAL, LIS),
        (prune("gap", "uniform"), LOCAL, HGM),
        (prune("random", "global"), GLOBAL, None),
        ({"compress": "filters"}, LOCAL, LWM),
    ],
)
def test_locality_is_the_rates_and_criterion_the_scores(stage: Any, locality: str, criterion: str | None) -> None:
    one = found(NATURAL, stage, ROBUST)
    assert (one.locality, one.criterion, one.shots, one.pipeline) == (locality, criterion, "1S", "A")
    assert (one.pretraining, one.finetuning) == (NT, AT)


def test_the_fit_of_a_pruning_stage_is_fine_tuning_unless_it_trains_the_masks() -> None:
    assert found(NATURAL, prune() | ROBUST).finetuning == AT
    assert found(NATURAL, prune() | ROBUST).shots == "IT"  # step by step while it trains
    assert found(NATURAL, {"compress": {"name": "prune", "ramp": 0}} | ROBUST).shots == "1S"
    assert found(NATURAL, prune("learned") | ROBUST).finetuning == "None"
    assert found(NATURAL, prune("magnitude", "learned") | ROBUST).finetuning == "None"
    assert found(NATURAL, prune() | ROBUST, TRADES).finetuning == f"{AT} + Adversarial Training (AT) TRADES"
    assert found(NATURAL, prune()).finetuning == "None"
    fast = {"fit": {"objective": {"name": "adversarial", "attack": "fgsm"}}}
    assert found(fast, prune()).pretraining == "Adversarial Training (AT) FGSM"
    assert found({"fit": {"objective": "trade_off"}}, {"fit": {"objective": "mart"}}, prune()).pretraining == (
        f"{AT} + Adversarial Training (AT) MART"
    )


def test_pruning_before_and_during_training() -> None:
    assert found(prune(), ROBUST).entry() == {
        "link_to_paper": None,
        "ap_key": None,
        "Type of Pipeline:": "B-Methods Pruning Before Training",
        "B: Pruning step ": "None",
        "B: Training step ": AT,
        "B: OneShot (1S) vs Iterative (IT)": "1S",
        "Pruning structure": US,
        "Pruning locality": LOCAL,
        "Pruning criterion": LWM,
    }
    ticket = found(prune("learned") | ROBUST)
    assert (ticket.pipeline, ticket.pretraining, ticket.finetuning) == ("B", AT, "None")
    assert found(prune("gap"), ROBUST).pretraining is None
    for solver, structure in (("admm", US), ("admm_filters", S)):
        during = found({"compress": solver} | ROBUST, TRADES).entry()
        assert during["Type of Pipeline:"] == "D-Methods Pruning During Training" and during["Pruning structure"] == structure
        assert during["D: Training step "] == f"{AT} + Adversarial Training (AT) TRADES" and len(during) == 7


def test_repeated_and_mixed_pruning() -> None:
    steps = [prune(keep=0.5), ROBUST, prune(keep=0.1), ROBUST]
    assert found(ROBUST, *steps).shots == "IT"
    mixed = found(ROBUST, {"compress": "filters"}, ROBUST, prune("learned", "learned") | ROBUST)
    assert mixed.structure == f"{S}, {US}" and mixed.locality == f"{LOCAL}, {GLOBAL}" and mixed.shots is None


def test_quantizers_do_not_prune() -> None:
    assert found(ROBUST, {"compress": "ptq"}) == Taxonomy(pretraining=AT)
    assert found(ROBUST, prune(), {"compress": "qat"} | ROBUST).finetuning == AT


def test_weights_of_the_users_own_may_have_been_trained() -> None:
    own = found(prune(), ROBUST, network="MyNet")
    assert (own.pipeline, own.pretraining, own.finetuning, own.structure) == (None, None, AT, US)


@settings
class Halve(Compressor):
    """Unknown to the taxonomy."""

    kind, name = "compressor", "halve"

    def attach(self, model: Any) -> None: ...


@settings
class Secret(Objective):
    """Unknown to the taxonomy."""

    kind, name = "objective", "secret"

    def __call__(self, model: Any, x: Any, y: Any, threat: Any) -> Any: ...


def test_what_a_card_cannot_tell_is_none() -> None:
    unknown = found(ROBUST, {"compress": Halve()}, {"fit": {"objective": Secret()}})
    assert unknown == Taxonomy(pipeline="A", pretraining=AT, shots="1S")
    assert found({"compress": Halve()}, ROBUST) == Taxonomy(shots="1S", finetuning=AT)
    assert set(Taxonomy().entry().values()) == {None}
