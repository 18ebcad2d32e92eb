"""Who keeps something in a file that others write too loses nothing of theirs, nor his own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import circuits
import graphs
import headwater.cli.reading
from graphs.core.regime import Regime
from graphs.core.report import ReplacementReport, Report
from graphs.formats.neuronpedia.contents import Upload
from graphs.formats.updates import keep_measured, keep_report
from tests.test_cli import assert_refused, run
from tests.test_files import little_space
from tests.test_viewer_numbers import layered

REPORT = Report(generator="headwater 0.1.0")
OTHER = REPORT.model_copy(
    update={"replacement": ReplacementReport(same_top=True, divergence=0.5, per_layer=(0.1,))}
)


def one(what: str, measured: float = 1.0) -> graphs.Measured:
    return graphs.Measured(
        what=what, regime=Regime.FROZEN, target="logit:7@2", predicted=None, measured=measured
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    graphs.write_graph(layered(0), tmp_path / "graph.safetensors")
    return tmp_path / "graph.safetensors"


@pytest.mark.usefixtures("either_system")
def test_what_was_kept_since_a_graph_was_read_stays(path: Path):
    read = graphs.read_graph(path)
    keep_measured(path, read, [one("a"), one("b")])
    keep_report(path, read, REPORT)
    kept = keep_measured(path, read, iter([one("b", 2.0), one("c")]))
    header = graphs.read_graph(path).provenance
    assert kept.provenance == header
    assert header.measured == (one("a"), one("b", 2.0), one("c"))
    assert header.report == REPORT
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_another_report_is_not_replaced_by_one_that_did_not_know_it(path: Path):
    read = graphs.read_graph(path)
    keep_report(path, read, REPORT)
    keep_report(path, read, REPORT)  # it is the same
    with pytest.raises(graphs.GraphFileError, match="got another report while this one was"):
        keep_report(path, read, OTHER)
    assert graphs.read_graph(path).provenance.report == REPORT
    keep_report(path, graphs.read_graph(path), OTHER)
    assert graphs.read_graph(path).provenance.report == OTHER


@pytest.mark.parametrize(
    "other",
    [
        lambda graph: layered(1),
        lambda graph: replace(graph, dropped_absolute=graph.dropped_absolute + 1e-9),
        lambda graph: graph.with_weights(graph.weights * 2.0),
        lambda graph: replace(
            graph, provenance=graph.provenance.model_copy(update={"prompt": "another"})
        ),
    ],
)
def test_nothing_is_kept_in_another_graph(path: Path, other: Callable):
    read = graphs.read_graph(path)
    graphs.write_graph(other(read), path)
    before = path.read_bytes()
    for keep in (
        lambda: keep_measured(path, read, [one("a")]),
        lambda: keep_report(path, read, REPORT),
    ):
        with pytest.raises(graphs.GraphFileError, match="now holds another graph than the one"):
            keep()
    assert path.read_bytes() == before


LABELLING = """
import sys
from graphs.formats.updates import update_annotations
for number in range(15):
    def change(there):
        label = {f"0/{number}": sys.argv[2], f"{sys.argv[2]}/{number}": "x"}
        return there.model_copy(update={"labels": {**there.labels, **label}})
    update_annotations(sys.argv[1], change)
"""
MEASURING = """
import sys
import graphs
from graphs.core.regime import Regime
from graphs.formats.updates import keep_measured
read = graphs.read_graph(sys.argv[1])
for number in range(10):
    what = f"{sys.argv[2]} {number}"
    one = graphs.Measured(
        what=what, regime=Regime.FROZEN, target="logit:7@2", predicted=None, measured=1.0
    )
    keep_measured(sys.argv[1], read, [one])
"""


def at_once(program: str, path: Path) -> None:
    """Run a program twice at the same time, as 1 and as 2."""
    commands = [[sys.executable, "-c", program, str(path), name] for name in "12"]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in processes] == [0, 0]


def test_two_processes_at_once_lose_nothing(path: Path):
    beside = graphs.annotations_path(path)
    at_once(LABELLING, beside)
    labels = graphs.read_annotations(beside).labels
    assert {f"{name}/{number}" for name in "12" for number in range(15)} <= labels.keys()
    at_once(MEASURING, path)
    kept = {one.what for one in graphs.read_graph(path).provenance.measured}
    assert kept == {f"{name} {number}" for name in "12" for number in range(10)}
    assert sorted(file.name for file in path.parent.iterdir()) == [beside.name, path.name]


@pytest.fixture
def traced(model_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "graph.safetensors"
    assert run("trace", "fjfoi", "--model", model_folder, "--out", path).exit_code == 0
    return path


def meanwhile(patch: pytest.MonkeyPatch, module: Any, name: str, deed: Callable[[], object]):
    """Do something, once, after a command has done this."""
    real, deeds = getattr(module, name), [deed]

    def busy(*more: Any, **options: Any) -> Any:
        made = real(*more, **options)
        if deeds:
            deeds.pop()()
        return made

    patch.setattr(module, name, busy)


CHECK = ("--features", 3, "--random-sets", 1)


def scaled(path: Path, layer: int):
    return run("intervene", path, "--scale", f"layer:{layer}=0", "--save")


@pytest.mark.usefixtures("either_system")
def test_a_check_and_interventions_at_once_are_all_kept(
    traced: Path, monkeypatch: pytest.MonkeyPatch
):
    meanwhile(monkeypatch, circuits, "check", lambda: scaled(traced, 0))
    assert run("check", traced, *CHECK).exit_code in (0, 1)
    meanwhile(monkeypatch, circuits, "intervene", lambda: scaled(traced, 1))
    assert scaled(traced, 2).exit_code == 0
    header = graphs.read_graph(traced).provenance
    assert header.report is not None
    assert {one.what for one in header.measured} == {f"layer:{layer} × 0" for layer in range(3)}


def test_what_cannot_be_kept_is_printed(traced: Path, monkeypatch: pytest.MonkeyPatch):
    reason = "The result is printed but not stored: {}"
    another = layered(1)
    for command, module, name in (
        (("check", traced, *CHECK), circuits, "check"),
        (
            ("intervene", traced, "--scale", "layer:1=0", "--save"),
            circuits,
            "intervene",
        ),
    ):
        graph = graphs.read_graph(traced)
        shown = run(*(part for part in command if part != "--save")).stdout.splitlines()
        graphs.write_graph(graph, traced)
        for as_json in (False, True):
            with monkeypatch.context() as patch:
                meanwhile(patch, module, name, lambda: graphs.write_graph(another, traced))
                result = run(*command, *(["--json"] * as_json))
            assert_refused(result, reason.format(f"{traced} now holds another graph"))
            assert graphs.read_graph(traced).provenance == another.provenance
            graphs.write_graph(graph, traced)
            if as_json:
                assert json.loads(result.stdout)["file"] is None
            else:
                assert [line for line in shown if "graph: " not in line] == (
                    result.stdout.splitlines()
                )
        with little_space():
            assert_refused(run(*command), reason.format("Cannot write"))
        assert graphs.read_graph(traced).provenance == graph.provenance


@pytest.mark.usefixtures("either_system")
def test_groups_are_added_to_what_was_said_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch):
    graphs.write_graph(graphs.prune(layered(3)), path)
    beside = graphs.annotations_path(path)
    made = json.loads(run("group", path, "--tightness", "0", "--save", "--json").stdout)["groups"]
    assert made
    member = made[0]["members"][0]
    mine = graphs.Annotations(
        labels={"0/0": "mine"}, groups=(graphs.Group(name="mine", members=(member,)),)
    )
    meanwhile(
        monkeypatch,
        headwater.cli.reading,
        "with_groups",
        lambda: graphs.write_annotations(mine, beside),
    )
    result = run("group", path, "--tightness", "0", "--save", "--json")
    kept = graphs.read_annotations(beside)
    assert kept.labels == mine.labels
    assert kept.groups[0] == mine.groups[0]
    assert [group for group in kept.groups if group.automatic]
    told = json.loads(result.stdout)["groups"]
    assert told == [group.model_dump(mode="json") for group in kept.groups]


def test_what_a_file_of_another_program_says_goes_along_with_its_groups(path: Path):
    foreign = path.with_name("foreign.json")
    said = graphs.Annotations(labels={"logit:7@2": "mine"}, pins=("logit:7@2",))
    graphs.write_neuronpedia(layered(3), foreign, Upload("foreign"), said)
    assert run("group", foreign, "--save").exit_code == 0
    kept = graphs.read_annotations(graphs.annotations_path(foreign))
    assert (kept.pins, kept.labels) == (said.pins, said.labels)
