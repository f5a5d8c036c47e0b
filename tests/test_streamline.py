"""The stand-in that attacks run on: the same logits from fewer operations, or the model itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.deploy.runtime import OnnxModel
from adamas.graph import fold_batch_norms
from adamas.models import normalized
from adamas.models.resnet import ResNet18
from adamas.streamline import Streamlined, streamlined

X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 12),
        nn.BatchNorm1d(12),
        nn.Linear(12, 3),
    )
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    return model.eval()


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Noisy(nn.Module):
    """Draws its noise in its own forward, which a trace would freeze."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.1 * torch.randn(1, 8, 8))


class Branching(nn.Module):
    """Looks at values, so that it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x if x.mean() > 0.2 else 1 - x)


class Uncopiable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.scale = network(), torch.ones(1, requires_grad=True) * 2  # not a leaf: deepcopy refuses it

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.mark.parametrize("runtime", [False, True])
def test_logits_and_gradients_are_the_models(runtime):
    model = network()
    parametrize.register_parametrization(model[0], "weight", Doubled())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lean = streamlined(model, X, runtime=runtime)
    assert lean is not model and not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d) for m in lean.modules())
    with torch.no_grad():
        torch.testing.assert_close(lean(X), model(X), atol=1e-5, rtol=1e-5)
    theirs, ours = (
        torch.autograd.grad(m(x).logsumexp(1).sum(), x)[0] for m in (model, lean) for x in [X.clone().requires_grad_()]
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_passes_without_a_gradient_run_in_the_runtime_in_full_precision(monkeypatch):
    lean, calls = streamlined(network(), X, runtime=True), []
    assert isinstance(lean, Streamlined) and isinstance(lean.forward_only, OnnxModel)
    monkeypatch.setattr(lean.forward_only, "forward", lambda x: calls.append(len(x)) or torch.zeros(len(x), 3))
    lean(X)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        lean(X)
    assert calls == []
    with torch.no_grad():
        lean(X[:2])
    assert calls == [2]


def test_residual_networks_keep_their_logits():
    model = normalized(ResNet18(width=4).build((3, 16, 16), 10), [0.4, 0.5, 0.6], [0.2, 0.2, 0.2]).eval()
    x = torch.rand(4, 3, 16, 16)
    lean = streamlined(model, x, runtime=True)
    assert isinstance(lean, Streamlined) and lean.network is not model
    with torch.no_grad():
        torch.testing.assert_close(lean(x), model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model", [Noisy(), nn.Sequential(network(), nn.Dropout(0.5).train())], ids=["noise", "dropout"])
def test_a_randomised_model_stands_for_itself(model):
    assert streamlined(model, X, runtime=True) is model


def test_what_cannot_be_traced_or_copied_stands_for_itself():
    for model in (Branching(), Uncopiable()):
        assert streamlined(model.eval(), X, runtime=False) is model


def test_a_copy_that_answers_otherwise_is_not_used(monkeypatch):
    def wrongly(model, graph):
        fold_batch_norms(model, graph)
        with torch.no_grad():
            model[-1].bias[0] += 0.1

    model = network()
    monkeypatch.setattr("adamas.streamline.fold_batch_norms", wrongly)
    assert streamlined(model, X, runtime=False) is model
