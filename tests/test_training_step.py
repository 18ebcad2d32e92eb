"""A training step computes with active features alone what products of all features give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from circuits.largest import largest, largest_first
from circuits.training.activations import Activations
from circuits.training.checkpoint import RunState
from circuits.training.code import Code
from circuits.training.dictionary import TrainedDictionary
from circuits.training.encoding import Plan, made_plan
from circuits.training.losses import SATURATION, step_loss
from circuits.training.settings import Kind, Sparsity, TrainSettings
from circuits.training.step import adam, advance, schedule
from tests.tolerances import EXACT

N_LAYERS, N_TOKENS, D_MODEL = 3, 40, 16
SETTINGS = TrainSettings(
    d_dict=64,
    l0=3.0,
    batch_tokens=N_TOKENS,
    shuffled_tokens=N_TOKENS,
    bandwidth=0.3,
    prefixes=(0.3,),
)


def random_dictionary(settings: TrainSettings) -> TrainedDictionary:
    generator = torch.Generator().manual_seed(0)
    dictionary = TrainedDictionary(settings, N_LAYERS, D_MODEL).double()
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 4
    return dictionary


def random_batch(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (N_LAYERS, N_TOKENS, D_MODEL)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def straight_through(soft: Tensor, hard: Tensor) -> Tensor:
    """The value of one tensor with the gradient of another."""
    return hard.detach() + soft - soft.detach()


def dense_activations(dictionary: TrainedDictionary, pre: Tensor) -> tuple[Tensor, Tensor]:
    """Activations of all features, and for each whether it is on, with a gradient."""
    settings = dictionary.settings
    positive = pre.relu()
    if settings.sparsity == Sparsity.TOP_K:
        least = positive.sort(dim=2, descending=True).values[:, :, settings.k - 1, None]
        return positive * (positive >= least), pre.new_zeros(())
    if settings.sparsity == Sparsity.BATCH_TOP_K:
        together = settings.kind == Kind.CROSS_LAYER
        rows = positive.flatten()[None] if together else positive.flatten(1)
        count = int(settings.l0 * rows.shape[1] / settings.d_dict)
        least = rows.sort(dim=1, descending=True).values[:, count - 1, None, None]
        return positive * (positive >= least), pre.new_zeros(())
    threshold = dictionary.log_threshold.exp()[:, None]
    # A ramp of the kernel's width has the rectangle as its derivative.
    ramp = ((pre.detach() - threshold) / settings.bandwidth + 0.5).clamp(0, 1)
    on = (pre > threshold).double()
    with_threshold = straight_through(threshold.detach() * ramp, pre.detach() * on)
    return with_threshold + (pre - pre.detach()) * on, straight_through(ramp, on)


def dense_written(dictionary: TrainedDictionary, activations: Tensor) -> Tensor:
    rows = [torch.zeros(N_TOKENS, D_MODEL).double() for _ in range(N_LAYERS)]
    for layer, decoder in enumerate(dictionary.decoders):
        for offset in range(decoder.shape[1]):
            rows[layer + offset] = rows[layer + offset] + activations[layer] @ decoder[:, offset]
    return torch.stack(rows)


def relative(error: Tensor, whole: Tensor) -> Tensor:
    return (error.square().sum((1, 2)) / whole.square().sum((1, 2))).mean()


def dense_loss(
    dictionary: TrainedDictionary, inputs: Tensor, outputs: Tensor, dead: Tensor, frequent: Tensor
) -> Tensor:
    settings = dictionary.settings
    encoders = torch.stack(list(dictionary.encoders))
    pre = inputs @ encoders.mT + dictionary.encoder_bias[:, None]
    activations, on = dense_activations(dictionary, pre)
    constant = dictionary.decoder_bias[:, None]
    if dictionary.skip is not None:
        constant = constant + inputs @ dictionary.skip.mT
    error = outputs - constant - dense_written(dictionary, activations)
    loss = relative(error, outputs)
    first = torch.arange(settings.d_dict) < int(0.3 * settings.d_dict)
    alone = outputs - constant - dense_written(dictionary, activations * first)
    loss = loss + relative(alone, outputs)
    if settings.sparsity == Sparsity.JUMP_RELU:
        loss = loss + (on.sum(2).mean() / settings.l0 - 1) ** 2
    if settings.sparsity == Sparsity.TANH:
        sizes = activations * dictionary.decoder_norms()[:, None]
        loss = loss + torch.tanh(SATURATION * sizes).sum(2).mean() / settings.l0
    loss = loss + settings.frequency_penalty * (activations * frequent[:, None]).sum() / 120
    inactive = torch.where(dead[:, None], pre, -torch.inf).relu()
    least = inactive.sort(dim=2, descending=True).values[:, :, settings.k - 1, None]
    revived = dense_written(dictionary, inactive * (inactive >= least))
    remaining = error.detach()
    return loss + settings.revival * relative(remaining - revived, remaining)


@pytest.mark.parametrize("sparsity", Sparsity)
@pytest.mark.parametrize("kind", Kind)
def test_the_loss_and_its_gradient_are_those_of_dense_products(kind: Kind, sparsity: Sparsity):
    settings = replace(SETTINGS, kind=kind, sparsity=sparsity)
    dictionary, inputs, outputs = random_dictionary(settings), random_batch(1), random_batch(2)
    dead = torch.zeros(N_LAYERS, 64, dtype=torch.bool)
    dead[0, 5:20] = dead[2, 40:44] = True
    frequency = torch.rand(N_LAYERS, 64, generator=torch.Generator().manual_seed(3)).double() / 5
    plan = Plan.of(made_plan(dictionary, inputs).budget, dead)
    loss = step_loss(dictionary, inputs, outputs, plan, frequency, 1.0).loss
    frequent = (frequency > settings.high_frequency).double()
    expected = dense_loss(dictionary, inputs, outputs, dead, frequent)
    torch.testing.assert_close(loss, expected, **EXACT)
    names, parameters = zip(*dictionary.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)
    for name, one, other in zip(names, found, wanted, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.any(), name
            torch.testing.assert_close(one, other, **EXACT)


def test_steps_are_those_of_adam_with_gradients_of_norm_1_at_most():
    """The scale is in float32.  Adam does not see the size of the first gradient, but of others."""
    settings = replace(SETTINGS, kind=Kind.SKIP, steps=100)
    found, expected = random_dictionary(settings), random_dictionary(settings)
    optimizer = adam(found)
    plain = torch.optim.Adam(expected.parameters(), fused=False, foreach=False)
    state = RunState.initial(found.encoder_bias.detach())
    state.step, sizes = 1, list[float]()  # decoders are not normalised at this step
    state.plan = made_plan(found, found.inputs.apply_to(random_batch(1)))
    for seed in range(1, 5):
        batch = Activations(random_batch(seed), random_batch(seed + 10))
        plain.param_groups[0]["lr"] = schedule(settings, state.step)[0]
        share = schedule(settings, state.step)[1]
        arguments = (batch.inputs, batch.outputs, state.plan, state.frequency.clone(), share)
        plain.zero_grad()
        step_loss(expected, *arguments).loss.backward()
        sizes.append(float(torch.nn.utils.clip_grad_norm_(expected.parameters(), 1.0)))
        plain.step()
        advance(found, optimizer, batch, state)
    assert max(sizes) > 1 > min(sizes)
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("size", [(1, 4096), (5, 640), (7, 96), (3, 33), (2, 1), (3, 5021)])
@pytest.mark.parametrize("k", [0, 1, 3, 40])
def test_the_largest_are_found_in_the_groups_of_largest_maxima(size: tuple[int, int], k: int):
    values = torch.randn(size, generator=torch.Generator().manual_seed(k))
    k = min(k, size[1])
    found = largest(values, k).sort(dim=1).values
    assert torch.equal(found, values.topk(k).indices.sort(dim=1).values)
    assert torch.equal(largest_first(values, k), values.topk(k).indices)


def test_a_batch_without_entries_reads_and_writes_nothing():
    none = torch.zeros(0, dtype=torch.long)
    code = Code.of(none, none, 4)
    table = torch.ones(3, 2, requires_grad=True)
    assert code.read(table, torch.ones(4, 2), torch.ones(3)).shape == (0,)
    assert not code.written(table.detach(), torch.zeros(0)).any()
