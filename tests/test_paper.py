"""Figures for papers, as plain data: places, curves and labels, by geometry."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations, islice, pairwise
from math import dist

import numpy as np
import pytest

import headwater as hw
from graphs.core.graph import AttributionGraph
from graphs.groups.overview import BoxKind, Overview, graph_overview, overview
from tests.graph_oracles import make_graph
from viz.paper.arrows import LEAST, LEAST_OF_REST, Sign, drawn_arrows
from viz.paper.composed import PLATE, Composed, DrawnArrow, compose, compose_together
from viz.paper.curves import Point, Rect, Route, line, sampled
from viz.paper.layout import GROUP, TARGET, TOKEN
from viz.paper.prompt_row import prompt_row
from viz.paper.routes import Wanted, routes
from viz.paper.shares import share_places
from viz.paper.sheet import COLUMN, PAGE, Sheet, in_lines
from viz.paper.slots import Slot, shared_slots
from viz.paper.together import Shown

DALLAS = "The capital of the state containing Dallas is"
SHEETS = (COLUMN, PAGE)
SEEDS = 14


def width_of(text: str, size: float) -> float:
    return 0.52 * size * len(text)


def random_overview(seed: int) -> tuple[AttributionGraph, Overview]:
    """A graph of random groups in layers, with up to 80 tokens and 4 targets, and its overview."""
    rng = random.Random(seed)
    count = rng.choice((1, 2, 5, 9, 30, 80))
    tokens = tuple(rng.choice(("a", " the", " capital", " of", "ing")) for _ in range(count))
    names = [f"token:{n}@{n}" for n in range(count)]
    groups: dict[str, list[int]] = {}
    for group in range(rng.randrange(9)):
        layer, pos = group // 2, rng.randrange(count)
        name = rng.choice(("say a capital", "x", "from Eiffel, early", "Wiesbaden")) + f" {group}"
        groups[name] = [len(names) + n for n in range(rng.randint(1, 3))]
        names += [f"feature:{layer}/{10 * group + n}@{pos}" for n in range(len(groups[name]))]
    last = [f"logit:{n}@{count - 1}" for n in range(rng.randint(1, 4))]
    edges = {
        (source, target): rng.choice((-1, 1, 1)) * rng.expovariate(1.0)
        for place, target in enumerate([*names, *last])
        for source in names[:place]
        if target.split(":")[0] != "token" and source.split("/")[0] != target.split("/")[0]
        if rng.random() < 0.5
    }
    weights = [rng.random() + 0.05 for _ in last]
    probabilities = [one / sum(weights) for one in weights]
    graph = make_graph([*names, *last], edges, probabilities, tokens=tokens)
    return graph, overview(graph, {name: np.array(rows) for name, rows in groups.items()})


def figures() -> Iterator[Composed]:
    for seed in range(SEEDS):
        graph, shown = random_overview(seed)
        for sheet in SHEETS:
            yield compose(Shown(graph, shown), sheet, width_of)
    for seed in range(SEEDS):
        for sheet in SHEETS:
            yield from together(seed, seed + 1, sheet)[1]


def together(seed: int, other: int, sheet: Sheet) -> tuple[list[Slot], list[Composed]]:
    """Figures of two random graphs, with boxes of one kind as counterparts in their order."""
    shown = [Shown(*random_overview(one)) for one in (seed, other)]
    sizes = [len(one.graph.provenance.tokens) for one in shown]
    pairs = [
        pair
        for kind in (BoxKind.MORE, BoxKind.GROUP, BoxKind.TARGET)
        for pair in zip(*(one.overview.of_kind(kind) for one in shown), strict=False)
    ]
    tokens = [
        {int(one.graph.nodes.pos[one.overview.boxes[n].rows[0]]): n for n in numbers}
        for one in shown
        for numbers in [one.overview.of_kind(BoxKind.TOKEN)]
    ]
    pairs += [(n, tokens[1][pos]) for pos, n in tokens[0].items() if pos in tokens[1]]
    slots = shared_slots(shown[0].overview, shown[1].overview, pairs)
    columns = [[*range(size)] for size in sizes]
    return slots, compose_together(shown, slots, columns, sheet, width_of)


@pytest.fixture(scope="module")
def composed() -> list[Composed]:
    """Random figures, and that of a real graph, at both widths."""
    dallas = hw.trace(DALLAS)
    shown = graph_overview(dallas)
    return [*figures(), *(compose(Shown(dallas, shown), sheet, width_of) for sheet in SHEETS)]


def dense(route: Route) -> list[Point]:
    return sampled(route, 200)


def is_inside(point: Point, rect: Rect, pad: float = 0.0) -> bool:
    x, y = point
    return rect[0] - pad < x < rect[2] + pad and rect[1] - pad < y < rect[3] + pad


def overlap(one: Rect, other: Rect) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def plate(figure: Composed, arrow: DrawnArrow) -> Rect | None:
    if arrow.text_at is None:
        return None
    (x, y), size = arrow.text_at, figure.sheet.small
    width, height = width_of(arrow.text, size) + 2 * PLATE, size + PLATE
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def test_no_arrow_is_behind_a_box(composed: list[Composed]):
    seen = 0
    for figure in composed:
        for arrow in figure.arrows:
            points = dense(arrow.route)
            for box in figure.placed:
                assert not any(is_inside(point, box.outer) for point in points)
                seen += 1
    assert seen > 5_000


def test_arrows_go_from_the_top_of_a_box_up_to_the_bottom_of_another(composed: list[Composed]):
    for figure in composed:
        tops = [(one.outer[0], one.outer[2], one.outer[3]) for one in figure.placed]
        bottoms = [(one.outer[0], one.outer[2], one.outer[1]) for one in figure.placed]
        for arrow in figure.arrows:
            for (x, y), edges in ((arrow.route[0], tops), (arrow.route[-1], bottoms)):
                assert any(left < x < right and y == at for left, right, at in edges)
            heights = [y for _, y in dense(arrow.route)]
            assert all(low <= high + 1e-9 for low, high in pairwise(heights))


def test_arrows_are_smooth(composed: list[Composed]):
    """Pieces join where they end, in the same direction."""
    for figure in composed:
        for arrow in figure.arrows:
            for place in range(3, len(arrow.route) - 1, 3):
                before, at, after = (arrow.route[place + n] for n in (-1, 0, 1))
                turn = (at[0] - before[0]) * (after[1] - at[1])
                turn -= (at[1] - before[1]) * (after[0] - at[0])
                assert abs(turn) < 1e-6


def test_labels_touch_no_box_no_label_and_no_other_arrow(composed: list[Composed]):
    labels = beside_own = 0
    for figure in composed:
        plates = {n: plate(figure, arrow) for n, arrow in enumerate(figure.arrows)}
        for number, rect in plates.items():
            if rect is None:
                continue
            labels += 1
            assert not any(overlap(rect, box.outer) for box in figure.placed)
            own, middle = dense(figure.arrows[number].route), figure.arrows[number].text_at
            if middle is not None and min(dist(point, middle) for point in own) > 2:
                beside_own += 1
                assert not any(is_inside(point, rect) for point in own)
            for other, arrow in enumerate(figure.arrows):
                beside = plates[other]
                assert other == number or beside is None or not overlap(rect, beside)
                if other != number:
                    away = arrow.width / 2
                    assert not any(is_inside(point, rect, away) for point in dense(arrow.route))
    assert labels > 200
    assert beside_own > 10


def test_a_label_without_room_on_its_arrow_stands_beside_it_away_from_others():
    ways = [((x, 0.0), *line((x, 0.0), (x, 100.0))) for x in (50.0, 56.0, 130.0)]
    found = share_places(ways, [2.0, 1.0, 1.0], [(16.0, 6.0)] * 3, [], (0.0, 0.0, 200.0, 100.0))
    xs = [None if place is None else place[0] for place in found]
    assert xs == pytest.approx([50.0 - 10.0, 56.0 + 9.5, 130.0])
    narrow = share_places(ways[:2], [2.0, 1.0], [(16.0, 6.0)] * 2, [], (45.0, 0.0, 61.0, 100.0))
    assert narrow == [None, None]


def test_everything_lies_in_the_figure_and_boxes_lie_apart(composed: list[Composed]):
    for figure in composed:
        assert figure.width == figure.sheet.width
        points = [point for arrow in figure.arrows for point in dense(arrow.route)]
        points += [corner for one in figure.placed for corner in (one.outer[:2], one.outer[2:])]
        for x, y in points:
            assert -1e-9 <= x <= figure.width + 1e-9
            assert -1e-9 <= y <= figure.height + 1e-9
        for one, other in combinations(figure.placed, 2):
            assert not overlap(one.outer, other.outer)
        for one in figure.placed:
            assert one.rect[1] > figure.caption_top
            for text in one.lines:
                half = width_of(text.text, text.size) / 2
                assert one.rect[0] <= text.x - half <= text.x + half <= one.rect[2]


def test_names_of_groups_are_whole(composed: list[Composed]):
    names = {
        " ".join(line.text for line in one.lines)
        for figure in composed
        for one in figure.placed
        if one.kind == GROUP
    }
    assert {"Texas", "say a capital", "say Austin"} <= names
    assert any(name.startswith("from Eiffel, early") for name in names)
    assert not any("…" in name for name in names)


def test_groups_stand_above_their_tokens_in_the_order_of_the_prompt(composed: list[Composed]):
    for figure in composed[-2:]:
        at = {" ".join(line.text for line in one.lines): one.rect for one in figure.placed}
        assert at["on capital"][2] < at["Texas"][0]
        assert at["say a capital"][2] < at["say Austin"][0]
        assert at["Dallas"][3] < at["Texas"][1] < at["say Austin"][1] < at["Austin 100%"][1]


def test_targets_stand_in_the_order_of_their_probability_and_what_is_left_of_them_last():
    several = 0
    for seed in range(SEEDS):
        graph, shown = random_overview(seed)
        placed = compose(Shown(graph, shown), PAGE, width_of).placed
        targets = sorted((one for one in placed if one.kind == TARGET), key=lambda one: one.rect[0])
        rows = [shown.boxes[one.box].rows for one in targets if one.box is not None]
        keys = [(len(own) > 1, -float(graph.seed[own].sum())) for own in rows]
        assert keys == sorted(keys)
        several += len(keys) > 1
    assert several > 5


def test_the_same_overview_gives_the_same_figure(composed: list[Composed]):
    for one, other in zip(composed[:12], islice(figures(), 12), strict=True):
        assert (one.placed, one.arrows) == (other.placed, other.arrows)
        assert (one.caption, one.height) == (other.caption, other.height)


def test_weak_arrows_are_left_out_and_no_box_stands_alone():
    for seed in range(SEEDS):
        _, shown = random_overview(seed)
        arrows = drawn_arrows(shown)
        drawn = {(one.target, one.source) for one in arrows.shown}
        named = [n for n, box in enumerate(shown.boxes) if box.kind != BoxKind.MORE]
        for target, source in zip(*np.nonzero(shown.flow), strict=True):
            flow = shown.flow[target, source]
            strongest = source in named and flow in (
                shown.flow[target, named].max(),
                shown.flow[:, source].max(),
            )
            least = LEAST if source in named else LEAST_OF_REST
            assert ((target, source) in drawn) == (flow >= least or strongest)
        assert arrows.total == np.count_nonzero(shown.flow)
        carried = sum(one.share for one in arrows.shown)
        assert arrows.carried * shown.flow.sum() == pytest.approx(carried)


def test_signs_are_those_of_two_thirds_of_an_arrow():
    flow, net = np.zeros((2, 5, 5))
    flow[4, :4] = 0.24
    net[4, :4] = 0.24, 0.09, -0.07, -0.09
    _, shown = random_overview(4)
    boxes = (shown.boxes[0], *[shown.boxes[1]] * 4)
    arrows = drawn_arrows(Overview(boxes, flow, net, (), 0.0))
    assert [one.sign for one in arrows.shown] == [
        Sign.RAISES,
        Sign.RAISES,
        Sign.MIXED,
        Sign.LOWERS,
    ]


def test_a_long_prompt_shows_what_is_in_use_and_folds_the_rest():
    tokens = [f" word{n}" for n in range(80)]
    for sheet in SHEETS:
        row = prompt_row(tokens, {3, 40}, {79}, (0.0, sheet.width), sheet, width_of)
        texts = [one.text for one in row]
        assert {"word3", "word40", "word79"} <= set(texts)
        assert [one.text for one in row if len(one.positions) > 1] == ["…"] * texts.count("…")
        assert sorted(pos for one in row for pos in one.positions) == list(range(80))
        assert row[-1].rect[2] <= sheet.width + 1e-9
        assert all(one.rect[2] < other.rect[0] for one, other in pairwise(row))
    whole = prompt_row(tokens[:4], {2}, (), (0.0, COLUMN.width), COLUMN, width_of)
    assert [one.text for one in whole] == [token.strip() for token in tokens[:4]]


def test_lit_tokens_are_those_with_arrows(composed: list[Composed]):
    for figure in composed:
        lit = {one.box for one in figure.placed if one.kind == TOKEN and one.box is not None}
        bottoms = {one.outer[3] for one in figure.placed if one.kind == TOKEN}
        from_tokens = [a for a in figure.arrows if a.route[0][1] in bottoms and not a.pale]
        assert len(lit) <= len(from_tokens)


def test_boxes_of_one_slot_have_one_place_in_both_figures():
    shared = alone = 0
    for seed in range(SEEDS):
        slots, figures = together(seed, seed + 1, PAGE)
        at = [{one.box: one.rect for one in figure.placed} for figure in figures]
        tops = [figure.height for figure in figures]  # captions have a length of their own
        for one, other in slots:
            if one is None or other is None:
                alone += 1
                continue
            shared += 1
            first, second = (at[side][box] for side, box in enumerate((one, other)))
            assert (first[0], first[2]) == (second[0], second[2])
            below = [
                (top - rect[1], top - rect[3])
                for top, rect in zip(tops, (first, second), strict=True)
            ]
            assert below[0] == pytest.approx(below[1])
        rows = [[number for slot in slots if (number := slot[side]) is not None] for side in (0, 1)]
        assert [sorted(own) for own in rows] == [
            sorted(n for n in own if n is not None) for own in at
        ]
    assert shared > 60
    assert alone > 20


def test_counterparts_that_would_turn_arrows_around_have_places_of_their_own():
    names = ["token:0@0", "feature:0/0@0", "feature:1/0@0", "logit:0@0"]
    edges = dict.fromkeys(pairwise(names), 1.0)
    graph = make_graph(names, edges, [1.0], tokens=("a",))
    shown = overview(graph, {"low": np.array([1]), "high": np.array([2])})
    low, high = (
        next(n for n, box in enumerate(shown.boxes) if box.name == x) for x in ("low", "high")
    )
    straight = shared_slots(shown, shown, [(low, low), (high, high)])
    assert {(low, low), (high, high)} <= set(straight)
    crossed = shared_slots(shown, shown, [(low, high), (high, low)])
    assert (low, high) in crossed
    assert {(high, None), (None, low)} <= set(crossed)


def test_arrows_fan_out_in_the_order_in_which_they_part():
    boxes = [(100.0, 0.0, 140.0, 12.0), *((60.0 * n, 60.0, 60.0 * n + 30, 80.0) for n in range(4))]
    arrows = [Wanted(0, n, 1.0) for n in (3, 1, 4, 2)]
    starts = {
        arrow.target: route[0][0]
        for arrow, route in zip(
            arrows, routes(boxes, arrows, (0.0, 0.0, 300.0, 100.0)), strict=True
        )
    }
    assert [starts[n] for n in (1, 2, 3, 4)] == sorted(starts.values())
    assert min(b - a for a, b in pairwise(sorted(starts.values()))) >= 5.0


def test_arrows_find_their_way_between_boxes_at_any_place():
    """As on a page, where boxes are dragged: heights and sides are random."""
    rng = random.Random(7)
    for _ in range(25):
        boxes: list[Rect] = []
        for row in range(4):
            x = rng.uniform(20, 60)
            for _ in range(3):
                y = 70.0 * row + rng.uniform(0, 30)
                boxes.append((x, y, x + rng.uniform(20, 60), y + rng.uniform(10, 20)))
                x = boxes[-1][2] + rng.uniform(15, 50)
        arrows = [Wanted(low, high, 2.0) for low in range(3) for high in range(6, 12)]
        for route, arrow in zip(
            routes(boxes, arrows, (0.0, 0.0, 600.0, 300.0)), arrows, strict=True
        ):
            others = [box for n, box in enumerate(boxes) if n not in (arrow.source, arrow.target)]
            assert not any(is_inside(point, box) for point in dense(route) for box in others)


def test_lines_break_at_blanks_and_what_is_left_over_is_cut_off():
    assert in_lines("one two three", 40.0, 7.0, width_of, 3) == ["one two", "three"]
    assert in_lines("one two three four", 27.0, 7.0, width_of, 2) == ["one two", "three…"]
    assert in_lines("a" * 30, 40.0, 7.0, width_of, 2) == [f"{'a' * 9}…"]
    assert in_lines("", 40.0, 7.0, width_of, 2) == [""]
