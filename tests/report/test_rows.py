from __future__ import annotations

import math
from typing import Any

import pytest

from adamas.artifact import EVALUATION
from adamas.errors import AdamasError
from adamas.files import write_json
from adamas.report.rows import rows
from adamas.verdict import Rate


def test_one_artifact_keeps_its_figures(make: Any) -> None:
    [row] = rows([make(name="small", int8=True, nonzeros=55_000, shipped_worst=590, agreement=0.998)])
    assert (row.name, row.seeds, row.threat, row.test) == ("small", [0], "linf(eps=0.1)", 1000)
    assert (row.params, row.nonzeros, row.filled, row.macs) == (550_000, 55_000, 0.1, 3_400_000)
    assert (row.shipped, row.size, row.agreement) == ("model.int8.onnx", 560_000, 0.998)
    wilson = Rate.of(600, 1000)
    assert (row.worst_case.value, row.worst_case.low, row.worst_case.high) == (0.6, wilson.low, wilson.high)
    assert row.worst_case.sd is None
    assert row.shipped_worst_case.value == 0.59
    assert {name: share.value for name, share in row.attacks.items()} == {"fgsm": 0.7, "pgd(steps=50)": 0.6}
    assert row.latency == {"model.fp32.onnx": 0.05, "model.int8.onnx": 0.07}


def test_a_float_model_ships_its_float_file(make: Any) -> None:
    [row] = rows([make()])
    assert (row.shipped, row.size) == ("model.fp32.onnx", 2_200_000)


def test_seeds_are_one_row_with_mean_and_standard_deviation(make: Any) -> None:
    made = [make(name=f"keep=0.2 seed={seed}", seed=seed, worst=worst) for seed, worst in ((2, 630), (0, 600), (1, 570))]
    [row] = rows(made)
    assert (row.name, row.seeds) == ("keep=0.2", [0, 1, 2])
    assert math.isclose(row.worst_case.value, 0.6)
    assert row.worst_case.sd is not None and math.isclose(row.worst_case.sd, 0.03)  # sqrt((.03² + 0 + .03²) / (3 - 1))
    lows = [Rate.of(right, 1000).low for right in (570, 600, 630)]
    assert math.isclose(row.worst_case.low, sum(lows) / 3)
    assert row.clean.sd == 0


def test_over_seeds_agreement_is_the_lowest_latency_the_mean_and_flags_are_joined(make: Any) -> None:
    [row] = rows(
        [
            make(seed=0, agreement=0.99, ms_fp32=0.04, flags=("a",)),
            make(seed=1, agreement=1.0, ms_fp32=0.06, flags=("b", "a")),
            make(seed=2, timed=False),
        ]
    )
    assert row.agreement == 0.99
    assert math.isclose(row.latency["model.fp32.onnx"], 0.05)
    assert row.flags == ("a", "b")


def test_other_recipes_are_other_rows_in_the_order_given(make: Any) -> None:
    made = rows([make(name="b", keep=0.5), make(name="a", keep=0.2, seed=1), make(name="b seed=1", keep=0.5, seed=1)])
    assert [(row.name, row.seeds) for row in made] == [("b", [0, 1]), ("a", [1])]


def test_the_same_seed_twice_is_not_two_seeds(make: Any) -> None:
    made = rows([make(seed=0), make(seed=1), make(seed=0)])
    assert [(row.name, row.seeds) for row in made] == [("dense", [0, 1]), ("dense (2)", [0])]


def test_own_networks_are_told_apart_by_name(make: Any) -> None:
    made = rows([make(name="wide", model=None), make(name="deep", model=None, seed=1)])
    assert [row.name for row in made] == ["wide", "deep"]


@pytest.mark.parametrize(
    ("name", "title", "shown"),
    [
        ("keep=0.2 seed=1 bits=8", "", "keep=0.2 bits=8"),
        ("digits/seed=3", "", "digits"),
        ("seed=3", "A title", "A title"),
        ("seed=3", "", "cnn8"),
        ("reseed=3", "", "reseed=3"),
    ],
)
def test_names_lose_their_seed(make: Any, name: str, title: str, shown: str) -> None:
    assert rows([make(name=name, title=title)])[0].name == shown


def test_without_latency_of_one_image_there_is_none(make: Any) -> None:
    assert rows([make(timed=False)])[0].latency == {}
    assert rows([make(batch_sizes=(64,))])[0].latency == {}


def test_a_network_that_draws_noise_keeps_its_figures_without_it(make: Any) -> None:
    [row] = rows([make(seed=0, noise_off=(940, 550)), make(seed=1, noise_off=(930, 570))])
    assert row.noise_off is not None and row.samples == 8
    clean, worst = row.noise_off
    assert math.isclose(clean.value, 0.935) and math.isclose(worst.value, 0.56)
    assert math.isclose(worst.low, (Rate.of(550, 1000).low + Rate.of(570, 1000).low) / 2)


def test_artifacts_written_before_there_was_noise_are_read(make: Any) -> None:
    artifact = make()
    old = {key: value for key, value in artifact.evaluation.items() if key not in ("samples", "noise_off")}
    write_json(artifact.path / EVALUATION, old)
    [row] = rows([artifact])
    assert row.samples == 1 and row.noise_off is None


def test_no_artifact_is_refused() -> None:
    with pytest.raises(AdamasError, match=r"^expected at least one artifact to report on, got none$"):
        rows([])
