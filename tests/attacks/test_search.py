"""Which images leave a search, with what, and what is returned for the others."""

from __future__ import annotations

import torch
from torch import Tensor

from adamas.attacks.search import SETTLE, Search

X, Y = torch.zeros(4, 1, 1, 1), torch.zeros(4).long()


def logits(*wrong: int) -> Tensor:
    """Label 0 is right, but for the rows marked."""
    return torch.tensor([[0.0, 1.0] if one else [1.0, 0.0] for one in wrong])


def candidate(value: float, n: int) -> Tensor:
    return torch.full((n, 1, 1, 1), value)


def test_what_is_misclassified_leaves_with_its_candidate_and_states_shrink_with_it():
    search = Search(X, Y)
    state = torch.arange(4)
    x_adv, state = search.narrow(candidate(0.1, 4), logits(0, 1, 0, 0), state)
    assert x_adv.shape == (3, 1, 1, 1) and state.tolist() == [0, 2, 3] == search.rows.tolist()
    x_adv, state = search.narrow(candidate(0.2, 3), logits(1, 0, 1), state)
    assert state.tolist() == [2] and len(search) == 1 and search.x.shape == (1, 1, 1, 1)
    search.keep(candidate(0.9, 1))
    torch.testing.assert_close(search.found.flatten(), torch.tensor([0.2, 0.1, 0.9, 0.2]))
    assert X.eq(0).all()


def test_nothing_leaves_without_consent():
    asked: list[list[int]] = []

    def accept(rows: Tensor, x_adv: Tensor) -> Tensor:
        asked.append(rows.tolist())
        return rows != 1

    search = Search(X, Y, accept=accept)
    search.narrow(candidate(0.1, 4), logits(0, 1, 1, 0))
    search.narrow(candidate(0.2, 3), logits(0, 1, 0))
    assert asked == [[1, 2], [1]] and search.rows.tolist() == [0, 1, 3]
    search.keep(candidate(0.5, 3))
    torch.testing.assert_close(search.found.flatten(), torch.tensor([0.5, 0.5, 0.1, 0.5]))


def test_without_the_active_set_success_is_kept_and_the_latest_counts():
    search = Search(X, Y, active=False)
    search.narrow(candidate(0.1, 4), logits(0, 1, 1, 0))
    (x_adv,) = search.narrow(candidate(0.2, 4), logits(0, 0, 1, 0))
    assert len(x_adv) == len(search) == 4
    search.keep(candidate(0.9, 4))
    torch.testing.assert_close(search.found.flatten(), torch.tensor([0.9, 0.1, 0.2, 0.9]))


def test_a_mask_of_ones_own_decides_instead_of_the_logits():
    search = Search(X, Y)
    search.take(candidate(0.3, 4), torch.tensor([False, False, True, False]))
    assert search.rows.tolist() == [0, 1, 3] and search.found.flatten().tolist()[2] > 0


def test_on_an_accelerator_hits_are_looked_at_every_few_steps_and_the_first_counts():
    search = Search(X, Y)
    search._every = SETTLE  # as on any device but the processor
    x_adv = candidate(0.0, 4)
    for step in range(1, SETTLE):
        (x_adv,) = search.narrow(candidate(step / 10, 4), logits(0, step >= 2, step == 1, 0))
        assert len(x_adv) == 4
    (x_adv,) = search.narrow(candidate(0.9, 4), logits(0, 1, 0, 0))
    assert len(x_adv) == 2 and search.rows.tolist() == [0, 3]
    torch.testing.assert_close(search.found.flatten(), torch.tensor([0.0, 0.2, 0.1, 0.0]))
    search.narrow(candidate(0.7, 2), logits(1, 0))
    (rest,) = search.settle(candidate(0.8, 2))
    assert len(rest) == 1 and search.rows.tolist() == [3]
    torch.testing.assert_close(search.found.flatten()[0], torch.tensor(0.7))
