from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuits.attribution.local_replacement import local_replacement
from circuits.attribution.sources import build_sources
from circuits.attribution.targets import read_targets
from circuits.attribution.trace_settings import TargetSettings
from circuits.features.active import ActiveFeatures
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import JumpReLU, ReLU, TopK
from circuits.features.transcoder_set import DictionaryMismatch, TranscoderSet
from circuits.model.subject import Subject
from circuits.recording.record import record
from tests.tiny import tiny_prompt, toy_dictionary
from tests.tolerances import EXACT


def activate(subject: Subject, dictionary: TranscoderSet) -> ActiveFeatures:
    recording = record(subject.frozen, tiny_prompt())
    targets = read_targets(subject.frozen, recording, TargetSettings(), subject.spell)
    return dictionary.activate(subject.frozen, recording, targets.covectors)


def test_jumprelu_is_strict_and_passes_the_value_unmoved():
    gate = JumpReLU(torch.tensor([1.0, 1.0, 1.0]))
    assert gate(torch.tensor([[1.0, 1.5, -2.0]])).tolist() == [[0.0, 1.5, 0.0]]


def test_relu_cuts_at_zero():
    assert ReLU()(torch.tensor([[-1.0, 2.0]])).tolist() == [[0.0, 2.0]]


def test_topk_keeps_negative_values_only_when_signed():
    pre = torch.tensor([[-1.0, -3.0, 2.0]])
    assert TopK(2, signed=True)(pre).tolist() == [[-1.0, 0.0, 2.0]]
    assert TopK(2)(pre).tolist() == [[0.0, 0.0, 2.0]]


def test_topk_with_more_than_there_are_keeps_all():
    assert TopK(9, signed=True)(torch.tensor([[-1.0, 2.0]])).tolist() == [[-1.0, 2.0]]


def test_features_are_sorted_and_leave_context_only_positions_out(subject: Subject):
    features = activate(subject, toy_dictionary(nonlinearity="relu"))
    order = list(
        zip(*(c.tolist() for c in (features.layer, features.pos, features.index)), strict=True)
    )
    assert order == sorted(order)
    assert int(features.pos.min()) == 1


@pytest.mark.parametrize("read", ReadPoint)
def test_values_are_read_where_the_dictionary_reads(gemma: Subject, read: ReadPoint):
    dictionary = toy_dictionary(read=read)
    block = record(gemma.frozen, tiny_prompt()).blocks[1]
    norm = gemma.frozen.blocks[1].mlp_norm
    normalised = block.mlp_residual / block.mlp_residual.pow(2).mean(-1, keepdim=True).sqrt()
    inputs = {
        ReadPoint.RESIDUAL: block.mlp_residual,
        ReadPoint.NORMALISED: normalised,
        ReadPoint.MLP_INPUT: normalised * norm.gain,
    }[read]
    pre = inputs @ dictionary.layers[1].encoder.T + dictionary.layers[1].encoder_bias
    features = activate(gemma, dictionary)
    here = features.layer == 1
    torch.testing.assert_close(
        features.value[here], pre[features.pos[here], features.index[here]], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("write", WritePoint)
def test_what_is_written_and_the_error_sum_to_the_mlps_contribution(
    gemma: Subject, write: WritePoint
):
    source = toy_dictionary(cross_layer=True, write=write)
    local = local_replacement(tiny_prompt(), gemma, source, TargetSettings())
    context = local.recording.prompt.n_prefix
    for layer, entering in enumerate(build_sources(local).layers):
        tiles = entering.tiles
        total = torch.zeros_like(local.recording.tokens[context:])
        total.index_add_(0, tiles.pos, tiles.vectors.sum(1))
        contribution = local.recording.blocks[layer].contribution[context:]
        torch.testing.assert_close(total, contribution, **EXACT)


def test_a_skip_is_applied_as_matrix_times_input(gemma: Subject):
    dictionary = toy_dictionary(skip=True)
    recording = record(gemma.frozen, tiny_prompt())
    features = activate(gemma, dictionary)
    added = features.rows.linear(1)[1].forward(recording.blocks[1].mlp_residual, 0)
    expected = recording.blocks[1].mlp_input @ dictionary.layers[1].skip.T
    torch.testing.assert_close(added[1:], expected[1:], **EXACT)
    assert not added[0].any()


def test_too_few_layers_are_refused(gemma: Subject):
    dictionary = toy_dictionary()
    with pytest.raises(DictionaryMismatch, match="has 2 layers, the model has 3"):
        activate(gemma, replace(dictionary, layers=dictionary.layers[:2]))


def test_another_width_is_refused(gemma: Subject):
    with pytest.raises(DictionaryMismatch, match="reads 12 dimensions, the model has 16"):
        activate(gemma, toy_dictionary(d_model=12))


def test_writing_beyond_the_last_layer_is_refused(gemma: Subject):
    dictionary = toy_dictionary(cross_layer=True)
    layers = (dictionary.layers[0], dictionary.layers[0], dictionary.layers[2])
    with pytest.raises(
        DictionaryMismatch, match="writes to 3 layers, the model has 2 from there on"
    ):
        activate(gemma, replace(dictionary, layers=layers))
