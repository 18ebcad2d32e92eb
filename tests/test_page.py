"""The page is one sound HTML file that needs nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from graphs.core.annotations import NO_ANNOTATIONS
from graphs.core.graph import AttributionGraph
from graphs.disk.files import GraphFileError
from tests.graph_oracles import make_graph
from tests.test_figure import EDGES, HOSTILE, LOGIT, NAMES, hostile_graph
from viz.html.columns import as_bytes, columns, from_bytes
from viz.html.packed import packed, unpacked
from viz.page import page
from viz.page.engine import engine_part, in_ascii, parsed_once, without_charts
from viz.page.page import write_page


class Reader(HTMLParser):
    """Tags in order, texts of table cells by row, title."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.title = ""
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self.inside = tag
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in ("td", "th"):
            self.rows[-1][-1] += data
        elif self.inside == "title":
            self.title += data


def read(graph: AttributionGraph) -> Reader:
    reader = Reader()
    reader.feed(page_text(graph))
    return reader


def page_text(graph: AttributionGraph) -> str:
    return page.page_text([(graph, NO_ANNOTATIONS)])


def own_text(graph: AttributionGraph) -> str:
    """The page with its scripts and data unpacked, without plotly's script."""
    text = page_text(graph)
    scripts = unpacked(text, "viewer").decode()
    data, _, _ = unpacked(text, "data").partition(b"\0")
    return re.sub(r'<script type="text/plain".*?</script>', "", text) + scripts + data.decode()


def test_the_page_has_what_browsers_need_to_know():
    text = page_text(make_graph(NAMES, EDGES))
    assert text.startswith('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">')
    assert text.index("Content-Security-Policy") < text.index("<script")
    assert (
        read(make_graph(NAMES, EDGES)).title
        == "“\u2068<bos> the cat\u2069” → \u2068t0\u2069 100.0%"
    )


def test_the_page_refers_to_nothing_outside():
    text = own_text(hostile_graph()).replace("http://www.w3.org/2000/svg", "")  # a name only
    for reference in ("http:", "https:", "src=", "@import", "url(", "<iframe", "<link rel=style"):
        assert reference not in text
    assert re.findall(r'href="([^"]*)"', text) == ["data:,", "#plots", "#panel"]
    assert text.count("showSendToCloud: false") == text.count("plotly.newPlot(") == 2
    assert "default-src 'none'" in text


def test_no_token_becomes_html():
    harmless = make_graph(NAMES, EDGES)
    scripts, hostile = read(harmless).tags.count("script"), read(hostile_graph())
    assert hostile.tags.count("script") == scripts
    assert "b" not in hostile.tags
    text = page_text(hostile_graph())
    assert text.count("</script>") == scripts
    for raw in ("<b>x", "<br><b>", "\u202e", "\udc80"):
        assert raw not in text
    assert {"\u202e", "\udc80"}.isdisjoint(own_text(hostile_graph()))  # shown as escapes
    assert "</script><b>" in hostile.title


def test_the_table_holds_labels_tokens_and_numbers_of_the_strongest_nodes():
    graph = make_graph(NAMES, EDGES, output_tokens={1: (" up", "\n")})
    graph.nodes.activation[1] = 0.5
    heads, *rows = read(graph).rows
    plain = [[cell.translate({0x2068: "", 0x2069: ""}) for cell in row] for row in rows]
    assert heads == ["node", "label", "token", "influence", "activation"]
    assert plain == [
        [LOGIT, "“t0” 100.0%", "“ cat” at 2", "", ""],
        [NAMES[0], "“<bos>”", "“<bos>” at 0", "75.0%", ""],
        [NAMES[1], "say up", "“<bos>” at 0", "75.0%", "0.5"],
        [NAMES[2], "no label", "“ the” at 1", "25.0%", ""],
    ]


def test_the_table_ends_after_fifty_nodes():
    names = [f"feature:0/{i}@0" for i in range(80)]
    graph = make_graph([*names, LOGIT], {(name, LOGIT): 1.0 for name in names})
    assert len(read(graph).rows) == 51
    assert "the 50 most influential of 81 nodes" in own_text(graph)


def test_hostile_tokens_can_be_read_in_the_table():
    cells = [cell for row in read(hostile_graph()).rows for cell in row]
    for shown in ("</script>", "<b>x</b>", "⏎", "''", r"\udc80", "&amp;", "$x$", "%{x}"):
        assert f"“\u2068{shown}\u2069”" in cells
    assert len(cells) == 5 * (2 * len(HOSTILE) + 2)


def test_the_same_graph_gives_the_same_page(tmp_path: Path):
    for name in ("a.html", "b.html"):
        write_page(hostile_graph(), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == page_text(hostile_graph())


@pytest.mark.parametrize("names", [[LOGIT], ["token:4@0", LOGIT], []])
def test_graphs_without_features_have_a_page(names: list[str]):
    edges = {(names[0], names[1]): -1.0} if len(names) > 1 else {}
    assert len(read(make_graph(names, edges)).rows) == 1 + len(names)


def test_a_page_that_cannot_be_written_is_refused_in_one_sentence(tmp_path: Path):
    graph = make_graph(NAMES, EDGES)
    for path in (tmp_path / "none" / "a.html", tmp_path):
        with pytest.raises(GraphFileError, match=rf"^Cannot write {re.escape(str(path))}: .*\.$"):
            write_page(graph, path)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.html"
    path.write_text("old")

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(GraphFileError, match="No space left"):
        write_page(make_graph(NAMES, EDGES), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_columns_come_back_as_they_were():
    rng = np.random.default_rng(0)
    arrays = {
        dtype: (100 * rng.standard_normal(size)).astype(dtype)
        for dtype, size in (("<f8", 7), ("<f4", 0), ("<i4", 3), ("<u2", 5), (">f8", 4), ("u1", 2))
    }
    data = {"a": [1, {"deep": columns(**arrays)}], "words": ["f32", "u8", "x"], "none": None}
    back = from_bytes(as_bytes(data))
    assert back["words"] == data["words"]
    assert (back["a"][0], back["none"]) == (1, None)
    for dtype, array in arrays.items():
        np.testing.assert_array_equal(back["a"][1]["deep"][dtype], array)
    with pytest.raises(ValueError, match="Column x is int64: expected"):
        columns(x=np.arange(3))
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_bytes({"x": float("nan")})


def test_parts_of_a_page_come_back_and_escape_nothing():
    content = bytes(range(256)) * 5 + b"</script>"
    for length in range(len(content) - 5, len(content) + 1):
        text = packed("part", content[:length])
        assert unpacked(f"<p>{text}<script>x</script>", "part") == content[:length]
        assert not set("<>&'\"\\") & set(text.removesuffix("</script>").partition(">")[2])
    with pytest.raises(ValueError, match="no part 'other'"):
        unpacked("<p>", "other")


def test_plotly_is_used_without_charts_that_the_page_does_not_draw():
    whole = get_plotlyjs()
    used = unpacked(engine_part(), "plotly").decode()
    assert len(used) < len(whole) - 400_000
    assert used.count(".register([])") == whole.count(".register([])") + 1
    assert used.isascii()
    assert in_ascii("/[µ\U0001f600]/; 'a'") == r"/[\u00b5\ud83d\ude00]/; 'a'"
    for unknown in ("var Plotly = {};", whole + whole):
        assert without_charts(unknown) == unknown


def test_the_function_that_is_plotly_is_in_parentheses_so_that_it_is_parsed_once():
    used = unpacked(engine_part(), "plotly").decode()
    assert used.count("? self : this, (() => {\n") == 1
    assert used.endswith("return Plotly;\n})));")
    assert parsed_once("var Plotly = {};") == "var Plotly = {};"
