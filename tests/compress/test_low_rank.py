"""Low rank: the largest singular values of all layers together, at least one each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adamas.compress.factors import factored
from adamas.compress.low_rank import LowRank
from adamas.errors import AdamasError
from adamas.surgery import resize_to
from adamas.threat import Linf

THREAT = Linf(eps=0.1)


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False), nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.diag(torch.tensor([9.0, 8, 7, 1])))
        model[2].weight.copy_(torch.eye(3, 4) * torch.tensor([[6.0], [0.5], [0.25]]))
    return model


def compressed(keep: float, model: nn.Module) -> nn.Module:
    compressor = LowRank(keep=keep)
    compressor.attach(model)
    compressor.calibrate(model, [], THREAT)
    compressor.finish(model)
    return model


def ranks(model: nn.Module) -> list[int]:
    return [len(found.a) for layer in model if (found := factored(layer))]


def test_singular_values_of_all_layers_compete_and_every_layer_keeps_one():
    assert ranks(compressed(3 / 7, two_layers())) == [3, 1]  # 9, 8, 7; and 6 because each keeps one
    assert ranks(compressed(5 / 7, two_layers())) == [4, 1]


def test_what_is_left_is_the_truncated_decomposition_of_equal_factors():
    model = compressed(3 / 7, two_layers())
    torch.testing.assert_close(model[1].weight, torch.diag(torch.tensor([9.0, 8, 7, 0])))
    factors = factored(model[1])
    torch.testing.assert_close(factors.b.norm(dim=0), factors.a.norm(dim=1))


def test_the_ranks_come_back_from_the_shapes():
    model, fresh = compressed(3 / 7, two_layers()), two_layers()
    LowRank(keep=0.5).attach(fresh)
    resize_to(fresh, model.state_dict())
    fresh.load_state_dict(model.state_dict())
    assert ranks(fresh) == [3, 1] and torch.equal(fresh[1].weight, model[1].weight)


def test_nothing_to_factorize_is_refused():
    model = compressed(0.5, two_layers())
    with pytest.raises(AdamasError, match="at least one convolution or linear layer that is not factored, got none"):
        LowRank().attach(model)
