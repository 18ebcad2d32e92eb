"""The page in a real browser: a person clicks, types, drags, goes away and comes back."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

import graphs
from graphs.core.annotations import ANNOTATIONS_SUFFIX
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import Description, Example
from graphs.core.provenance import Checks, Measured
from tests.browser import (
    Opened,
    leave,
    needs_chromium,
    new_window,
    show_full_graph,
    viewed,
    visit,
)
from tests.graph_oracles import make_graph
from tests.test_viewer_numbers import layered
from viz.page.notebook import show
from viz.page.page import page_data, write_page, write_pages
from viz.text.words import percent

pytestmark = needs_chromium

TOKEN, EARLY, OTHER, LATE = "token:1@0", "feature:0/5@1", "feature:0/6@1", "feature:1/7@2"
LOGIT, RIVAL = "logit:7@2", "logit:8@2"
EDGES = {
    (TOKEN, EARLY): 2.0,
    (TOKEN, OTHER): 1.0,
    (EARLY, LATE): 3.0,
    (OTHER, LATE): -1.0,
    ("error:0@1", LATE): 0.5,
    (LATE, LOGIT): 4.0,
    (EARLY, LOGIT): 1.0,
    (OTHER, LOGIT): -1.0,
    (LATE, RIVAL): 1.0,
    (OTHER, RIVAL): 2.0,
}
NAMES = [TOKEN, "token:2@1", EARLY, OTHER, "error:0@1", LATE, LOGIT, RIVAL]
TEXAS = Description(
    label="Texas",
    promoted=(" Austin", "</script>"),
    suppressed=(" Ohio",),
    frequency=0.25,
    histogram=(9, 3, 1),
    largest=2.5,
    examples=(Example(tokens=(" in", " Dallas"), activations=(0.0, 2.5)),),
)


def small() -> AttributionGraph:
    graph = make_graph(NAMES, EDGES, [0.6, 0.3], tokens=("<bos>", " Dallas", " is"))
    graph.nodes.activation[NAMES.index(LATE)] = 1.25
    return replace(
        graph,
        output_tokens={NAMES.index(EARLY): (" city",)},
        descriptions={"1/7": TEXAS},
        provenance=graph.provenance.model_copy(
            update={
                "checks": Checks(conservation_max=2e-7, conservation_limit=1e-3),
                "measured": (
                    Measured(
                        what=f"{LATE} to 0",
                        regime="free",
                        target=LOGIT,
                        predicted=-4.0,
                        measured=-3.5,
                    ),
                ),
            }
        ),
    )


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """At one address for all tests: only there are its scripts compiled already."""
    path = tmp_path_factory.mktemp("small") / "page.html"
    write_page(small(), path)
    return path


@pytest.fixture
def small_page(browser: Browser, small_file: Path) -> Iterator[Opened]:
    with viewed(browser, small_file) as found:
        found.page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 1, edges: 1}})")
        yield found


def place(page: Page, name: str, number: int = 0) -> tuple[float, float]:
    """Where a node is in the window, once what was asked of the page before is drawn."""
    settle(page)
    x, y = page.evaluate(
        """([name, number]) => {
            const scene = viewer.scene(number);
            const row = scene.graph.place.get(name);
            const box = viewer.plots[viewer.shown.indexOf(number)].root.getBoundingClientRect();
            const {frame} = scene;
            return [box.left + acrossOf(frame, frame.level.x[row]),
                    box.top + downOf(frame, frame.level.y[row])];
        }""",
        [name, number],
    )
    return x, y


def click(page: Page, name: str, number: int = 0) -> None:
    page.mouse.click(*place(page, name, number))
    settle(page)


def settle(page: Page) -> None:
    """Wait until the page has drawn."""
    page.evaluate("() => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")


def until(page: Page, condition: str) -> None:
    """Wait for what is true after a while.  Playwright's own way is forbidden by the page."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never came: {condition}")


def clicked(page: Page) -> str | None:
    return page.evaluate("viewer.view.clicked[viewer.view.active]")


def listed(page: Page, title: str) -> list[tuple[str, str]]:
    """Share and name of each row of a list."""
    rows = page.locator(f'section.links[aria-label="{title}"] button.link')
    return [
        (rows.nth(i).locator(".share").inner_text(), rows.nth(i).get_attribute("data-node") or "")
        for i in range(rows.count())
    ]


def test_pointing_at_a_node_says_what_it_is_and_marks_it_everywhere(small_page: Opened):
    page = small_page.page
    page.mouse.move(*place(page, LATE))
    tip = page.locator(".tip")
    expect(tip).to_be_visible()
    lines = tip.inner_text().splitlines()
    assert lines[0] == "Texas"
    assert "feature:1/7@2" in lines[1]
    assert "activation here 1.25" in lines[2]
    assert "from +66.7% \u2068say city\u2069" in lines  # 3 of 4.5
    expect(page.locator(f'[data-node="{LATE}"].pointed')).to_have_count(1)
    page.keyboard.down("Alt")
    expect(tip).to_contain_text("total 4.5")
    page.keyboard.up("Alt")
    page.keyboard.down("Shift")  # keeps it
    page.mouse.move(*place(page, TOKEN))
    expect(tip).to_contain_text("Texas")
    page.keyboard.up("Shift")


def test_a_click_shows_what_feeds_a_node_and_what_it_feeds(small_page: Opened):
    page = small_page.page
    click(page, LATE)
    assert clicked(page) == LATE
    assert listed(page, "Fed by") == [
        ("+66.7%", EARLY),
        ("−22.2%", OTHER),
        ("+11.1%", "error:0@1"),
    ]
    assert listed(page, "Feeds") == [("+66.7%", LOGIT), ("+33.3%", RIVAL)]
    drawn = page.evaluate(
        "viewer.scene(0).edges.map((e) => [viewer.graph.names[e.source], e.share])"
    )
    assert [name for name, _ in drawn] == [EARLY, LATE, LATE, OTHER, "error:0@1"]
    assert sorted(page.evaluate("[...viewer.scene(0).near.keys()]")) == [2, 3, 4, 6, 7]
    click(page, LATE)
    assert clicked(page) is None
    click(page, LATE)
    page.mouse.click(*place(page, TOKEN)[:1], place(page, LOGIT)[1])  # on nothing
    settle(page)
    assert clicked(page) is None


def test_lists_are_walked_with_the_mouse_and_with_keys(small_page: Opened):
    page = small_page.page
    click(page, LOGIT)
    page.locator(f'[data-key="Fed by {LATE}"]').click()
    settle(page)
    assert clicked(page) == LATE
    page.locator(f'[data-key="Fed by {EARLY}"]').focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.node") == OTHER
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.node") == LOGIT
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    settle(page)
    assert clicked(page) == EARLY


def test_arrow_keys_go_from_node_to_node_in_the_plot(small_page: Opened):
    page = small_page.page
    page.locator(".plot").focus()
    steps = []
    for key in ("ArrowUp", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
        steps.append(page.evaluate("viewer.graph.names[viewer.hovered.row]"))
    assert steps[:2] == [LOGIT, LATE]  # begins at the most probable output
    assert steps[3] != steps[2]
    expect(page.locator("#status")).to_contain_text("@")
    page.keyboard.press("Enter")
    settle(page)
    assert clicked(page) == steps[-1]
    page.keyboard.press("Escape")
    settle(page)
    assert clicked(page) is None


def test_what_is_known_of_a_feature_is_shown(small_page: Opened):
    page = small_page.page
    click(page, LATE)
    detail = page.locator("section.detail")
    assert page.locator('[data-key="label"]').input_value() == "Texas"
    for text in ("Austin", "</script>", "Ohio", "active on 25.0% of tokens", "activation here"):
        expect(detail).to_contain_text(text)
    expect(detail.locator("mark")).to_have_attribute("title", "2.5")
    expect(detail.locator(".histogram rect")).to_have_count(3)
    expect(detail.locator(".histogram .here")).to_have_attribute("x1", "110")  # 1.25 of 2.5
    expect(detail.locator("a")).to_have_count(0)  # nobody knows this dictionary


def test_a_known_dictionary_is_linked(browser: Browser, tmp_path: Path):
    graph = small()
    dictionary = graph.provenance.dictionary.model_copy(
        update={"name": "mwhanna/gemma-scope-2-4b-it/transcoder_all/width_16k_l0_small_affine"}
    )
    header = graph.provenance.model_copy(update={"dictionary": dictionary})
    write_page(replace(graph, provenance=header), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        click(found.page, LATE)
        address = "https://www.neuronpedia.org/gemma-3-4b-it/1-gemmascope-2-transcoder-16k/7"
        expect(found.page.locator("section.detail a")).to_have_attribute("href", address)


def test_sliders_prune_and_tell_what_is_left(small_page: Opened):
    page = small_page.page
    left = page.locator(".sliders .left")
    for nodes in (1.0, 0.4):
        page.locator('[data-key="slider nodes"]').fill(str(nodes))
        settle(page)
        pruned = graphs.prune(small(), graphs.PruneSettings(nodes, 1.0))
        scores = graphs.scores(pruned)
        own = graphs.scores(small())  # the graph's own come first
        expect(left.locator(".own")).to_have_text(
            f"replacement {percent(own.replacement)} · completeness {percent(own.completeness)}"
        )
        expect(left.locator(".here")).to_have_text(
            f"pruned: {len(pruned)} nodes, {pruned.weights.nnz} edges · "
            f"replacement {percent(scores.replacement)} · "
            f"completeness {percent(scores.completeness)}"
        )
    page.locator('[data-key="slider nodes"]').press("ArrowRight")
    settle(page)
    assert page.evaluate("viewer.view.nodes") == 0.405
    page.locator(".plot").focus()
    page.keyboard.press("]")
    settle(page)
    assert page.evaluate("viewer.view.nodes") == 0.455


def shown(page: Page) -> set[str]:
    settle(page)
    return set(page.evaluate("viewer.graph.names.filter((_, n) => viewer.visible(0)[n])"))


def test_kinds_layers_and_tokens_can_be_hidden_and_searched(small_page: Opened):
    page = small_page.page
    everything = shown(page)
    assert "error:0@1" in everything
    page.locator('[data-key="kind error"]').click()
    assert everything - shown(page) == {"error:0@1"}
    page.locator('[data-key="layer 0"]').fill("1")
    assert shown(page) == {TOKEN, "token:2@1", LATE, LOGIT, RIVAL}
    page.locator('[data-key="reset"]').click()
    page.locator('[data-key="token 1"]').click()
    assert shown(page) == {"token:2@1", EARLY, OTHER, "error:0@1", LOGIT, RIVAL}
    page.locator('[data-key="reset"]').click()
    page.keyboard.press("/")
    page.keyboard.type("TEXAS")
    expect(page.locator(".found")).to_have_text("1 found")
    assert page.evaluate("[...viewer.scene(0).wanted]") == [NAMES.index(LATE)]


def test_a_search_reaches_what_is_hidden_and_says_what_hides_it(small_page: Opened):
    page = small_page.page
    page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 0.4, without: ['error']}})")
    page.evaluate(f"viewer.dispatch({{type: 'hide', node: '{EARLY}'}})")
    assert not {EARLY, OTHER, "error:0@1"} & shown(page)
    page.keyboard.press("/")
    page.keyboard.type("@1")
    expect(page.locator(".found")).to_have_text("4 found, 1 hidden by you, 2 hidden by pruning")
    page.keyboard.press("Enter")
    settle(page)
    table = page.locator("table.nodes")
    expect(table).to_contain_text("1 nodes shown, 3 more found but hidden")
    hit = page.locator(f'tr:has([data-key="{OTHER}"])')
    expect(hit).to_contain_text("hidden by pruning")
    assert page.evaluate("document.activeElement.dataset.node") == "token:2@1"
    hit.locator("button").click()
    assert {OTHER} == shown(page) & {EARLY, OTHER}
    page.locator('[data-key="tab list"]').click()
    settle(page)
    expect(hit).not_to_contain_text("hidden")
    page.locator(".plot").focus()
    page.keyboard.press("p")
    page.keyboard.press("Escape")
    assert OTHER in shown(page)  # what is pinned stays


def test_what_a_filter_hides_is_found_too(small_page: Opened):
    page = small_page.page
    page.locator('[data-key="kind feature"]').click()
    page.locator('[data-key="search"]').fill("texas")
    expect(page.locator(".found")).to_have_text("1 found, 1 hidden by a filter")
    page.locator(".found").click()
    settle(page)
    page.keyboard.press("Enter")
    assert LATE in shown(page)
    page.locator('[data-key="search"]').fill("")
    expect(page.locator(".found")).to_be_hidden()


def test_a_node_can_be_hidden_and_shown_again(small_page: Opened):
    page = small_page.page
    click(page, EARLY)
    page.locator('[data-key="hide"]').click()
    page.keyboard.press("Escape")
    assert EARLY not in shown(page)
    page.keyboard.press("u")
    assert EARLY in shown(page)


def test_pins_groups_names_and_undo(small_page: Opened):
    page = small_page.page
    for name in (EARLY, OTHER, LATE):
        page.mouse.move(*place(page, name))
        page.keyboard.press("p")
        settle(page)
    page.keyboard.down("Control")
    click(page, LOGIT)
    page.keyboard.up("Control")
    assert page.evaluate("viewer.notes.pins") == [EARLY, OTHER, LATE, LOGIT]
    settle(page)
    expect(page.locator(".part")).to_have_count(4)
    kept = np.array([name in (EARLY, OTHER, LATE, LOGIT) for name in NAMES])
    absorbed, left = (graphs.scores(small(), kept, c) for c in ("absorbed", "renormalised"))
    expect(page.locator("#subtools .left")).to_have_text(
        f"replacement {absorbed.replacement:.1%} | {left.replacement:.1%} · "
        f"completeness {absorbed.completeness:.1%} | {left.completeness:.1%}"
    )
    page.keyboard.down("g")
    for name in (EARLY, OTHER):
        page.locator(f'[data-key="part {name}"]').click()
        settle(page)
    page.keyboard.up("g")
    settle(page)
    groups = page.evaluate("viewer.notes.groups")
    assert [(g["members"], g["automatic"]) for g in groups] == [([EARLY, OTHER], False)]
    name = groups[0]["name"]
    page.locator(f'[data-key="rename {name}"]').click()
    page.keyboard.type("cities")
    page.keyboard.press("Enter")
    settle(page)
    assert page.evaluate("viewer.notes.groups[0].name") == "cities"
    expect(page.locator(".part.group")).to_contain_text("cities")
    page.locator('[data-key="ungroup cities"]').click()
    settle(page)
    assert page.evaluate("viewer.notes.groups") == []
    page.keyboard.press("u")
    settle(page)
    assert page.evaluate("viewer.notes.groups[0].name") == "cities"
    for _ in range(9):
        page.keyboard.press("u")
    settle(page)
    assert page.evaluate("viewer.notes.pins") == []
    for _ in range(9):
        page.keyboard.press("r")
    settle(page)
    assert page.evaluate("viewer.notes.groups") == []  # ungrouped again
    assert page.evaluate("viewer.notes.pins.length") == 4


def test_boxes_are_dragged_and_stay_where_they_were_put(small_page: Opened):
    page = small_page.page
    page.evaluate(f"viewer.dispatch({{type: 'pinAll', nodes: ['{EARLY}', '{LOGIT}']}})")
    settle(page)
    box = page.locator(f'[data-key="part {EARLY}"]').bounding_box()
    assert box is not None
    x, y = box["x"] + 30, box["y"] + 10
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 20, steps=4)
    page.mouse.up()
    settle(page)
    moved = page.locator(f'[data-key="part {EARLY}"]').bounding_box()
    assert moved is not None
    assert (moved["x"] - box["x"], moved["y"] - box["y"]) == pytest.approx((60, 20), abs=1.5)
    assert clicked(page) is None  # a drag is no click
    assert list(page.evaluate("viewer.notes.places")) == [EARLY]


def test_suggested_groups_leave_a_persons_own_alone(browser: Browser, tmp_path: Path):
    graph = layered(3)
    write_page(graph, tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        page = found.page
        page.evaluate(
            "viewer.graph.suggested = [{name: 'a', members: ['feature:0/0@1', 'feature:0/1@1', "
            "'feature:0/2@1'], automatic: true}]"
        )
        page.evaluate(
            "viewer.dispatch({type: 'group', members: ['feature:0/0@1'], name: 'mine'});"
            "viewer.dispatch({type: 'suggest', groups: viewer.graph.suggested})"
        )
        groups = page.evaluate("viewer.notes.groups.map((g) => [g.name, g.members.length])")
        assert groups == [["mine", 1], ["a", 2]]


def test_paths_between_two_nodes(small_page: Opened):
    page = small_page.page
    page.evaluate("viewer.graph.overview = null")  # whose groups would be steps
    click(page, TOKEN)
    page.locator('[data-key="from"]').click()
    settle(page)
    click(page, LOGIT)
    found = page.locator("ol.paths > li")
    ends = graphs.Ends(*(np.array([name == end for name in NAMES]) for end in (TOKEN, LOGIT)))
    paths = graphs.strongest_paths(small(), ends, 20).listed
    expect(found).to_have_count(len(paths))
    arrived = 0.6 / 0.9
    first = found.first.locator("p").first
    expect(first).to_contain_text(f"+{paths[0].share / arrived:.1%}")
    drawn = page.evaluate("viewer.scene(0).edges.length")
    assert drawn == len({edge for p in paths for edge in zip(p.nodes, p.nodes[1:], strict=False)})
    found.first.locator("button", has_text="Pin").click()
    settle(page)
    assert page.evaluate("viewer.notes.pins") == [NAMES[row] for row in paths[0].nodes]


def test_a_difference_of_two_predictions_is_what_feeds_one_and_not_the_other(small_page: Opened):
    page = small_page.page
    click(page, LOGIT)
    page.locator('[data-key="minus"]').select_option(RIVAL)
    settle(page)
    weights = page.locator('section.links[aria-label="Feeds the difference"] .weight')
    assert weights.all_inner_texts() == ["3", "−3", "1"]  # 4 - 1, -1 - 2, 1 - 0


def test_labels_are_a_persons_own_and_the_files_stays_known(small_page: Opened):
    page = small_page.page
    click(page, LATE)
    field = page.locator('[data-key="label"]')
    field.fill("the state <b>")
    field.press("Enter")
    settle(page)
    assert page.evaluate("viewer.notes.labels") == {LATE: "the state <b>"}
    expect(page.locator("section.detail")).to_contain_text("in the file: Texas")
    for text in ("", "Texas"):  # the file's own is no label of a person
        field.fill(text)
        field.press("Enter")
        settle(page)
        assert page.evaluate("viewer.notes.labels") == {}
        field.fill("again")
        field.press("Enter")
        settle(page)


def test_the_graph_tells_its_checks_and_what_was_measured(small_page: Opened):
    page = small_page.page
    page.locator('[data-key="tab about"]').click()
    panel = page.locator("#panel")
    whole = graphs.scores(small())
    for text in (
        "conservation error",
        "2.0e\u201107 (limit 1e\u201103)",
        "holds",
        f"{whole.replacement:.1%}",
    ):
        expect(panel).to_contain_text(text)
    cells = page.locator("table.measured tbody tr").first.locator("th, td").all_inner_texts()
    assert cells[0] == f"{LATE} to 0"
    assert cells[3:] == ["−4", "−3.5"]


def test_the_list_and_the_fields_have_all_nodes_that_are_shown(small_page: Opened):
    page = small_page.page
    page.locator('[data-key="tab list"]').click()
    rows = page.locator("table.nodes tbody tr")
    expect(rows).to_have_count(len(NAMES))
    page.locator('[data-key="order influence"]').click()
    settle(page)
    strongest = int((graphs.influence(small()) + small().seed).argmax())
    expect(rows.first.locator("button")).to_have_text(NAMES[strongest])
    rows.first.locator("button").click()
    settle(page)
    assert clicked(page) == NAMES[strongest]
    page.locator('[data-key="tab fields"]').click()
    expect(page.locator(".fields .scatterlayer .point")).to_have_count(len(NAMES))


def test_annotations_are_saved_and_loaded(small_page: Opened, tmp_path: Path):
    page = small_page.page
    page.evaluate(
        """viewer.dispatch({type: 'pin', node: 'feature:1/7@2'});
        viewer.dispatch({type: 'label', key: '0/5', text: 'שלום </script>'});
        viewer.dispatch({type: 'group', members: ['feature:0/5@1', 'feature:0/6@1'], name: 'g'});
        viewer.dispatch({type: 'move', name: 'g', x: 10, y: 20.5})"""
    )
    with page.expect_download() as saved:
        page.locator('[data-key="Save"]').click()
    path = tmp_path / "graph.annotations.json"
    saved.value.save_as(path)
    assert saved.value.suggested_filename.endswith(ANNOTATIONS_SUFFIX)
    read = graphs.read_annotations(path)
    assert read.pins == (LATE,)
    assert read.labels == {"0/5": "שלום </script>"}
    assert read.places == {"g": (10.0, 20.5)}
    assert read.groups[0].members == (EARLY, OTHER)
    page.evaluate("viewer.dispatch({type: 'load', annotations: {}})")
    assert page.evaluate("viewer.notes.pins") == []
    page.locator("#file").set_input_files(path)
    until(page, "viewer.notes.pins.length === 1")
    assert page.evaluate("viewer.notes.places") == {"g": [10, 20.5]}
    for text, said in (
        ("{", "is not JSON"),
        ("{}", "schema_version"),
        ('{"schema_version":1,"pins":3}', "not in the format"),
        ('{"schema_version":1,"pins":[3]}', "not in the format"),
    ):
        path.write_text(text)
        page.locator("#file").set_input_files(path)
        expect(page.locator("#status")).to_contain_text(said)
        assert page.evaluate("viewer.notes.pins.length") == 1  # nothing is lost


def test_a_page_has_the_annotations_of_its_file(browser: Browser, tmp_path: Path):
    noted = graphs.Annotations(pins=(LATE,), labels={"1/7": "mine"})
    write_page(small(), tmp_path / "page.html", noted)
    with viewed(browser, tmp_path / "page.html") as found:
        expect(found.page.locator(".part")).to_contain_text("mine")


def test_the_state_survives_a_reload_and_travels_in_the_address(
    small_page: Opened, browser: Browser
):
    page = small_page.page
    click(page, LATE)
    page.keyboard.press("p")
    page.locator('[data-key="slider edges"]').fill("0.9")
    settle(page)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    small_page.asked.clear()  # the page itself
    assert clicked(page) == LATE
    assert page.evaluate("[viewer.notes.pins, viewer.view.edges]") == [[LATE], 0.9]
    page.locator('[data-key="Link"]').click()
    address = page.url
    assert re.search(r"#s=[\w-]+$", address)
    assert len(address) < 2000
    elsewhere = browser.new_context()  # another person's browser
    other = elsewhere.new_page()
    other.goto(address)
    other.wait_for_selector("html[data-ready]")
    assert clicked(other) == LATE
    assert other.evaluate("viewer.notes.pins") == [LATE]
    other.goto(address.partition("#")[0] + "#s=damaged!")
    other.reload()
    other.wait_for_selector("html[data-ready]")  # and opens as if there were none
    elsewhere.close()


def test_two_windows_of_a_page_go_in_step(browser: Browser, small_file: Path):
    one, other = new_window(browser), new_window(browser)
    for page in (one, other):
        visit(page, small_file)
        page.wait_for_selector("html[data-ready]")
        show_full_graph(page)
    click(one, LATE)
    until(other, f"viewer.view.clicked[0] === '{LATE}'")
    for page in (one, other):
        leave(page)


@pytest.mark.parametrize(("what", "key"), [("graph", "SVG"), ("subgraph", "sub SVG")])
def test_drawings_hold_nodes_and_texts(small_page: Opened, tmp_path: Path, what: str, key: str):
    page = small_page.page
    page.evaluate(f"viewer.dispatch({{type: 'pinAll', nodes: ['{LATE}', '{LOGIT}']}})")
    settle(page)
    with page.expect_download() as saved:
        page.locator(f'[data-key="{key}"]').click()
    saved.value.save_as(tmp_path / "a.svg")
    drawing = (tmp_path / "a.svg").read_text()
    assert "Texas" in drawing
    assert "<script" not in drawing
    page.goto((tmp_path / "a.svg").as_uri())  # sound XML, or the browser would complain
    assert page.locator("svg text").count() >= 2
    small_page.asked.clear()
    if what == "graph":
        assert page.locator('svg path[transform^="translate"]').count() >= len(NAMES)


@pytest.mark.parametrize("key", ["PNG", "sub PNG"])
def test_pictures_are_pictures(small_page: Opened, tmp_path: Path, key: str):
    page = small_page.page
    page.evaluate(f"viewer.dispatch({{type: 'pin', node: '{LATE}'}})")
    settle(page)
    with page.expect_download() as saved:
        page.locator(f'[data-key="{key}"]').click()
    saved.value.save_as(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 1000


def test_dragging_moves_zooming_keeps_and_a_double_click_goes_back(small_page: Opened):
    page = small_page.page
    x, y = place(page, EARLY)
    page.mouse.move(x + 60, y + 60)
    page.mouse.down()
    page.mouse.move(x + 140, y + 60, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    assert place(page, EARLY)[0] == pytest.approx(x + 80, abs=2)
    assert clicked(page) is None
    page.mouse.wheel(0, -400)
    until(page, "viewer.view.range[1] - viewer.view.range[0] < 0.99")
    page.wait_for_timeout(400)
    click(page, EARLY)
    assert clicked(page) == EARLY  # what is drawn is where it is clicked
    page.locator(".plot").focus()
    page.keyboard.press("0")
    settle(page)
    assert place(page, EARLY)[0] == pytest.approx(x, abs=1)


def test_the_page_is_dark_where_the_system_is_and_by_its_button(browser: Browser, small_file: Path):
    page = new_window(browser)
    page.emulate_media(color_scheme="dark")
    visit(page, small_file)
    page.wait_for_selector("html[data-ready]")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(21, 24, 30)"
    page.locator('[data-key="◐"]').click()
    settle(page)
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert page.evaluate("viewer.palette.paper") == "#ffffff"
    page.locator('[data-key="◐"]').click()
    settle(page)
    assert page.evaluate(paper) == "rgb(21, 24, 30)"
    leave(page)


@pytest.mark.parametrize(("width", "height"), [(720, 450), (1280, 720), (3840, 2160)])
def test_the_page_fits_small_and_large_screens(
    browser: Browser, small_file: Path, width: int, height: int
):
    """720 by 450 is a laptop's screen at 200 %."""
    page = new_window(browser)
    page.set_viewport_size({"width": width, "height": height})
    visit(page, small_file)
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    summary = page.locator(".overview").bounding_box()
    assert summary is not None
    assert summary["height"] >= 150
    show_full_graph(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".plot").bounding_box()
    assert box is not None
    assert box["height"] >= 250
    assert box["width"] >= 0.5 * width
    leave(page)


def test_controls_have_names_and_roles(small_page: Opened):
    page = small_page.page
    click(page, LATE)
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input:not([hidden]), select, [tabindex="0"]')]
        .filter((one) => !(one.innerText || '').trim() && !one.ariaLabel && !one.labels?.length
            && !one.closest('[role=tabpanel]') && !one.closest('.modebar'))
        .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    assert page.locator('[role="tab"][aria-selected="true"]').inner_text() == "Node"
    page.locator('[data-key="tab node"]').focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator('[data-key="tab list"]')).to_be_focused()
    page.keyboard.press("?")
    expect(page.locator("dialog table").first).to_contain_text("pin or unpin")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()


def test_two_graphs_stand_side_by_side(browser: Browser, tmp_path: Path):
    other = small()
    other.nodes.index[NAMES.index(OTHER)] = 9  # a feature of its own
    write_pages([(one, graphs.NO_ANNOTATIONS) for one in (small(), other)], tmp_path / "p.html")
    with viewed(browser, tmp_path / "p.html") as found:
        page = found.page
        page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 1, edges: 1}})")
        settle(page)
        expect(page.locator(".plot")).to_have_count(2)
        assert page.evaluate("[0, 1].map((g) => viewer.scene(g).frame.level.width)")[0] > 0
        left, right = place(page, LATE, 0), place(page, LATE, 1)
        assert left[1] == right[1]
        page.mouse.move(*left)
        assert page.evaluate("[0, 1].map((g) => viewer.scene(g).cursor)") == [5, 5]
        click(page, LATE, 1)
        assert page.evaluate("viewer.view.clicked") == [LATE, LATE]
        click(page, "feature:0/9@1", 1)
        assert page.evaluate("viewer.view.clicked") == [None, "feature:0/9@1"]
        difference = page.evaluate("[0, 1].map((g) => [...viewer.pair[g].difference])")
        assert difference[0][NAMES.index(OTHER)] == difference[1][NAMES.index(OTHER)] == 1.0
        assert difference[0][NAMES.index(LATE)] == 0.0
        page.evaluate("viewer.dispatch({type: 'set', view: {range: [0.2, 0.8, 0, 1]}})")
        settle(page)
        assert (
            page.evaluate("[0, 1].map((g) => viewer.scene(g).frame.range)")
            == [[0.2, 0.8, 0, 1]] * 2
        )


def test_a_page_in_a_notebook_is_the_page(browser: Browser, tmp_path: Path):
    shown = show(small())
    (tmp_path / "cell.html").write_text(shown._repr_html_())
    assert "page of" in repr(shown)
    page = new_window(browser)
    visit(page, tmp_path / "cell.html")
    frame = page.frame_locator("iframe")
    expect(frame.locator("html[data-ready]")).to_be_attached()
    expect(frame.locator("#heading")).to_contain_text("Dallas")
    leave(page)


def test_a_part_of_a_large_graph_says_what_it_hides(browser: Browser, tmp_path: Path):
    write_page(layered(1), tmp_path / "page.html", most_nodes=12)
    with viewed(browser, tmp_path / "page.html") as found:
        expect(found.page.locator("#panel")).to_contain_text(
            f"This page contains the 12 strongest of {len(layered(1))} nodes."
        )
        assert found.page.evaluate("viewer.graph.count") == 12


def test_data_in_the_page_is_what_went_in(small_file: Path):
    features = page_data(small_file.read_text())["graphs"][0]["features"]
    assert features["1/7"]["raised"] == [" Austin", "</script>"]


def reloaded(found: Opened) -> Page:
    found.page.wait_for_timeout(350)  # what was done is stored a little later
    found.page.reload()
    found.page.wait_for_selector("html[data-ready]")
    found.asked.clear()  # the page itself
    return found.page


def hash_of(state: object) -> str:
    return "#s=" + base64.urlsafe_b64encode(json.dumps(state).encode()).decode().rstrip("=")


def test_what_is_done_after_sharing_is_kept(small_page: Opened):
    page = small_page.page
    page.evaluate(f"viewer.dispatch({{type: 'pin', node: '{LATE}'}})")
    page.locator('[data-key="Link"]').click()
    assert "#s=" in page.url
    page.evaluate(f"viewer.dispatch({{type: 'pin', node: '{EARLY}'}})")
    assert "#" not in page.url
    assert reloaded(small_page).evaluate("viewer.notes.pins") == [LATE, EARLY]


def test_what_somebody_shares_does_not_destroy_ones_own(small_page: Opened):
    page = small_page.page
    page.evaluate(f"viewer.dispatch({{type: 'pin', node: '{LATE}'}})")
    reloaded(small_page)
    page.evaluate("(hash) => { location.hash = hash }", hash_of({"view": {"nodes": 0.7}}))
    until(page, "viewer.view.nodes === 0.7")
    assert page.evaluate("viewer.notes.pins") == [LATE]
    theirs = {"notes": [{"pins": [EARLY]}]}
    page.evaluate("(hash) => { location.hash = hash }", hash_of(theirs))
    until(page, f"viewer.notes.pins[0] === '{EARLY}'")
    page.keyboard.press("u")
    settle(page)
    assert page.evaluate("viewer.notes.pins") == [LATE]


@pytest.mark.parametrize(
    "state",
    [
        {"view": {"tokens": 5, "nodes": 7, "edges": "x", "range": [1, 0, 0, 1]}},
        {"view": {"without": None, "clicked": [3], "layers": [None, 1], "side": None}},
        {"view": {"fields": ["zz", "layer"], "tab": "fields"}},
        {"notes": [{"labels": None}]},
        {"notes": [{"groups": [None]}]},
        {"notes": 3},
        [],
        None,
    ],
)
def test_a_state_that_makes_no_sense_is_left_aside(
    browser: Browser, small_file: Path, state: object
):
    page = new_window(browser)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    visit(page, small_file, hash_of(state))
    page.wait_for_selector("html[data-ready]")
    show_full_graph(page)
    click(page, LATE)
    assert clicked(page) == LATE
    page.wait_for_timeout(50)
    leave(page)
    assert complaints == []


def test_hidden_nodes_come_back_after_a_reload(small_page: Opened):
    small_page.page.evaluate(f"viewer.dispatch({{type: 'hide', node: '{EARLY}'}})")
    page = reloaded(small_page)
    assert EARLY not in shown(page)
    page.locator('[data-key="show hidden"]').click()
    assert EARLY in shown(page)


def test_a_button_that_is_pressed_while_a_field_is_left_is_heard(small_page: Opened):
    page = small_page.page
    click(page, LATE)
    page.locator('[data-key="label"]').fill("mine")
    box = page.locator('[data-key="pin"]').bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.wait_for_timeout(100)
    page.mouse.up()
    settle(page)
    assert page.evaluate("[viewer.notes.labels[viewer.view.clicked[0]], viewer.notes.pins]") == [
        "mine",
        [LATE],
    ]


def test_a_label_of_a_feature_everywhere_can_be_changed(browser: Browser, tmp_path: Path):
    noted = graphs.Annotations(labels={"1/7": "everywhere"})
    write_page(small(), tmp_path / "page.html", noted)
    with viewed(browser, tmp_path / "page.html") as found:
        click(found.page, LATE)
        field = found.page.locator('[data-key="label"]')
        field.fill("")
        field.press("Enter")
        assert found.page.evaluate("viewer.notes.labels") == {}


def test_nodes_of_paths_are_seen_though_pruned(small_page: Opened):
    page = small_page.page
    page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 0.05, edges: 0.05}})")
    page.evaluate(f"viewer.dispatch({{type: 'click', node: '{LOGIT}'}})")
    page.evaluate(f"viewer.dispatch({{type: 'set', view: {{tab: 'paths', from: '{TOKEN}'}}}})")
    assert {EARLY, OTHER, LATE} <= shown(page)
    drawn = "viewer.scene(0).edges.every((e) => isFinite(viewer.level(0).x[e.source]))"
    assert page.evaluate(drawn)


def test_keys_of_the_browser_stay_the_browsers(small_page: Opened):
    page = small_page.page
    page.locator(".plot").focus()
    page.keyboard.press("Alt+d")
    assert page.evaluate("viewer.view.theme") == "auto"
    page.keyboard.press("p")  # nothing is pointed at
    expect(page.locator("#status")).to_contain_text("Point at a node")
    page.evaluate(f"viewer.dispatch({{type: 'pin', node: '{LATE}'}})")
    page.keyboard.press("Control+z")
    assert page.evaluate("viewer.notes.pins") == []
    page.keyboard.press("Control+Shift+Z")
    assert page.evaluate("viewer.notes.pins") == [LATE]


def test_a_page_that_lacks_edges_says_so_beside_its_numbers(browser: Browser, tmp_path: Path):
    write_page(layered(1), tmp_path / "page.html", most_nodes=12)
    with viewed(browser, tmp_path / "page.html") as found:
        expect(found.page.locator(".sliders .left")).to_contain_text("of the part in this page")
        whole = graphs.prune(layered(1))
        expect(found.page.locator(".sliders .whole")).to_contain_text(
            "of the whole graph at nodes 80.0%, edges 98.0%: "
            f"{len(whole)} nodes, {whole.weights.nnz} edges · "
            f"replacement {percent(graphs.scores(whole).replacement)}"
        )
        found.page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 0.05, edges: 0.05}})")
        expect(found.page.locator(".sliders .left")).not_to_contain_text("of the part in this page")
    write_page(layered(1), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        expect(found.page.locator(".sliders .left")).not_to_contain_text("of the part in this page")
