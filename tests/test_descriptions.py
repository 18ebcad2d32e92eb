"""What is known about features: files beside a dictionary, and the way into graphs and pages."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from io import StringIO
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import graphs
import viz
from circuits.attribution.targets import read_targets
from circuits.attribution.trace_settings import TargetSettings
from circuits.features.files.reading import read_transcoders
from circuits.features.labels import FeatureFileError, feature_files, write_feature_files
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.recording.record import record
from circuits.training.finished import describe as describe_module
from circuits.training.finished.describe import describe
from circuits.training.finished.export import write_transcoders
from graphs import Description, Example
from graphs.formats.neuronpedia.contents import Upload
from tests.conftest import cached_subject
from tests.graph_oracles import make_graph
from tests.test_cli import assert_refused, run
from tests.tiny import tiny_prompt, toy_dictionary
from viz.page.page import page_data

DALLAS = Description(
    label="Dallas, Houston → Texas",
    promoted_at_own_layer=(" Texas", " <b>"),
    promoted=(" Texas", " <b>"),
    suppressed=(" Ohio",),
    frequency=0.25,
    histogram=(3, 0, 1),
    largest=2.5,
    examples=(Example(tokens=(" in", " Dallas"), activations=(0.0, 2.5)),),
)


def described_graph() -> graphs.AttributionGraph:
    names = ["token:1@0", "feature:0/7@0", "feature:1/7@0", "logit:3@0"]
    edges = {
        ("token:1@0", "feature:0/7@0"): 1.0,
        ("feature:0/7@0", "feature:1/7@0"): 1.0,
        ("feature:0/7@0", "logit:3@0"): 1.0,
        ("feature:1/7@0", "logit:3@0"): 2.0,
    }
    graph = make_graph(names, edges)
    return replace(graph, descriptions={"0/7": DALLAS, "1/7": Description(label="other")})


def test_feature_files_come_back_as_they_were_written(tmp_path: Path):
    assert feature_files(tmp_path) is None
    write_feature_files(tmp_path, "toy", [[None, DALLAS, None], [DALLAS]])
    files = feature_files(tmp_path)
    assert files is not None
    assert [files.read(0, i) for i in range(4)] == [None, DALLAS, None, None]
    assert files.read(1, 0) == DALLAS
    assert files.read(2, 0) is None


def test_feature_files_have_the_layout_that_the_viewer_of_circuit_tracer_reads(tmp_path: Path):
    write_feature_files(tmp_path, "toy", [[None, DALLAS]])
    index = json.loads(gzip.decompress((tmp_path / "features" / "index.json.gz").read_bytes()))
    assert index["format"] == "variable_chunks"
    offsets = index["0"]["offsets"]
    assert len(offsets) == 3
    assert offsets[:2] == [0, 0]
    content = (tmp_path / "features" / index["0"]["filename"]).read_bytes()[offsets[1] : offsets[2]]
    assert int.from_bytes(content[:4], "little") == len(content) - 4
    record = json.loads(gzip.decompress(content[4:]))
    assert record["index"] == 1
    assert record["examples_quantiles"][0]["examples"][0]["tokens"] == [" in", " Dallas"]
    assert record["examples_quantiles"][0]["examples"][0]["tokens_acts_list"] == [0, 2.5]
    assert (record["top_logits"], record["act_max"]) == ([" Texas", " <b>"], 2.5)


def test_published_records_without_a_label_are_read(tmp_path: Path):
    write_feature_files(tmp_path, "toy", [[DALLAS]])
    record = {
        "index": 0,
        "transcoder_id": "x",
        "examples_quantiles": [
            {"quantile_name": "Top", "examples": [{"tokens": ["a"], "tokens_acts_list": [1]}]},
            {"quantile_name": "Low", "examples": [{"tokens": ["b"], "tokens_acts_list": [0.1]}]},
        ],
        "quantile_values": [1, 2],
    }
    packed = gzip.compress(json.dumps(record).encode())
    chunk = len(packed).to_bytes(4, "little") + packed
    folder = tmp_path / "features"
    (folder / "layer_0.bin").write_bytes(chunk)
    index = {"0": {"filename": "layer_0.bin", "offsets": [0, len(chunk), None]}}
    (folder / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))
    files = feature_files(tmp_path)
    assert files is not None
    read = files.read(0, 0)
    assert read is not None
    assert [example.tokens for example in read.examples] == [("a",), ("b",)]
    assert read.label == ""
    assert files.read(0, 1) is None


@pytest.mark.parametrize("damage", ["index", "cut", "bits", "gone"])
def test_damaged_feature_files_are_refused(tmp_path: Path, damage: str):
    write_feature_files(tmp_path, "toy", [[DALLAS]])
    folder = tmp_path / "features"
    if damage == "index":
        (folder / "index.json.gz").write_bytes(b"\x1f\x8b")
    elif damage == "cut":
        (folder / "layer_0.bin").write_bytes((folder / "layer_0.bin").read_bytes()[:20])
    elif damage == "bits":
        (folder / "layer_0.bin").write_bytes(b"\xff" * 900)
    else:
        (folder / "layer_0.bin").unlink()
    files = feature_files(tmp_path)
    assert files is not None
    with pytest.raises(FeatureFileError, match="damaged"):
        files.read(0, 0)


def test_examples_need_an_activation_per_token():
    with pytest.raises(ValueError, match="Expected one activation per token, got 1 for 2 tokens"):
        Example(tokens=("a", "b"), activations=(1.0,))


def firings_of(
    subject: Subject, transcoders: TranscoderSet, documents: list[list[int]]
) -> dict[tuple[int, int], list[tuple[float, int, int]]]:
    """Activation, document and position of each firing, by layer and feature, prompt by prompt."""
    found: dict[tuple[int, int], list[tuple[float, int, int]]] = {}
    for number, ids in enumerate(documents):
        prompt = tiny_prompt(tuple(ids))
        recording = record(subject.frozen, prompt)
        targets = read_targets(subject.frozen, recording, TargetSettings(), subject.spell)
        features = transcoders.activate(subject.frozen, recording, targets.covectors)
        columns = (features.layer, features.index, features.pos, features.activation)
        for layer, index, pos, activation in zip(*(c.tolist() for c in columns), strict=True):
            found.setdefault((layer, index), []).append((activation, number, pos))
    return found


def test_descriptions_agree_with_the_features_that_fire():
    """Frequency, largest activation, histogram and examples, against activations of each prompt."""
    subject, transcoders = cached_subject("gemma-3"), toy_dictionary()
    documents = [[1, *(3 + (5 * n + i * i) % 20 for i in range(6))] for n in range(4)]
    documents += [[1, 3 + n, 4, 5, 6, 7, 8] for n in range(8)]
    layers = list(describe(subject, transcoders, [*documents, *documents]))
    by_feature = firings_of(subject, transcoders, documents)
    assert len(by_feature) > 30
    for layer, described in enumerate(layers):
        for index, description in enumerate(described):
            fired = by_feature.get((layer, index))
            assert (description is None) == (fired is None)
            if description is None or fired is None:
                continue
            assert description.frequency == pytest.approx(len(fired) / (12 * 7))
            activations = [activation for activation, _, _ in fired]
            largest = max(activations)
            counts, _ = np.histogram(activations, len(description.histogram), (0, largest))
            assert description.histogram == tuple(counts)
            assert description.largest == pytest.approx(largest)
            strongest = description.examples[0]
            tied = {(n, pos) for activation, n, pos in fired if activation > largest - 1e-9}
            texts = [tuple(map(subject.spell, documents[n])) for n, _ in tied]
            assert strongest.tokens in texts
            assert strongest.activations.index(max(strongest.activations)) in {p for _, p in tied}


def test_an_example_is_the_part_of_a_long_document_around_where_the_feature_is_most_active(
    monkeypatch: pytest.MonkeyPatch,
):
    subject, transcoders = cached_subject("gemma-3"), toy_dictionary()
    documents = [[1, *(3 + (5 * n + i * i) % 20 for i in range(11))] for n in range(3)]
    whole = [list(layer) for layer in describe(subject, transcoders, documents)]
    monkeypatch.setattr(describe_module, "LONGEST", 5)
    cut = [list(layer) for layer in describe(subject, transcoders, documents)]
    checked = 0
    for before, after in zip(chain(*whole), chain(*cut), strict=True):
        if before is None:
            continue
        for long, short in zip(before.examples, after.examples, strict=True):
            peak = long.activations.index(max(long.activations))
            start = max(0, min(peak - 2, 12 - 5))
            assert short.tokens == long.tokens[start : start + 5]
            assert short.activations == long.activations[start : start + 5]
            assert max(short.activations) == max(long.activations)
            checked += 1
        assert after.model_copy(update={"examples": ()}) == before.model_copy(
            update={"examples": ()}
        )
    assert checked > 50


def test_words_behind_the_dot_are_of_many_texts_of_a_feature_and_of_few_others():
    """Counted word by word: at least 5 % of its texts, and four times the share of all texts."""
    subject, transcoders = cached_subject("gemma-3"), toy_dictionary()
    documents = [[1, *(3 + (2 * n + i * (n // 10)) % 20 for i in range(3))] for n in range(60)]
    layers = list(describe(subject, transcoders, documents))
    usual = {w: sum(w in ids for ids in documents) / 60 for w in range(23)}
    several = 0
    for (layer, index), fired in firings_of(subject, transcoders, documents).items():
        least = max(activation for activation, _, _ in fired) / 2
        texts = [documents[n] for n in {n for activation, n, _ in fired if activation >= least}]
        score = dict[int, float]()
        for word in range(23):
            share = sum(word in ids for ids in texts) / len(texts)
            if share >= 0.05 and share >= 4 * usual[word]:
                score[word] = share * share / usual[word]
        best = sorted(score, key=lambda word: (-round(score[word], 9), word))[:5]
        description = layers[layer][index]
        assert description is not None
        named, _, apart = description.label.rpartition(" → ")[0].partition(" · ")
        words = [subject.spell(word).strip() for word in best]
        assert apart == ", ".join(word for word in words if word not in named.split(", "))
        several += bool(apart)
    assert several > 5


def test_labels_say_where_a_feature_fires_and_what_it_raises():
    """One feature reads the direction of one token alone and writes another's."""
    subject = cached_subject("llama")
    frozen = subject.frozen
    transcoders = toy_dictionary()
    documents = [[1, *(3 + (7 * n + i * i * i) % 20 for i in range(8))] for n in range(40)]
    layers = list(describe(subject, transcoders, documents))
    for layer, described in enumerate(layers):
        decoder = transcoders.layers[layer].decoders[0]
        logits = (decoder * frozen.final_norm.gain) @ frozen.unembedding.T
        for index, description in enumerate(described):
            if description is None:
                continue
            best = subject.spell(int(logits[index].argmax()))
            assert description.promoted[0] == best
            assert description.suppressed[0] == subject.spell(int(logits[index].argmin()))
            where, _, said = description.label.partition(" → ")
            assert said.split(", ")[0] == best
            strong = [
                token
                for example in description.examples
                for token, activation in zip(example.tokens, example.activations, strict=True)
                if activation >= 0.5 * (description.largest or 0)
            ]
            assert set(where.partition(" · ")[0].split(", ")) & set(strong)


def test_a_graph_keeps_what_its_dictionary_knows(tmp_path: Path):
    """From files beside the weights into the graph, its file, its pruned copy, summary and page."""
    subject, transcoders = cached_subject("llama"), toy_dictionary()
    write_transcoders(transcoders, tmp_path, "toy", cross_layer=False, dtype=torch.float64)
    written = [[replace_label(layer, i) for i in range(20)] for layer in range(3)]
    write_feature_files(tmp_path, "toy", written)
    graph = trace(tiny_prompt(), subject, read_transcoders(tmp_path))
    assert len(graph.descriptions) > 5
    for row in np.flatnonzero(graph.nodes.is_kind(graphs.NodeKind.FEATURE)):
        node, description = graph.nodes[int(row)], graph.description(int(row))
        assert description is not None
        assert description.label == f"known {node.layer} {node.index}"
    graphs.write_graph(graph, tmp_path / "graph.safetensors")
    assert graphs.read_graph(tmp_path / "graph.safetensors").descriptions == graph.descriptions
    line = graphs.summarise(graph).strongest[0]
    node = graphs.NodeId.parse(line.node)
    assert line.label == f"known {node.layer} {node.index}"


def replace_label(layer: int, index: int) -> Description:
    return DALLAS.model_copy(update={"label": f"known {layer} {index}"})


def test_a_part_of_a_graph_keeps_the_descriptions_of_its_features():
    graph = described_graph()
    assert graph.take(np.array([0, 1, 3])).descriptions == {"0/7": DALLAS}
    assert graph.description(0) is None
    assert graph.description(1) == DALLAS
    assert graph.label(1) == "Dallas, Houston → Texas"
    assert replace(graph, descriptions={}, output_tokens={1: (" a", " b")}).label(1) == " a,  b"
    clerps = {node["clerp"] for node in graphs.to_neuronpedia(graph, Upload("a"))["nodes"]}
    assert "say Texas" in clerps
    with pytest.raises(ValueError, match="Keys of descriptions are LAYER/INDEX, got '0/07'"):
        replace(graph, descriptions={"0/07": DALLAS})


def test_the_page_shows_labels_and_examples_and_nothing_of_them_becomes_html(tmp_path: Path):
    viz.write_page(described_graph(), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    known = page_data(page)["graphs"][0]["features"]["0/7"]
    assert known["label"] == "Dallas, Houston → Texas"
    assert known["examples"] == [{"tokens": [" in", " Dallas"], "activations": [0.0, 2.5]}]
    assert (known["frequency"], known["lowered"]) == (0.25, [" Ohio"])
    assert "<b>" not in page.partition("<table>")[2].partition("</table>")[0]


def test_the_terminal_shows_labels_where_there_are_any():
    console = Console(width=160, record=True, file=StringIO())
    console.print(viz.summary_tables(graphs.summarise(described_graph())))
    text = console.export_text()
    assert "say Texas" in text
    assert "label" in text


def test_show_tells_what_is_known_about_a_feature(tmp_path: Path):
    path = tmp_path / "graph.safetensors"
    graphs.write_graph(described_graph(), path)
    result = run("show", path, "--feature", "0/7")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "0/7  say Texas",
        "stored label: Dallas, Houston → Texas",
        "promotes at its own layer: ' Texas', ' <b>'",
        "promotes: ' Texas', ' <b>'",
        "suppresses: ' Ohio'",
        "active on 25.00% of tokens, at most 2.50",
        "    2.50   in Dallas",
    ]
    # What somebody wrote is the name already.
    assert run("show", path, "--feature", "1/7").stdout.splitlines() == ["1/7  other"]
    told = json.loads(run("show", path, "--feature", "0/7", "--json").stdout)
    assert Description.model_validate(told) == DALLAS
    refused = run("show", path, "--feature", "3/1")
    assert_refused(refused, "no description of '3/1': name one of its 2 described features, as in")
    graphs.write_graph(replace(described_graph(), descriptions={}), path)
    assert_refused(run("show", path, "--feature", "0/7"), "came without feature files")


def test_records_of_others_may_lack_or_bend_what_is_not_needed(tmp_path: Path):
    write_feature_files(tmp_path, "toy", [[DALLAS]])
    record = {"label": None, "histogram": [3.0, 0.0], "top_logits": ["a"], "frac_nonzero": 0.02}
    packed = gzip.compress(json.dumps(record).encode())
    content = len(packed).to_bytes(4, "little") + packed
    (tmp_path / "features" / "layer_0.bin").write_bytes(content)
    index = {"0": {"filename": "elsewhere/layer_0.bin", "offsets": [0, len(content)]}}
    (tmp_path / "features" / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))
    files = feature_files(tmp_path)
    assert files is not None
    assert files.read(0, 0) == Description(
        label="", promoted=("a",), histogram=(3, 0), frequency=0.02
    )


def test_output_tokens_are_on_the_page_even_without_examples(tmp_path: Path):
    bare = DALLAS.model_copy(update={"examples": ()})
    graph = replace(described_graph(), descriptions={"0/7": bare})
    viz.write_page(graph, tmp_path / "page.html")
    data = page_data((tmp_path / "page.html").read_text())
    assert data["graphs"][0]["features"]["0/7"]["lowered"] == [" Ohio"]
