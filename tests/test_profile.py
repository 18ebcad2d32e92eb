"""Profiling features over prompts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import graphs
from circuits.atlas.shipped import atlas_transcoders
from circuits.evaluation.profiling import profile, read_texts
from circuits.features.active import FeatureSource
from circuits.features.files.reading import read_transcoders
from circuits.features.hook_points import MlpPoints
from circuits.features.hybrid import Filled
from circuits.features.neuron_layer import neuron_layer
from circuits.features.neurons import Neurons
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import empty_transcoder
from circuits.features.transcoder_set import DictionaryMismatch, TranscoderSet
from circuits.model.prompt import PromptError, read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from circuits.recording.record import record
from tests.test_cli import assert_refused, run

TEXTS = ["The capital of the state containing Dallas is", "The capital of Texas is"]


@pytest.fixture(scope="module")
def small() -> Subject:
    return read_subject("atlas-small")


@pytest.fixture(scope="module")
def transcoders() -> TranscoderSet:
    return read_transcoders(str(atlas_transcoders("atlas-small")))


def test_activations_are_those_of_traces(small: Subject, transcoders: TranscoderSet):
    made = profile(small, transcoders, TEXTS)
    start = 0
    for text, profiled in zip(TEXTS, made.prompts, strict=True):
        graph = trace(read_prompt(text, small.tokenizer), small, transcoders)
        assert profiled.tokens == graph.provenance.tokens
        rows = np.flatnonzero(graph.nodes.is_kind(graphs.NodeKind.FEATURE))
        at = made.rows(graph.nodes.layer[rows], graph.nodes.index[rows])
        tokens = start + graph.nodes.pos[rows]
        found = made.activation.toarray()[at, tokens]
        np.testing.assert_allclose(found, graph.nodes.activation[rows], rtol=1e-5)
        here = made.activation[:, start : start + len(profiled.tokens)]
        assert here.count_nonzero() == len(rows)
        start += len(profiled.tokens)
        for row, place in zip(rows.tolist(), at.tolist(), strict=True):
            if row in graph.output_tokens:
                assert made.promoted[place][:5] == graph.output_tokens[row]


def test_decoders_are_the_directions_in_which_features_write(
    small: Subject, transcoders: TranscoderSet
):
    made = profile(small, transcoders, TEXTS)
    assert made.decoder is not None
    np.testing.assert_allclose(np.linalg.norm(made.decoder, axis=1), 1.0, rtol=1e-5)
    layers = transcoders.layers
    for row in range(0, len(made.layer), 37):
        layer, index = int(made.layer[row]), int(made.index[row])
        written = sum(decoder[index].double() for decoder in layers[layer].decoders)
        expected = (written / written.norm()).numpy()
        np.testing.assert_allclose(made.decoder[row], expected, atol=1e-5)


def test_only_what_is_wanted_is_kept(small: Subject, transcoders: TranscoderSet):
    whole = profile(small, transcoders, TEXTS)
    wanted = {(int(whole.layer[5]), int(whole.index[5])), (3, 10**6)}
    made = profile(small, transcoders, TEXTS, wanted)
    assert list(zip(made.layer.tolist(), made.index.tolist(), strict=True)) == sorted(wanted)
    row = made.rows(whole.layer[5:6], whole.index[5:6])
    assert np.array_equal(made.activation[row].toarray(), whole.activation[[5]].toarray())
    silent = made.rows(np.array([3]), np.array([10**6]))
    assert made.activation[silent].count_nonzero() == 0
    assert made.promoted[int(silent[0])] == ()
    assert made.decoder is not None
    assert not made.decoder[silent].any()
    assert made.decoder[row].any()


@pytest.mark.parametrize("filled", [False, True])
def test_neurons_have_their_activations_at_every_token(
    small: Subject, transcoders: TranscoderSet, filled: bool
):
    source: FeatureSource = Neurons(30)
    if filled:  # only layer 1 has transcoders
        none = empty_transcoder(small.frozen.d_model)
        layers = (none, transcoders.layers[1], *[none] * (small.frozen.n_layers - 2))
        source = Filled(replace(transcoders, layers=layers, partial=True), Neurons(30))
    made = profile(small, source, TEXTS)
    with torch.inference_mode():
        start = 0
        for text in TEXTS:
            recording = record(small.frozen, read_prompt(text, small.tokenizer))
            points = MlpPoints(small.frozen, recording, ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
            for layer in range(small.frozen.n_layers):
                if filled and layer == 1:
                    continue
                rows = np.flatnonzero(made.layer == layer)
                wanted = neuron_layer(points, layer).activation[:, made.index[rows]].T
                found = made.activation[rows].toarray()[:, start : start + wanted.shape[1]]
                np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6)
            start += len(recording.prompt)
    assert len(made.layer) > 30


def test_the_command_profiles_the_features_of_graphs(tmp_path: Path):
    prompts, out, graph = (tmp_path / name for name in ("p.txt", "p.safetensors", "g.safetensors"))
    prompts.write_text("\n".join(["", *TEXTS, ""]), encoding="utf-8")
    assert run("trace", TEXTS[0], "--model", "atlas-small", "--out", graph).exit_code == 0
    data = json.loads(
        run("profile", "atlas-small", prompts, "--of", graph, "--out", out, "--json").stdout
    )
    read = graphs.read_profile(out)
    assert data == {"features": len(read.layer), "prompts": 2, "tokens": 15, "file": str(out)}
    nodes = graphs.read_graph(graph).nodes
    features = nodes.take(np.flatnonzero(nodes.is_kind(graphs.NodeKind.FEATURE)))
    wanted = zip(features.layer.tolist(), features.index.tolist(), strict=True)
    assert set(wanted) == set(zip(read.layer.tolist(), read.index.tolist(), strict=True))
    alone = json.loads(run("group", graph, "--json").stdout)["groups"]
    with_decoders = json.loads(run("group", graph, "--profile", out, "--json").stdout)["groups"]
    assert alone != with_decoders
    told = run("profile", "atlas-small", prompts, "--out", out)
    assert "2 prompts, 15 tokens in" in told.stdout
    other = tmp_path / "other.safetensors"
    assert run("trace", TEXTS[1], "--out", other).exit_code == 0
    theirs = tmp_path / "theirs.safetensors"
    assert run("profile", "atlas-large", prompts, "--of", other, "--out", theirs).exit_code == 0
    profiles = ["--profile", out, "--profile", theirs]
    compared = json.loads(run("compare", graph, other, *profiles, "--json").stdout)
    assert "activations" in {kind["name"] for kind in compared["evidence"]}
    assert_refused(run("compare", graph, graph, *profiles), "leave out the profiles")
    refused = run("group", graph, "--profile", theirs)
    assert_refused(refused, "in 'atlas-large', but the graph has features of")


def test_a_line_is_a_prompt_as_it_stands_and_an_empty_one_is_none(tmp_path: Path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa \r\n\r\n \n\tb\u2028c\x0bd\n\n".encode())
    assert read_texts(path) == ["a ", " ", "\tb\u2028c\x0bd"]


def test_neurons_that_the_model_lacks_are_refused(small: Subject):
    with pytest.raises(DictionaryMismatch, match="Layer 1 has 384 neurons, and none with index"):
        profile(small, Neurons(4), ["The capital of"], {(1, 10**6)})


def test_what_is_no_prompt_gets_one_sentence(tmp_path: Path, small: Subject):
    out = tmp_path / "p.safetensors"
    assert_refused(run("profile", "atlas-small", tmp_path / "no", "--out", out), "Cannot read")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    assert_refused(run("profile", "atlas-small", empty, "--out", out), "write one per line")
    empty.write_bytes(b"\xff\xfe")
    assert_refused(run("profile", "atlas-small", empty, "--out", out), "it is not UTF-8")
    assert not out.exists()
    with pytest.raises(PromptError, match="There are no prompts"):
        profile(small, Neurons(), [])
    os.truncate(empty, 2**30)
    with pytest.raises(
        graphs.GraphFileError, match="files of prompts have at most 16,777,216 bytes"
    ):
        read_texts(empty)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for place in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(graphs.GraphFileError, match="it is not a regular file"):
            read_texts(place)
