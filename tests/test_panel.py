"""What counts as a broken image, and for whom."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adamas.attacks.pgd import PGD
from adamas.errors import AdamasError
from adamas.panel import Panel, rounded, wrong
from adamas.threat import L2, Linf
from tests.helpers import Linear

THREAT = Linf(eps=0.1)


def bright_from(threshold: float) -> Linear:
    return Linear([[-10.0], [10.0]], bias=[10 * threshold, -10 * threshold])


def pixels(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


@pytest.fixture
def panel() -> Panel:
    """Bright images that should stay so: three are right for the model, two of them for the judge."""
    classifiers = {"model": bright_from(0.5), "judge": bright_from(0.58)}
    made = Panel(classifiers, pixels(0.56, 0.6, 0.9, 0.2), torch.ones(4).long(), THREAT, batch_size=3)
    assert made.start({}, []) == {"model": "1110", "judge": "0110"}
    return made


def test_an_image_is_broken_when_every_classifier_that_had_it_right_has_it_wrong(panel):
    assert panel.begin(PGD(), exhaustive=False).tolist() == [0, 1, 2]
    accepted = panel.score(torch.tensor([0, 1, 2]), pixels(0.48, 0.55, 0.8))
    assert accepted.tolist() == [True, False, False]  # .55 fools the judge but not the model
    assert panel.score(torch.tensor([1]), pixels(0.5001)).tolist() == [False]
    assert panel.end() == {"model": "011-", "judge": "-01-"}
    assert panel.begin(PGD(), exhaustive=False).tolist() == [1, 2]
    assert panel.score(torch.tensor([1, 2]), pixels(0.52, 0.81)).tolist() == [False, False]
    assert panel.score(torch.tensor([1]), pixels(0.5001)).tolist() == [False]
    assert panel.end() == {"model": "-11-", "judge": "--1-"}


def test_exhaustive_attacks_see_what_was_broken_before(panel):
    panel.begin(PGD(), exhaustive=False)
    panel.score(torch.tensor([0]), pixels(0.48))
    panel.end()
    assert panel.begin(PGD(), exhaustive=True).tolist() == [0, 1, 2]
    assert panel.end() == {"model": "111-", "judge": "-11-"}
    assert panel.standing["model"].tolist() == [False, True, True, False]


def test_kept_outcomes_replace_the_clean_pass(panel):
    again = Panel({"model": bright_from(9.0), "judge": bright_from(9.0)}, panel.x, panel.y, THREAT, batch_size=3)
    again.start({"model": "1110", "judge": "0110"}, [{"model": "011-", "judge": "-01-"}])
    assert again.begin(PGD(), exhaustive=False).tolist() == [1, 2]


def test_every_candidate_is_checked(panel):
    panel.begin(PGD(), exhaustive=False)
    with pytest.raises(AdamasError, match=r"attack pgd: expected images in \[0, 1\] within linf\(eps=0\.1\), got pixels"):
        panel.score(torch.tensor([0, 1]), pixels(0.3, 0.6))


def test_no_candidates_are_no_trouble(panel):
    panel.begin(PGD(), exhaustive=False)
    assert panel.score(torch.tensor([], dtype=torch.long), panel.x[:0]).tolist() == []


def test_a_candidate_counts_as_it_is_after_rounding():
    """From 128/255 on an image is bright; the candidate is just below, but rounds up."""
    x, y = pixels(130 / 255), torch.ones(1).long()
    exact, on_grid = (Panel({"model": bright_from(127.8 / 255)}, x, y, THREAT, 9, on_grid=grid) for grid in (False, True))
    for panel, broken in ((exact, True), (on_grid, False)):
        panel.start({}, [])
        panel.begin(PGD(), exhaustive=False)
        assert panel.score(torch.tensor([0]), pixels(127.7 / 255)).tolist() == [broken]
    with pytest.raises(AdamasError, match="round: expected 8-bit images, whose pixels are multiples of 1/255"):
        Panel({}, pixels(0.5), y, THREAT, 9, on_grid=True)


@pytest.mark.parametrize("threat", [Linf(eps=8 / 255), Linf(eps=0.05), L2(eps=0.5), L2(eps=0.013)])
def test_rounded_images_are_8_bit_images_inside_the_threat(threat):
    x = torch.randint(0, 256, (200, 3, 4, 4)) / 255
    x_adv = threat.project(x + threat.eps * torch.randn_like(x), x)
    near = rounded(x_adv, x, threat)
    torch.testing.assert_close(near * 255, (near * 255).round(), atol=1e-4, rtol=0)
    assert (threat.distance(near, x) <= threat.eps * (1 + 1e-5) + 1e-6).all()
    assert (near - x_adv).abs().max() <= 1 / 255 + 1e-6
    torch.testing.assert_close(rounded(x, x, threat), x)


def test_outputs_that_are_not_finite_never_count_as_broken():
    with pytest.raises(AdamasError, match="such an image would count as broken by mistake"):
        wrong(Linear([[torch.inf]]), pixels(0.5), torch.zeros(1).long())
