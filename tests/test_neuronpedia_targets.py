"""Predictions in files of other programs: what they are called and how much they count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphs.analysis.influence import influence
from graphs.analysis.prune import PruneSettings, prune
from graphs.formats.neuronpedia.reader import ReadGraph, read_neuronpedia
from graphs.formats.neuronpedia.writer import Upload, to_neuronpedia
from graphs.formats.storage import read_graph
from tests.same_graph import assert_same_graph
from tests.test_cli import assert_refused, run
from tests.test_neuronpedia_reader import circuit_tracer_file, node
from viz.page.page import page_data

GONE = object()  # for a key that is not there


def file_with(*changes: dict[str, Any]) -> dict[str, Any]:
    """circuit-tracer's file with one prediction per change, each fed like the first."""
    file = circuit_tracer_file()
    logit, links = file["nodes"].pop(), file["links"]
    feeding = [link for link in links if link["target"] == "27_23_1"]
    file["links"] = [link for link in links if link not in feeding]
    for number, change in enumerate(changes):
        made = {**logit, "node_id": f"27_{number}_1", "feature": number, **change}
        file["nodes"].append({key: value for key, value in made.items() if value is not GONE})
        file["links"] += [{**link, "target": f"27_{number}_1"} for link in feeding]
    return file


def read(tmp_path: Path, file: dict[str, Any]) -> ReadGraph:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(file))
    return read_neuronpedia(path)


@pytest.mark.parametrize(
    ("clerp", "text", "probability"),
    [
        ('Output " sat" (p=0.600)', " sat", 0.6),
        ('output: " sat" (p=0.6)', " sat", 0.6),
        ("output: ' sat' (p=0.6)", " sat", 0.6),
        ('" sat" k(p=0.6)', " sat", 0.6),
        ('"it\'s" k(p=6e-1)', "it's", 0.6),
        ("it's Joe's (p=0.6)", "it's Joe's", 0.6),
        ('Output "(p=0.1)" (p=0.6)', "(p=0.1)", 0.6),
        ('Output """ (p=0.6)', '"', 0.6),
        ('Output "\n" (p=0.6)', "\n", 0.6),
        ("sat", "sat", None),
        ("sat (p=1.2.3)", "sat", None),
        ("sat (p=nan)", "sat", None),
    ],
)
def test_the_text_of_a_prediction_holds_its_token_and_probability(
    tmp_path, clerp: str, text: str, probability: float | None
):
    graph = read(tmp_path, file_with({"token_prob": GONE, "clerp": clerp})).graph
    target = graph.provenance.targets[0]
    assert (target.text, target.probability) == (text, probability)


@pytest.mark.parametrize(
    ("fields", "text", "probability"),
    [
        ({"token": " sat", "clerp": GONE}, " sat", 0.61),
        ({"logitToken": " sat", "clerp": ""}, " sat", 0.61),
        ({"token": {"a": 1}, "clerp": ""}, "#0", 0.61),
        ({"token_prob": GONE, "logitPct": 0.25, "clerp": "sat"}, "sat", 0.25),
        ({"token_prob": 0.0, "logitPct": 0.25, "clerp": '"sat" k(p=0.3)'}, "sat", 0.25),
        ({"token_prob": GONE, "logitPct": 25, "clerp": '"sat" k(p=0.3)'}, "sat", 0.3),
        ({"token_prob": None, "logitPct": "x", "clerp": "sat"}, "sat", None),
        ({"token_prob": None, "logitPct": 10**400, "clerp": "sat"}, "sat", None),
        ({"token_prob": 0.5, "logitPct": 0.25, "clerp": '"sat" k(p=0.3)'}, "sat", 0.5),
    ],
)
def test_other_fields_hold_token_and_probability_too(tmp_path, fields, text, probability):
    target = read(tmp_path, file_with(fields)).graph.provenance.targets[0]
    assert (target.text, target.probability) == (text, probability)


UNKNOWN = [
    {"token_prob": 0.0, "clerp": 'Output " a" (p=0.000)'},
    {"token_prob": GONE, "clerp": " b"},
]


SENTENCE = "The probabilities of the predictions are unknown: all have the same weight."


def test_where_no_probability_is_known_all_predictions_count_the_same(tmp_path):
    found = read(tmp_path, file_with(*UNKNOWN))
    known = read(tmp_path, file_with({"token_prob": 0.5}, {"token_prob": 0.5})).graph
    graph, targets = found.graph, found.graph.target_rows()
    assert len(set(graph.seed[targets])) == 1
    assert [target.probability for target in graph.provenance.targets] == [None, None]
    shares = [influence(one) / one.seed.sum() for one in (graph, known)]
    np.testing.assert_allclose(shares[0], shares[1])
    assert shares[0].max() > 0.5
    assert found.remarks == ("No target has a probability or a weight: all get the same weight.",)
    assert len(prune(graph)) == len(prune(known)) > 4


def test_unknown_probabilities_are_said_by_every_command_that_shows_them(tmp_path):
    path, out = tmp_path / "graph.json", tmp_path / "ours.safetensors"
    path.write_text(json.dumps(file_with(*UNKNOWN)))
    imported = run("import", path, "--out", out)
    assert "graph.json: No target has a probability or a weight" in imported.stderr
    for file in (path, out):
        shown = run("show", file)
        assert SENTENCE in shown.stdout
        assert "replacement 0.000" not in shown.stdout
        assert "feature:3/77@1" in shown.stdout
        told = json.loads(run("show", file, "--json").stdout)
        assert [(t["probability"], t["weight"]) for t in told["targets"]] == [(None, 0.5)] * 2
        assert told["remarks"] == [SENTENCE]
    assert "feature:3/77@1" in run("paths", out).stdout
    page = tmp_path / "page.html"
    assert run("view", out, "--html", page).exit_code == 0
    assert SENTENCE in page_data(page.read_text())["graphs"][0]["remarks"]


def test_an_unknown_probability_among_known_ones_counts_nothing_and_is_said(tmp_path):
    found = read(tmp_path, file_with({"token_prob": 0.5}, {"token_prob": GONE, "clerp": " b"}))
    assert found.graph.seed[found.graph.target_rows()].tolist() == [0.5, 0.0]
    assert found.remarks == ("1 of 2 targets have no probability and get weight 0.",)
    shown = run("show", tmp_path / "graph.json").stdout
    assert "1 of 2 predictions have an unknown probability and weight 0." in shown


def test_an_unknown_probability_stays_unknown_in_a_part_of_the_graph(tmp_path):
    part = prune(read(tmp_path, file_with(*UNKNOWN)).graph, PruneSettings(0.5))
    file = to_neuronpedia(part, Upload("a"))
    logits = [member for member in file["nodes"] if member["feature_type"] == "logit"]
    assert [(n["token_prob"], n["clerp"]) for n in logits] == [
        (0.0, 'Output " a" (p=0.000)'),
        (0.0, 'Output " b" (p=0.000)'),
    ]
    assert_same_graph(read(tmp_path, file).graph, part, dtypes=False)
    del file["headwater"]
    again = read(tmp_path, file).graph
    assert [target.probability for target in again.provenance.targets] == [None, None]
    np.testing.assert_array_equal(again.seed, part.seed)


def weights(*numbers: float) -> dict[str, Any]:
    """As circuit-tracer writes targets that somebody made: `prob` of each is any number."""
    return file_with(
        *({"token_prob": n, "clerp": f'Output "x{i}" (p={n:.3f})'} for i, n in enumerate(numbers))
    )


def test_targets_that_somebody_made_count_by_the_size_of_their_weights(tmp_path):
    found = read(tmp_path, weights(1.7, -0.5, 0.3))
    graph = found.graph
    assert [str(graph.nodes[int(row)]) for row in graph.target_rows()] == [
        "target:0@1",
        "target:1@1",
        "target:2@1",
    ]
    assert graph.seed[graph.target_rows()].tolist() == [1.7, 0.5, 0.3]
    assert [(t.text, t.token_id) for t in graph.provenance.targets] == [
        ("x0", None),
        ("x1", None),
        ("x2", None),
    ]
    assert found.remarks == (
        "Targets have weights instead of probabilities: each counts by its own weight.",
        "1 of 3 weights are negative: their absolute values are used.",
    )
    shown = run("show", tmp_path / "graph.json").stdout
    assert [line.split() for line in shown.splitlines() if line.startswith("x")] == [
        ["x0", "68.0%", "target:0@1"],
        ["x1", "20.0%", "target:1@1"],
        ["x2", "12.0%", "target:2@1"],
    ]


def test_weights_that_cannot_be_added_are_refused(tmp_path):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(weights(1e308, 1e308)))
    assert_refused(
        run("show", path), "The weights of the targets are too large: their sum is infinite."
    )


def test_one_weight_that_is_no_probability_says_that_all_targets_are_made(tmp_path):
    alike = read(tmp_path, weights(0.5, 0.25)).graph
    assert [target.probability for target in alike.provenance.targets] == [0.5, 0.25]
    assert [target.token_id for target in alike.provenance.targets] == [0, 1]


def test_weights_come_back_from_our_files(tmp_path):
    path, out, again = tmp_path / "a.json", tmp_path / "a.safetensors", tmp_path / "b.json"
    path.write_text(json.dumps(weights(1.7, -0.5)))
    assert run("import", path, "--out", out).exit_code == 0
    graph = read_graph(out)
    assert_same_graph(graph, read_neuronpedia(path).graph)
    assert run("export", out, "--full", "--out", again).exit_code == 0
    assert_same_graph(read_neuronpedia(again).graph, graph, dtypes=False)
    part = prune(graph, PruneSettings(0.5))
    again.write_text(json.dumps(to_neuronpedia(part, Upload("a"))))
    assert_same_graph(read_neuronpedia(again).graph, part, dtypes=False)
    bare = to_neuronpedia(part, Upload("a"))
    del bare["headwater"]
    back = read(tmp_path, bare).graph
    np.testing.assert_array_equal(back.seed, part.seed)
    assert back.provenance.targets == part.provenance.targets


def test_targets_without_any_number_are_not_made_by_it(tmp_path):
    """EleutherAI's predictions have probabilities, though no vocabulary entries."""
    file = file_with({"token_prob": 0.5})
    file["nodes"][-1] = node(
        "output_1_0", "logit", "-1", 1, feature=None, token_prob=0.5, clerp='output: "b" (p=0.5)'
    )
    file["links"] = []
    graph = read(tmp_path, file).graph
    assert graph.provenance.targets[0].probability == graph.seed[-1] == 0.5
