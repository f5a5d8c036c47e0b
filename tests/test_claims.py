from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adamas.claims import Verdict, check_claims, judged, verdicts_table
from adamas.errors import AdamasError
from adamas.progress import console

ROWS = ["GAP x8 seed=0", "GAP x8 seed=1", "GAP x8, tuned seed=0", "dense"]


def row(name: str, clean: float, own: float, transfer: float | None = None, nonzeros: int = 10) -> Any:
    attacks = [{"attack": "pgd(steps=3)", "family": "cross-entropy gradient", "accuracy": {"value": own}}]
    attacks += [{"attack": "square", "family": "black-box", "accuracy": {"value": own + 0.01}}]
    attacks += (
        [] if transfer is None else [{"attack": "pgd on stages.0", "family": "transfer", "accuracy": {"value": transfer}}]
    )
    worst = min(attack["accuracy"]["value"] for attack in attacks)
    cost = {"nonzeros": nonzeros, "params": 100}
    evaluation = {"clean": {"value": clean}, "worst_case": {"value": worst}, "attacks": attacks, "cost": cost}
    return SimpleNamespace(card={"name": name}, evaluation=evaluation)


MADE = [row("GAP x8 seed=0", 0.7, 0.5, 0.64), row("GAP x8 seed=1", 0.8, 0.6, 0.7, 20), row("dense", 0.9, 0.3)]


@pytest.mark.parametrize(
    ("claim", "left", "sign", "right", "seeds", "holds"),
    [
        ('clean("GAP x8") - transfer("GAP x8") <= .09', 0.08, "<=", 0.09, 2, True),
        ('clean("GAP x8 seed=0") >= clean("dense")', 0.7, ">=", 0.9, 1, False),
        ('own("GAP x8") * 2 >= worst("dense") + .8', 1.1, ">=", 1.1, 1, True),
        ('nonzeros("GAP x8 seed=1") == params("dense") / 5', 20, "==", 20, 1, True),
        ('under("GAP x8", "square") >= under("dense", "pgd")', 0.56, ">=", 0.3, 1, True),
        ('clean("GAP x8, tuned") >= 0', None, "", None, 0, None),
    ],
)
def test_claims_are_computed_on_the_mean_over_seeds(claim, left, sign, right, seeds, holds):
    assert check_claims([claim], ROWS) == [claim]
    (verdict,) = judged([claim], MADE)
    assert (verdict.order, verdict.seeds, verdict.holds) == (sign, seeds, holds)
    assert verdict.left == (None if left is None else pytest.approx(left))
    assert verdict.right == (None if right is None else pytest.approx(right))


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ('clean("GAP x9") >= 0', "claims: clean(\"GAP x9\") >= 0: there is no row 'GAP x9'; did you mean 'GAP x8'?"),
        ('claen("dense") >= 0', "claims: claen(\"dense\") >= 0: unknown metric 'claen'; did you mean 'clean'?"),
        (
            'under("dnese", "pgd") >= 0',
            "claims: under(\"dnese\", \"pgd\") >= 0: there is no row 'dnese'; did you mean 'dense'?",
        ),
        ('under("dense") >= 0', "claims: under(\"dense\") >= 0: unknown metric 'under'"),
        ('clean("dense")', "claims: expected one comparison by <=, >= or ==, got 'clean(\"dense\")'"),
        ("0 <= clean('dense') <= 1", "claims: expected one comparison by <=, >= or ==, got \"0 <= clean('dense') <= 1\""),
        ("1 <", "claims: expected one comparison by <=, >= or ==, got '1 <'"),
        ("2 ** 9 >= 1", "claims: expected + - * or /, got '2 ** 9 >= 1'"),
        ("open('x') >= 1", "claims: open('x') >= 1: unknown metric 'open'"),
        ("().__class__ >= 1", "claims: expected numbers and metrics such as clean(\"row\"), got '().__class__ >= 1'"),
    ],
)
def test_what_is_no_claim_is_refused_and_nothing_else_is_ever_computed(claim, message):
    with pytest.raises(AdamasError) as error:
        check_claims([claim], ROWS)
    assert str(error.value).startswith(message)


def test_an_attack_that_was_not_run_is_missed():
    with pytest.raises(AdamasError, match="claims: expected an attack 'fmn' among those that were run, got none"):
        judged(['under("dense", "fmn") >= 0'], MADE)


def test_every_mistake_is_told_at_once_and_other_types_are_refused():
    with pytest.raises(AdamasError) as error:
        check_claims(["1 <", "2 <"], ROWS)
    assert len(str(error.value).splitlines()) == 2
    with pytest.raises(AdamasError, match="claims: expected a list of comparisons, got 'clean'"):
        check_claims("clean", ROWS)


def test_the_table_says_what_holds():
    with console.capture() as captured:
        console.print(
            verdicts_table([Verdict("1 <= 2", 1, "<=", 2, 3, True), Verdict("2 <= 1", 2, "<=", 1, 3, False), Verdict("x")])
        )
    lines = [line.split() for line in captured.get().splitlines() if line.strip()]
    assert [line[-1] for line in lines[2:]] == ["yes", "no", "run"]
