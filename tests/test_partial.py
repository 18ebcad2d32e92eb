"""Dictionaries of some layers: errors or neurons stand in the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from circuits.autoencoders import Autoencoder, AutoencoderSet, Site, fired
from circuits.filled import Filled
from circuits.firing import strongest
from circuits.frozen import DamagedWeights
from circuits.neurons import Neurons
from circuits.nonlinearities import ReLU
from circuits.recording import record
from circuits.trace import trace
from circuits.transcoders import DictionaryMismatch, TranscoderSet, nothing
from circuits.weights import read_dictionary
from graphs import DictionaryIdentity, NodeKind
from tests import format_writers as writers
from tests.conftest import cached_subject
from tests.test_cli import assert_refused, run
from tests.tiny import tiny_prompt, toy_dictionary


def partial() -> TranscoderSet:
    """Only layer 1 of the toy dictionary."""
    made = toy_dictionary()
    return replace(made, layers=(nothing(16), made.layers[1]), partial=True)


def layers_of(graph, kind: NodeKind) -> list[int]:
    return np.unique(graph.nodes.layer[graph.nodes.is_kind(kind)]).tolist()


@pytest.mark.parametrize("name", ["gemma-3", "gpt-oss"])
def test_layers_without_transcoders_are_errors(name: str):
    subject = cached_subject(name)
    graph = trace(tiny_prompt(), subject, partial())
    assert layers_of(graph, NodeKind.FEATURE) == [1]
    recording = record(subject.frozen, tiny_prompt())
    assert graph.provenance.checks.conservation_max is not None
    assert graph.provenance.checks.conservation_max < 1e-9
    assert graph.provenance.checks.replay_max_difference is not None
    assert graph.provenance.checks.replay_max_difference < 1e-9
    assert len(recording.blocks) == 3


def test_neurons_may_stand_in_layers_without_transcoders():
    subject = cached_subject("llama")
    filled = Filled(partial(), Neurons(60))
    graph = trace(tiny_prompt(), subject, filled)
    assert layers_of(graph, NodeKind.FEATURE) == [0, 1, 2]
    checks = graph.provenance.checks
    assert checks.conservation_max is not None
    assert checks.conservation_max < 1e-9
    assert checks.replay_max_difference is not None
    assert checks.replay_max_difference < 1e-9
    assert graph.provenance.dictionary.kind == "transcoder and neurons"
    alone = trace(tiny_prompt(), subject, partial())
    told = {(k, p, i) for k, p, i in _features(graph, 1)}
    assert told == set(_features(alone, 1))


def _features(graph, layer: int):
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE) & (graph.nodes.layer == layer))
    return [(layer, int(graph.nodes.pos[r]), int(graph.nodes.index[r])) for r in rows]


def test_a_whole_set_must_have_every_layer():
    made = toy_dictionary()
    cut = replace(made, layers=made.layers[:2])
    with pytest.raises(DictionaryMismatch, match="has 2 layers, the model has 3"):
        trace(tiny_prompt(), cached_subject("llama"), cut)


def test_a_damaged_encoder_is_noticed_when_it_is_used():
    made = toy_dictionary()
    made.layers[1].encoder[3, 3] = torch.nan
    with pytest.raises(DamagedWeights, match="Layer 1 of 'toy' holds NaN or infinite values"):
        trace(tiny_prompt(), cached_subject("llama"), made)


@pytest.mark.parametrize("site", Site)
@pytest.mark.parametrize("name", ["gemma-3", "llama"])
def test_autoencoders_read_what_their_site_says(name: str, site: Site):
    """Identity encoders give the vectors themselves, against what a recording holds."""
    subject = cached_subject(name)
    width = 24 if site == Site.HEADS else 16
    eye = torch.eye(width).double()
    both = torch.cat([eye, -eye])
    chosen = AutoencoderSet(
        (Autoencoder(1, site, both, torch.zeros(2 * width), ReLU()),),
        DictionaryIdentity(kind="autoencoder", name="eye"),
    )
    ((_, activations),) = fired(subject.frozen, tiny_prompt(), chosen)
    vectors = activations[:, :width] - activations[:, width:]
    recording = record(subject.frozen, tiny_prompt())
    block, following = recording.blocks[1], recording.blocks[2]
    frozen = subject.frozen.blocks[1]
    wanted = {
        Site.MLP: block.contribution,
        Site.RESIDUAL: block.mlp_residual + block.contribution,
        Site.MLP_OUTPUT: block.contribution,
    }.get(site)
    if site == Site.MLP_OUTPUT and frozen.post_mlp_norm is not None:
        wanted = None
    if wanted is not None:
        torch.testing.assert_close(vectors[1:], wanted[1:], rtol=1e-5, atol=1e-6)
    assert not activations[0].any()
    assert len(following.contribution) == len(vectors)


def test_a_subtracted_bias_is_subtracted():
    shift = torch.arange(16.0)
    one = Autoencoder(0, Site.MLP, torch.eye(16), torch.zeros(16), ReLU(), subtracted=shift)
    assert one.activations(torch.zeros(1, 16) + 3).tolist() == [(3 - shift).relu().tolist()]
    with pytest.raises(DictionaryMismatch, match="reads 16 dimensions, the model has 4 there"):
        one.activations(torch.zeros(1, 4))


def test_the_strongest_features_of_every_token_and_layer_are_listed():
    subject = cached_subject("llama")
    firings = strongest(subject.frozen, tiny_prompt(), toy_dictionary(), {0, 2}, 2)
    assert {firing.layer for firing in firings} == {0, 2}
    keys = [(firing.pos, firing.layer, -firing.activation) for firing in firings]
    assert keys == sorted(keys)
    assert max(sum(f.pos == 2 and f.layer == 0 for f in firings) for _ in firings) == 2
    assert all(firing.pos > 0 for firing in firings)


def test_published_autoencoders_are_read(tmp_path: Path):
    made = toy_dictionary()
    writers.gemma_scope_2(made, tmp_path / "two")
    for number in range(3):
        config = tmp_path / "two" / f"layer_{number}_width_20_l0_small" / "config.json"
        told = {"type": "sae", "hf_hook_point_in": f"model.layers.{number}.output"}
        writers.as_json(told, config)
    writers.gemma_scope_1(made, tmp_path / "one")
    read = read_dictionary(tmp_path / "two")
    assert isinstance(read, AutoencoderSet)
    assert [one.layer for one in read.autoencoders] == [0, 1, 2]
    assert {one.site for one in read.autoencoders} == {Site.RESIDUAL}
    assert torch.equal(read.autoencoders[2].encoder, made.layers[2].encoder)
    single = read_dictionary(tmp_path / "one" / "layer_1/width_20/average_l0_31", site=Site.MLP)
    assert isinstance(single, AutoencoderSet)
    assert single.autoencoders[0].site == Site.MLP


def test_the_command_lists_features(model_folder: Path, tmp_path: Path):
    result = run("features", "The capital of Texas is", "--top", 1, "--layer", 2)
    assert result.exit_code == 0, result.output
    assert "atlas-large · atlas-large-clt · cross-layer transcoder" in result.stdout
    assert "Texas" in result.stdout
    refused = run("features", "fj", "--model", model_folder)
    assert_refused(refused, "Say which features with --dictionary")


def test_the_command_lists_published_dictionaries():
    result = run("dictionaries", "--model", "gemma-3-1b-pt")
    assert result.exit_code == 0, result.output
    assert "google/gemma-scope-2-1b-pt/clt/width_262k_l0_big_affine" in result.stdout
    assert "32.7 GB" in result.stdout
    assert "270m" not in result.stdout


def test_filled_layers_hold_their_own_constants():
    """With every neuron of layers 0 and 2, biases included, nothing there is left to error."""
    subject = cached_subject("gpt-2")
    graph = trace(tiny_prompt(), subject, Filled(partial(), Neurons(10_000)))
    errors = graph.nodes.is_kind(NodeKind.ERROR)
    size = np.abs(graph.weights.toarray()).sum(0)
    assert size[errors & (graph.nodes.layer != 1)].max() < 1e-9
    assert size[errors & (graph.nodes.layer == 1)].max() > 1e-3
