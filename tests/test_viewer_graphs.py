"""Several graphs in one page: one is chosen, another set beside it, each keeps its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

import graphs
from graphs.core.graph import AttributionGraph
from tests.browser import Opened, needs_chromium, viewed
from tests.test_viewer import EARLY, LATE, click, reloaded, settle, shown, small, until
from viz.page.page import MOST_GRAPHS, page_text, write_page, write_pages

pytestmark = needs_chromium
PROMPTS = ("Dallas", "Oakland", "Miami")


def about(city: str) -> AttributionGraph:
    """The small graph, for a prompt of its own."""
    graph = small()
    tokens = ("<bos>", f" {city}", " is")
    header = graph.provenance.model_copy(update={"tokens": tokens, "prompt": "".join(tokens)})
    return replace(graph, provenance=header)


@pytest.fixture(scope="module")
def cities_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """At one address for all tests: only there are its scripts compiled already."""
    path = tmp_path_factory.mktemp("cities") / "page.html"
    write_pages([(about(city), graphs.NO_ANNOTATIONS) for city in PROMPTS], path)
    return path


@pytest.fixture
def cities(browser: Browser, cities_file: Path) -> Iterator[Opened]:
    with viewed(browser, cities_file) as found:
        yield found


def channels(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def brightness(colour: str) -> float:
    """Luma of a colour, 0 to 255, as a grey print has it (ITU-R BT.601)."""
    return float(np.dot(channels(colour), [0.299, 0.587, 0.114]))


def distance(one: str, other: str) -> float:
    return float(np.linalg.norm(np.subtract(channels(one), channels(other))))


def choose(page: Page, label: str, name: str) -> None:
    page.get_by_label(label, exact=True).select_option(name)
    settle(page)


def option(page: Page, city: str) -> str:
    found = page.get_by_label("Graph", exact=True).locator("option", has_text=city)
    return found.get_attribute("value") or ""


def pins(page: Page) -> list[list[str]]:
    return page.evaluate("viewer.state.notes.map((notes) => notes.pins)")


def test_a_graph_is_chosen_by_its_prompt(cities: Opened):
    page = cities.page
    expect(page.locator(".plot")).to_have_count(1)
    expect(page.locator("#prompt")).to_contain_text("Dallas")
    options = page.get_by_label("Graph", exact=True).locator("option").all_inner_texts()
    assert [city in text for city, text in zip(PROMPTS, options, strict=True)] == [True] * 3
    choose(page, "Graph", option(page, "Miami"))
    expect(page.locator("#prompt")).to_contain_text("Miami")
    expect(page).to_have_title(re.compile("^(?!.*Dallas).*Miami is"))
    assert "Miami" in (page.locator(".plot").get_attribute("aria-label") or "")
    assert shown(page)


def test_the_select_is_used_by_keyboard(cities: Opened):
    page = cities.page
    page.get_by_label("Graph", exact=True).focus()
    page.keyboard.press("ArrowDown")
    settle(page)
    expect(page.locator("#prompt")).to_contain_text("Oakland")
    expect(page.get_by_label("Graph", exact=True)).to_be_focused()


def test_pins_are_each_graphs_own_and_what_is_undone_is_brought_to_the_screen(cities: Opened):
    page = cities.page
    page.evaluate(f"viewer.dispatch({{type: 'pin', node: '{LATE}'}})")
    choose(page, "Graph", "1")
    page.evaluate(f"viewer.dispatch({{type: 'pin', node: '{EARLY}'}})")
    assert pins(page) == [[LATE], [EARLY], []]
    page.locator('[data-key="↶"]').click()
    settle(page)
    assert pins(page) == [[LATE], [], []]
    assert page.evaluate("viewer.shown") == [1]
    page.locator('[data-key="↶"]').click()
    settle(page)
    assert pins(page) == [[], [], []]
    assert page.evaluate("viewer.shown") == [0]
    page.locator('[data-key="↷"]').click()
    page.locator('[data-key="↷"]').click()
    settle(page)
    assert pins(page) == [[LATE], [EARLY], []]
    assert page.evaluate("viewer.shown") == [1]


def test_a_reload_brings_the_graph_that_was_shown_and_its_pins(cities: Opened):
    page = cities.page
    choose(page, "Graph", "2")
    page.evaluate(f"viewer.dispatch({{type: 'pin', node: '{LATE}'}})")
    page = reloaded(cities)
    expect(page.locator("#prompt")).to_contain_text("Miami")
    assert pins(page) == [[], [], [LATE]]


def test_of_two_graphs_that_annotations_fit_alike_each_has_its_own(
    browser: Browser, tmp_path: Path
):
    pruned = graphs.prune(small())
    write_pages([(g, graphs.NO_ANNOTATIONS) for g in (small(), pruned)], tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        found.page.evaluate(f"viewer.dispatch({{type: 'pin', graph: 1, node: '{LATE}'}})")
        assert pins(reloaded(found)) == [[], [LATE]]


def test_the_address_names_the_graph(cities: Opened, browser: Browser):
    page = cities.page
    choose(page, "Graph", "1")
    choose(page, "compare with", "2")
    page.locator('[data-key="Link"]').click()
    pair = page.url
    choose(page, "compare with", "-1")
    choose(page, "Graph", "0")
    page.locator('[data-key="Link"]').click()
    first = page.url
    other = browser.new_context().new_page()
    for address, expected in ((pair, [1, 2]), (first, [0])):
        other.goto(address)
        until(other, "document.documentElement.dataset.ready === 'yes'")
        until(other, f"JSON.stringify(viewer.shown) === '{expected}'.replace(/ /g, '')")
    other.context.close()


def test_any_two_are_compared(cities: Opened):
    page = cities.page
    choose(page, "Graph", "2")
    choose(page, "compare with", "1")
    expect(page.locator(".plot")).to_have_count(2)
    expect(page.locator(".pane-name").nth(0)).to_contain_text("Miami")
    expect(page.locator(".pane-name").nth(1)).to_contain_text("Oakland")
    click(page, LATE, 1)
    assert page.evaluate("viewer.view.clicked") == [None, LATE, LATE]
    assert page.evaluate("viewer.view.active") == 1
    choose(page, "Graph", "1")  # they change sides
    assert page.evaluate("viewer.shown") == [1, 2]
    choose(page, "compare with", "-1")
    expect(page.locator(".plot")).to_have_count(1)
    expect(page.locator(".pane-name").first).to_be_hidden()
    click(page, LATE, 1)
    assert page.evaluate("viewer.view.clicked") == [None, None, LATE]  # that of the third stays


def test_the_pane_that_is_looked_at_is_marked_and_both_tell_what_is_left(cities: Opened):
    page = cities.page
    expect(page.locator(".pane[aria-current]")).to_have_count(0)  # alone it needs no mark
    choose(page, "compare with", "1")
    page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 0.5}})")
    page.evaluate(f"viewer.dispatch({{type: 'hide', node: '{LATE}'}})")
    settle(page)
    for active in (0, 1):
        page.evaluate(f"viewer.dispatch({{type: 'set', view: {{active: {active}}}}})")
        settle(page)
        panes = page.locator(".pane")
        marks = [panes.nth(i).get_attribute("aria-current") for i in (0, 1)]
        assert marks == ["true" if i == active else None for i in (0, 1)]
        for i in (0, 1):
            kept = page.evaluate(f"viewer.pruning({i}).kept.nNodes")
            expect(panes.nth(i).locator(".pane-name small")).to_contain_text(f"{kept} nodes, ")


def test_a_picture_has_both_graphs(cities: Opened):
    page = cities.page
    alone = page.evaluate("paint(viewer, 'graph', svgPen).file()")
    choose(page, "compare with", "1")
    both = page.evaluate("paint(viewer, 'graph', svgPen).file()")
    assert ("Dallas" in alone, "Oakland" in alone) == (True, False)
    assert ("Dallas" in both, "Oakland" in both) == (True, True)
    widths = page.evaluate("viewer.plots.map((plot) => plot.size()[0])")
    assert f'width="{sum(widths)}"' in both


def test_tokens_that_are_chosen_are_columns_of_both(browser: Browser, tmp_path: Path):
    longer = about("Oakland")
    tokens = ("<bos>", " the", " Oakland", " is")
    nodes = replace(longer.nodes, pos=longer.nodes.pos + (longer.nodes.pos > 0))
    header = longer.provenance.model_copy(
        update={"tokens": tokens, "token_ids": (0, 1, 2, 3), "prompt": "".join(tokens)}
    )
    longer = replace(longer, nodes=nodes, provenance=header)
    both = [(about("Oakland"), graphs.NO_ANNOTATIONS), (longer, graphs.NO_ANNOTATIONS)]
    write_pages(both, tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        page = found.page
        page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 1, edges: 1, active: 1}})")
        settle(page)
        page.locator('[data-key="token 2"]').click()
        settle(page)
        for number, name in ((0, EARLY), (1, EARLY.replace("@1", "@2"))):
            seen = f"viewer.visible({number})[viewer.graphs[{number}].place.get('{name}')]"
            assert page.evaluate(seen) == 1
        page.evaluate("viewer.dispatch({type: 'set', view: {active: 0}})")
        settle(page)
        expect(page.locator('[data-key="token 1"]')).to_have_attribute("aria-pressed", "true")
        assert page.evaluate(seen) == 1


def test_a_page_of_too_many_graphs_is_refused():
    with pytest.raises(ValueError, match=f"from 1 to {MOST_GRAPHS} graphs, got 0"):
        page_text([])
    with pytest.raises(ValueError, match="got 9"):
        page_text([(small(), graphs.NO_ANNOTATIONS)] * 9)


def test_the_pane_that_has_the_keyboard_is_the_one_that_keys_walk(cities: Opened):
    page = cities.page
    choose(page, "compare with", "1")
    page.locator(".plot").nth(0).focus()
    assert page.evaluate("viewer.view.active") == 0
    for _ in range(9):  # past the buttons of plotly, which are links
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === viewer.plots[1].root"):
            break
    settle(page)
    assert page.evaluate("viewer.view.active") == 1
    page.keyboard.press("ArrowUp")
    assert page.evaluate("viewer.hovered.graph") == 1


def test_graphs_of_one_prompt_are_told_apart_by_their_models(browser: Browser, tmp_path: Path):
    header = small().provenance
    model = header.model.model_copy(update={"name": "another-model"})
    other = replace(small(), provenance=header.model_copy(update={"model": model}))
    write_pages([(g, graphs.NO_ANNOTATIONS) for g in (small(), other)], tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        name = "2. \u2068another-model\u2069: "
        expect(found.page.locator(".pane-name").nth(1)).to_contain_text(name)


def test_graphs_that_differ_in_all_are_named_by_all(browser: Browser, tmp_path: Path):
    header = about("Miami").provenance
    dictionary = header.dictionary.model_copy(update={"name": "another-dictionary"})
    other = replace(about("Miami"), provenance=header.model_copy(update={"dictionary": dictionary}))
    write_pages([(g, graphs.NO_ANNOTATIONS) for g in (small(), other)], tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        named = found.page.locator(".pane-name").nth(1)
        expect(named).to_contain_text(re.compile("2. .*another-dictionary.*: .*Miami"))


def test_a_node_without_partner_is_told_and_dims_the_other_graph(cities: Opened):
    page = cities.page
    choose(page, "compare with", "1")
    row = page.evaluate(f"viewer.graphs[0].place.get('{LATE}')")
    page.evaluate(f"viewer.click(0, {row}, true)")
    settle(page)
    sides = page.locator("table.sides tbody tr")
    here, there = (
        page.evaluate(f"threeDigits(viewer.graphs[{i}].activation[{row}])") for i in (0, 1)
    )
    numbers = sides.filter(has_text="activation").first.locator("td").all_inner_texts()
    assert numbers == [here, there]
    assert page.locator(".absent").count() == 0
    page.evaluate(f"viewer.pair[0].partner[{row}] = -1")
    page.evaluate("viewer.dispatch({type: 'clear'})")
    page.evaluate(f"viewer.click(0, {row}, true)")
    settle(page)
    expect(page.locator("#panel .absent")).to_have_text("not in the other graph")
    expect(page.locator(".pane").nth(1).locator(".absent")).to_contain_text("not in this graph")
    assert page.locator(".pane").nth(0).locator(".absent").count() == 0
    assert page.evaluate("viewer.scene(1).near.size") == 0  # all of it is dimmed
    assert page.evaluate("viewer.scene(0).near.size") > 0


def test_differences_have_colours_of_their_own_that_grey_print_tells_apart(cities: Opened):
    page = cities.page
    choose(page, "compare with", "1")
    for entry in ("raises", "lowers", "less influence here", "more here"):
        expect(page.locator("#legend .lines .entry", has_text=entry)).to_have_count(1)
    for theme in ("light", "dark"):
        page.evaluate(f"viewer.dispatch({{type: 'set', view: {{theme: '{theme}'}}}})")
        settle(page)
        names = ("paper", "positive", "negative", "less", "same", "more")
        colours = {name: page.evaluate(f"viewer.palette['{name}']") for name in names}
        less, same, more = (brightness(colours[name]) for name in names[3:])
        away = 1 if theme == "dark" else -1  # from paper: what there is more of stands out
        assert away * (same - less) > 25
        assert away * (more - same) > 25
        for mine in ("less", "more"):
            for sign in ("positive", "negative"):
                assert distance(colours[mine], colours[sign]) > 90, (theme, mine, sign)
        drawn = page.evaluate("coloursOf({...viewer.scene(0), difference: [1, -1]}, 0).fill")
        assert drawn == colours["more"]


def test_a_small_screen_shows_the_whole_heading(browser: Browser, tmp_path: Path):
    write_page(about("the town beside the river that runs through Dallas"), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        found.page.set_viewport_size({"width": 720, "height": 450})
        settle(found.page)
        heading = "document.getElementById('heading')"
        assert found.page.evaluate(f"{heading}.scrollWidth <= {heading}.clientWidth")
