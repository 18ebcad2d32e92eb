"""Supernodes and the boxes of the subgraph, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from graphs.core.graph import AttributionGraph
from tests.browser import needs_chromium, viewed
from tests.graph_oracles import make_graph
from tests.test_viewer import EARLY, LATE, LOGIT, OTHER, settle, small
from viz.page.page import write_page

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages at one address for all tests: only there are their scripts compiled already."""
    made = tmp_path_factory.mktemp("pages")
    write_page(small(), made / "page.html")
    write_page(deep(), made / "deep.html")
    return made


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    """A supernode of three, seen from one of its members."""
    with viewed(browser, folder / "page.html") as found:
        dispatch(found.page, f"type: 'group', members: ['{EARLY}', '{OTHER}', '{LATE}'], name: 'x'")
        dispatch(found.page, f"type: 'click', node: '{LATE}'")
        yield found.page


def dispatch(page: Page, change: str) -> None:
    page.evaluate(f"viewer.dispatch({{{change}}})")
    settle(page)


def groups(page: Page) -> list[tuple[str, list[str]]]:
    settle(page)
    return [(g["name"], g["members"]) for g in page.evaluate("viewer.notes.groups")]


def focused(page: Page) -> str:
    settle(page)
    return page.evaluate("document.activeElement.dataset.key ?? ''")


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
        settle(page)


def test_members_of_a_supernode_are_listed_and_walked(page: Page):
    members = page.locator('section[aria-label="members of x"] button.link')
    rows = [members.nth(i).get_attribute("data-node") for i in range(members.count())]
    assert rows == [LATE, EARLY, OTHER]  # by influence
    expect(members.first).to_have_attribute("aria-current", "true")
    expect(members.first).to_contain_text("Texas")
    members.nth(2).focus()
    press(page, "ArrowUp")
    assert focused(page) == f"member {EARLY}"  # the buttons between are passed over
    press(page, "Enter")
    assert page.evaluate("viewer.view.clicked") == [EARLY]


def test_a_member_is_taken_out_with_the_mouse_and_put_back_by_undoing(page: Page):
    page.get_by_role("button", name="remove Texas from x").click()
    assert groups(page) == [("x", [EARLY, OTHER])]
    assert page.evaluate("viewer.notes.pins") == [LATE]  # it stays in the subgraph
    expect(page.locator(".part")).to_have_count(2)
    expect(page.locator("section.members")).to_have_count(0)  # the clicked node is in no group
    press(page, "u")
    assert groups(page) == [("x", [EARLY, OTHER, LATE])]
    assert page.evaluate("viewer.notes.pins") == []


def test_members_are_taken_out_by_key_to_the_last(page: Page):
    page.locator(f'[data-key="member {OTHER}"]').focus()
    press(page, "Delete")
    assert groups(page) == [("x", [EARLY, LATE])]
    assert focused(page) == f"member {EARLY}"
    press(page, "Delete")
    assert groups(page) == [("x", [LATE])]  # one may stay, with the name that was given
    assert focused(page) == f"member {LATE}"
    press(page, "Delete")
    assert groups(page) == []
    assert page.evaluate("viewer.notes.pins") == [OTHER, EARLY, LATE]


def test_a_suggested_group_that_was_changed_is_a_persons_own(page: Page):
    suggested = f"[{{name: 'y', members: ['{EARLY}', '{OTHER}'], automatic: true}}]"
    dispatch(page, f"type: 'revert', file: {{...NO_NOTES, groups: {suggested}}}")
    dispatch(page, f"type: 'leave', node: '{EARLY}'")
    dispatch(page, f"type: 'suggest', groups: {suggested}")
    assert groups(page) == [("y", [OTHER])]
    before = page.evaluate("viewer.state.past.length")
    dispatch(page, f"type: 'leave', node: '{LATE}'")  # which is in none
    assert page.evaluate("viewer.state.past.length") == before


def test_members_that_the_page_lacks_are_listed_and_can_leave(page: Page):
    dispatch(page, f"type: 'group', members: ['{EARLY}', 'feature:9/9@1'], name: 'far'")
    dispatch(page, f"type: 'click', node: '{EARLY}'")
    member = page.locator('[data-key="member feature:9/9@1"]')
    expect(member).to_contain_text("not in this page")
    expect(member).to_be_disabled()
    page.locator('[data-key="leave feature:9/9@1"]').click()
    assert groups(page)[-1] == ("far", [EARLY])


@pytest.fixture
def boxed(page: Page) -> Page:
    """Two boxes of a layer, one above, the prediction above all; the keys are at the first."""
    dispatch(page, "type: 'ungroup', name: 'x'")
    dispatch(page, f"type: 'pin', node: '{LOGIT}'")
    page.locator(f'[data-key="part {EARLY}"]').focus()
    return page


def spot(page: Page, name: str) -> tuple[float, float]:
    box = page.locator(".part", has=page.locator(f'[data-key="part {name}"]')).bounding_box()
    assert box is not None
    return box["x"], box["y"]


def test_arrows_go_from_box_to_box_and_enter_selects(boxed: Page):
    steps = []
    for key in ("ArrowRight", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowLeft"):
        press(boxed, key)
        steps.append(focused(boxed).removeprefix("part "))
    assert steps == [OTHER, LATE, LOGIT, LOGIT, LATE, EARLY]
    press(boxed, "ArrowRight", "Enter")
    assert boxed.evaluate("viewer.view.clicked") == [OTHER]
    assert focused(boxed) == f"part {OTHER}"


def test_only_one_box_is_in_the_order_of_tab_and_stays_it(boxed: Page):
    press(boxed, "ArrowRight")
    tabbed = "[...document.querySelectorAll('#parts [tabindex=\"0\"]')].map((b) => b.dataset.key)"
    assert boxed.evaluate(tabbed) == [f"part {OTHER}"]
    dispatch(boxed, "type: 'tidy'")
    dispatch(boxed, f"type: 'move', name: '{LOGIT}', x: 200, y: 20")  # draws them anew
    assert boxed.evaluate(tabbed) == [f"part {OTHER}"]
    boxed.locator('[data-key="sub SVG"]').focus()
    press(boxed, "Tab")
    assert focused(boxed) == f"part {OTHER}"


def test_shift_and_arrows_move_a_box_and_a_held_key_is_one_change(boxed: Page):
    x, y = spot(boxed, EARLY)
    before = boxed.evaluate("viewer.state.past.length")
    press(boxed, "Shift+ArrowRight")
    boxed.keyboard.down("Shift")
    for _ in range(3):  # the second and third as a held key sends them
        boxed.keyboard.down("ArrowRight")
        settle(boxed)
    boxed.keyboard.up("ArrowRight")
    boxed.keyboard.up("Shift")
    assert spot(boxed, EARLY) == pytest.approx((x + 48, y), abs=0.5)
    assert focused(boxed) == f"part {EARLY}"
    assert boxed.evaluate("viewer.state.past.length") == before + 2
    press(boxed, "u", "u")
    assert spot(boxed, EARLY) == pytest.approx((x, y), abs=0.5)


def test_a_group_is_renamed_and_ungrouped_by_key(page: Page):
    page.locator('[data-key="part x"]').focus()
    press(page, "F2")
    page.keyboard.type("cities")
    press(page, "Enter")
    assert groups(page) == [("cities", [EARLY, OTHER, LATE])]
    settle(page)
    assert focused(page) == "part cities"
    press(page, "F2")
    page.keyboard.type("no")
    press(page, "Escape")
    assert groups(page)[0][0] == "cities"
    settle(page)
    assert focused(page) == "part cities"
    press(page, "Delete")
    assert groups(page) == []
    settle(page)
    assert focused(page) in {f"part {name}" for name in (EARLY, OTHER, LATE)}


def test_a_node_is_labelled_and_unpinned_by_key(boxed: Page):
    press(boxed, "F2")
    settle(boxed)
    assert focused(boxed) == "label"
    assert boxed.evaluate("viewer.view.clicked") == [EARLY]
    boxed.locator(f'[data-key="part {EARLY}"]').focus()
    press(boxed, "Delete")
    assert boxed.evaluate("viewer.notes.pins") == [OTHER, LATE, LOGIT]
    assert focused(boxed) == f"part {LATE}"  # the nearest
    press(boxed, "Backspace", "u")
    assert boxed.evaluate("viewer.notes.pins") == [OTHER, LATE, LOGIT]


def test_boxes_tell_who_does_not_see_them_what_they_are(boxed: Page):
    box = boxed.locator(f'[data-key="part {LATE}"]')
    said = box.get_attribute("aria-label") or ""
    assert said.startswith("\u2068Texas\u2069, feature:1/7@2, ")
    assert "of all influence enters; +66.7% from \u2068say city\u2069, −22.2% from" in said
    assert "Delete" in (box.get_attribute("aria-keyshortcuts") or "")
    expect(boxed.get_by_role("group", name="4 boxes. Arrows go")).to_have_count(1)
    press(boxed, "?")
    expect(boxed.locator("dialog")).to_contain_text("ungroup a group, unpin a node")


def test_boxes_are_grouped_by_key(boxed: Page):
    press(boxed, "Shift+Enter", "ArrowRight", "Shift+Enter")
    boxed.locator('[data-key="sub Group"]').click()
    assert [members for _, members in groups(boxed)] == [[EARLY, OTHER]]
    assert boxed.evaluate("viewer.chosen.size") == 0


def test_a_group_that_takes_in_a_box_keeps_its_name(page: Page):
    dispatch(page, f"type: 'pin', node: '{LOGIT}'")
    page.locator('[data-key="part x"]').focus()
    press(page, "Shift+Enter", "ArrowUp", "Shift+Enter")
    page.locator('[data-key="sub Group"]').click()
    assert groups(page) == [("x", [EARLY, OTHER, LATE, LOGIT])]


def deep() -> AttributionGraph:
    """Two features in each of 14 layers, a token below and a prediction above: 30 nodes."""
    names = [f"feature:{layer}/{i}@{1 + i}" for layer in range(14) for i in range(2)]
    edges = dict.fromkeys(zip(names, names[2:], strict=False), 1.0)
    edges |= {("token:1@0", name): 1.0 for name in names[:2]}
    edges |= {(name, "logit:1@2"): 1.0 for name in names[-2:]}
    return make_graph(["token:1@0", *names, "logit:1@2"], edges, [0.5])


@pytest.fixture
def thirty(browser: Browser, folder: Path) -> Iterator[Page]:
    with viewed(browser, folder / "deep.html") as found:
        dispatch(found.page, "type: 'pinAll', nodes: viewer.graph.names")
        yield found.page


WHERE = """() => {
    const room = document.getElementById('parts').getBoundingClientRect();
    const rows = [...document.querySelectorAll('.part')].map((part) => {
        const {left, top, right, bottom} = part.getBoundingClientRect();
        return [viewer.graph.place.get(part.querySelector('.name').dataset.key.slice(5)),
                left, top, right, bottom];
    });
    return [[room.left, room.top, room.right, room.bottom], rows.sort((a, b) => a[0] - b[0])];
}"""


def test_thirty_boxes_are_seen_at_once_and_can_be_read(thirty: Page):
    (left, top, right, bottom), boxes = thirty.evaluate(WHERE)
    assert len(boxes) == 30
    for _, *box in boxes:
        assert left <= box[0] < box[2] <= right
        assert top <= box[1] < box[3] <= bottom
        assert box[2] - box[0] >= 0.75 * 132  # 8 pixels of type
    for number, (_, *one) in enumerate(boxes):
        for _, *other in boxes[number + 1 :]:
            apart = (
                one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            )
            assert apart
            assert other[1] <= one[1]  # nodes are in order: later layers are never lower
    assert sum(box[2] == boxes[-1][2] for box in boxes) == 1  # the prediction is alone above
    scrolls = (
        "(({scrollWidth: w, clientWidth: v, scrollHeight: h, clientHeight: u}) => [w > v, h > u])"
    )
    assert thirty.evaluate(f"{scrolls}(byId('parts'))") == [False, False]
    thirty.locator('[data-key="toggle fit"]').click()
    settle(thirty)
    assert thirty.evaluate(f"{scrolls}(byId('parts'))")[1]
    _, boxes = thirty.evaluate(WHERE)
    assert boxes[0][3] - boxes[0][1] == 132  # as large as they are


def test_a_box_that_is_drawn_smaller_follows_the_pointer(thirty: Page):
    name = thirty.evaluate("viewer.graph.names[12]")
    x, y = spot(thirty, name)
    thirty.mouse.move(x + 20, y + 10)
    thirty.mouse.down()
    thirty.mouse.move(x - 20, y + 4, steps=4)
    assert spot(thirty, name) == pytest.approx((x - 40, y - 6), abs=1.5)
    thirty.mouse.up()
    settle(thirty)
    assert spot(thirty, name) == pytest.approx((x - 40, y - 6), abs=1.5)


def test_boxes_fit_anew_when_the_room_changes(thirty: Page):
    dispatch(thirty, "type: 'set', view: {below: 120}")
    _, boxes = thirty.evaluate(WHERE)
    small_ones = boxes[0][3] - boxes[0][1]
    dispatch(thirty, "type: 'set', view: {below: 420}")
    _, boxes = thirty.evaluate(WHERE)
    assert boxes[0][3] - boxes[0][1] > small_ones
