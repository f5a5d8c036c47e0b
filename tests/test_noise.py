from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adamas.dice import Dice
from adamas.noise import CountedDraws, FixedDraws, Noise, draws_noise, normal, without_noise

X = torch.rand(6, 2, 3, 5, generator=torch.Generator().manual_seed(3))


def noisy(amount: float = 0.5, in_eval: bool = True) -> nn.Module:
    """Noise on the pixels, then their sum per channel."""
    return nn.Sequential(Noise(amount, in_eval=in_eval), nn.Flatten(2), Total()).eval()


class Total(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(2)


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_the_noise_is_a_share_of_the_standard_deviation_of_the_image_or_of_the_batch(per):
    y = torch.stack([torch.randn(4, 40, 40), 100 * torch.randn(4, 40, 40) + 7])
    added = Noise(0.1, per)(y) - y
    spread = y.flatten(1).std(1) if per == "sample" else y.std().expand(2)
    torch.testing.assert_close(added.flatten(1).std(1), 0.1 * spread, rtol=0.05, atol=0)
    assert (added.flatten(1).mean(1).abs() < 0.01 * spread).all()


def test_the_gradient_flows_through_the_standard_deviation():
    y = torch.tensor([[1.0, 3.0]], requires_grad=True)
    torch.manual_seed(5)
    Noise(0.5)(y).sum().backward()
    torch.manual_seed(5)
    drawn = torch.randn(1, 2).sum()  # the standard deviation of (a, b) is |a - b| / 2, its gradient (-1/2, 1/2)
    torch.testing.assert_close(y.grad, 1 + 0.5 * drawn * torch.tensor([[-0.5, 0.5]]))


def test_activations_that_are_all_alike_get_no_noise_and_a_finite_gradient():
    y = torch.full((2, 1, 1, 1), 3.0, requires_grad=True)
    out = Noise(0.5)(y)
    out.sum().backward()
    assert torch.equal(out, y) and y.grad is not None and y.grad.isfinite().all()


@pytest.mark.parametrize(
    ("training", "in_eval", "amount", "on"),
    [(True, False, 0.1, True), (False, False, 0.1, False), (False, True, 0.1, True), (True, True, 0.0, False)],
)
def test_noise_is_on_in_training_and_in_eval_mode_where_asked_for(training, in_eval, amount, on):
    layer = Noise(amount, in_eval=in_eval).train(training)
    assert torch.equal(layer(X), X) != on
    assert draws_noise(nn.Sequential(layer)) == (in_eval and amount > 0)


def test_without_noise_nothing_is_drawn_in_either_mode_and_the_original_keeps_its_noise():
    model = noisy()
    quiet = without_noise(model)
    assert torch.equal(quiet.train()(X), X.sum((2, 3))) and not draws_noise(quiet)
    assert draws_noise(model) and not torch.equal(model(X), quiet(X))
    plain = nn.Flatten()
    assert without_noise(plain) is plain


def test_two_numbers_from_each_integer_are_standard_normal_and_independent():
    x = torch.rand(50, 1, 2, 2)
    z = normal(Dice(x, 0), (3, 7, 33))
    assert z.shape == (50, 3, 7, 33)
    flat = z.flatten()
    assert abs(flat.mean()) < 0.02 and abs(flat.std() - 1) < 0.02 and 3.5 < flat.abs().max() < 6
    assert abs((flat.abs() < 1).float().mean() - 0.6827) < 0.01
    first, second = z.flatten(1)[:, :346], z.flatten(1)[:, -346:]
    assert torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].abs() < 0.03
    assert torch.equal(normal(Dice(x, 0), (3, 7, 33))[7], normal(Dice(x[7:], 0), (3, 7, 33))[0])


def test_fixed_draws_belong_to_the_image_whatever_its_neighbours_order_and_time():
    model = FixedDraws(noisy(), 4, seed=1)
    logits = model(X)
    torch.rand(17)
    assert torch.equal(model(X), logits)
    torch.testing.assert_close(model(X.flip(0)).flip(0), logits)
    torch.testing.assert_close(torch.cat([model(one) for one in X.split(1)]), logits)
    assert not torch.allclose(FixedDraws(noisy(), 4, seed=2)(X), logits)
    assert not torch.allclose(FixedDraws(noisy(), 1, seed=1)(X), logits)


def test_many_fixed_draws_average_the_noise_away():
    few, many = ((FixedDraws(noisy(), n, seed=0)(X) - X.sum((2, 3))).square().mean() for n in (1, 400))
    assert many < few / 50


def test_counted_draws_follow_the_passes_over_an_image_in_whatever_pieces_they_are_made():
    whole, pieces = CountedDraws(noisy(), 9), CountedDraws(noisy(), 9)
    first, second = whole(X), whole(X)
    apart = [(pieces(part), pieces(part)) for part in X.split(4)]
    assert not torch.allclose(first, second)
    torch.testing.assert_close(torch.cat([a for a, _ in apart]), first)
    torch.testing.assert_close(torch.cat([b for _, b in apart]), second)


def test_counted_draws_start_again_for_an_image_that_changes_and_only_for_that():
    model = CountedDraws(noisy(), 9)
    first, other = model(X), X.clone()
    second = model(X)
    other[2] += 0.1
    third, fresh = model(other), CountedDraws(noisy(), 9)(other)
    torch.testing.assert_close(third[2], fresh[2])
    assert not torch.allclose(third[1], first[1]) and not torch.allclose(third[1], second[1])


def test_fixed_draws_leave_torchs_stream_alone_and_a_pass_outside_draws_from_it():
    model = noisy()
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    FixedDraws(model, 3, seed=0)(X)
    CountedDraws(model, 0)(X)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(4)
    free = model(X)
    torch.manual_seed(4)
    assert torch.equal(model(X), free)
    assert not torch.equal(model(X), free)


def test_a_pass_that_fails_leaves_no_draws_behind():
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        FixedDraws(nn.Sequential(noisy(), Failing()), 1, seed=0)(X)
    model = noisy()
    assert not torch.equal(model(X), model(X))
