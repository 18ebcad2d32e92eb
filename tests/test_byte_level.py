"""Two prompts of a byte-level vocabulary without BOS: tokens are known by ids in all commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphs
from circuits import Neurons, TraceSettings, prepare, read_prompt, read_subject, trace
from circuits.attribution.trace_settings import TargetSettings
from circuits.evaluation.contrast import differing_features
from tests.graph_oracles import make_graph
from tests.test_cli import run
from tests.test_naming import folder  # noqa: F401  # a fixture

FRANCE, JAPAN = "of 🇫🇷 is", "of 🇯🇵 is"
DIFFERENT = [4, 7]  # o f ␠F0·9F 87 AB F0·9F 87 B7: the last byte of each half


@pytest.fixture(scope="module")
def pair(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:  # noqa: F811
    """Graphs of both prompts, as files of the first schema had them: pieces all written alike."""
    made = tmp_path_factory.mktemp("pair")
    for name, prompt in (("france", FRANCE), ("japan", JAPAN)):
        path = made / f"{name}.safetensors"
        traced = run("trace", prompt, "--model", folder, "--max-features", 40, "--out", path)
        assert traced.exit_code == 0, traced.output
    return made / "france.safetensors", made / "japan.safetensors"


def written_alike(path: Path, out: Path) -> Path:
    """The same graph with � for every piece of a character, and no vocabulary in its header."""
    graph = graphs.read_graph(path)
    header = graph.provenance
    tokens = tuple("\ufffd" if "<0x" in token else token for token in header.tokens)
    model = header.model.model_copy(update={"vocabulary": None})
    told = header.model_copy(update={"tokens": tokens, "model": model})
    graphs.write_graph(replace(graph, provenance=told), out)
    return out


def test_positions_pair_and_what_differs_is_said(pair: tuple[Path, Path], tmp_path: Path):
    one, other = (graphs.read_graph(path).provenance for path in pair)
    ids = np.array([one.token_ids, other.token_ids])
    assert np.flatnonzero(ids[0] != ids[1]).tolist() == DIFFERENT
    files = [written_alike(path, tmp_path / path.name) for path in pair]
    for both in (pair, files):
        told = json.loads(run("compare", *both, "--json", "--permutations", 0).stdout)
        assert told["positions"] == list(range(len(one.tokens)))
    text = run("compare", *pair, "--permutations", 1).stdout
    assert "tokens that differ: “<0xAB>” ↔ “<0xAF>”, “<0xB7>” ↔ “<0xB5>”" in text
    assert "the same tokens" not in run("compare", *files, "--permutations", 1).stdout
    assert "the same tokens" in run("compare", pair[0], pair[0], "--permutations", 1).stdout


def test_edges_in_common_are_those_of_aligned_positions(pair: tuple[Path, Path], tmp_path: Path):
    one, other = (graphs.read_graph(written_alike(path, tmp_path / path.name)) for path in pair)
    given = graphs.compare(one, other, np.arange(len(one.provenance.tokens)), permutations=0)
    assert graphs.compare(one, other, permutations=0).edges.value == given.edges.value > 0
    found = graphs.consensus([one, other])
    assert found.left_out == 0.0


def test_a_swap_goes_to_the_positions_that_stand_for_each_other(
    folder: Path,  # noqa: F811
    tmp_path: Path,
):
    subject = read_subject(str(folder))
    settings = TraceSettings(TargetSettings(max_logits=1))
    made = []
    for prompt in (FRANCE, JAPAN):
        read = read_prompt(prompt, subject.tokenizer)
        made.append(trace(read, subject, Neurons(40), settings))
    one, other = (prepare(graph, subject, Neurons(40)) for graph in made)
    assert all(place.first == place.second for place in differing_features(one, other).places)
    last = len(made[0].provenance.tokens) - 1
    there = [node for node in made[1].nodes if node.kind == graphs.NodeKind.FEATURE]
    swap = graphs.Swap("feature", "feature", made[1], graphs.NO_ANNOTATIONS)
    [change] = [graphs.intervention(made[0], [swap])]
    at = {node.node.pos for node in change.changes}
    assert {node.pos for node in there} <= at <= set(range(last + 1))


def test_plain_words_without_a_token_in_common_pair_by_slot():
    names = ["token:1@0", "token:2@1", "logit:3@1"]
    one = make_graph(names, {("token:2@1", "logit:3@1"): 1.0}, tokens=("Paris", " lies"))
    other = make_graph(names, {("token:2@1", "logit:3@1"): 1.0}, tokens=("Tokyo", " grew"))
    assert graphs.compare(one, other, permutations=0).positions.tolist() == [0, 1]


@pytest.mark.real_model
def test_france_stands_for_japan_on_smollm2():
    subject = read_subject("smollm2-135m")
    prompts = [
        read_prompt(f"The capital of {place} is", subject.tokenizer)
        for place in ("France 🇫🇷", "Japan 🇯🇵")
    ]
    one, other = (trace(prompt, subject, Neurons(64)) for prompt in prompts)
    names = [
        graph.provenance.tokens.index(f" {place}")
        for graph, place in zip((one, other), ("France", "Japan"), strict=True)
    ]
    positions = graphs.compare(one, other, permutations=0).positions.tolist()
    assert positions[names[0]] == names[1]
    assert positions == list(range(len(prompts[0])))
