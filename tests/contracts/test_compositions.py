"""Compressors one after the other, in pairs: the later one works on what survived, and what the earlier one did holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from adamas.compress.admm_filters import ADMMFilters
from adamas.compress.atmc import ATMC
from adamas.compress.binary_relax import BinaryRelax
from adamas.compress.filters import Filters
from adamas.compress.low_rank import LowRank
from adamas.compress.prune import Prune
from adamas.compress.ptq import PTQ
from adamas.compress.zero_channels import ZeroChannels
from adamas.cost import cost
from adamas.errors import AdamasError
from adamas.fit import Fit, fit
from adamas.rates.learned import Learned as LearnedRates
from adamas.roles import Compressor
from adamas.scores.learned import Learned as LearnedScores
from adamas.surgery import resize_to
from adamas.threat import Linf
from tests.helpers import SmallNet, first_batch

THREAT = Linf(eps=0.1)
SHAPE = (1, 8, 8)
STAGES: dict[str, Compressor] = {
    "channels": Filters(keep=0.75, round_to=1),
    "masks": Prune(keep=0.3),
    "HARP": Prune(keep=0.3, scores=LearnedScores(), rates=LearnedRates(gamma=0.1)),
    "AL0": ATMC(keep=0.3, bits=None, factorize=False),
    "ATMC": ATMC(keep=0.3, bits=4),
    "codebooks": ATMC(keep=1, bits=3, factorize=False),
    "binary": BinaryRelax(levels="binary", layers="all"),
    "ternary": BinaryRelax(levels="ternary", layers="all"),
    "zero channels": ZeroChannels(),
    "ADMM on channels": ADMMFilters(keep=0.75, round_to=1, cycles=2),
    "low rank": LowRank(keep=0.5),
    "int8": PTQ(),
}
UNFIT = [("ATMC", name) for name in ("channels", "ADMM on channels", "masks", "HARP", "binary", "ternary", "low rank")]
UNFIT += [("low rank", name) for name in ("channels", "ADMM on channels", "masks", "HARP", "binary", "ternary")]
"""Once weights are products, only what works on factors can follow."""
SPARSE = {"masks", "HARP", "AL0", "codebooks", "binary", "ternary"}
"""Stages that leave zeros zero, or more zeros than there were."""
PAIRS = [(a, b) for a in STAGES for b in STAGES if a != b and a != "int8" and (a, b) not in UNFIT]
"""Rounding to integers, which rewrites the network, comes last."""


def stage(model: nn.Module, compressor: Compressor, digits: Any) -> None:
    compressor.attach(model)
    compressor.calibrate(model, digits.train.batches(64, seed=1), THREAT)
    fit(model, digits, Fit(epochs=1, batch_size=150, lr=0.005), THREAT, compressor=compressor)
    compressor.finish(model)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda name: name)
def test_a_pair_keeps_what_each_promised(first, second, trained, digits):
    stage(trained, STAGES[first], digits)
    x = first_batch(digits)[0]
    before = cost(trained, SHAPE)
    widths = [len(layer.weight) for layer in trained.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    stage(trained, STAGES[second], digits)
    after = cost(trained, SHAPE)
    if first in ("channels", "ADMM on channels") and second not in ("channels", "ADMM on channels"):
        assert widths == [len(layer.weight) for layer in trained.modules() if isinstance(layer, nn.Conv2d | nn.Linear)] or (
            second == "zero channels"
        )
    if first in ("masks", "HARP", "AL0") and second in SPARSE - {"AL0"} | {"channels", "ADMM on channels"}:
        assert after.nonzeros <= before.nonzeros
    state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    fresh = SmallNet()
    for compressor in (STAGES[first], STAGES[second]):
        compressor.attach(fresh)
    resize_to(fresh, state)
    fresh.load_state_dict(state)
    with torch.no_grad():
        assert trained.eval()(x).isfinite().all() and torch.allclose(fresh.eval()(x), trained(x), atol=1e-6)
    fit(trained, digits, Fit(epochs=1, batch_size=150, lr=0.005), THREAT)  # what is zero stays zero in later stages
    if second in SPARSE:
        assert cost(trained, SHAPE).nonzeros <= after.nonzeros


@pytest.mark.parametrize(("first", "second"), UNFIT, ids=lambda name: name)
def test_what_works_on_weights_refuses_factors_with_a_sentence(first, second, trained, digits):
    stage(trained, STAGES[first], digits)
    with pytest.raises(AdamasError, match=r"is parametrized by Factored; remove channels before|made of factors|not factored"):
        stage(trained, STAGES[second], digits)


def test_codebooks_of_masked_weights_speak_of_the_survivors(trained, digits):
    stage(trained, Prune(keep=0.2), digits)
    stage(trained, BinaryRelax(levels="binary", layers="all"), digits)
    for layer in (trained[0], trained[3], trained[9]):
        assert parametrize.is_parametrized(layer)
        values = layer.weight.unique()
        assert len(values) == 3 and values[1] == 0 and values[0] == -values[2]


def test_three_in_a_row(trained, digits):
    for name in ("channels", "masks", "ATMC"):
        stage(trained, STAGES[name], digits)
    weights = sum(layer.weight.numel() for layer in trained.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    vectors = sum(p.numel() for name, p in trained.named_parameters() if p.dim() == 1)
    assert cost(trained, SHAPE).nonzeros <= int(0.3 * weights) + vectors
