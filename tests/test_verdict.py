"""Counts by hand, and intervals against scipy's."""

import pytest
from scipy.stats import binomtest

from adamas.attacks.fgsm import FGSM
from adamas.attacks.square import Square
from adamas.outcomes import Chunk
from adamas.verdict import Rate, counted


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (3, 8), (87, 100), (5012, 10_000), (1, 1)])
def test_the_interval_is_wilsons(right, n):
    rate, expected = Rate.of(right, n), binomtest(right, n).proportion_ci(method="wilson")
    assert (rate.value, rate.low, rate.high) == pytest.approx((right / n, expected.low, expected.high), abs=1e-9)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


PARTS = [FGSM(), Square()]


@pytest.mark.parametrize(
    ("exhaustive", "after"),
    [(False, [3, 2]), (True, [3, 3])],  # alone, the second breaks one of the four that were right
)
def test_counting_two_attacks_on_two_chunks_by_hand(exhaustive, after):
    chunks = [
        Chunk(0, 3, {"net": "110"}, [{"net": "10-"}, {"net": "1--"}], [1.0, 2.0]),
        Chunk(3, 2, {"net": "11"}, [{"net": "11"}, {"net": "01"}], [0.5, 0.25]),
    ]
    verdict = counted("net", chunks, PARTS, exhaustive)
    assert (verdict.clean, verdict.worst_case) == (Rate.of(4, 5), Rate.of(2, 5))
    found = [(one.attack, one.family, one.attacked, one.broken, one.seconds) for one in verdict.attacks]
    assert found == [("fgsm", FGSM().family, 4, 1, 1.5), ("square", "black-box", 3, 1, 2.25)]
    assert [one.accuracy for one in verdict.attacks] == [Rate.of(right, 5) for right in after]
