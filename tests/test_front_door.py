"""`import headwater as hw`: one call from a prompt to a graph, and what one does with it."""

from __future__ import annotations

import builtins
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import webbrowser
from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import circuits
import graphs
import headwater as hw
from circuits.atlas.shipped import atlas_model
from graphs.core.nodes import TARGET_KINDS
from headwater.outputs.formats import FormatError

PROMPT = "The capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def model() -> hw.Model:
    return hw.load("atlas-small")


@pytest.fixture(scope="module")
def graph(model: hw.Model) -> hw.Graph:
    return hw.trace(PROMPT, model)


def assert_same(one: graphs.AttributionGraph, other: graphs.AttributionGraph) -> None:
    assert list(one.nodes) == list(other.nodes)
    assert (one.weights != other.weights).nnz == 0
    assert one.provenance == other.provenance


def test_it_is_the_trace_of_the_library(graph: hw.Graph):
    subject = circuits.read_subject("atlas-small")
    whole = circuits.trace(PROMPT, subject)  # its transcoders ship with it
    assert_same(graph, whole)
    assert graph.provenance.dictionary.name == "atlas-small-clt"


def test_the_default_model_is_the_large_atlas():
    graph = hw.trace(PROMPT, target=" Austin", max_features=20)
    assert graph.provenance.model.name == "atlas-large"
    assert [target.text for target in graph.provenance.targets] == [" Austin"]


def test_targets_are_texts_or_ids(model: hw.Model):
    by_text = hw.trace(PROMPT, model, target=" Austin", against=" Sacramento")
    (target,) = by_text.provenance.targets
    assert target.text == " Austin −  Sacramento"
    ids = [model.subject.tokenizer(word).input_ids[-1] for word in ("Austin", "Sacramento")]
    assert_same(by_text, hw.trace(PROMPT, model, target=[ids[0]], against=ids[1]))


def test_a_model_that_is_loaded_is_not_loaded_again(
    model: hw.Model, graph: hw.Graph, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr("circuits.model.subject.load_model", fail)
    monkeypatch.setattr("circuits.features.files.source.read_transcoders", fail)
    assert_same(hw.trace(PROMPT, model), graph)
    prompt = circuits.read_prompt(PROMPT, model.subject.tokenizer)
    assert_same(hw.trace(prompt, model), graph)
    with pytest.raises(AssertionError, match="loaded again"):
        hw.trace(PROMPT, "atlas-small")


def test_a_transformers_model_is_traced_as_it_is(graph: hw.Graph):
    folder, _ = atlas_model("atlas-small")
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(hw.HeadwaterError, match="pass tokenizer="):
        hw.load(loaded)
    own = hw.load(loaded, transcoders=folder / "transcoders", tokenizer=tokenizer)
    assert own.subject.frozen.model is loaded
    found = hw.trace(PROMPT, own)
    assert (found.weights != graph.weights).nnz == 0


def test_neurons_are_as_many_as_asked(model: hw.Model):
    neurons = hw.load(model, features="neurons")
    graph = hw.trace(PROMPT, neurons, max_features=50)
    assert int(graph.nodes.is_kind(graphs.NodeKind.FEATURE).sum()) == 50


def test_nodes_by_either_name(graph: hw.Graph):
    (first,) = graph.top(1, "feature")
    layer, index, pos = first.name.removeprefix("feature:").replace("@", "/").split("/")
    assert graph[first.name] == graph[f"{layer}_{index}_{pos}"] == first
    token = graph["token:Dallas"]
    assert token.token == " Dallas"
    assert graph[f"E_{token.name.removeprefix('token:').replace('@', '_')}"] == token
    logit = graph["logit"]
    index, pos = logit.name.removeprefix("logit:").split("@")
    assert graph[f"{graph.provenance.model.n_layers + 1}_{index}_{pos}"] == logit
    error = graph.top(1, "error")[0]
    layer, pos = error.name.removeprefix("error:").split("@")
    assert graph[f"{layer}_-1_{pos}"] == error
    with pytest.raises(graphs.SelectionError, match=r"names 9 nodes: take one, as in token:"):
        graph["token"]
    assert len(graph.nodes_named("token")) == 9


def test_the_top_nodes_hold_most_influence(graph: hw.Graph):
    share = graphs.influence(graph) / graph.seed.sum()
    top = graph.top(5)
    inner = ~graph.nodes.is_kind(*TARGET_KINDS)
    assert [one.influence for one in top] == sorted(share[inner])[::-1][:5]
    row = graph.find(top[0].name)
    weights = graph.weights[[row]].toarray()[0]
    for name, weight in top[0].sources:
        assert weights[graph.find(name)] == weight
    assert all(one.name.startswith("error") for one in graph.top(3, "error"))
    assert len(graph.top(10**6)) == np.count_nonzero(share[inner])


def test_pruned_as_the_library_prunes(graph: hw.Graph):
    pruned = graph.prune(0.7, 0.9)
    assert isinstance(pruned, hw.Graph)
    assert_same(pruned, graphs.prune(graph, graphs.PruneSettings(0.7, 0.9)))
    assert graph.prune(0.7, keep_errors=True).top(100, "error")


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_what_is_saved_can_be_read(graph: hw.Graph, tmp_path: Path, suffix: str):
    notes = graphs.Annotations(pins=(graph.top(1)[0].name,))
    part = hw.Graph.of(graph.prune(), notes)
    path = part.save(tmp_path / f"a{suffix}")
    back = hw.read(path)
    assert sorted(map(str, back.nodes)) == sorted(map(str, part.nodes))
    assert back.annotations.pins == notes.pins
    assert back.weights.nnz == part.weights.nnz


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [(".html", b"<!doctype html>"), (".graphml", b"<?xml"), (".gexf", b"<?xml"), (".dot", b"di")],
)
def test_other_formats_by_suffix(graph: hw.Graph, tmp_path: Path, suffix: str, begins: bytes):
    assert graph.prune().save(tmp_path / f"a{suffix}").read_bytes().startswith(begins)


def test_a_name_without_a_format_is_refused(graph: hw.Graph, tmp_path: Path):
    with pytest.raises(FormatError, match=r"'a\.txt' has none of the suffixes .* \.safetensors, "):
        graph.save(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_shown_in_a_notebook_or_a_browser(graph: hw.Graph, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    page = graph.prune().show()
    assert isinstance(page, Path)
    assert opened == [page.as_uri()]
    assert page.read_bytes().startswith(b"<!doctype html>")
    page.unlink()
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    shown = graph.prune().show(height=300)
    assert not isinstance(shown, Path)
    assert shown.height == 300
    assert len(opened) == 1


def test_tables_and_frames_have_the_same_columns(graph: hw.Graph):
    table, frame = graph.nodes_table(), graph.nodes_frame()
    assert table.schema.names == list(frame.columns)
    assert table["node"].to_pylist() == frame["node"].tolist() == [str(n) for n in graph.nodes]
    assert frame["influence"].tolist() == graphs.influence(graph).tolist()
    layers = table["layer"].to_pylist()
    assert frame["layer"].isna().tolist() == [layer is None for layer in layers]
    known = [layer for layer in layers if layer is not None]
    assert frame["layer"].dropna().tolist() == known
    edges = graph.edges_frame()
    assert len(edges) == graph.weights.nnz == graph.edges_table().num_rows
    assert edges["weight"].tolist() == graph.weights.data.tolist()


@pytest.mark.parametrize(
    ("package", "method"), [("pandas", "nodes_frame"), ("pyarrow", "edges_table")]
)
def test_missing_packages_are_named(
    graph: hw.Graph, monkeypatch: pytest.MonkeyPatch, package: str, method: str
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(hw.HeadwaterError, match=f"need {package}; run: pip install"):
        getattr(graph, method)()


def test_every_public_value_is_shown_in_a_few_lines(model: hw.Model, graph: hw.Graph):
    prompt = circuits.read_prompt(PROMPT, model.subject.tokenizer)
    recording = circuits.record(model.subject.frozen, prompt)
    experiment = circuits.prepare(graph, model.subject, model.source)
    edit = graphs.intervention(graph, [graphs.SetTo(graph.top(1, "feature")[0].name, 0.0)])
    outcomes = circuits.intervene(experiment, [edit], graphs.Regime.FREE)
    pruned = graph.prune()
    values = [
        *(hw.compare(pruned, pruned), pruned.paths(), graph.nodes_named("token")),
        *(hw.intervene(graph, hw.Scale("concept:Texas", 0.0), model=model),),
        *(model, model.subject, model.source, model.source.layers[0], prompt, recording),
        *(recording.blocks[0], experiment, edit, outcomes, graph, graph.nodes, graph.provenance),
        *(graph[pruned.top(1)[0].name], circuits.effects(experiment, outcomes, 0)),
        *(graphs.strongest_paths(pruned), graphs.compare(pruned, pruned), graphs.summarise(graph)),
        *(graphs.Annotations(), model.subject.frozen),
    ]
    for value in values:
        assert len(repr(value)) < 700, repr(value)
        most = 2 if not isinstance(value, tuple) else len(value)
        assert repr(value).count("\n") <= most, repr(value)
    assert repr(graph.nodes_named("feature")).count("\n") == 20
    rest = len(graph.nodes_named("feature")) - 20
    assert repr(graph.nodes_named("feature")).endswith(f"and {rest} more")
    assert repr(graph).splitlines()[0] == f"<Graph '<bos> {PROMPT}' → ' Austin' 100.0%"


def test_notebooks_show_a_picture(graph: hw.Graph):
    shown = graph._repr_html_()
    assert shown.count("<circle") == 60
    assert shown.count("<line") > 20
    assert all(one.name in shown for one in graph.top(6))
    assert len(shown) < 60_000


def test_markup_in_a_label_is_text(graph: hw.Graph):
    (first,) = graph.top(1, "feature")
    notes = graphs.Annotations(labels={first.name: "<script>alert(1)</script>"})
    shown = hw.Graph.of(graph, notes)._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


MISTAKES = """
import circuits, headwater as hw
model = hw.load("atlas-small")
graph = hw.trace("The capital of Texas is", model)
for mistake in (
    lambda: hw.trace(["The", " capital"], model),
    lambda: hw.trace("The capital", model, target=2.5),
    lambda: hw.trace("The capital", 3),
    lambda: hw.trace("The capital", model, bos="maybe"),
    lambda: hw.trace("The capital", model, precision="fast"),
    lambda: hw.load("atlas-small", dtype="int8"),
    lambda: hw.load("atlas-smal"),
    lambda: hw.load("no such model"),
    lambda: hw.load("atlas-small", features="all"),
    lambda: hw.load("atlas-small", features="neurons", transcoders="x"),
    lambda: circuits.trace(["The"], model.subject),
    lambda: circuits.trace("The capital", "atlas-small"),
    lambda: circuits.trace("The capital", model.subject, model.source, 4096),
    lambda: circuits.trace("The capital", model.subject, settings=circuits.TraceSettings(
        circuits.TargetSettings(tokens=(" Austin",)))),
    lambda: hw.load(model, dtype="float64"),
    lambda: hw.load("atlas-small", tokenizer=model.subject.tokenizer),
    lambda: hw.compare(graph, 3),
    lambda: hw.compare("nowhere.safetensors", graph),
    lambda: hw.intervene(3, hw.Scale("concept:Texas", 0)),
    lambda: hw.intervene(graph, "concept:Texas=0"),
    lambda: hw.intervene(graph, hw.Scale("concept:Texas", 0), model=3),
    lambda: hw.intervene(graph, hw.Scale("concept:Texas", 0), regime="none"),
    lambda: hw.intervene(graph),
    lambda: graph[3],
    lambda: graph.prune("0.8"),
    lambda: graph.prune(80),
    lambda: graph.top(3, "features"),
    lambda: graph.top("feature"),
    lambda: graph.top(-1),
    lambda: hw.load("dallas.safetensors"),
    lambda: hw.intervene(graph, hw.Scale("concept:Texas", 0), generate=-1),
    lambda: hw.intervene(graph, hw.Swap("Texas", "California", "nowhere.safetensors")),
    lambda: hw.trace("The capital of Texas is", model, against=" Austin"),
    lambda: graph["Texas"],
    lambda: graph["\u2068Dallas\u2069"],
    lambda: graph.save("graph.png"),
    lambda: graph["concept:texas"],
    lambda: graph["texas"],
):
    try:
        mistake()
    except hw.HeadwaterError as error:
        print(error)
"""


def test_natural_mistakes_get_one_sentence():
    """In a process of its own: tests check the types of arguments before the library can."""
    done = subprocess.run(
        [sys.executable, "-c", MISTAKES], capture_output=True, text=True, check=True
    )
    expected = (
        "The prompt is a text or a list of token ids, got list of str: join",
        "A target is a token's text or its id, got float.",
        "model is a name, a folder, a transformers model or what hw.load returned, got int.",
        "bos is one of auto, never, always, got 'maybe'.",
        "precision is one of ieee, 3xtf32, tf32, got 'fast'.",
        "The data type 'int8' is not known: choose float32, float64, bfloat16.",
        "There is no model 'atlas-smal': did you mean 'atlas-small'?",
        "The model 'no such model' cannot be loaded: it is neither a local folder nor a valid name",
        "features is \"neurons\" or None, got 'all'.",
        "transcoders and features exclude each other: give one of them.",
        "The prompt is a text or what read_prompt returns, got list: join tokens",
        "The model is what read_subject returns, got str: subject_of(",
        "settings is a TraceSettings, got int: as in TraceSettings(",
        "Targets are vocabulary ids, got ' Austin': named_targets(",
        "dtype has no effect on a model that is loaded already: leave it out.",
        "tokenizer has no effect on a name: leave it out.",
        "Expected a graph or its file, got int.",
        "Cannot read nowhere.safetensors: No such file or directory.",
        "Expected a graph or its file, got int.",
        'An edit is made as in hw.Scale("concept:Texas", 0), got str.',
        "model is what hw.load returned, a name or a folder, got int.",
        "regime is one of frozen, constrained, free, got 'none'.",
        "There is no edit: give some, as in hw.Scale(",
        "A node is given by its name, as in feature:12/345@7, got 3.",
        "node_threshold is a share from 0 to 1, got '0.8'.",
        "node_threshold is a share from 0 to 1, got 80.",
        "'features' does not name a node: did you mean 'feature'?",
        "n is a number of nodes, as in top(10, 'feature'), got 'feature'.",
        "n is a number of nodes, as in top(10, 'feature'), got -1.",
        "dallas.safetensors is no model: hw.read reads the file of a graph.",
        "generate is a number of tokens, got -1.",
        "Cannot read nowhere.safetensors: No such file or directory.",
        "A target is missing, to compare with what it is against: give at least one token.",
        "'Texas' does not name a node: did you mean 'token:Texas'?",
        "'Dallas' does not name a node: did you mean 'concept:Dallas'?",
        "'graph.png' has none of the suffixes of graph files: .safetensors",
        "No feature of this graph has a label that names 'texas': did you mean 'Texas'?",
        "'texas' does not name a node: expected",
    )
    found = done.stdout.splitlines()
    assert len(found) == len(expected), done.stdout
    for sentence, start in zip(found, expected, strict=True):
        assert sentence.startswith(start)


@pytest.fixture(scope="module")
def oakland(model: hw.Model) -> hw.Graph:
    return hw.trace(PROMPT.replace("Dallas", "Oakland"), model)


def test_a_swap_is_one_call_and_tells_what_the_model_says(
    model: hw.Model, graph: hw.Graph, oakland: hw.Graph
):
    swap = hw.Swap("Texas", "California", oakland)
    found = hw.intervene(graph, swap, model=model, regime="free", generate=1)
    by_library = circuits.prepare(graph, model.subject, model.source)
    edit = graphs.intervention(graph, [swap])
    outcomes = circuits.intervene(by_library, [edit], graphs.Regime.FREE)
    assert found.targets == circuits.effects(by_library, outcomes, 0).targets
    assert found.continuations is not None
    ids = found.continuations.before_ids, found.continuations.after_ids
    assert [model.subject.tokenizer.decode(one) for one in ids] == ["Austin", "Sacramento"]
    assert found.continuations.lines() == ("before: Austin", "after:  Sacramento")
    assert "then 'Sacramento'" in repr(found)
    shown = str(found)
    assert found._repr_html_().startswith("<pre>Texas &gt; California  (free)")
    assert "Texas > California  (free)" in shown
    assert shown.endswith("before: Austin\nafter:  Sacramento")
    assert all(f"{one.measured:+.3f}" in shown for one in found.targets if one.measured)


def test_the_model_that_a_graph_names_is_loaded(graph: hw.Graph, model: hw.Model):
    edit = hw.Scale("concept:Texas", 0.0)
    named, loaded = hw.intervene(graph, edit), hw.intervene(graph, edit, model=model)
    assert named == loaded
    assert named.continuations is None
    one = graph.top(1, "feature")[0].name
    foreign = one.removeprefix("feature:").replace("/", "_").replace("@", "_")
    taken = [hw.intervene(graph, hw.SetTo(name, 0.0), model=model) for name in (one, foreign)]
    assert taken[0].edited == taken[1].edited
    with pytest.raises(circuits.ExperimentError, match="was traced"):
        hw.intervene(graph, edit, model="atlas-large")


def test_two_prompts_are_compared_by_identity(
    model: hw.Model, graph: hw.Graph, oakland: hw.Graph, tmp_path: Path
):
    found = hw.compare(graph, oakland, permutations=10)
    by_library = graphs.compare(graph, oakland, permutations=10)
    assert found.scores["features in common, by influence"] == by_library.features
    assert f"{by_library.features.value:.3f}" in repr(found)
    assert f"{by_library.edges.null_mean:.3f}" in str(found)
    files = [one.save(tmp_path / f"{n}.safetensors") for n, one in enumerate((graph, oakland))]
    assert hw.compare(*files, permutations=10).scores == found.scores
    with pytest.warns(UserWarning, match="The second graph is pruned and the first is not"):
        hw.compare(graph, oakland.prune(), permutations=0)
    page = found.save(tmp_path / "two.html").read_text(encoding="utf-8")
    assert "Dallas" in page
    assert "Oakland" in page
    profile = circuits.profile(model.subject, model.source, [PROMPT])
    with pytest.raises(graphs.ComparisonError, match="leave out the profiles"):
        hw.compare(graph, oakland, profiles=(profile, profile))


def test_two_models_are_compared_by_evidence_and_not_by_identity(graph: hw.Graph):
    large = hw.trace(PROMPT, "atlas-large").prune()
    small = graph.prune()
    found = hw.compare(small, large, permutations=0)
    by_library = graphs.correspond(small, large, graphs.CorrespondSettings(permutations=0))
    assert found.scores["influence at matched features"].value == by_library.matched.value
    assert "paths through the same concepts" in str(found)
    with pytest.raises(graphs.ComparisonError, match=r"use graphs\.correspond"):
        graphs.compare(small, large)


def test_paths_have_ends_by_name(graph: hw.Graph):
    found = graph.prune().paths("token:Dallas", "logit:Austin", "concept:Texas", k=2)
    assert len(found.listed) == 2
    for path in found.listed:
        names = [str(found.graph.nodes[row]) for row in path.nodes]
        assert found.graph[names[0]].token == " Dallas"
        assert any("Texas" in found.graph.label(row) for row in path.nodes)
        assert names[-1] in str(found)
        assert names[-1] in found._repr_html_()
    assert graph.prune().paths().flow >= found.flow
    pruned = graph.prune()
    (first, *_) = pruned.top(1, "feature")
    foreign = first.name.removeprefix("feature:").replace("/", "_").replace("@", "_")
    assert pruned.paths(foreign).listed == pruned.paths([first.name]).listed
    both = pruned.paths(["token:Dallas", "token:capital"]).flow
    alone = sum(pruned.paths(one).flow for one in ("token:Dallas", "token:capital"))
    assert both == pytest.approx(alone)


def test_a_target_has_its_share_of_influence(graph: hw.Graph):
    rows = graph.target_rows()
    assert graph.influence[rows].sum() == pytest.approx(1.0)
    assert graph["logit:Austin"].influence == pytest.approx(float(graph.influence[rows[0]]))
    assert graph["logit:Austin"].label == "' Austin'"


def test_a_swap_knows_the_groups_of_its_graph(model: hw.Model, graph: hw.Graph, oakland: hw.Graph):
    members = tuple(one.name for one in oakland.nodes_named("concept:California"))
    notes = graphs.Annotations(groups=(graphs.Group(name="mine", members=members),))
    texas = tuple(one.name for one in graph.nodes_named("concept:Texas"))
    ours = graphs.Annotations(groups=(graphs.Group(name="ours", members=texas),))
    swap = hw.Swap("ours", "mine", hw.Graph.of(oakland, notes))
    found = hw.intervene(hw.Graph.of(graph, ours), swap, model=model)
    assert {one.node for one in found.edited} == {*members, *texas}


def test_every_error_and_name_of_a_docstring_can_be_imported():
    """What docstrings say is raised, and what they name as in `graphs.select`, is at top level."""
    packages = {one.__name__: one for one in (circuits, graphs, hw, importlib.import_module("viz"))}
    offered = (
        {name for one in packages.values() for name in dir(one)}
        | set(dir(builtins))
        | set(dir(pydantic))
    )
    missing: set[str] = set()
    for package in packages.values():
        for name in package.__all__:
            value = getattr(package, name)
            own = vars(value).values() if inspect.isclass(value) else ()
            text = "\n\n".join(inspect.getdoc(one) or "" for one in (value, *own) if callable(one))
            for sentence in re.findall(r"Raises (.*?)(?:\.\s|\.$|\()", text, re.S):
                raised = re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", sentence)
                missing |= {f"{name}: {one}" for one in raised if one not in offered}
            for dotted in re.findall(r"`((?:circuits|graphs|viz|hw)(?:\.\w+)+)`", text):
                if not _importable(dotted.replace("hw.", "headwater.")):
                    missing.add(f"{name}: {dotted}")
    assert not missing


def _importable(dotted: str) -> bool:
    try:
        pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True


def test_top_levels_are_few_and_clear():
    """No name there that means something else in Python, or nothing to a reader."""
    for package in (circuits, graphs, hw):
        assert not {"Path", "Set", "whole", "hidden", "KS", "Kind", "Line"} & set(dir(package))
    assert len(hw.__all__) <= 20
    assert len(graphs.__all__) <= 110
