from __future__ import annotations

import pytest

from adamas.attacks.fgsm import FGSM
from adamas.threat import L2, Linf
from tests.attacks.reference import MIDDLE, TWO_PIXELS, ZERO, assert_follows


def test_fgsm_by_hand():
    assert FGSM()(TWO_PIXELS, MIDDLE, ZERO, Linf(eps=0.1)).flatten().tolist() == pytest.approx([0.4, 0.6])
    assert FGSM()(TWO_PIXELS, MIDDLE, 1 - ZERO, Linf(eps=0.1)).flatten().tolist() == pytest.approx([0.6, 0.4])
    step = 0.1 / 5**0.5
    assert FGSM()(TWO_PIXELS, MIDDLE, ZERO, L2(eps=0.1)).flatten().tolist() == pytest.approx([0.5 - step, 0.5 + 2 * step])


@pytest.mark.parametrize("threat", [Linf(eps=0.07), L2(eps=0.4)])
def test_the_step_follows_the_definition(threat):
    assert_follows(FGSM(), threat, steps=1, step=threat.eps)
    assert_follows(FGSM(random_start=True), threat, steps=1, step=threat.eps, random_start=True)
