"""Learned steps: fixing them changes nothing, what ships agrees, levels are used, steps stay positive, attacks only look."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.attacks.pgd import PGD
from adamas.compress.lsq import LSQ, LearnedActivation, LearnedWeight
from adamas.compress.prune import Prune
from adamas.compress.qat import QAT
from adamas.compress.quantizers import ActivationQuantizer, QuantizedBias, QuantizedWeight, activation_quantizers
from adamas.deploy.export import export_onnx
from adamas.deploy.parity import parity
from adamas.deploy.runtime import OnnxModel
from adamas.deploy.settle import settled
from adamas.errors import AdamasError
from adamas.fit import Fit, fit
from adamas.recipe import Stage
from adamas.registry import parse
from adamas.roles import Compressor
from adamas.surgery import weight_layers
from adamas.threat import Linf
from tests.helpers import SmallNet, accuracy, first_batch

THREAT = Linf(eps=0.1)


def prepared(model: nn.Module, digits, method: Compressor) -> Any:
    method.attach(model)
    method.calibrate(model, digits.train.batches(64, seed=0), THREAT)
    return method


def learnt(model: nn.Module, digits, method: Compressor, finish: bool = True, **settings) -> Any:
    """The network after calibration, some training and, as a rule, `finish`."""
    prepared(model, digits, method)
    fit(model, digits, Fit(**{"epochs": 2, "batch_size": 64, "lr": 0.02} | settings), THREAT, compressor=method)
    if finish:
        method.finish(model)
    return method


def steps(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters() if name.endswith(".step")}


def computed(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Every effective weight and bias, and the logits."""
    layers: list[Any] = list(weight_layers(model).values())
    with torch.no_grad():
        return [tensor for layer in layers for tensor in (layer.weight.clone(), layer.bias.clone())] + [model.eval()(x)]


# ----------------------------------------------------------------------------------------------------------- finish


@pytest.mark.parametrize("settings", [{}, {"per_channel": False}, {"ema": 0.9}, {"keep": 0.3}], ids=str)
@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(2, 2), (4, 4), (8, 8), (12, 16)])
def test_finish_changes_no_weight_no_bias_and_no_logit(trained, digits, weight_bits, activation_bits, settings):
    if "keep" in settings:
        prepared(trained, digits, Prune(keep=0.3))
    fits = {"ema": settings["ema"]} if "ema" in settings else {}
    method = LSQ(
        weight_bits=weight_bits, activation_bits=activation_bits, per_channel=settings.get("per_channel", True), batches=2
    )
    learnt(trained, digits, method, finish=False, epochs=1, lr=0.05, **fits)
    x = first_batch(digits)[0]
    before = computed(trained, x)
    method.finish(trained)
    assert not steps(trained) and all(torch.equal(a, b) for a, b in zip(before, computed(trained, x), strict=True))


def test_what_is_left_is_what_post_training_quantization_leaves(trained, digits):
    learnt(trained, digits, method := LSQ(weight_bits=4, activation_bits=4))
    kinds = {type(module) for module in trained.modules() if isinstance(module, QuantizedWeight | ActivationQuantizer)}
    assert kinds == {QuantizedWeight, ActivationQuantizer}
    torch.manual_seed(5)
    fresh = SmallNet()
    method.attach(fresh)
    fresh.load_state_dict(trained.state_dict())
    x = first_batch(digits)[0]
    assert all(torch.equal(a, b) for a, b in zip(computed(trained, x), computed(fresh, x), strict=True))


def test_the_steps_that_were_learned_are_those_that_are_left(trained, digits):
    method = learnt(trained, digits, LSQ(weight_bits=3, activation_bits=3), finish=False)
    learned = {name: quantizer.grid() for name, quantizer in activation_quantizers(trained).items()}
    assert [scale for scale, _ in learned.values()] == pytest.approx(
        [step.item() for name, step in steps(trained).items() if name.startswith("activation_quantizers")]
    )
    method.finish(trained)
    assert {name: quantizer.grid() for name, quantizer in activation_quantizers(trained).items()} == learned


# ------------------------------------------------------------------------------------------------------------- ships


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_exported_file_agrees_with_the_network(trained, digits, bits, tmp_path):
    learnt(trained, digits, LSQ(weight_bits=bits, activation_bits=bits))
    path = export_onnx(trained, tmp_path / "model.onnx", (1, 8, 8))
    found = parity(trained, OnnxModel(path), digits.test)
    assert found.agreement == 1.0 and found.largest_logit_difference < 1e-3


def test_the_settled_copy_computes_the_same(trained, digits):
    learnt(trained, digits, LSQ(weight_bits=4, activation_bits=4))
    x = first_batch(digits)[0]
    assert all(torch.equal(a, b) for a, b in zip(computed(trained, x), computed(settled(trained)[0], x), strict=True))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_channel_uses_its_outermost_level(trained, digits, bits):
    learnt(trained, digits, LSQ(weight_bits=bits, activation_bits=8))
    layer: Any
    for layer in weight_layers(trained).values():
        quantizer = layer.parametrizations.weight[0]
        codes = (layer.weight / quantizer.unit.view(-1, *[1] * (layer.weight.dim() - 1))).flatten(1).abs()
        assert torch.allclose(codes.amax(1), torch.tensor(float(quantizer.last * max(1, 63 // quantizer.last))))


def test_biases_look_for_the_learned_steps(trained, digits):
    prepared(trained, digits, LSQ(weight_bits=4))
    layer: Any = trained[0]
    weight, inputs = layer.parametrizations.weight[0], trained.get_submodule("activation_quantizers.after_input_1")
    assert isinstance(weight, LearnedWeight) and isinstance(inputs, LearnedActivation)
    assert isinstance(layer.parametrizations.bias[0], QuantizedBias) and layer.parametrizations.bias[0].steps == (
        weight,
        inputs,
    )
    with torch.no_grad():
        inputs.step.mul_(50)
        codes = (layer.weight, layer.bias)[1] / (weight.unit * inputs.grid()[0])  # a layer computes its weight first
    assert torch.allclose(codes, codes.round(), atol=1e-3) and codes.abs().max() >= 1


# ---------------------------------------------------------------------------------------------------------- training


def test_two_bits_learn_what_measured_ranges_do_not(trained, digits):
    x, y = next(digits.validation.batches(150))
    measured = copy.deepcopy(trained)
    for model, method in ((measured, QAT), (trained, LSQ)):
        learnt(model, digits, method(weight_bits=2, activation_bits=2), epochs=6, batch_size=32, lr=0.01)
    assert accuracy(trained, x, y) > max(0.75, accuracy(measured, x, y) + 0.2)


def test_all_steps_train_and_none_decays(trained, digits):
    method = prepared(trained, digits, LSQ(weight_bits=3, activation_bits=3))
    assert {id(p) for p in method.undecayed(trained)} == {
        id(p) for name, p in trained.named_parameters() if name.endswith(".step")
    }
    before = steps(trained)
    fit(trained, digits, Fit(epochs=1, batch_size=64, lr=0.01), THREAT, compressor=method)
    after = steps(trained)
    assert len(after) == 9 and all(not torch.equal(before[name], after[name]) for name in after)


def test_one_update_halves_or_doubles_a_step_at_most(trained, digits):
    method = prepared(trained, digits, LSQ(weight_bits=2, activation_bits=2))
    layer: Any = trained[0]
    inputs: Any = trained.get_submodule("activation_quantizers.after_input_1")
    weights = layer.parametrizations.weight[0]
    for new, factor in ((-3.0, 0.5), (50.0, 2.0)):
        trained.train()(first_batch(digits)[0])
        most = weights.scale(layer.parametrizations.weight.original)
        begun = weights.step.detach().clone(), inputs.step.detach().clone()
        for quantizer in (weights, inputs):
            nn.init.constant_(quantizer.step, new)
        method.after_step(trained, 0.5)
        assert torch.allclose(weights.step, torch.minimum(begun[0] * factor, most))
        assert torch.allclose(inputs.step, begun[1] * factor)


def test_steps_stay_positive_where_the_rate_is_far_too_high(trained, digits):
    learnt(trained, digits, LSQ(weight_bits=2, activation_bits=2), finish=False, epochs=1, lr=0.5, schedule="constant")
    assert all((step > 0).all() for step in steps(trained).values())


def test_a_diverged_network_ends_in_the_sentence_about_its_loss(trained, digits):
    with pytest.raises(AdamasError, match="the loss became nan, expected a finite number"):
        learnt(trained, digits, LSQ(), lr=1e38)


def test_empty_channels_and_silent_activations_stay_finite(trained, digits):
    with torch.no_grad():
        trained[0].weight.zero_()
        trained[1].bias.fill_(-1)  # nothing passes the first rectifier
        trained[1].running_mean.zero_()
    learnt(trained, digits, LSQ(weight_bits=2, activation_bits=2), epochs=1)
    assert all(tensor.isfinite().all() for tensor in computed(trained, first_batch(digits)[0]))


# ----------------------------------------------------------------------------------------------------------- attacks


def test_attacks_see_black_pixels_and_leave_no_gradient_on_a_step(trained, digits):
    prepared(trained, digits, LSQ(weight_bits=4, activation_bits=4))
    x, y = first_batch(digits)
    before = steps(trained)
    x_adv = PGD(steps=3, random_start=False)(trained, x, y, THREAT)
    assert (x_adv[x == 0] > 0).float().mean() > 0.2
    after = steps(trained)
    assert all(torch.equal(before[name], after[name]) for name in after) and all(p.grad is None for p in trained.parameters())


# ------------------------------------------------------------------------------------------------------------ errors


def test_a_stage_without_a_fit_is_refused():
    with pytest.raises(AdamasError, match="^lsq: expected a fit in the same stage, in which it learns, got none$"):
        parse(Stage, {"compress": "lsq"})


def test_weights_under_more_than_masks_are_refused(digits):
    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

        def right_inverse(self, weight: Tensor) -> Tensor:
            return weight / 2

    model = SmallNet()
    parametrize.register_parametrization(model[9], "weight", Doubled())
    with pytest.raises(
        AdamasError, match="lsq: expected weights under nothing but masks, got layer 9 parametrized by Doubled; take qat"
    ):
        prepared(model, digits, LSQ())


def test_calibration_without_batches_is_refused(trained):
    LSQ().attach(trained)
    with pytest.raises(AdamasError, match="expected at least one batch to calibrate activation ranges with, got none"):
        LSQ().calibrate(trained, [], THREAT)
