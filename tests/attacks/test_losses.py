"""The losses by hand, and where there are few classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adamas.attacks.losses import cross_entropy, dlr, likely_targets, margin, target_dlr, target_margin

LOGITS = torch.tensor([[4.0, 1.0, 3.0, -2.0, 0.0], [-9.0, -1.0, -3.0, -2.0, -5.0]])
LABELS = torch.tensor([0, 0])


def test_cross_entropy_is_per_image():
    loss = cross_entropy(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))
    assert loss.tolist() == pytest.approx([0.6931472, 2.1269280])  # ln 2, ln(1 + e^2)


def test_margins_by_hand_whatever_the_sign_of_the_logits():
    assert margin(LOGITS, LABELS).tolist() == [-1.0, 8.0]
    assert dlr(LOGITS, LABELS).tolist() == pytest.approx([-1 / (4 - 1), 8 / (-1 + 3)])


def test_targeted_losses_by_hand():
    pairs = torch.tensor([[0, 2], [0, 3]])
    assert target_margin(LOGITS, pairs).tolist() == [-1.0, 7.0]
    assert target_dlr(LOGITS, pairs).tolist() == pytest.approx([-1 / (4 - (1 + 0) / 2), 7 / (-1 - (-3 - 5) / 2)])


def test_the_likeliest_wrong_classes_come_first():
    assert likely_targets(LOGITS, LABELS, 3).tolist() == [[2, 1, 4], [1, 3, 2]]
    assert likely_targets(LOGITS, LABELS, 9).shape == (2, 4)


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_fall_back_to_the_margin(classes):
    logits, pairs = torch.randn(4, classes), torch.tensor([[0, 1]] * 4)
    torch.testing.assert_close(target_dlr(logits, pairs), target_margin(logits, pairs))
    if classes == 2:
        torch.testing.assert_close(dlr(logits, pairs[:, 0]), margin(logits, pairs[:, 0]))


@pytest.mark.parametrize("loss", [cross_entropy, margin, dlr])
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_losses_are_finite_and_rise_towards_the_wrong_class(loss, classes):
    right, wrong = torch.zeros(1, classes), torch.zeros(1, classes)
    right[0, 0], wrong[0, 1] = 3.0, 3.0
    values: list[Tensor] = [loss(logits, torch.tensor([0])) for logits in (right, wrong)]
    assert values[0].isfinite() and values[1].isfinite() and values[0] < values[1]
