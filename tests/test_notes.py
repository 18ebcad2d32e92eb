"""Pins, supernodes and labels inside the JSON of circuit-tracer and Neuronpedia."""

from __future__ import annotations

import json

import pytest

import graphs.formats.neuronpedia.notes
from graphs.core.annotations import NO_ANNOTATIONS, Annotations, Group
from graphs.disk.files import GraphFileError
from graphs.formats.neuronpedia.names import cantor
from graphs.formats.neuronpedia.reader import read_neuronpedia
from graphs.formats.neuronpedia.writer import Upload, to_neuronpedia
from tests.test_neuronpedia import GRAPH
from tests.test_neuronpedia_reader import circuit_tracer_file

NOTES = Annotations(
    pins=("logit:9@1", "feature:0/3@1"),
    labels={"feature:0/3@1": "here", "0/3": 'any "where"', "error:3@1": "lost", "bias:0": "b"},
    groups=(
        Group(name="ends", members=("logit:7@1", "logit:9@1")),
        Group(name="made", members=("feature:0/3@1",), automatic=True),
    ),
)


def back(tmp_path, file: dict) -> Annotations:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(file))
    return read_neuronpedia(path).annotations


def test_notes_come_back_as_they_were(tmp_path):
    assert back(tmp_path, to_neuronpedia(GRAPH, Upload("a"), NOTES)) == NOTES
    assert back(tmp_path, to_neuronpedia(GRAPH, Upload("a"))) == NO_ANNOTATIONS


def test_notes_are_written_as_the_viewers_read_them():
    file = to_neuronpedia(GRAPH, Upload("a"), NOTES)
    assert file["qParams"]["pinnedIds"] == ["5_9_1", "0_3_1"]
    assert file["qParams"]["supernodes"] == [["ends", "5_7_1", "5_9_1"], ["made", "0_3_1"]]
    pair = cantor(0, 3)
    assert [tuple(pair) for pair in file["qParams"]["clerps"]] == [
        (f"0_{pair}_1", "here"),
        (str(pair), 'any "where"'),
        ("3_-1_1", "lost"),
        ("bias_0", "b"),
    ]
    assert [member["clerp"] for member in file["nodes"]][3:5] == ["here", "lost"]


def test_what_the_graph_does_not_hold_stays_behind(tmp_path):
    notes = Annotations(
        pins=("feature:2/5@1",),
        labels={"feature:2/5@1": "gone", "2/5": "gone"},
        groups=(Group(name="part", members=("logit:7@1", "feature:2/5@1")),),
    )
    assert back(tmp_path, to_neuronpedia(GRAPH, Upload("a"), notes)) == Annotations(
        groups=(Group(name="part", members=("logit:7@1",)),)
    )


def test_notes_that_went_through_an_address_are_text(tmp_path):
    file = circuit_tracer_file()
    file["qParams"] = {
        "pinnedIds": "0_77_1,3_77_1,gone",
        "supernodes": '[["a","0_77_1","3_77_1"],["a","E_2_0"]]',
        "clerps": f'[["{cantor(0, 77)}","first"],["gone","x"]]',
    }
    empty = circuit_tracer_file()
    empty["qParams"] = {"pinnedIds": "", "supernodes": [["a", ""]], "clerps": ""}
    for member in empty["nodes"]:
        del member["jsNodeId"]
    assert back(tmp_path, empty) == NO_ANNOTATIONS
    assert back(tmp_path, file) == Annotations(
        pins=("feature:0/77@1", "feature:3/77@1"),
        labels={"0/77": "first"},
        groups=(
            Group(name="a", members=("feature:0/77@1", "feature:3/77@1")),
            Group(name="a (2)", members=("token:2@0",)),
        ),
    )


def test_repeated_ids_and_names_are_not_squared(tmp_path, monkeypatch):
    """Ids that stand for all nodes are looked up once, and one name is given away many times."""
    looked_up: list[int] = []

    class Counted(dict):
        def pop(self, key, otherwise):
            found = super().pop(key, otherwise)
            looked_up.append(len(found))
            return found

        def get(self, key, otherwise):
            found = super().get(key, otherwise)
            looked_up.append(len(found))
            return found

    plain = graphs.formats.neuronpedia.notes._named
    monkeypatch.setattr(
        graphs.formats.neuronpedia.notes, "_named", lambda *given: Counted(plain(*given))
    )
    file = circuit_tracer_file()
    count = 3000
    model = file["nodes"][0]
    file["nodes"] += [
        {**model, "node_id": f"0_{index}_0", "ctx_idx": 0, "jsNodeId": "all"}
        for index in range(count)
    ]
    file["qParams"] = {
        "pinnedIds": ["all"] * count,
        "supernodes": [["a", f"0_{index}_0"] for index in range(count - 1)]
        + [["b", *["all"] * count], *[["c", "all"]] * count],
    }
    notes = back(tmp_path, file)
    assert len(notes.pins) == count
    assert [group.name for group in notes.groups[:2]] == ["a", "a (2)"]
    assert notes.groups[-1].members == (f"feature:0/{count - 1}@0",)
    assert len(notes.groups) == count
    assert sum(looked_up) < 4 * count


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]", "[" * 5000])
def test_text_that_holds_no_lists_is_refused(tmp_path, text: str):
    file = circuit_tracer_file()
    file["qParams"]["supernodes"] = text
    with pytest.raises(
        GraphFileError, match=r"qParams\.supernodes must be a list of lists of strings"
    ):
        back(tmp_path, file)
