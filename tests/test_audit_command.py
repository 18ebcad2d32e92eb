"""`headwater audit` as a person types it: nothing finished is lost, one bad line stops nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants as hub
from playwright.sync_api import Browser

import circuits
import graphs
from circuits.evaluation.audit import audit
from tests.browser import needs_chromium, opened
from tests.test_audit import audited, mediator
from tests.test_cli import assert_refused, run
from viz.page.audit_page import write_audit

PAIRS = (
    {"first": "bfjfoi", "second": "bfkfoi", "name": "one", "kind": "letter"},
    {"first": "bfjfoi", "second": "bfjfok", "name": "two", "kind": "end"},
    {"first": "bfjfoi", "second": "bfjkkfoi", "name": "three", "kind": "letter"},
)
FILES = {"first.safetensors", "second.safetensors", "page.html", "pair.json"}


def written(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def ask(model_folder: Path, tmp_path: Path) -> Callable:
    """Audit lines on a tiny model, into one folder."""

    def asked(*lines: object, options: tuple[object, ...] = ()):
        prompts = written(tmp_path / "pairs.jsonl", *lines)
        few = ("--max-features", 30, "--mediators", 3, "--random-sets", 2)
        return run(
            "audit", prompts, "--out", tmp_path / "out", "--model", model_folder, *few, *options
        )

    return asked


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pairs that are traced."""
    names: list[str] = []

    def counting(pair: graphs.PromptPair, **options):
        names.append(pair.identifier)
        return audit(pair, **options)

    monkeypatch.setattr(circuits, "audit", counting)
    return names


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_pair_has_its_graphs_and_its_page_and_all_have_a_table(ask: Callable, tmp_path: Path):
    result = ask(*PAIRS, options=("--json",))
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [one["pair"]["name"] for one in told["pairs"]] == ["one", "two", "three"]
    assert {kind["kind"]: kind["pairs"] for kind in told["kinds"]} == {"end": 1, "letter": 2}
    assert told["problems"] == []
    assert told["features"]
    for one in told["pairs"]:
        folder = tmp_path / "out" / one["pair"]["name"]
        assert {path.name for path in folder.iterdir()} == FILES
        graph = graphs.read_graph(folder / "second.safetensors")
        assert graph.provenance.prompt == one["pair"]["second"]
        assert json.loads((folder / "pair.json").read_text()) == one
    index = Path(told["page"]).read_text("utf-8")
    assert 'href="three/page.html"' in index
    text = ask(*PAIRS).stdout
    assert "3 pairs of prompts" in text
    assert told["features"][0]["feature"] in text


def test_one_bad_line_stops_nothing(ask: Callable, tmp_path: Path):
    unknown = {"first": "bfjfoi", "second": "bfkfoi", "name": "four", "target": "fj"}
    result = ask("no pair", PAIRS[0], unknown, PAIRS[1])
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first.startswith("Line 1 is not a pair: ")
    assert second.startswith("four: The target 'fj' is 2 tokens")
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {"one", "two"}
    index = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "Line 1 is not a pair" in index
    assert "four: The target" in index


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError(), "two: not enough memory"), (RuntimeError("a\nb"), "two: a")],
)
def test_a_pair_that_the_machine_cannot_do_stops_nothing(
    ask: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, reason: str
):
    def failing(pair: graphs.PromptPair, **options):
        if pair.identifier == "two":
            raise error
        return audit(pair, **options)

    monkeypatch.setattr(circuits, "audit", failing)
    result = ask(*PAIRS)
    assert result.exit_code == 1
    assert result.stderr.startswith(reason)
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "out" / "three" / "pair.json").exists()


def test_what_is_done_is_not_done_again(ask: Callable, counted: list[str], tmp_path: Path):
    ask(*PAIRS[:2])
    before = contents(tmp_path / "out")
    assert ask(*PAIRS).exit_code == 0
    assert counted == ["one", "two", "three"]
    after = contents(tmp_path / "out")
    assert {name: after[name] for name in before if name != "index.html"} == {
        name: text for name, text in before.items() if name != "index.html"
    }


def test_an_interrupted_audit_keeps_what_is_done_and_goes_on(
    ask: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def interrupted(pair: graphs.PromptPair, **options):
        if pair.identifier == "two":
            raise KeyboardInterrupt
        return audit(pair, **options)

    with monkeypatch.context() as patch:
        patch.setattr(circuits, "audit", interrupted)
        result = ask(*PAIRS)
    assert result.exit_code == 130
    assert "Stopped: 1 of 3 pairs are done" in result.stderr
    kept = contents(tmp_path / "out" / "one")
    assert 'href="one/page.html"' in (tmp_path / "out" / "index.html").read_text("utf-8")
    assert ask(*PAIRS).exit_code == 0
    assert contents(tmp_path / "out" / "one") == kept
    assert {path.name for path in (tmp_path / "out" / "three").iterdir()} == FILES


def test_a_pair_that_was_killed_while_it_was_written_is_done_again(
    ask: Callable, counted: list[str], tmp_path: Path
):
    ask(*PAIRS[:2])
    (tmp_path / "out" / "one" / "pair.json").unlink()
    damaged = tmp_path / "out" / "two" / "pair.json"
    damaged.write_text(damaged.read_text()[:100])
    counted.clear()
    ask(*PAIRS[:2])
    assert counted == ["one", "two"]
    assert json.loads(damaged.read_text())["pair"]["name"] == "two"


def test_other_prompts_under_a_name_are_another_pair(
    ask: Callable, counted: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    ask(PAIRS[0])
    ask({**PAIRS[0], "kind": "another word for it"})
    assert counted == ["one"]
    other = {**PAIRS[0], "second": "bfkfok"}
    with monkeypatch.context() as patch:
        patch.setattr("viz.write_pages", interrupt)
        assert ask(other).exit_code == 130
    assert not (tmp_path / "out" / "one" / "pair.json").exists()  # the graphs are the other's now
    ask(PAIRS[0])
    assert counted == ["one"] * 3
    (tmp_path / "out" / "one" / "page.html").unlink()
    ask(PAIRS[0])
    assert counted == ["one"] * 4


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_pairs_that_are_done_stay_in_the_table_while_others_are_made(
    ask: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    ask(PAIRS[0])

    def interrupted(pair: graphs.PromptPair, **options):
        return interrupt() if pair.identifier == "three" else audit(pair, **options)

    monkeypatch.setattr(circuits, "audit", interrupted)
    assert ask(PAIRS[1], PAIRS[2], PAIRS[0]).exit_code == 130
    index = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert 'href="one/page.html"' in index
    assert 'href="two/page.html"' in index


def test_a_pair_that_cannot_be_written_stops_nothing(ask: Callable, tmp_path: Path):
    ask(PAIRS[0])
    (tmp_path / "out" / "two").write_text("no folder")
    result = ask(*PAIRS)
    assert result.exit_code == 1
    assert result.stderr.startswith("two: Cannot write")
    assert (tmp_path / "out" / "three" / "pair.json").exists()


def test_a_graph_that_fails_its_checks_is_told(ask: Callable, monkeypatch: pytest.MonkeyPatch):
    def failing(pair: graphs.PromptPair, **options):
        found, traced = audit(pair, **options)
        return found.model_copy(update={"failures": ("Conservation fails.",)}), traced

    monkeypatch.setattr(circuits, "audit", failing)
    result = ask(PAIRS[0])
    assert result.exit_code == 1
    assert "one: Conservation fails." in result.stdout


def test_a_pair_may_be_called_as_a_device_of_windows(ask: Callable, tmp_path: Path):
    pairs = [{**PAIRS[0], "name": "con"}, {**PAIRS[1], "name": "con_"}]
    assert ask(*pairs).exit_code == 0
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {"_con", "con_"}
    assert 'href="_con/page.html"' in (tmp_path / "out" / "index.html").read_text("utf-8")


def test_a_folder_of_something_else_stays_as_it_is(ask: Callable, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.md").write_text("mine")
    assert_refused(ask(PAIRS[0]), "has other files in it, such as thesis.md: give --out a new")
    (tmp_path / "out" / "thesis.md").rename(tmp_path / "out" / ".headwater-0123.tmp")
    assert ask(PAIRS[0]).exit_code == 0  # another process begins to write there


def test_a_folder_holds_one_audit(ask: Callable, tmp_path: Path):
    ask(PAIRS[0])
    kept = contents(tmp_path / "out")
    options = ("--max-features", 20, "--dtype", "float64")
    assert_refused(ask(PAIRS[0], options=options), "a different --dtype, --max-features")
    assert contents(tmp_path / "out") == kept
    for text in ("{", "[1]", "[" * 200_000):
        (tmp_path / "out" / "audit.json").write_text(text)
        assert_refused(ask(PAIRS[0]), "is damaged")
    (tmp_path / "out" / "audit.json").unlink()
    assert_refused(ask(PAIRS[0]), "has other files in it")


def test_what_cannot_be_audited_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)  # it would ask five times
    result = run("audit", tmp_path / "missing.jsonl", "--out", tmp_path / "out")
    assert_refused(result, "missing.jsonl")
    result = run("audit", written(tmp_path / "empty.jsonl", ""), "--out", tmp_path / "out")
    assert_refused(result, "has no pair")
    (tmp_path / "file").write_text("")
    prompts = written(tmp_path / "pairs.jsonl", PAIRS[0])
    result = run("audit", prompts, "--out", tmp_path / "file", "--model", "atlas-small")
    assert_refused(result, "is a file: give --out")
    assert_refused(run("audit", prompts, "--out", tmp_path / ("x" * 300)), "File name too long")
    result = run("audit", prompts, "--out", tmp_path / "out", "--model", "nothing-like-it")
    assert_refused(result, "nothing-like-it")
    assert not (tmp_path / "out").exists()


@needs_chromium
def test_the_page_leads_to_each_pair_and_shows_what_was_written(browser: Browser, tmp_path: Path):
    hostile = "</script><img src=x onerror=alert(1)> \u202e"
    one = audited("x", 10.0, mediator("1/2", 0.5, label=hostile), kind=hostile[:20])
    one = one.model_copy(
        update={"pair": one.pair.model_copy(update={"first": hostile}), "failures": (hostile,)}
    )
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "page.html").write_text("<title>the pair</title>")
    write_audit([one], ["x/page.html"], [hostile], tmp_path / "index.html")
    with opened(browser, tmp_path / "index.html", in_place=True) as found:
        page = found.page
        assert page.locator("img").count() == 0
        assert (
            page.locator("h1").first.inner_text()
            == "1 pair of prompts, 1 with different predictions"
        )
        assert "Left out:" in page.inner_text("body")
        told = page.locator("tbody tr").first.inner_text()
        assert "</script><img src=x" in told  # a pair is named by its texts
        assert "x other" in told
        assert "-10.00" in told
        assert "+0.00 on the second, +10.00 on the first: -10.00" in page.content()
        page.locator("summary").click()
        assert page.locator("details td").last.is_visible()
        assert "</script><img src=x" in page.locator("details td").last.inner_text()
        assert found.asked == []
        assert found.complaints == []
        page.locator("a").click()
        assert page.title() == "the pair"
