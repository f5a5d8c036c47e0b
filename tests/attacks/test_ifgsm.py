from __future__ import annotations

import pytest

from adamas.attacks.ifgsm import IFGSM
from adamas.threat import L2, Linf
from tests.attacks.reference import MIDDLE, TWO_PIXELS, ZERO, assert_follows


def test_ifgsm_by_hand():
    def after(steps: int) -> list[float]:
        return IFGSM(steps=steps, step_size=0.04)(TWO_PIXELS, MIDDLE, ZERO, Linf(eps=0.1)).flatten().tolist()

    assert after(1) == pytest.approx([0.46, 0.54])
    assert after(2) == pytest.approx([0.42, 0.58])
    assert after(3) == pytest.approx([0.4, 0.6])  # projected
    assert IFGSM()(TWO_PIXELS, 0 * MIDDLE, ZERO, Linf(eps=0.1)).flatten().tolist() == pytest.approx([0, 0.1])  # clamped


def test_the_default_step_is_1_over_255_for_20_steps_in_8_over_255():
    assert_follows(IFGSM(), Linf(eps=8 / 255), steps=20, step=1 / 255)


@pytest.mark.parametrize("threat", [Linf(eps=0.07), L2(eps=0.4)])
def test_every_step_follows_the_definition(threat):
    assert_follows(IFGSM(steps=7, step_size=0.02), threat, steps=7, step=0.02)
    assert_follows(IFGSM(steps=4), threat, steps=4, step=2.5 * threat.eps / 4)
