"""Commands that read graphs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import graphs
from tests.test_cli import assert_refused, run

PROMPT = "The capital of the state containing {} is"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pruned graphs of two cities."""
    made = tmp_path_factory.mktemp("reading")
    for city in ("Dallas", "Oakland"):
        whole = made / "whole.safetensors"
        traced = run("trace", PROMPT.format(city), "--model", "atlas-small", "--out", whole)
        assert traced.exit_code == 0, traced.output
        assert run("prune", whole, "--out", made / f"{city}.safetensors").exit_code == 0
    return made


def test_paths_are_listed_and_told(folder: Path):
    graph = folder / "Dallas.safetensors"
    told = run("paths", graph, "--from", "token:Dallas", "-k", "3")
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    assert "of all influence flows between these nodes" in lines[0]
    assert sum("token:" in line and "Dallas" in line for line in lines) == 3
    assert sum("logit:" in line and "Austin" in line for line in lines) == 3
    data = json.loads(run("paths", graph, "--from", "token:Dallas", "-k", "3", "--json").stdout)
    shares = [path["share"] for path in data["paths"]]
    assert shares == sorted(shares, reverse=True)
    assert data["paths"][0]["nodes"][0].startswith("token:")
    assert data["paths"][0]["coverage"] == pytest.approx(shares[0] / data["flow"])
    middle = data["paths"][0]["nodes"][1]
    through = json.loads(run("paths", graph, "--through", middle, "--json").stdout)
    assert all(middle in path["nodes"] for path in through["paths"])
    assert_refused(run("paths", graph, "-k", 10**6), "less than or equal to 100000")
    assert through["flow"] < 1.0


def test_groups_are_found_saved_and_used(folder: Path):
    graph = folder / "Dallas.safetensors"
    shown = run("group", graph)
    assert shown.exit_code == 0, shown.output
    assert "nodes with groups collapsed: replacement" in shown.stdout
    beside = graphs.annotations_path(graph)
    assert not beside.exists()
    data = json.loads(run("group", graph, "--save", "--json").stdout)
    assert graphs.read_annotations(beside).groups[0].name == data["groups"][0]["name"]
    name = data["groups"][0]["name"]
    through = run("paths", graph, "--through", f"group:{name}", "--json")
    assert all(name in path["story"] for path in json.loads(through.stdout)["paths"])
    # A person takes a member out; grouping again leaves that alone.
    member = data["groups"][0]["members"][0]
    own = graphs.Annotations(groups=(graphs.Group(name="mine", members=(member,)),))
    graphs.write_annotations(own, beside)
    again = json.loads(run("group", graph, "--save", "--json").stdout)
    assert again["groups"][0] == {"name": "mine", "members": [member], "automatic": False}
    assert all(member not in group["members"] for group in again["groups"][1:])
    beside.unlink()


def test_two_prompts_are_compared(folder: Path):
    pair = folder / "Dallas.safetensors", folder / "Oakland.safetensors"
    told = run("compare", *pair)
    assert told.exit_code == 0, told.output
    assert "Dallas" in told.stdout
    assert "features in common, by influence" in told.stdout
    data = json.loads(run("compare", *pair, "--json", "--permutations", "50").stdout)
    assert 0 < data["scores"]["features"]["value"] < 1
    assert len(data["scores"]["features"]["null"]) == 50
    same = json.loads(run("compare", pair[0], pair[0], "--json").stdout)
    assert same["scores"]["features"]["value"] == pytest.approx(1.0)
    assert same["only_first"] == same["only_second"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "token:Paris"], "No token has the text 'Paris': the graph has"),
        (["--to", "feature:99/1@1"], "feature:99/1@1 is not in this graph"),
        (["--through", "group:x"], "There is no group 'x': the groups are none"),
        (["--through", "layer:99"], "no feature or error at layer:99"),
        (["--from", "paris"], "'paris' does not name a node: expected token"),
    ],
)
def test_what_selects_nothing_gets_one_sentence(folder: Path, arguments: list[str], message: str):
    assert_refused(run("paths", folder / "Dallas.safetensors", *arguments), message)


def test_damaged_annotations_get_one_sentence(folder: Path):
    beside = graphs.annotations_path(folder / "Dallas.safetensors")
    for text, message in (
        ("{", "is not JSON"),
        ('{"pins": ["x"]}', "does not hold annotations: pins"),
        ('{"schema_version": 2}', "upgrade headwater"),
        (
            '{"groups": [{"name": "a", "members": []}, {"name": "a", "members": []}]}',
            "several groups",
        ),
    ):
        beside.write_text(text)
        assert_refused(run("group", folder / "Dallas.safetensors"), message)
    beside.unlink()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dallas in the larger model."""
    path = tmp_path_factory.mktemp("large") / "large.safetensors"
    whole = path.with_name("whole.safetensors")
    assert run("trace", PROMPT.format("Dallas"), "--out", whole).exit_code == 0
    assert run("prune", whole, "--out", path).exit_code == 0
    return path


def test_two_models_are_compared(folder: Path, large: Path):
    small = folder / "Dallas.safetensors"
    told = run("compare", small, large, "--permutations", "8", "--plan")
    assert told.exit_code == 0, told.output
    for line in (
        "atlas-small and atlas-large",
        "influence at matched features",
        "paths through the same concepts",
        "of that, to matched features",
    ):
        assert line in told.stdout
    data = json.loads(run("compare", small, large, "--json", "--least", "0.4").stdout)
    scores = data["scores"]
    assert scores["alike"]["value"] > max(scores["alike"]["null"])
    assert "moved" not in scores
    alike = [pair["alike"] for pair in data["both"] if pair["first"].startswith("feature")]
    assert min(alike) > 0.4
    assert {kind["name"] for kind in data["evidence"]} == {
        "outputs",
        "labels",
        "position",
        "depth",
    }
    itself = json.loads(run("compare", large, large, "--json").stdout)
    assert itself["scores"]["edges"]["value"] == pytest.approx(1.0)


def test_comparisons_are_written_as_pages(folder: Path, large: Path, tmp_path: Path):
    small, page = folder / "Dallas.safetensors", tmp_path / "page.html"
    data = json.loads(run("compare", small, large, "--html", page, "--json").stdout)
    assert data["page"] == str(page)
    text = page.read_text(encoding="utf-8")
    assert "paths through the same concepts" in text
    assert "sankey" in text
    heading = text.partition("<h1>")[2].partition("</h1>")[0]
    assert "atlas-small-clt" in heading.partition(" and ")[0]
    assert "atlas-large-clt" in heading.partition(" and ")[2]
    told = run("compare", small, folder / "Oakland.safetensors", "--html", page)
    assert f"page: {page}" in told.stdout
    assert "paths through" not in page.read_text(encoding="utf-8")


def test_several_prompts_have_a_consensus(folder: Path, large: Path):
    pair = folder / "Dallas.safetensors", folder / "Oakland.safetensors"
    told = run("consensus", *pair)
    assert told.exit_code == 0, told.output
    assert "token at" in told.stdout
    data = json.loads(run("consensus", *pair, "--json").stdout)
    assert data["prompts"] == 2
    assert data["nodes"][0]["node"] == "target:0@8"
    assert data["nodes"][0]["mean"] == pytest.approx(1.0)
    assert all(node["low"] <= node["mean"] <= node["high"] for node in data["nodes"])
    assert_refused(run("consensus", pair[0]), "at least two graph files, got 1")
    assert_refused(run("consensus", *pair, "--level", "1"), "--level must be between 0 and 1")
    assert_refused(run("consensus", pair[0], large), "trace all with one dictionary")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "x"], "Expected --profile twice"),
        (["--profile", "x", "--profile", "y"], "Cannot read x"),
        (["--least", "1"], "--least must be from 0"),
    ],
)
def test_what_compares_no_models_gets_one_sentence(
    folder: Path, large: Path, arguments: list[str], message: str
):
    assert_refused(run("compare", folder / "Dallas.safetensors", large, *arguments), message)
