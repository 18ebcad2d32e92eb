"""`headwater serve`: for the person at this machine, and for nobody else."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import circuits
import graphs
from circuits.attribution.trace_settings import TargetSettings, TraceSettings
from circuits.interventions.experiment import prepare
from circuits.interventions.intervene import generate, intervene
from circuits.progress import ignore_progress
from graphs.formats.updates import update_annotations
from graphs.interventions.heads import chosen_heads
from headwater.arguments.usage import UsageError
from headwater.cli.serve import HOST, _listen
from headwater.server.jobs import MOST_QUEUED
from headwater.server.naming import Traced, free_path
from headwater.server.requests import TraceRequest
from headwater.server.site import LARGEST_BODY
from headwater.server.workspace import FIELDS, ModelWorkspace
from tests.browser import needs_chromium, show_full_graph
from tests.conftest import cached_subject
from tests.serving import TOKEN, Served, serving, serving_one
from tests.test_cli import assert_refused, run
from tests.test_viewer_numbers import layered
from tests.tiny import toy_dictionary
from tests.tolerances import EXACT
from viz.page.page import page_data


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving_one(tmp_path / "graphs") as found:
        yield found


def test_a_prompt_becomes_a_graph_and_its_page(served: Served):
    status, job = served.json("POST", "/traces", {"prompt": "the cat"})
    assert (status, job["state"]) == (202, "waiting") or job["state"] in ("running", "done")
    done = served.until(job["number"], "done")
    assert done["made"] == "the-cat"
    assert served.json("GET", "/graphs") == (200, ["the-cat", "one"])
    status, page, _ = served.ask("GET", "/graphs/the-cat")
    assert status == 200
    assert b"connect-src 'self'" in page
    data = page_data(page.decode())
    assert data["served"]
    assert data["graphs"][0]["file"]["notes"] == "the-cat.annotations.json"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil:80", ""]
)
def test_other_hosts_are_refused(served: Served, host: str):
    for method, path in (("GET", "/"), ("GET", "/graphs/one"), ("POST", "/traces")):
        status, answer = served.json(method, path, Host=host)
        assert status == 403
        assert "only" in answer["error"]


def test_other_sites_are_refused(served: Served):
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{served.port}"):
        status, answer = served.json("POST", "/traces", {"prompt": "a"}, Origin=origin)
        assert (status, answer["error"][:42]) == (403, "This server answers to its own pages only:")
    own = f"http://localhost:{served.port}"
    assert served.ask("POST", "/traces", {"prompt": "a"}, Origin=own)[0] == 202
    # A form of another site can send no JSON.
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert served.ask("POST", "/traces", {"prompt": "a"}, content_type=kind)[0] == 415
    assert served.ask("GET", "/graphs")[2].get("access-control-allow-origin") is None


def test_nothing_outside_the_folder_is_served(served: Served, tmp_path: Path):
    graphs.write_graph(layered(2), tmp_path / "outside.safetensors")
    (served.folder / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    (served.folder / "folder.safetensors").mkdir()
    for name in (
        "../outside",
        "%2e%2e%2foutside",
        "..%2Foutside",
        "link",
        "folder",
        "",
        "none",
        "one%00",
        "/etc/passwd",
        "%2Fetc%2Fpasswd",
        ".",
        "a" * 300,
    ):
        for method, path in (("GET", f"/graphs/{name}"), ("PUT", f"/graphs/{name}/annotations")):
            status = served.ask(method, path, {"schema_version": 1} if method == "PUT" else None)[0]
            assert status in (307, 404, 405) or (name == "" and method == "GET"), (name, method)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graphs", "outside.safetensors"]
    assert served.json("GET", "/graphs") == (200, ["one"])
    graphs.annotations_path(served.folder / "one").symlink_to(tmp_path / "outside.annotations.json")
    status, answer = served.json("PUT", "/graphs/one/annotations", {"pins": ["logit:7@2"]})
    assert (status, answer["error"]) == (403, "one.annotations.json is a link out of this folder.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graphs", "outside.safetensors"]


def test_annotations_are_kept_beside_the_graph(served: Served):
    said = {"schema_version": 1, "pins": ["logit:7@2"], "labels": {"0/0": "mine"}}
    assert served.ask("PUT", "/graphs/one/annotations", said)[0] == 204
    beside = graphs.annotations_path(served.folder / "one.safetensors")
    assert graphs.read_annotations(beside).pins == ("logit:7@2",)
    before = beside.read_bytes()
    for wrong in (b"{", {"pins": 3}, {"schema_version": 2}, [], {"unknown": 1}):
        status, answer = served.json("PUT", "/graphs/one/annotations", wrong)
        assert status == 422
        assert "not a valid AnnotationsRequest" in answer["error"]
    assert served.ask("PUT", "/graphs/one/annotations", b" " * (LARGEST_BODY + 1))[0] == 413
    assert beside.read_bytes() == before
    page = served.ask("GET", "/graphs/one")[1].decode()
    assert page_data(page)["graphs"][0]["annotations"]["labels"] == {"0/0": "mine"}


def test_annotations_that_cannot_be_written_are_answered_with_the_reason(served: Served):
    graphs.annotations_path(served.folder / "one.safetensors").mkdir()
    status, told = served.json("PUT", "/graphs/one/annotations", {"schema_version": 1})
    assert status == 422
    assert "annotations.json" in told["error"]


def test_annotations_of_two_windows_are_put_together_or_refused(served: Served):
    beside = graphs.annotations_path(served.folder / "one.safetensors")
    read = graphs.Annotations(labels={"0/0": "old"})
    graphs.write_annotations(read, beside)

    def put(**parts: object) -> tuple[int, bytes]:
        said = read.model_dump(mode="json") | parts | {"read": read.model_dump(mode="json")}
        return served.ask("PUT", "/graphs/one/annotations", said)[:2]

    assert put(labels={"0/0": "old", "0/1": "mine"}) == (204, b"")
    status, kept = put(pins=["logit:7@2"], labels={"0/0": "new"})
    assert status == 200
    assert json.loads(kept)["labels"] == {"0/0": "new", "0/1": "mine"}
    assert graphs.read_annotations(beside) == graphs.Annotations.model_validate_json(kept)
    status, refused = put(labels={"0/0": "newer"})
    assert (status, json.loads(refused)["error"]) == (
        409,
        "The label of '0/0' was changed both here and in the file, in different ways: reload the "
        "page, which shows both.",
    )
    assert graphs.read_annotations(beside) == graphs.Annotations.model_validate_json(kept)
    beside.write_text("my notes")
    assert put(pins=["logit:7@2"])[0] == 422
    assert beside.read_text() == "my notes"


def test_requests_that_make_no_sense_get_one_sentence(served: Served):
    for body in (b"", b"{", {}, {"prompt": ""}, {"prompt": "a", "more": 1}, {"prompt": 3}):
        status, answer = served.json("POST", "/traces", body)
        assert status == 422
        assert answer["error"].endswith(".")
    assert served.json("GET", "/jobs/99") == (404, {"error": "There is no job 99."})
    (served.folder / "broken.safetensors").write_bytes(b"nothing")
    status, answer = served.json("GET", "/graphs/broken")
    assert (status, "broken.safetensors" in answer["error"]) == (422, True)


def test_one_trace_runs_at_a_time_and_those_that_wait_or_run_can_be_cancelled(served: Served):
    jobs = [served.json("POST", "/traces", {"prompt": f"slow {i}"})[1] for i in range(3)]
    first, second, third = (job["number"] for job in jobs)
    assert served.until(first, "running")["stage"] == "sweep"
    assert served.json("GET", f"/jobs/{second}")[1]["state"] == "waiting"
    assert served.json("DELETE", f"/jobs/{second}")[1]["state"] == "cancelled"
    served.ask("DELETE", f"/jobs/{first}")
    assert served.until(first, "cancelled")["made"] is None
    assert served.until(third, "running")
    assert served.json("GET", f"/jobs/{second}")[1]["state"] == "cancelled"
    served.go_on.set()
    made = served.until(third, "done")["made"]
    assert made.startswith("slow")
    assert served.json("GET", "/graphs")[1] == [made, "one"]


def test_the_queue_has_an_end(served: Served):
    served.until(served.json("POST", "/traces", {"prompt": "slow"})[1]["number"], "running")
    for _ in range(MOST_QUEUED):
        assert served.ask("POST", "/traces", {"prompt": "slow"})[0] == 202
    status, answer = served.json("POST", "/traces", {"prompt": "slow"})
    assert (status, answer["error"][:2]) == (429, str(MOST_QUEUED))


def test_what_goes_wrong_is_told_and_the_next_trace_runs(served: Served):
    for prompt, said in (("bad", "This prompt is bad"), ("worse", "ZeroDivisionError: by zero")):
        job = served.json("POST", "/traces", {"prompt": prompt})[1]
        assert said in served.until(job["number"], "failed")["error"]
    job = served.json("POST", "/traces", {"prompt": "good"})[1]
    assert served.until(job["number"], "done")


def test_graphs_never_replace_each_other_and_their_names_say_what_differs(tmp_path: Path):
    traced = layered(0)
    header = traced.provenance
    own = (header.model.name, header.dictionary.name)
    other = header.targets[0].text
    eight = "of the state that contains Dallas is called"
    for prompt, about, name in (
        ("!?", own, "graph"),
        (f"the capital {eight}", own, "of-the-state-that-contains-dallas-is-called"),
        (f"The mayor, {eight}", own, r"of-the-.*-is-called-mayor"),
        (f"the capital {eight}", ("org/Gemma-3b", ""), r"of-the-.*-is-called-gemma-3b"),
        (f"the capital {eight}", (own[0], "other/res.16k"), r"of-the-.*-called-res-16k"),
        (f"the capital {eight}", (*own, " Lyon − Nice"), r"of-the-.*-is-called-lyon-nice"),
        (f"the capital {eight}", (*own, other, 7), r"of-the-.*-called-7-features"),
        (f"the capital {eight}", own, r"of-the-.*-is-called-20\d\d-[-\d]{12}"),
    ):
        path = free_path(tmp_path, prompt, Traced(*about))
        assert re.fullmatch(name, path.stem), path.stem
        named = header.model_copy(update={"prompt": prompt})
        graphs.write_graph(replace(traced, provenance=named), path)
    (tmp_path / "the-cat.safetensors").touch()
    assert free_path(tmp_path, "The cat").stem.startswith("the-cat-20")  # that file is no graph
    assert free_path(tmp_path, "../../etc/passwd").parent == tmp_path
    assert free_path(tmp_path, "Con").name == "_con.safetensors"  # a device of Windows


def test_two_servers_of_one_folder_lose_no_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    subject = cached_subject("gemma-3")
    workspace = ModelWorkspace(tmp_path, subject, toy_dictionary(), TraceSettings())
    write = graphs.write_graph

    def slowly(graph: graphs.AttributionGraph, path: Path) -> None:
        time.sleep(0.2)
        write(graph, path)

    monkeypatch.setattr(circuits, "trace", lambda *_: layered(0))
    monkeypatch.setattr(graphs, "write_graph", slowly)
    with ThreadPoolExecutor(2) as servers:
        names = servers.map(
            lambda one: workspace.trace(TraceRequest(prompt=one), ignore_progress), ["fj", "fj"]
        )
        first, second = sorted(names)
    assert first == "fj"
    assert second.startswith("fj-")
    assert sorted(path.stem for path in tmp_path.iterdir()) == [first, second]


def test_it_listens_to_this_machine_alone_and_says_which_port_is_taken():
    listener = _listen(0)
    host, port = listener.getsockname()
    assert host == "127.0.0.1"
    with pytest.raises(UsageError, match=f"Port {port} is in use: give another --port"):
        _listen(port)
    listener.close()


def test_the_command_prints_an_address_that_opens_it_and_no_traceback(
    model_folder: Path, tmp_path: Path
):
    command = [sys.executable, "-m", "headwater", "serve", tmp_path, "--model", model_folder]
    running = subprocess.Popen(
        [*map(str, command), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]+)  .*\n", line)
        assert found, line
        token = found[2]
        assert len(token) * 6 >= 128  # bits, in base 64
        served = Served(tmp_path, int(found[1]), threading.Event())
        for told, status in ((token, 200), ("", 403), (TOKEN, 403), (token[:-1], 403)):
            assert served.ask("GET", "/graphs", authorization=f"token {told}")[0] == status
        assert served.ask("GET", f"/?token={token}", authorization="")[0] == 303
        long = f"/jobs/{'9' * 5000}"
        assert served.ask("GET", long, authorization=f"token {token}")[0] == 404
        with socket.create_connection((HOST, served.port)) as left:
            left.sendall(
                f"POST /traces HTTP/1.1\r\nHost: {HOST}:{served.port}\r\nContent-Length: 99\r\n"
                f"Content-Type: application/json\r\nAuthorization: token {token}\r\n\r\n".encode()
            )
            time.sleep(0.2)
        time.sleep(0.2)
    finally:
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=30)
    assert "Traceback" not in told
    assert token not in told


def test_a_folder_that_is_none_is_refused(tmp_path: Path):
    assert_refused(run("serve", tmp_path / "none"), "is not a folder: create it")


@needs_chromium
@pytest.mark.parametrize("width", [390, 1440])
def test_the_front_page_names_its_fields_and_keeps_long_prompts_short(
    served: Served, page: Page, width: int
):
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(served.address)
    page.get_by_text("What is explained").click()
    labels = " ".join(page.locator("form label").all_inner_texts())
    assert [name for name in FIELDS.values() if name not in labels] == []
    page.get_by_label("Prompt").fill("bad " + "and a long word " * 100)
    page.get_by_role("button", name="Trace").click()
    expect(page.locator("#jobs .fails")).to_have_text("This prompt is bad: give another.")
    for part, most in (("#jobs li", 120), ("#jobs bdi", 50)):
        assert page.locator(part).evaluate("(one) => one.offsetHeight") <= most
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in served.folder.glob("*.safetensors"):
        name.unlink()
    page.reload()
    expect(page.get_by_text("None yet: trace a prompt.")).to_be_visible()


@needs_chromium
def test_a_person_asks_watches_opens_and_saves(served: Served, page: Page):
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.goto(served.address)
    expect(page.locator("main > p")).to_have_text("toy <b>")
    page.get_by_role("button", name="the <cat>").click()  # an example
    expect(page.get_by_label("Prompt")).to_have_value("the <cat>")
    page.get_by_label("Prompt").fill("slow one")
    page.get_by_role("button", name="Trace").click()
    expect(page.locator("#jobs")).to_contain_text("sweep")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#jobs")).to_contain_text("cancelled")
    page.get_by_label("Prompt").fill("the <i>cat")
    page.get_by_role("button", name="Trace").click()
    page.locator("#jobs").get_by_role("link", name="the-i-cat").click()
    page.wait_for_selector("html[data-ready]")
    page.evaluate("viewer.dispatch({type: 'pin', node: 'logit:7@2'})")
    page.locator('[data-key="Save"]').click()
    expect(page.locator("#status")).to_have_text("Annotations saved next to the graph.")
    beside = graphs.annotations_path(served.folder / "the-i-cat.safetensors")
    assert graphs.read_annotations(beside).pins == ("logit:7@2",)
    assert complaints == []
    expect(page.locator('[data-key="Revert to file"]')).to_be_disabled()
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#filed")).to_be_hidden()  # the file says what the browser keeps
    expect(page.locator("#status")).to_have_text("")
    update_annotations(  # as another window does, or `headwater group --save`
        beside, lambda there: there.model_copy(update={"labels": {"0/0": "another's"}})
    )
    page.evaluate("viewer.dispatch({type: 'pin', node: 'logit:8@2'})")
    page.locator('[data-key="Save"]').click()
    expect(page.locator("#status")).to_have_text(
        "Annotations saved next to the graph, merged with changes there."
    )
    assert graphs.read_annotations(beside).labels == {"0/0": "another's"}
    assert set(graphs.read_annotations(beside).pins) == {"logit:7@2", "logit:8@2"}
    assert page.evaluate("viewer.notes.labels") == {"0/0": "another's"}
    expect(page.locator('[data-key="Revert to file"]')).to_be_disabled()
    (served.folder / "the-i-cat.safetensors").unlink()
    page.evaluate("viewer.dispatch({type: 'pin', node: 'token:1@0'})")
    page.locator('[data-key="Save"]').click()
    expect(page.locator("#status")).to_contain_text("Not saved: ")
    expect(page.locator('[data-key="Revert to file"]')).to_be_enabled()


ROW = "viewer.graph.place.get('%s')"


@pytest.fixture
def tested(tmp_path: Path) -> Iterator[Served]:
    """A real model, small, and the graph of one prompt."""
    folder = tmp_path / "graphs"
    folder.mkdir()
    subject, source = cached_subject("gemma-3"), toy_dictionary()
    settings = TraceSettings(TargetSettings(max_logits=2), labels=0)
    workspace = ModelWorkspace(folder, subject, source, settings)
    workspace.trace(TraceRequest(prompt="fjfoi"), lambda *_: None)
    with serving(folder, workspace) as found:
        yield found


def test_an_intervention_is_made_in_the_model_and_kept_in_the_graph(tested: Served):
    path = tested.folder / "fjfoi.safetensors"
    graph = graphs.read_graph(path)
    edits = [graphs.Scale("supernode:mine", 0.5)]
    node = str(graph.nodes[int(np.flatnonzero(graph.nodes.is_kind(graphs.NodeKind.FEATURE))[0])])
    notes = graphs.Annotations(groups=(graphs.Group(name="mine", members=(node,)),))
    asked = {
        "edits": [{"kind": "scale", "nodes": "supernode:mine", "number": 0.5}],
        "regime": "frozen",
        "annotations": notes.model_dump(mode="json"),
    }
    status, job = tested.json("POST", "/graphs/fjfoi/interventions", asked)
    assert (status, job["what"]) == (202, "supernode:mine × 0.5")
    made = tested.until(job["number"], "done")["made"]
    experiment = prepare(graph, cached_subject("gemma-3"), toy_dictionary())
    expected = intervene(
        experiment, [graphs.intervention(graph, edits, notes)], graphs.Regime.FROZEN
    )
    rows = graph.target_rows()
    measured = [one["measured"] for one in made["targets"]]
    np.testing.assert_allclose(measured, expected.measured[0, rows], **EXACT)
    stored = graphs.read_graph(path).provenance.measured
    assert [one.measured for one in stored] == measured
    assert made["stored"] == [one.model_dump(mode="json") for one in stored]


def test_a_prompt_is_traced_with_target_contrast_and_number_of_features(tested: Served):
    ask = {"prompt": "fjfo", "target": ["id:5"], "against": "id:7", "max_features": 3}
    job = tested.json("POST", "/traces", ask)[1]
    made = tested.until(job["number"], "done")["made"]
    graph = graphs.read_graph(tested.folder / f"{made}.safetensors")
    kept = graph.provenance
    assert kept.settings["max_features"] == 3
    values = prepare(graph, cached_subject("gemma-3"), toy_dictionary()).local.recording.logits
    (row,) = graph.target_rows()
    assert graph.nodes.value[row] == pytest.approx(float(values[5] - values[7]), rel=1e-6)
    for wrong, sentence in (
        ({"against": "id:7"}, "“Contrast with” needs “Target”: give the token to explain."),
        ({"target": ["id:99999"]}, "not in the vocabulary of 23 tokens"),
        ({"chat": True}, "chat template"),
    ):
        job = tested.json("POST", "/traces", {"prompt": "fjfo", **wrong})[1]
        assert sentence in tested.until(job["number"], "failed")["error"]
    assert tested.json("POST", "/traces", {"prompt": "a", "max_features": 0})[0] == 422


def test_edits_in_words_are_those_of_the_command(tested: Served):
    path = tested.folder / "fjfoi.safetensors"
    graph = graphs.read_graph(path)
    experiment = prepare(graph, cached_subject("gemma-3"), toy_dictionary())
    ask = {"words": "scale head:1.0@3=0\n--add feature:0/3@2+=2  # onward\nregime free\ngenerate 2"}
    _, job = tested.json("POST", "/graphs/fjfoi/interventions", ask)
    made = tested.until(job["number"], "done")["made"]
    edits = [graphs.Scale("head:1.0@3", 0.0), graphs.Add("feature:0/3@2+", 2.0)]
    asked = graphs.intervention(graph, edits)
    expected = intervene(experiment, [asked], graphs.Regime.FREE)
    measured = [one["measured"] for one in made["targets"]]
    np.testing.assert_allclose(measured, expected.measured[0, graph.target_rows()], **EXACT)
    texts = generate(experiment, asked, 2)
    assert made["continuations"] == {"before": texts.before, "after": texts.after}
    logits = {one["token"]: one["logit"] for one in made["tokens"]}
    changes = (expected.after[0] - expected.before).tolist()
    for token, logit in logits.items():
        assert logit == pytest.approx(changes[token], rel=1e-9)
    for node, share in made["remaining"].items():
        row = graph.find(graphs.NodeId.parse(node))
        change = expected.measured[0, row] / graph.nodes.value[row]
        assert share in (0.0, pytest.approx(1 + change)) or "feature:0/3@" in node
    assert len(made["remaining"]) > 3
    kept = graphs.read_graph(path).provenance.measured
    assert {one.regime for one in kept} == {graphs.Regime.FREE}


def test_a_swap_in_words_takes_another_graph_of_the_folder(tested: Served):
    whole = graphs.read_graph(tested.folder / "fjfoi.safetensors")
    graphs.write_graph(whole, tested.folder / "other.safetensors")
    ask = {"words": 'swap "head:0.1>head:0.1" with other', "regime": "free"}
    _, job = tested.json("POST", "/graphs/fjfoi/interventions", ask)
    made = tested.until(job["number"], "done")["made"]
    assert [one["measured"] for one in made["targets"]] == pytest.approx([0, 0], abs=1e-9)


def test_steering_and_heads_through_which_edits_act_are_those_of_the_command(tested: Served):
    graph = graphs.read_graph(tested.folder / "fjfoi.safetensors")
    experiment = prepare(graph, cached_subject("gemma-3"), toy_dictionary())
    vector = np.arange(experiment.subject.frozen.d_model) / 100
    np.save(tested.folder / "up.npy", vector)
    ask = {"words": "steer 0@2+:up.npy=2\nonly-queries 1.0,1.1\nonly-keys 1.0\nregime free"}
    _, job = tested.json("POST", "/graphs/fjfoi/interventions", ask)
    made = tested.until(job["number"], "done")["made"]
    asked = graphs.intervention(graph, [graphs.Steer(0, 2, vector, 2.0, onward=True)])
    choice = chosen_heads(graph, ["1.0,1.1"], ["1.0"])
    expected = intervene(experiment, [asked], graphs.Regime.FREE, heads=choice)
    plain = intervene(experiment, [asked], graphs.Regime.FREE)
    rows = graph.target_rows()
    measured = [one["measured"] for one in made["targets"]]
    np.testing.assert_allclose(measured, expected.measured[0, rows], **EXACT)
    assert not np.allclose(measured, plain.measured[0, rows])
    assert made["only"] == choice.reacting
    _, job = tested.json("POST", "/graphs/fjfoi/interventions", {"words": "steer 0@2:up.npy=2"})
    made = tested.until(job["number"], "done")["made"]
    assert made["unpredicted"] == "the graph has no row of a steering vector"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("\nburn error=0", "Line 2 begins with 'burn': expected set, scale, add, steer, swap,"),
        ("steer 1@3=2", "steer expects LAYER@POS:FILE.npy=NUMBER, as in 4@7:direction.npy=2"),
        ("steer 1@3:../x.npy=2", "There is no vector '../x.npy' in this folder: give a .npy file"),
        ("steer 1@3:fjfoi.safetensors=2", "There is no vector 'fjfoi.safetensors'"),
        ("set error=0\nonly-keys 9.9", "There is no layer 9: the model has layers 0 to"),
        ("scale error=0\nonly-keys 1.0\ngenerate 2", "New tokens are generated with everything"),
        ("scale error", "scale expects NODES=NUMBER"),
        ('scale "error=0', "Line 1 has a quotation mark without its other one."),
        ("swap a>b", "Line 1 swaps without a graph: write swap ONE>OTHER with GRAPH."),
        ("swap a>b with ../fjfoi", "There is no graph '../fjfoi' in this folder."),
        ("generate 2", "There is no edit: write one"),
        ("set error=0\ngenerate 9999", "generate is at most 200 here, got 9999."),
        ("set error=0\nregime wild", "regime is frozen, constrained, free, got 'wild'."),
        ("set error=0\nregime free\nregime free", "Line 3 gives regime again: give it once."),
    ],
)
def test_words_that_are_no_edits_get_one_sentence(tested: Served, words: str, sentence: str):
    _, job = tested.json("POST", "/graphs/fjfoi/interventions", {"words": words})
    assert tested.until(job["number"], "failed")["error"].startswith(sentence)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ({"kind": "set", "nodes": "feature:0/9999@2", "number": 0}, "layer 0 has 20 features"),
        ({"kind": "set", "nodes": "token:1@0", "number": 0}, "cannot be edited"),
        ({"kind": "set", "nodes": "nonsense", "number": 0}, "does not name a node"),
    ],
)
def test_an_intervention_that_cannot_be_is_told_in_one_sentence(
    tested: Served, edit: dict, sentence: str
):
    _, job = tested.json("POST", "/graphs/fjfoi/interventions", {"edits": [edit]})
    assert sentence in tested.until(job["number"], "failed")["error"]


@pytest.mark.parametrize(
    "asked",
    [
        {"edits": []},
        {"edits": [{"kind": "burn", "nodes": "feature:0/1@2", "number": 0}]},
        {"edits": [{"kind": "set", "nodes": "feature:0/1@2", "number": "nan"}]},
        {"edits": [{"kind": "set", "nodes": "", "number": 0}]},
        {"edits": [{"kind": "set", "nodes": "error", "number": 0}], "regime": "wild"},
    ],
)
def test_a_request_that_is_no_intervention_is_refused(served: Served, asked: dict):
    status, told = served.json("POST", "/graphs/one/interventions", asked)
    assert status == 422
    assert told["error"].startswith("The request is not a valid InterventionRequest")
    assert served.json("POST", "/graphs/none/interventions", asked)[0] == 404


@needs_chromium
def test_a_person_changes_a_node_in_the_model_from_its_page(tested: Served, page: Page):
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.goto(f"http://{HOST}:{tested.port}/graphs/fjfoi?token={TOKEN}")
    page.wait_for_selector("html[data-ready]")
    show_full_graph(page)
    page.locator(".strongest button").first.click()
    asked = page.get_by_role("region", name="intervention")
    asked.get_by_label("by how much").fill("-1")
    asked.get_by_label("what is frozen").select_option("frozen")
    asked.get_by_role("button", name="Run in the model").click()
    expect(asked.get_by_role("status")).to_have_text("Done; saved in the graph's file.")
    node = page.evaluate("viewer.graph.names[viewer.clicked()]")
    kept = graphs.read_graph(tested.folder / "fjfoi.safetensors").provenance.measured
    assert {one.what for one in kept} == {f"{node} × -1"}
    cells = asked.locator("table").first.locator("tbody tr").first.locator("td")
    predicted, measured = cells.all_text_contents()
    assert predicted == measured  # all is held: what is predicted is what is measured
    assert float(measured.replace("−", "-")) == pytest.approx(kept[0].measured, rel=1e-2)
    page.locator('[data-key="tab about"]').click()
    rows = page.get_by_role("region", name="about this graph").locator("table.measured tbody tr")
    expect(rows).to_have_count(len(kept))
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("viewer.graph.measured.length") == len(kept)
    assert complaints == []


@needs_chromium
def test_edits_in_words_are_drawn_on_nodes_and_boxes(tested: Served, page: Page):
    page.goto(f"http://{HOST}:{tested.port}/graphs/fjfoi?token={TOKEN}")
    page.wait_for_selector("html[data-ready]")
    node = page.evaluate("viewer.graph.names[viewer.graph.kind.indexOf(KIND.feature)]")
    asked = page.get_by_role("region", name="intervention")
    asked.get_by_label("Edits, one a line").fill(f"scale {node}=0\nscale head:0.0=0.5")
    expect(asked).to_contain_text("above them only attention patterns")  # what the regime is
    asked.get_by_role("button", name="Run these edits").click()
    expect(asked.get_by_role("status")).to_have_text("Done; saved in the graph's file.")
    assert page.evaluate(
        f"changedMark(viewer.graph, viewer.notes, viewer.trial.effects, {ROW})" % node
    ).endswith("100 → 0%")
    changes = asked.locator("table", has_text="Features that changed most").locator("td:last-child")
    shown = [abs(float(text.replace("−", "-"))) for text in changes.all_text_contents()]
    assert len(shown) > 1
    assert shown == sorted(shown, reverse=True)  # by the number that it shows
    assert page.evaluate(f"viewer.scene(0).crossed[{ROW}]" % node) == 1
    assert page.evaluate(f"coloursOf(viewer.scene(0), {ROW}).fill === viewer.palette.less" % node)
    overview = {"boxes": [{"kind": "group", "rows": [0, 1]}]}
    told = page.evaluate(
        """(overview) => boxesLeft({ names: ["a", "b"], arrived: [3, 1] }, overview,
            { tokens: [], remaining: { a: 0, b: 2 } })[0].text""",
        overview,
    )
    assert told == "100 → 50%"  # weighted by influence
    page.locator('[data-key="toggle effects"]').click()
    assert page.evaluate("viewer.scene(0).crossed === null")


@needs_chromium
def test_edits_that_do_nothing_and_differences_of_targets_are_told(tested: Served, page: Page):
    ask = {"prompt": "fjfo", "target": ["id:5"], "against": "id:7"}
    made = tested.until(tested.json("POST", "/traces", ask)[1]["number"], "done")["made"]
    page.goto(f"http://{HOST}:{tested.port}/graphs/{made}?token={TOKEN}")
    page.wait_for_selector("html[data-ready]")
    asked = page.get_by_role("region", name="intervention")
    asked.get_by_role("button", name="Run these edits").click()
    assert page.evaluate("viewer.trial.words.validity.valueMissing")  # the browser says so
    node = page.evaluate("viewer.graph.names[viewer.graph.kind.indexOf(KIND.feature)]")
    asked.get_by_label("Edits, one a line").fill(f"scale {node}=1")
    asked.get_by_role("button", name="Run these edits").click()
    expect(asked).to_contain_text("This changes nothing: all is set to what it is.")
    asked.get_by_label("Edits, one a line").fill("scale head:0.0=0.5\nregime free")
    asked.get_by_role("button", name="Run these edits").click()
    expect(asked.get_by_text("head:0.0 × 0.5, free")).to_be_visible()
    expect(asked).not_to_contain_text("This changes nothing")
    row, value, measured = page.evaluate(
        """(() => { const { node, value, measured } = viewer.trial.effects.targets[0];
            return [viewer.graph.place.get(node), value, measured]; })()"""
    )
    told = page.evaluate(f"beforeAfter(viewer.graph, viewer.trial.effects, {row})")
    left = round(100 * (1 + measured / value))
    assert told == (f"100 → {left}%".replace("-", "−") if value > 0 else "")
    asked.get_by_label("Edits, one a line").fill("burn it")
    asked.get_by_role("button", name="Run these edits").click()
    expect(asked.locator(".fails[role=status]")).to_contain_text("Line 1 begins with 'burn'")


@needs_chromium
def test_a_page_says_why_an_intervention_was_not_made(tested: Served, page: Page):
    page.goto(f"http://{HOST}:{tested.port}/graphs/fjfoi?token={TOKEN}")
    page.wait_for_selector("html[data-ready]")
    page.evaluate("viewer.click(0, viewer.graph.kind.indexOf(KIND.error), true)")
    asked = page.get_by_role("region", name="intervention")
    asked.get_by_label("how it is changed").select_option("add")
    asked.get_by_label("by how much").fill("2")
    asked.get_by_role("button", name="Run in the model").click()
    expect(asked.get_by_role("status")).to_contain_text("has no activation: scale it")
    page.evaluate("viewer.click(0, viewer.graph.kind.indexOf(KIND.token), true)")
    expect(asked.get_by_label("by how much")).to_have_count(0)  # a token cannot be changed
