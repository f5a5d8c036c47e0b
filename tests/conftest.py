"""What every test stands on: one thread, a fixed seed, small data and a small trained network."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

torch.set_num_threads(1)  # before the first tensor operation

from adamas.data import Data, Split, load  # noqa: E402
from adamas.data.digits import Digits  # noqa: E402
from adamas.fit import Fit, fit  # noqa: E402
from adamas.threat import Linf  # noqa: E402
from tests.helpers import SmallNet, shapes_data  # noqa: E402


def seed_everything() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collectstart() -> None:
    """What a test file draws when it is imported, to use as a parameter, say, is the same in every run too."""
    seed_everything()


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_test() -> None:
    seed_everything()


@pytest.fixture(scope="session")
def digits() -> Data:
    """Scikit-learn's digits, (1, 8, 8), cut to 600 training images (150 of them for validation) and 120 test images."""
    return load(Digits(), Split(train=600, validation=0.25, test=120))


@pytest.fixture(scope="session")
def _trained(digits: Data) -> nn.Module:
    torch.manual_seed(0)
    model = SmallNet()
    fit(model, digits, Fit(epochs=16, batch_size=32, lr=0.1), Linf(eps=0.1))
    return model


@pytest.fixture
def trained(_trained: nn.Module) -> nn.Module:
    """A copy of a `SmallNet` that classifies most digits, in eval mode."""
    return copy.deepcopy(_trained)


@pytest.fixture
def data() -> Data:
    """The tiniest data set that can be learnt: 48 images (1, 4, 4) of two classes."""
    return shapes_data()
