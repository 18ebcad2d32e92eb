"""The summary that a page opens on, groups in the plot, and paths that run through groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

import graphs
from circuits.atlas.shipped import atlas_transcoders
from circuits.features.files.reading import read_transcoders
from circuits.model.prompt import read_prompt
from circuits.model.subject import read_subject
from circuits.pipe import trace
from graphs.groups.overview import BoxKind, Overview, graph_overview
from tests.browser import leave, needs_chromium, new_window, viewed, visit
from tests.test_atlas import DALLAS
from tests.test_page import hostile_graph
from tests.test_viewer import EARLY, LATE, LOGIT, OTHER, TOKEN, settle, small
from tests.test_viewer_groups import dispatch, focused, press
from viz.page.page import write_page
from viz.text.words import percent

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def dallas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Overview]:
    """The page of the prompt that everybody knows, and its overview."""
    subject = read_subject("atlas-large")
    prompt = read_prompt(DALLAS, subject.tokenizer)
    graph = trace(prompt, subject, read_transcoders(atlas_transcoders("atlas-large")))
    path = tmp_path_factory.mktemp("dallas") / "page.html"
    write_page(graph, path)
    return path, graph_overview(graph)


@pytest.fixture
def page(browser: Browser, dallas: tuple[Path, Overview]) -> Iterator[Page]:
    with viewed(browser, dallas[0], summary=True) as found:
        yield found.page


def choose(page: Page, name: str) -> None:
    page.locator(f'.overview [role=button][aria-label^="{name},"]').first.click()
    settle(page)


def test_the_page_opens_on_the_boxes_of_the_circuit(page: Page, dallas: tuple[Path, Overview]):
    expect(page.locator(".overview")).to_be_visible()
    expect(page.locator(".plot")).to_be_hidden()
    texts = [text or "" for text in page.locator(".overview .box").all_text_contents()]
    for name in ("Dallas", "capital", "Texas", "say a capital", "Austin"):
        assert any(name in text for text in texts), name
    assert page.locator(".overview .box.group").count() <= 8
    carried = f"{dallas[1].carried:.0%}"
    expect(page.locator(".sentence")).to_contain_text("Dallas → Texas → Austin")
    expect(page.locator(".sentence")).to_contain_text(f"{carried} of what reaches Austin")


def test_the_full_graph_is_one_click_away_and_remembered(browser: Browser, small_path: Path):
    page = new_window(browser)
    visit(page, small_path)
    page.wait_for_selector("html[data-ready]")
    expect(page.locator(".overview")).to_be_visible()
    page.locator('[data-key="Full graph"]').click()
    expect(page.locator(".plot")).to_be_visible()
    expect(page.locator(".overview")).to_be_hidden()
    page.wait_for_timeout(400)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator(".plot")).to_be_visible()
    page.keyboard.press("s")
    expect(page.locator(".overview")).to_be_visible()
    leave(page)


@pytest.fixture(scope="module")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "page.html"
    write_page(small(), path)
    return path


def test_the_panel_of_a_box_gives_the_numbers_of_the_overview(
    page: Page, dallas: tuple[Path, Overview]
):
    choose(page, "Texas")
    found = dallas[1]
    texas = [box.name for box in found.boxes].index("Texas")
    panel = page.locator('section[aria-label="the chosen box"]')
    expect(panel).to_contain_text(f"{percent(found.boxes[texas].arrived)} of all influence")
    expect(panel).to_contain_text("@8 is")
    for title, flows in (("Fed by", found.flow[texas]), ("Feeds", found.flow[:, texas])):
        rows = panel.locator(f'section[aria-label="{title}"] button.link').all_inner_texts()
        order = np.argsort(-flows, kind="stable")
        expected = [(found.boxes[at].name.strip(), percent(flows[at])) for at in order]
        wanted = [one for one, at in zip(expected, order, strict=True) if flows[at] >= 0.0005]
        assert [(row.split("\n")[2], row.split("\n")[1]) for row in rows] == wanted
    members = panel.locator('section[aria-label="members of Texas"] li')
    assert members.count() == len(found.boxes[texas].rows)
    members.first.locator("button.link").click()
    settle(page)
    expect(page.locator(".plot")).to_be_visible()  # a member is a node of the full graph
    assert page.evaluate("viewer.view.clicked[0]").startswith("feature:")


def test_choosing_a_box_lights_what_feeds_it_and_what_it_feeds(page: Page):
    choose(page, "say a capital")
    lit = page.locator(".overview .arrow:not([opacity])")
    ends = [one.split() for one in lit.evaluate_all("all => all.map((a) => a.dataset.arrow)")]
    number = page.evaluate("String(viewer.view.box)")
    assert ends
    assert all(number in pair for pair in ends)
    page.keyboard.press("Escape")
    settle(page)
    assert page.evaluate("viewer.view.box") is None


def test_boxes_are_reached_by_keys(page: Page):
    page.locator('.overview [tabindex="0"]').focus()
    start = focused(page)
    press(page, "ArrowUp")
    assert focused(page) != start
    press(page, "Enter")
    assert page.evaluate("`box ${viewer.view.box}`") == focused(page)
    names = page.locator(".overview [role=button]").evaluate_all(
        "all => all.map((b) => b.ariaLabel)"
    )
    assert all("of all influence" in name for name in names)


def test_the_saved_summary_is_light_and_keeps_its_text(page: Page, tmp_path: Path):
    dispatch(page, "type: 'set', view: {theme: 'dark'}")
    with page.expect_download() as saved:
        page.locator('#tools [data-key="SVG"]').click()
    saved.value.save_as(tmp_path / "summary.svg")
    text = (tmp_path / "summary.svg").read_text(encoding="utf-8")
    assert text.count(">Texas</text>") == 1
    assert 'fill="#ffffff"' in text
    assert "carry" in text
    assert "of the influence" in text
    with page.expect_download() as saved:
        page.locator('#tools [data-key="PNG"]').click()
    assert saved.value.suggested_filename.endswith(".png")


def test_a_pinned_box_is_a_group_of_the_subgraph_with_numbers_on_its_arrows(
    page: Page, dallas: tuple[Path, Overview]
):
    for name in ("Texas", "say Austin"):
        choose(page, name)
        page.locator('[data-key="pin box"]').click()
        settle(page)
    assert page.evaluate("viewer.notes.groups.map((g) => g.name)") == ["Texas", "say Austin"]
    page.keyboard.press("s")
    settle(page)
    flow = page.evaluate("flowsBetween(viewer.graph, partsOf(viewer.graph, viewer.notes, []))[0]")
    expect(page.locator(".flow-share")).to_have_text(f"+{percent(flow['flow'])}")


@pytest.mark.parametrize("width", [390, 1024])
def test_names_can_be_read_on_small_screens(
    browser: Browser, dallas: tuple[Path, Overview], width: int
):
    page = new_window(browser)
    page.set_viewport_size({"width": width, "height": 844})
    visit(page, dallas[0])
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.locator(".overview .box text").evaluate_all(
        "all => all.map((t) => t.getBoundingClientRect()).map((b) => [b.left, b.right, b.height])"
    )
    assert all(left >= 0 and right <= width for left, right, _ in boxes)
    assert min(height for *_, height in boxes) >= (8 if width < 500 else 12)
    heading = page.evaluate(
        "(({scrollWidth: w, clientWidth, scrollHeight: h, clientHeight}) =>"
        " [w - clientWidth, h - clientHeight])(document.getElementById('heading'))"
    )
    assert max(heading) <= 1  # its end, the answer, is not cut
    leave(page)


def test_hostile_names_are_texts(browser: Browser, tmp_path: Path):
    write_page(hostile_graph(), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html", summary=True) as found:
        expect(found.page.locator(".overview")).to_be_visible()
        assert found.page.locator(".overview b").count() == 0


def test_groups_are_outlined_and_named_once_in_the_plot(page: Page, tmp_path: Path):
    page.keyboard.press("s")
    settle(page)
    with page.expect_download() as saved:
        page.locator('#tools [data-key="SVG"]').click()
    saved.value.save_as(tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert text.count(">Texas</text>") == 1
    page.locator('[data-key="toggle groups"]').click()
    settle(page)
    with page.expect_download() as saved:
        page.locator('#tools [data-key="SVG"]').click()
    saved.value.save_as(tmp_path / "plot.svg")
    assert ">Texas</text>" not in (tmp_path / "plot.svg").read_text(encoding="utf-8")


@pytest.fixture
def grouped(browser: Browser, small_path: Path) -> Iterator[Page]:
    """Two features as one group, in the full graph."""
    with viewed(browser, small_path) as found:
        found.page.evaluate("viewer.graph.overview = null")
        dispatch(found.page, f"type: 'group', members: ['{EARLY}', '{OTHER}'], name: 'both'")
        yield found.page


def test_the_hull_of_points_is_the_smallest_convex_polygon(grouped: Page):
    points = np.random.default_rng(1).normal(size=(40, 2))
    hull = np.array(grouped.evaluate("(points) => convexHull(points)", points.tolist()))
    after = np.roll(hull, -1, axis=0) - hull
    for point in points:
        to = point - hull
        assert np.all(after[:, 0] * to[:, 1] - after[:, 1] * to[:, 0] >= -1e-9)
    assert {tuple(corner) for corner in hull.tolist()} <= {
        tuple(point) for point in points.tolist()
    }


def test_a_group_shows_what_feeds_it_what_it_feeds_and_its_members(grouped: Page):
    grouped.locator('[data-key="part both"]').click()
    settle(grouped)
    panel = grouped.locator('section[aria-label="the chosen group"]')
    graph = small()
    both = [graph.find(name) for name in (EARLY, OTHER)]
    collapsed = graphs.collapse(graph, {"both": np.array(both)})
    at = collapsed.names.index("both")
    expect(panel).to_contain_text(f"{percent(float(collapsed.arrived[at]))} of all influence")
    fed = panel.locator('section[aria-label="Fed by"] button.link')
    into = float(collapsed.flow[at, collapsed.names.index(TOKEN)])
    assert fed.all_inner_texts()[0].split("\n")[:2] == ["+100.0%", percent(into)]
    feeds = panel.locator('section[aria-label="Feeds"] button.link').all_inner_texts()
    flows = {name: float(collapsed.flow[row, at]) for row, name in enumerate(collapsed.names)}
    expected = sorted((flow for flow in flows.values() if flow > 0), reverse=True)
    assert [row.split("\n")[1] for row in feeds] == [percent(flow) for flow in expected]
    expect(panel.locator('section[aria-label="members of both"] li')).to_have_count(2)


def test_a_group_is_unfolded_in_place_and_folded_again(grouped: Page):
    grouped.locator('[data-key="fold both"]').click()
    settle(grouped)
    expect(grouped.locator(f'[data-key="part {EARLY}"]')).to_be_visible()
    expect(grouped.locator('[data-key="part both"]')).to_have_count(0)
    grouped.locator(f'[data-key="fold {OTHER}"]').click()
    settle(grouped)
    expect(grouped.locator('[data-key="part both"]')).to_be_visible()
    assert grouped.evaluate("viewer.notes.groups.length") == 1  # only what is seen has changed


def test_paths_run_through_groups_as_one_step(grouped: Page):
    dispatch(grouped, "type: 'set', view: {nodes: 1, edges: 1}")
    routes = grouped.evaluate(
        f"""(() => {{
            const graph = viewer.graph;
            const [from, to] = ['{TOKEN}', '{LOGIT}'].map((name) => graph.place.get(name));
            const paths = strongestPaths(graph, from, to, 50);
            const name = (step) => step.group ?? graph.names[step.rows[0]];
            return routesOf(graph, paths, groupNames(graph, viewer.notes)).map(
                ({{steps, share, net, paths}}) => [steps.map(name), share, net, paths.length]);
        }})()"""
    )
    graph = small()
    both = (graph.find(EARLY), graph.find(OTHER))
    ends = graphs.Ends(*(np.arange(len(graph)) == graph.find(name) for name in (TOKEN, LOGIT)))
    every = graphs.strongest_paths(graph, ends, 50).listed
    for middle in ([], [LATE]):
        steps = [TOKEN, "both", *middle, LOGIT]
        wanted = [
            path
            for path in every
            if [str(graph.nodes[row]) for row in path.nodes if row not in both]
            == [TOKEN, *middle, LOGIT]
        ]
        found = next(route for route in routes if route[0] == steps)
        assert found[1] == pytest.approx(sum(path.share for path in wanted))
        assert found[2] == pytest.approx(sum(path.sign * path.share for path in wanted))
        assert found[3] == len(wanted) == 2


def test_nodes_are_pinned_from_lists_at_once(grouped: Page):
    dispatch(grouped, f"type: 'click', node: '{LATE}'")
    dispatch(grouped, "type: 'set', view: {nodes: 1, edges: 1}")
    grouped.locator(f'[data-key="Fed by pin {EARLY}"]').click()
    settle(grouped)
    assert grouped.evaluate("viewer.notes.pins") == [EARLY]
    grouped.locator('[data-key="pin all Fed by"]').click()
    settle(grouped)
    assert set(grouped.evaluate("viewer.notes.pins")) >= {EARLY, OTHER}
    press(grouped, "u")
    assert grouped.evaluate("viewer.notes.pins") == [EARLY]


def test_a_graph_without_groups_opens_on_its_tokens_and_targets(browser: Browser, tmp_path: Path):
    graph = small()
    bare = graph.take(np.array([graph.find(name) for name in (TOKEN, LOGIT)]))
    write_page(bare, tmp_path / "page.html")
    assert not graph_overview(bare).of_kind(BoxKind.GROUP)
    with viewed(browser, tmp_path / "page.html", summary=True) as found:
        expect(found.page.locator(".overview .box")).to_have_count(2)
