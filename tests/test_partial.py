"""Dictionaries of some layers: errors or neurons stand in the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from circuits.evaluation.replacement import Replacement
from circuits.features.files.locations import parse_reference
from circuits.features.firing import strongest
from circuits.features.hybrid import Filled
from circuits.features.neurons import Neurons
from circuits.features.transcoder import empty_transcoder
from circuits.features.transcoder_set import DictionaryMismatch, TranscoderSet
from circuits.model.frozen import DamagedWeights
from circuits.pipe import trace
from graphs import NodeKind
from tests.conftest import cached_subject
from tests.test_cli import assert_refused, run
from tests.tiny import tiny_prompt, toy_dictionary


def partial() -> TranscoderSet:
    """Only layer 1 of the toy dictionary."""
    made = toy_dictionary()
    return replace(made, layers=(empty_transcoder(16), made.layers[1]), partial=True)


def layers_of(graph, kind: NodeKind) -> list[int]:
    return np.unique(graph.nodes.layer[graph.nodes.is_kind(kind)]).tolist()


@pytest.mark.parametrize("name", ["gemma-3", "gpt-oss"])
def test_layers_without_transcoders_are_errors(name: str):
    subject = cached_subject(name)
    graph = trace(tiny_prompt(), subject, partial())
    assert layers_of(graph, NodeKind.FEATURE) == [1]
    assert graph.provenance.checks.conservation_max is not None
    assert graph.provenance.checks.conservation_max < 1e-9
    assert graph.provenance.checks.replay_max_difference is not None
    assert graph.provenance.checks.replay_max_difference < 1e-9
    assert layers_of(graph, NodeKind.ERROR) == [0, 1, 2]


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
    with pytest.raises(DamagedWeights, match="Layer 1 of 'toy' has NaN or infinite values"):
        trace(tiny_prompt(), cached_subject("llama"), made)


def test_the_strongest_features_of_every_token_and_layer_are_listed():
    subject = cached_subject("llama")
    firings = strongest(subject.frozen, tiny_prompt(), toy_dictionary(), {0, 2}, 2)
    assert {firing.layer for firing in firings} == {0, 2}
    keys = [(firing.pos, firing.layer, -firing.activation) for firing in firings]
    assert keys == sorted(keys)
    assert max(sum(f.pos == 2 and f.layer == 0 for f in firings) for _ in firings) == 2
    assert all(firing.pos > 0 for firing in firings)


def test_the_command_lists_features(model_folder: Path, tmp_path: Path):
    result = run("features", "The capital of Texas is", "--top", 1, "--layer", 2)
    assert result.exit_code == 0, result.output
    assert "atlas-large · atlas-large-clt · cross-layer transcoder" in result.stdout
    assert "Texas" in result.stdout
    refused = run("features", "fj", "--model", model_folder)
    assert_refused(refused, "No transcoders ship with this model: give --dictionary")


def test_the_command_lists_published_dictionaries():
    result = run("dictionaries", "--model", "gemma-3-1b-pt")
    assert result.exit_code == 0, result.output
    assert "google/gemma-scope-2-1b-pt/clt/width_262k_l0_big_affine" in result.stdout
    assert "32.7 GB" in result.stdout
    assert "270m" not in result.stdout
    every = json.loads(run("dictionaries", "--json").stdout)["dictionaries"]
    assert all(parse_reference(entry["reference"]) is not None for entry in every)
    assert len({entry["reference"] for entry in every}) == len(every) > 300
    (known,) = [e for e in every if e["reference"] == "mntss/transcoder-Llama-3.2-1B"]
    matrices = 16 * (2 * 131072 * 2048 + 2048**2)
    assert known["size"] == 2 * (matrices + 16 * (2 * 131072 + 2048))
    (unknown,) = [e for e in every if e["reference"] == "mntss/clt@sp10-32k"]
    assert (unknown["width"], unknown["size"]) == (None, None)


def test_filled_layers_hold_their_own_constants():
    """With every neuron of layers 0 and 2, biases included, nothing there is left to error."""
    subject = cached_subject("gpt-2")
    graph = trace(tiny_prompt(), subject, Filled(partial(), Neurons(10_000)))
    errors = graph.nodes.is_kind(NodeKind.ERROR)
    size = np.abs(graph.weights.toarray()).sum(0)
    assert size[errors & (graph.nodes.layer != 1)].max() < 1e-9
    assert size[errors & (graph.nodes.layer == 1)].max() > 1e-3


def test_encoding_runs_no_layer_above_the_last_that_has_features():
    subject, ids = cached_subject("gemma-3"), torch.tensor([tiny_prompt().ids])
    found = Replacement(subject.frozen, partial())
    found.logits(ids, None)
    expected, ran = dict(found.activations), list[int]()
    handles = [
        block.modules.mlp.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(subject.frozen.blocks)
    ]
    found.encode(ids)
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]
    assert found.activations.keys() == {0, 1}
    assert expected[1].any()
    assert torch.equal(found.activations[1], expected[1])
