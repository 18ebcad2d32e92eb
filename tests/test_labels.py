"""Texts beside markers are where they can be read, or nowhere."""

from __future__ import annotations

import numpy as np

from viz.plot.labels import Label, Marker, highest, is_free, labels_above, labels_beside, text_width

AREA = (0.0, 0.0, 1000.0, 600.0)


def box(label: Label) -> tuple[float, float, float, float]:
    half = text_width(label.text) / 2
    return (label.x - half, label.y - 6, label.x + half, label.y + 6)


def random_markers(count: int) -> tuple[list[Marker], np.ndarray]:
    rng = np.random.default_rng(0)
    rows = rng.uniform((0, 0, 2), (1000, 600, 9), (count, 3)).tolist()
    markers = [Marker(*row) for row in rows]
    boxes = [(m.x - m.radius, m.y - m.radius, m.x + m.radius, m.y + m.radius) for m in markers]
    return markers, np.array(boxes)


def test_texts_beside_cover_no_marker_and_no_text():
    markers, boxes = random_markers(150)
    labels = labels_beside([(m, f"word {i}") for i, m in enumerate(markers)], boxes, AREA)
    assert 20 < len(labels) < 150
    for number, label in enumerate(labels):
        others = [box(other) for other in labels[:number]]
        assert is_free(box(label), np.array([*boxes.tolist(), *others]), AREA)
        marker = markers[int(label.text.split()[1])]
        assert abs(label.x - marker.x) <= marker.radius + text_width(label.text)
        assert abs(label.y - marker.y) <= marker.radius + 12


def test_the_first_text_has_the_first_choice():
    marker = Marker(500.0, 300.0, 5.0)
    boxes = np.array([[495.0, 295.0, 505.0, 305.0]])
    first, second = labels_beside([(marker, "a"), (marker, "b")], boxes, AREA)
    assert (first.text, first.x) == ("a", 500.0)
    assert first.y > 305
    assert (second.text, second.y) == ("b", 300.0)


def test_a_single_text_above_is_level_and_stays_in_the_area():
    (label,) = labels_above([(Marker(999.0, 300.0, 5.0), "a long text")], AREA)
    assert label.angle == 0
    assert box(label)[2] <= AREA[2]
    assert label.y > 305
    assert highest([label]) > label.y


def test_texts_above_get_steeper_as_they_get_closer():
    def angle(gap: float) -> float:
        return labels_above([(Marker(gap * i, 0.0, 3.0), "a") for i in range(4)], AREA)[0].angle

    assert angle(100.0) < angle(14.0) < angle(12.0) <= 75


def test_of_texts_above_that_would_touch_the_first_stays():
    markers = [Marker(x, 0.0, 2.0) for x in (20.0, 11.0, 2.0, 40.0)]
    labels = labels_above(list(zip(markers, "abcd", strict=True)), AREA)
    assert [label.text for label in labels] == ["a", "c", "d"]


def test_the_highest_text_ends_below_the_height_it_needs():
    assert highest([]) == 0
    slanted = Label("a" * 20, 0.0, 100.0, 45.0)
    assert highest([slanted]) > 100 + 0.7 * text_width("a" * 20) / 2


def test_wide_letters_count_as_wide_and_marks_as_nothing():
    assert text_width("東京") > text_width("abc")
    assert text_width("a\u0301\u2068") == text_width("a")
