from __future__ import annotations

from typing import Any

import pytest

from adamas.report.remarks import findings, headline, remarks
from adamas.report.rows import rows

TWO = (("pgd(steps=50)", 600), ("cw", 600), ("square", 600))


def said(*artifacts: Any) -> str:
    return "\n".join(remarks(rows(artifacts)))


def test_a_sound_float_model_has_nothing_to_remark(make: Any) -> None:
    assert said(make(test=10_000, clean=9500, worst=6000, attacks=(("pgd", 6000), ("square", 6000)))) == ""


@pytest.mark.parametrize(
    ("fp32", "int8", "words"),
    [
        (0.05, 0.07, "int8 makes small 1.4 x slower than its own fp32 file at batch 1 (0.070 against 0.050 ms)."),
        (0.07, 0.05, "int8 makes small 1.4 x faster than its own fp32 file at batch 1 (0.050 against 0.070 ms)."),
        (1.0, 1.05, "int8 makes small as fast as its own fp32 file at batch 1 (1.05 against 1.00 ms)."),
        (1.0, 1.06, "int8 makes small 1.1 x slower"),
    ],
)
def test_latency_of_int8_is_compared_with_its_own_float_file(make: Any, fp32: float, int8: float, words: str) -> None:
    assert words in said(make(name="small", int8=True, ms_fp32=fp32, ms_int8=int8))


def test_latency_says_nothing_without_int8_or_times(make: Any) -> None:
    assert "int8" not in said(make())
    assert "batch 1" not in said(make(int8=True, timed=False))


def test_a_file_without_noise_is_compared_with_the_network_without_noise(make: Any) -> None:
    assert "as shipped" not in said(make(worst=700, noise_off=(940, 600), shipped_worst=600))
    text = said(make(worst=600, noise_off=(940, 600), shipped_worst=570))
    assert "3.0 points less than the trained model with its noise off (60.0 %)." in text


def test_parity_alarms_below_its_bound_only(make: Any) -> None:
    assert "exported from" not in said(make(agreement=0.995))
    [alarm] = [remark for remark in findings(rows([make(name="x", agreement=0.994)])) if remark.figure == "agreement"]
    assert alarm.alarm and alarm.text.startswith(
        "x: model.fp32.onnx classifies 6 of 1,000 images unlike the network it was exported from (at most 5 expected)"
    )


@pytest.mark.parametrize(
    ("shipped", "words"), [(594, "0.6 points less"), (606, "0.6 points more"), (595, ""), (605, ""), (600, "")]
)
def test_the_shipped_worst_case_may_differ_by_half_a_point(make: Any, shipped: int, words: str) -> None:
    text = said(make(name="x", int8=True, shipped_worst=shipped))
    assert ("x as shipped" in text) == bool(words) and words in text
    assert ("may only look stronger" in text) == (shipped == 606)


def test_every_flag_is_an_alarm_and_comes_first(make: Any) -> None:
    found = findings(rows([make(name="x", int8=True, flags=("randomised output: two passes differ", "zero gradients: 9%"))]))
    assert [remark.text for remark in found[:2]] == ["x: randomised output: two passes differ.", "x: zero gradients: 9%."]
    assert [remark.alarm for remark in found] == sorted((remark.alarm for remark in found), reverse=True)


@pytest.mark.parametrize(("test", "worst", "unsure"), [(1000, 600, True), (1100, 660, False)])
def test_small_test_sets_are_named(make: Any, test: int, worst: int, unsure: bool) -> None:
    """Wilson's half width at 60 % is 3.06 points on its wider side with 1,000 images and 2.93 with 1,100."""
    words = f"±{'3.1' if unsure else '2.9'} points only: the test set has {test:,} images"
    assert (words in said(make(test=test, worst=worst))) == unsure


def test_one_family_of_attacks_says_what_was_not_run(make: Any) -> None:
    text = said(make(name="x"))
    assert (
        "The worst case of x rests on one family of attacks (fgsm, pgd(steps=50)); no margin-loss gradient and no black-box"
        in text
    )
    assert "rests on" not in said(make(attacks=TWO))


def test_rows_with_the_same_gap_share_a_remark(make: Any) -> None:
    both = [make(name="a", keep=0.1), make(name="b", keep=0.2)]
    assert said(*both).count("Every worst case rests on") == 1
    assert "The worst case of a and b rests on" in said(*both, make(name="c", keep=0.3, attacks=TWO))


def test_no_attack_is_an_alarm(make: Any) -> None:
    [remark, *_] = findings(rows([make(name="x", attacks=())]))
    assert remark.alarm and remark.text == "The worst case of x is plain clean accuracy: no attack was run."


def test_rows_that_do_not_compare_are_named(make: Any) -> None:
    one = make(name="a", keep=0.1)
    assert "different" not in said(one, make(name="b", keep=0.2))
    assert "different threats (linf(eps=0.1) and linf(eps=8/255))" in said(one, make(name="b", eps="8/255"))
    assert "tested on different images" in said(one, make(name="b", keep=0.2, data="other"))
    assert "faced different attacks" in said(one, make(name="b", keep=0.2, attacks=TWO))
    assert "latencies come from different processors" in said(one, make(name="b", keep=0.2, processor="Other CPU"))


def test_headline_names_the_most_robust_and_the_smallest(make: Any) -> None:
    strong, small = make(name="a", keep=0.1, worst=700), make(name="b", keep=0.2, worst=600, int8=True, bytes_int8=550_000)
    first, second = headline(rows([strong, small]))
    assert first.startswith(
        "a is the most robust of 2: it keeps 70.0 % in the worst case (67.1 to 72.8) and 95.0 % on clean images"
    )
    assert second.startswith("b is the smallest: 550 kB, 4.0 x smaller, and keeps 60.0 %") and "overlap" not in second
    near = make(name="b", keep=0.2, worst=690, int8=True)
    assert headline(rows([strong, near]))[1].endswith("the two intervals overlap.")
    assert headline(rows([strong])) == [
        "a keeps 70.0 % in the worst case (67.1 to 72.8) and 95.0 % on clean images under linf(eps=0.1), in a file of 2.20 MB."
    ]
    [only] = headline(rows([make(name="a", keep=0.1, worst=700, bytes_fp32=100), make(name="b", keep=0.2)]))
    assert only.endswith("at 100 B it is the smallest as well.")
