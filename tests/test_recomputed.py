"""What a file keeps is compared with the model: rows, values, and what the header names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array

import graphs
from circuits.attribution.trace_settings import Expansion, TargetSettings, TraceSettings
from circuits.evaluation.recomputed import rows_report
from circuits.features.active import FeatureSource
from circuits.interventions.experiment import ExperimentError, prepare
from circuits.model.subject import Subject
from circuits.pipe import trace
from graphs import AttributionGraph, NodeKind
from tests.conftest import skip_without_neurons
from tests.test_cli import PROMPT, assert_refused, run
from tests.test_intervene import source_of
from tests.test_weights import per_layer
from tests.tiny import tiny_prompt, toy_dictionary

SOME = TraceSettings(TargetSettings(max_logits=3), Expansion(max_features=15))


def some(subject: Subject, source: FeatureSource) -> AttributionGraph:
    skip_without_neurons(subject, source)
    return trace(tiny_prompt(), subject, source, SOME)


@pytest.mark.parametrize("kind", ["cross-layer, skip", "per layer", "neurons"])
def test_rows_computed_anew_are_those_of_the_file(subject: Subject, kind: str):
    source = source_of(kind)
    graph = some(subject, source)
    for part in (graph, graphs.prune(graph), graphs.prune(graph, graphs.PruneSettings(0.4, 0.5))):
        report = rows_report(prepare(part, subject, source))
        assert report.rows >= len(part.target_rows()) > 0
        assert report.difference < 1e-12
        assert report.values < 1e-12


def permuted(graph: AttributionGraph, kind: NodeKind) -> AttributionGraph:
    """Within each row, the weights of sources of a kind in another order: sums stay."""
    weights, data = graph.weights, graph.weights.data.copy()
    of_kind = graph.nodes.kind[weights.indices] == kind
    for row in range(len(graph)):
        edges = np.arange(weights.indptr[row], weights.indptr[row + 1])
        edges = edges[of_kind[edges]]
        data[edges] = np.roll(data[edges], 1)
    return replace(
        graph, weights=csr_array((data, weights.indices, weights.indptr), shape=weights.shape)
    )


@pytest.mark.parametrize("kind", [NodeKind.TOKEN, NodeKind.ERROR, NodeKind.BIAS])
def test_edges_that_changed_places_within_their_rows_fail(
    gemma: Subject, kind: NodeKind, tmp_path: Path
):
    graph = permuted(some(gemma, toy_dictionary()), kind)
    graphs.write_graph(graph, tmp_path / "graph.safetensors")  # which no sum of a row can see
    read = graphs.read_graph(tmp_path / "graph.safetensors")
    report = rows_report(prepare(read, gemma, toy_dictionary()))
    dense, honest = read.weights.toarray(), some(gemma, toy_dictionary()).weights.toarray()
    rows = read.target_rows()
    moved = np.abs(dense - honest)[rows].sum(1)
    totals = np.abs(honest)[rows].sum(1) + read.dropped_absolute[rows]
    assert report.difference >= (moved / totals).max() * (1 - 1e-9)
    [failure] = graphs.Report(generator="", rows=report).failures
    assert failure.startswith("Rows fail: a recomputed row differs from the file's by ")


def test_values_that_no_row_needs_are_compared_too(gemma: Subject):
    graph = some(gemma, toy_dictionary())
    unexpanded = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE) & ~graph.expanded)
    value = graph.nodes.value.copy()
    value[unexpanded[0]] += 0.01 * np.nanmax(np.abs(value))
    changed = replace(graph, nodes=replace(graph.nodes, value=value))
    report = rows_report(prepare(changed, gemma, toy_dictionary()))
    assert report.values > 1e-3
    assert report.difference < 1e-12
    [failure] = graphs.Report(generator="", rows=report).failures
    assert failure.startswith("Values fail: ")


def test_activations_that_are_no_numbers_do_not_agree(gemma: Subject):
    graph = some(gemma, toy_dictionary())
    activation = np.where(graph.nodes.is_kind(NodeKind.FEATURE), np.nan, np.nan)
    unknown = replace(graph, nodes=replace(graph.nodes, activation=activation))
    with pytest.raises(ExperimentError, match="has a different activation in this model"):
        prepare(unknown, gemma, toy_dictionary())


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    (tmp_path / "dictionary").mkdir()
    return per_layer(tmp_path / "dictionary")


@pytest.fixture
def traced(model_folder: Path, dictionary: Path, tmp_path: Path) -> Path:
    path = tmp_path / "graph.safetensors"
    asked = ("trace", PROMPT, "--model", model_folder, "--transcoders", dictionary)
    assert run(*asked, "--max-features", 20, "--out", path).exit_code == 0
    return path


def edited(path: Path, change: Callable[[graphs.Provenance], graphs.Provenance]) -> Path:
    graph = graphs.read_graph(path)
    graphs.write_graph(replace(graph, provenance=change(graph.provenance)), path)
    return path


def back_to(path: Path, *more: object) -> list:
    """All commands that come back to the model."""
    return [
        run("check", path, "--features", 2, "--random-sets", 2, *more),
        run("intervene", path, "--scale", "layer:1=0", *more),
    ]


def test_a_graph_and_what_it_was_traced_from_agree(traced: Path, dictionary: Path):
    for result in back_to(traced, "--transcoders", dictionary):
        assert result.exit_code in (0, 1), result.output
    assert "recomputed" in run("show", traced).stdout
    report = graphs.read_graph(traced).provenance.report
    assert report is not None
    assert report.rows is not None
    assert report.rows.difference < 1e-6


def test_other_files_beside_a_dictionary_are_none_of_it(traced: Path, dictionary: Path):
    (dictionary / "graph.safetensors").write_bytes(traced.read_bytes())
    (dictionary / "notes.txt").write_text("mine")
    assert back_to(traced, "--transcoders", dictionary)[1].exit_code == 0


def test_a_moved_copy_of_a_dictionary_is_the_same(traced: Path, dictionary: Path, tmp_path: Path):
    copy = copytree(dictionary, tmp_path / "elsewhere")
    for result in back_to(traced, "--transcoders", copy):
        assert result.exit_code in (0, 1), result.output


def test_decoders_changed_under_the_same_name_are_refused(traced: Path, dictionary: Path):
    before = graphs.read_graph(traced).provenance.dictionary
    assert before.fingerprint is not None
    for path in dictionary.glob("*.safetensors"):
        tensors = load_file(path)
        save_file({n: t * np.float32(1.3 if n == "W_dec" else 1) for n, t in tensors.items()}, path)
    for result in back_to(traced, "--transcoders", dictionary):
        assert_refused(result, "The graph's dictionary 'toy' has the contents sha256:")
    # A file of the first schema has no contents, and rows that no longer are the model's.
    edited(traced, without_contents)
    result = run("check", traced, "--transcoders", dictionary, "--features", 2, "--json")
    assert result.exit_code in (1, 2)
    assert "Rows fail" in result.stdout or "revision" in result.stderr


def without_contents(header: graphs.Provenance) -> graphs.Provenance:
    dictionary = header.dictionary.model_copy(update={"fingerprint": None})
    model = header.model.model_copy(update={"fingerprint": None, "vocabulary": None})
    return header.model_copy(update={"dictionary": dictionary, "model": model})


def test_other_weights_of_a_model_are_refused(
    traced: Path, dictionary: Path, model_folder: Path, tmp_path: Path
):
    copy = copytree(model_folder, tmp_path / "model")
    same = ("--transcoders", dictionary, "--model", copy)
    assert back_to(traced, *same)[1].exit_code == 0
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if name.endswith("mlp.down_proj.weight"))
    weights[name] = weights[name] * np.float32(1.001)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    for result in back_to(traced, *same):
        assert_refused(result, "The graph's model ")
        assert "has the contents sha256:" in result.stderr


HEADERS: dict[str, tuple[dict[str, object], str]] = {
    "prompt": ({"prompt": "bfjfok"}, "The graph's prompt is 'bfjfok', and its token ids decode to"),
    "tokens": (
        {"tokens": tuple("bfjfok")},
        "has 'k' at position 5, where its token id decodes to 'i'",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_names_another_prompt_is_refused(traced: Path, dictionary: Path, name: str):
    update, message = HEADERS[name]
    edited(traced, lambda header: header.model_copy(update=update))
    for result in back_to(traced, "--transcoders", dictionary):
        assert_refused(result, message)


@pytest.mark.parametrize(
    ("field", "named"), [("vocabulary", "vocabulary"), ("revision", "revision")]
)
def test_another_vocabulary_or_commit_is_refused(gemma: Subject, field: str, named: str):
    graph = some(gemma, toy_dictionary())
    one, other = ({field: "sha256:" + letter * 64} for letter in "ab")

    def model(graph: AttributionGraph) -> graphs.ModelIdentity:
        return graph.provenance.model

    told = graph.provenance.model_copy(update={"model": model(graph).model_copy(update=one)})
    subject = replace(gemma, identity=gemma.identity.model_copy(update=other))
    with pytest.raises(ExperimentError, match=f"has the {named} sha256:aaaa"):
        prepare(replace(graph, provenance=told), subject, toy_dictionary())
    same = replace(gemma, identity=gemma.identity.model_copy(update=one))
    prepare(replace(graph, provenance=told), same, toy_dictionary())


def test_the_report_says_what_was_compared(traced: Path, dictionary: Path):
    told = json.loads(back_to(traced, "--transcoders", dictionary, "--json")[0].stdout)
    assert told["report"]["rows"]["limit"] == 1e-4
    assert told["report"]["rows"]["rows"] > 2
