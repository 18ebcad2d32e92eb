"""Attention by command and in Python: what is printed, by which names, and what is refused."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

import graphs
import headwater as hw
import headwater.attended
from circuits.attention.entries import attention_entries
from circuits.interventions.from_graph import experiment_on
from graphs import SelectionError
from graphs.attention.places import edges_named, head_named, position_named
from headwater.terminal.readable import ReadableConsole
from tests.test_cli import assert_refused, run

PROMPT = "The capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = hw.trace(PROMPT, "atlas-small").prune()
    return graph.save(tmp_path_factory.mktemp("attention") / "pruned.safetensors")


def test_heads_are_printed_with_labels_and_add_up(pruned: Path):
    shown = json.loads(run("attention", "heads", pruned, "--top", "3", "--json").stdout)
    assert len(shown["edges"]) == 3
    graph = hw.read(pruned)
    for edge in shown["edges"]:
        total = sum(one["part"] for one in edge["heads"]) + edge["past_attention"]
        assert total == pytest.approx(edge["weight"], abs=1e-4)
        ends = graph.find(edge["target"]), graph.find(edge["source"])
        assert graph.weights[ends] == pytest.approx(edge["weight"])
    carried = sum(one["carries"] for one in shown["heads"])
    assert carried + shown["past_attention"] == pytest.approx(1)
    text = run("attention", "heads", pruned, "--top", "3").stdout
    assert "past all attention goes" in text
    assert "“ Dallas”" in text
    assert "→ feature:" in text


def test_an_edge_is_shown_by_its_paths(pruned: Path):
    text = run("attention", "heads", pruned, "token:Dallas>concept:Texas").stdout
    first, then = text.splitlines()[1:3]
    assert first.startswith("token:")
    assert then.startswith("→ feature:")
    assert "over heads" in text
    assert "anywhere through" in text
    found = hw.heads(pruned, "token:Dallas>concept:Texas")
    assert found.paths is not None
    assert found.paths.weight == pytest.approx(float(found.weight[0]))
    whole = sum(path.weight for path in found.paths.paths) + found.paths.rest
    assert whole == pytest.approx(found.paths.weight)


def test_scores_are_printed_and_add_up(pruned: Path):
    graph = hw.read(pruned)
    entries = attention_entries(experiment_on(graph), int(graph.target_rows()[0]))
    head = f"{entries.layer[0]}.{entries.head[0]}"
    key, query = int(entries.key[0]), int(entries.query[0])
    asked = ("attention", "score", pruned, head, "--query", f"@{query}", "--key", f"@{key}")
    shown = json.loads(run(*asked, "--top", "100000", "--json").stdout)
    assert (shown["query"], shown["key"]) == (query, key)
    assert shown["miss"] < 1e-5
    scores = hw.attention_scores(graph, int(entries.layer[0]), int(entries.head[0]), query, key)
    assert scores.score.value == pytest.approx(shown["score"])
    for side, parts in (
        ("at_query", scores.score.at_query),
        ("at_keys", scores.score.at_keys),
    ):
        total = sum(one["score"] for one in shown[side]) + parts.constant
        assert total == pytest.approx(shown["score"], abs=1e-4)
    text = run(*asked).stdout
    for words in ("of its attention, score", "log odds", "norms run", "all features", "context"):
        assert words in text
    assert str(scores).splitlines()[0] == text.splitlines()[0]
    assert "attention" in repr(scores)


def test_features_are_called_as_in_the_graph(pruned: Path):
    graph = hw.read(pruned)
    read = hw.attention_scores(graph, 3, 0, "is", "capital")
    names = set(map(str, graph.nodes))
    node = next(read.nodes[row] for row in read.labels if str(read.nodes[row]) in names)
    mine = graphs.Annotations(labels={f"{node.layer}/{node.index}": "mine"})
    called = hw.Graph.of(graph, mine)
    scores = hw.attention_scores(called, 3, 0, "is", "capital")
    both = [row for row in scores.labels if str(scores.nodes[row]) in names]
    assert len(both) > 5
    for row in both:
        assert scores.labels[row] == called[str(scores.nodes[row])].label
    assert "mine" in {scores.labels[row] for row in both}


def test_an_edge_is_there_because_heads_look_from_its_target_at_its_source(pruned: Path):
    graph = hw.read(pruned)
    asked = ("attention", "why", pruned, "token:Dallas>feature")
    shown = json.loads(run(*asked, "--json").stdout)
    source, target = graph.find(shown["source"]), graph.find(shown["target"])
    assert shown["weight"] == pytest.approx(float(graph.weights[target, source]), rel=1e-5)
    parts = [abs(one["part"]) for one in shown["heads"]]
    assert len(parts) == 3
    assert parts == sorted(parts, reverse=True)
    first = shown["heads"][0]
    places = int(graph.nodes.pos[target]), int(graph.nodes.pos[source])
    scores = hw.attention_scores(graph, first["layer"], first["head"], *places)
    assert scores.attention[places[1]] == pytest.approx(first["attention"])
    assert scores.odds is not None
    strongest = np.argmax(np.abs(scores.odds.at_keys.weight))
    assert first["at_keys"][0]["node"] == str(scores.nodes[int(strongest)])
    result = run(*asked)
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "of it goes past all attention" in text
    assert f"head {first['layer']}.{first['head']} carries" in text
    bias = run("attention", "why", pruned, "bias>feature").stdout
    assert "because of" not in bias  # it is at every position
    last = max(graph.rows("feature"), key=lambda row: int(graph.nodes.layer[row]))
    straight = f"{graph.nodes[last]}>logit"
    assert json.loads(run("attention", "why", pruned, straight, "--json").stdout)["heads"] == []


def test_a_contrast_of_two_keys_is_their_difference(pruned: Path):
    graph = hw.read(pruned)
    asked = ("attention", "score", pruned, "1.0", "--key", "capital", "--not", "Dallas")
    shown = json.loads(run(*asked, "--json").stdout)
    found = hw.attention_scores(graph, 1, 0, "is", "capital", instead_of="Dallas")
    places = [position_named(graph, name, "key") for name in ("capital", "Dallas")]
    difference = found.scores[places[0]] - found.scores[places[1]]
    assert shown["difference"] == pytest.approx(float(difference))
    ratio = found.attention[places[0]] / found.attention[places[1]]
    assert shown["log_odds"] == pytest.approx(float(np.log(ratio)))
    assert "against “ Dallas” @7" in run(*asked).stdout


@pytest.mark.parametrize("columns", [60, 80])
def test_tables_fit(pruned: Path, columns: int):
    found = hw.heads(pruned)
    scores = hw.attention_scores(pruned, 1, 0, "is", "capital")
    for shown in (found.shown(5), scores.shown(5)):
        written = StringIO()
        ReadableConsole(file=written, width=columns, markup=False).print(shown)
        lines = written.getvalue().splitlines()
        assert max(map(len, lines)) <= columns
        assert any("feature:" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("heads", "token:Dallas"), "An edge is SOURCE>TARGET"),
        (("heads", "token:Dallas>token:capital"), "No edge leads from"),
        (("heads", "concept:Mars>concept:Texas"), "Mars"),
        (("heads", ">"), "An edge is SOURCE>TARGET"),
        (("why", "token:Dallas>token:capital"), "No edge leads from"),
        (("score", "4", "--key", "is"), "A head is LAYER.HEAD"),
        (("score", "\x1b[2J4.5", "--key", "is"), "A head is LAYER.HEAD"),
        (("score", "99.0", "--key", "is"), "There is no layer 99"),
        (("score", "1.99", "--key", "is"), "There is no head 99"),
        (("score", "1.0", "--key", "Paris"), "No token is 'Paris'"),
        (("score", "1.0", "--key", "@99"), "There is no position 99"),
        (("score", "1.0", "--query", "capital", "--key", "is"), "is behind the query"),
        (("score", "1.0", "--key", "is", "--not", "is"), "does not compete with itself"),
        (("score", "1.0"), "Missing option '--key'"),
    ],
)
def test_what_cannot_be_is_one_sentence(pruned: Path, arguments: tuple[str, ...], sentence: str):
    what, *rest = arguments
    result = run("attention", what, pruned, *rest)
    if sentence.startswith("Missing"):
        assert (result.exit_code, sentence in result.output) == (2, True)
        return
    assert_refused(result, sentence)
    assert result.stdout == ""


def test_names_of_heads_places_and_edges(pruned: Path):
    graph = hw.read(pruned)
    assert head_named("4.5", 6) == head_named(" head:4/5 ", 6) == (4, 5)
    assert position_named(graph, "is", "query") == position_named(graph, "@8", "query") == 8
    assert position_named(graph, "8", "query") == 8
    edges = edges_named(graph, "token>feature")
    sizes = np.abs(graph.weights.data[edges])
    assert list(sizes) == sorted(sizes, reverse=True)
    assert len(edges) == len(edges_named(graph, "token → feature"))
    twice = hw.trace("The capital of the state of the capital of Texas is", "atlas-small")
    with pytest.raises(SelectionError, match="at several positions: give one of @2, @8"):
        position_named(twice, "capital", "key")


def test_a_whole_graph_of_millions_of_edges_is_refused(
    pruned: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(headwater.attended, "MOST_EDGES", 10)
    assert_refused(run("attention", "heads", pruned), "prune it first")


def test_a_model_that_is_loaded_is_used(pruned: Path):
    model = hw.load("atlas-small")
    assert hw.heads(pruned, model=model).miss < 1e-5
    with pytest.raises(hw.ArgumentError, match="A position is a number from 0 on"):
        hw.attention_scores(pruned, 1, 0, -1, "is", model=model)
