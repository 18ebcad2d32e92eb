"""Files of figures: text that stays text, fonts, sizes, and the command that writes them."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import graphs
import headwater as hw
import viz
from graphs.core.graph import AttributionGraph
from graphs.groups.overview import graph_overview, overview
from headwater.outputs.kinds import Kind, kind_of
from tests.graph_oracles import make_graph
from tests.hostile_files import HOSTILE
from tests.test_cli import assert_refused, run
from tests.test_paper import DALLAS, random_overview
from viz.paper.formats import FigureError
from viz.text.chained import chains_sentence

FORMATS = ("svg", "pdf", "png")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def dallas() -> hw.Graph:
    return hw.trace(DALLAS)


@pytest.fixture(scope="module")
def saved(dallas: hw.Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dallas.save(tmp_path_factory.mktemp("paper") / "dallas.safetensors")


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def pdf_texts(data: bytes) -> list[str]:
    """The texts of a PDF: codes of two bytes, which its font maps to the same characters."""
    found: list[str] = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        try:
            plain = zlib.decompress(stream)
        except zlib.error:  # another kind of stream
            continue
        for text in re.findall(rb"BT(.*?)ET", plain, re.DOTALL):
            codes = b"".join(re.findall(rb"\(((?:[^()\\]|\\.)*)\)", text))
            found.append(codes.decode("utf-16-be", "replace"))
    return found


def png_size(data: bytes) -> tuple[int, int]:
    return struct.unpack(">II", data[16:24])


def test_text_of_an_svg_is_text(dallas: hw.Graph):
    svg = dallas.figure()._repr_svg_()
    shown = texts(svg)
    assert {"Texas", "say a capital", "say Austin", "Dallas", "Austin", "100%", "23%"} <= {*shown}
    assert "<image" not in svg
    assert " ".join(shown).count("carry 55% of") == 1
    assert "'Helvetica', 'Arial'" in svg
    assert svg.count("sans-serif") >= len(shown)


def test_a_pdf_has_its_fonts_and_its_text(dallas: hw.Graph, tmp_path: Path):
    dallas.figure(tmp_path / "a.pdf")
    data = (tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in data
    assert b"/Type3" not in data
    assert b"/ToUnicode" in data
    assert {"Texas", "say Austin", "Dallas", "23%"} <= {*pdf_texts(data)}


@pytest.mark.parametrize(("width", "millimetres"), [("column", 85), ("page", 174)])
def test_a_figure_is_as_wide_as_was_asked(
    dallas: hw.Graph, tmp_path: Path, width: str, millimetres: int
):
    for suffix in FORMATS:
        dallas.figure(tmp_path / f"a.{suffix}", width=width)
    across, up = png_size((tmp_path / "a.png").read_bytes())
    assert across == pytest.approx(millimetres / 25.4 * 300, abs=1)
    root = ElementTree.fromstring((tmp_path / "a.svg").read_text(encoding="utf-8"))
    points = float(root.get("width", "").removesuffix("pt"))
    assert points == pytest.approx(millimetres / 25.4 * 72, abs=0.01)
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", (tmp_path / "a.pdf").read_bytes())
    assert box is not None
    assert float(box[1]) == pytest.approx(points, abs=0.01)
    assert float(box[2]) == pytest.approx(up / 300 * 72, abs=0.3)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_graph_gives_the_same_bytes(dallas: hw.Graph, tmp_path: Path, suffix: str):
    for name in ("a", "b"):
        dallas.figure(tmp_path / f"{name}.{suffix}")
    one, other = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("a", "b"))
    assert one == other
    assert not re.search(rb"Date|20\d\d-\d\d", one)


@pytest.mark.parametrize("suffix", FORMATS)
def test_figures_are_known_by_their_content(dallas: hw.Graph, tmp_path: Path, suffix: str):
    dallas.figure(tmp_path / f"a.{suffix}", width="page")
    assert kind_of(tmp_path / f"a.{suffix}") == Kind.FIGURE


def test_what_lowers_is_dashed_and_ends_in_a_bar():
    names = ["token:1@1", "feature:0/1@1", "feature:0/2@2", "logit:3@2"]
    edges = {(names[0], names[1]): 1.0, (names[0], names[2]): 1.0}
    up = make_graph(names, {**edges, (names[1], names[3]): 1.0, (names[2], names[3]): 1.0})
    down = make_graph(names, {**edges, (names[1], names[3]): 1.0, (names[2], names[3]): -1.0})
    rows = {"one": np.array([1]), "other": np.array([2])}
    first, second = (
        viz.overview_figure(graph, overview(graph, rows))._repr_svg_() for graph in (up, down)
    )
    assert "stroke-dasharray" in second
    assert "#d55e00" in second
    assert "lowers" in texts(second)
    assert "#d55e00" not in first
    assert "lowers" not in texts(first)


def hostile(tokens: tuple[str, ...], text: str) -> AttributionGraph:
    """A graph with groups, a target and tokens of these texts."""
    names = [f"token:{n}@{n}" for n in range(len(tokens))]
    last = len(tokens) - 1
    features = [f"feature:{n}/1@{last}" for n in range(2)]
    edges = {(name, features[0]): 1.0 + n for n, name in enumerate(names)}
    edges |= {(features[0], features[1]): 1.0, (features[1], f"logit:5@{last}"): -1.0}
    graph = make_graph([*names, *features, f"logit:5@{last}"], edges, tokens=tokens)
    target = graph.provenance.targets[0].model_copy(update={"text": text})
    return replace(graph, provenance=graph.provenance.model_copy(update={"targets": (target,)}))


NAMES = (
    *(HOSTILE, "$x_1$", "a" * 300, " ".join("word" * 3 for _ in range(40)), "\udcff", "\n", "'"),
    *("<b>&amp;", "\u202eabc", "שלום עולם", "مرحبا", "", " ", "\\frac", "%s"),
)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_drawn(name: str, tmp_path: Path):
    graph = hostile(("<bos>", " the", name), name)
    feature = len(graph) - 3
    rows = {name or "x": np.array([feature]), f"{name} again": np.array([feature + 1])}
    figure = viz.overview_figure(graph, overview(graph, rows))
    for suffix in FORMATS:
        figure.write(tmp_path / f"a.{suffix}")
    assert len(texts((tmp_path / "a.svg").read_text(encoding="utf-8"))) > 5


def test_signs_that_no_font_has_are_told(tmp_path: Path):
    graph = hostile(("<bos>", " the", "東京"), "東京")
    figure = viz.overview_figure(graph, overview(graph, {}))
    assert "No font here has 京 東, which are empty boxes" in figure.write(tmp_path / "a.pdf")
    assert "in the SVG they are text" in figure.write(tmp_path / "a.svg")
    assert "東京" in texts((tmp_path / "a.svg").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("names", "edges"),
    [
        ([], {}),
        (["token:0@0"], {}),
        (["logit:0@0"], {}),
        (["token:0@0", "logit:0@0"], {("token:0@0", "logit:0@0"): 1.0}),
        (["bias:0", "error:0@0", "logit:0@0"], {("bias:0", "logit:0@0"): 1.0}),
        (["token:0@0", "feature:0/1@0"], {("token:0@0", "feature:0/1@0"): 1.0}),
    ],
    ids=["nothing", "a token", "a target", "no group", "only more", "no target"],
)
def test_small_graphs_can_be_drawn(
    names: list[str], edges: dict[tuple[str, str], float], tmp_path: Path
):
    graph = make_graph(names, edges, tokens=("a",))
    for width in ("column", "page"):
        for suffix in FORMATS:
            assert viz.paper_figure(graph, width=width).write(tmp_path / f"a.{suffix}") == ""


def test_the_sentence_names_chains_and_what_they_carry(dallas: hw.Graph):
    assert dallas.figure().caption[0] == (
        "Dallas → Texas → Austin and The → on capital → say a capital → Austin carry 55% of "
        "what reaches Austin."
    )
    _, shown = random_overview(3)
    one = replace(shown, chains=shown.chains[:1], carried=0.246)
    assert one.chains == () or chains_sentence(one).endswith(
        f"carries 25% of what reaches “{shown.boxes[one.chains[0][-1]].name}”"
    )
    assert chains_sentence(replace(shown, chains=())) == ""


def test_names_that_could_be_words_of_the_sentence_are_quoted(dallas: hw.Graph):
    shown = graph_overview(dallas)
    first, second, *_ = shown.chains
    ends = {first[0]: "sand, and soap", first[1]: "Austin − Dallas", second[-2]: "the"}
    boxes = [replace(b, name=ends.get(at, b.name)) for at, b in enumerate(shown.boxes)]
    sentence = chains_sentence(replace(shown, boxes=tuple(boxes)))
    assert sentence.startswith("“sand, and soap” → “Austin − Dallas” → Austin and The → ")
    assert " → “the” → Austin carry 55% of what reaches Austin" in sentence


def test_only_the_groups_that_are_named_are_drawn(dallas: hw.Graph):
    shown = texts(dallas.figure(groups=["Texas", "say Austin"])._repr_svg_())
    assert {"Texas", "say Austin"} <= {*shown}
    assert "say a capital" not in shown
    group = graphs.Group(name="mine, both", members=("feature:2/626@8", "feature:5/331@8"))
    own = hw.Graph.of(dallas, graphs.Annotations(groups=(group,)))
    assert "mine, both" in texts(own.figure(groups="mine, both")._repr_svg_())
    with pytest.raises(FigureError, match=r"There is no group .*nobody.*: the groups are .*Texas"):
        dallas.figure(groups=["nobody"])
    with pytest.raises(FigureError, match="as wide as a column or a page, got 'wide'"):
        dallas.figure(width="wide")


def test_the_command_writes_a_figure_and_its_caption(saved: Path, tmp_path: Path):
    done = run("figure", saved, "--out", str(tmp_path / "a.svg"), "--width", "page")
    assert done.exit_code == 0
    assert "carry 55% of what reaches Austin." in done.stdout
    assert done.stdout.splitlines()[-1] == f"figure: {tmp_path / 'a.svg'}"
    assert "Texas" in texts((tmp_path / "a.svg").read_text(encoding="utf-8"))
    few = run(
        *("figure", saved, "--out", str(tmp_path / "b.svg")),
        *("--groups", "Texas,say Austin", "--json"),
    )
    assert few.exit_code == 0
    assert "say a capital" not in texts((tmp_path / "b.svg").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.jpg"], "has none of the suffixes of figures: .svg, .pdf, .png"),
        (["--out", "a.svg", "--groups", "nobody"], "There is no group"),
        (["--out", "missing/a.svg"], "There is no folder"),
        (["--out", "other.svg"], "would overwrite"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_sentence(
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert_refused(run("figure", saved, *options), message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.svg"]


def test_names_that_run_to_the_left_do_not_turn_the_sentence(dallas: hw.Graph):
    graph = hostile(("<bos>", " the", "שלום"), "مرحبا")
    shown = overview(graph, {"x": np.array([len(graph) - 2])})
    sentence = chains_sentence(shown)
    assert "\u2068שלום\u2069 → “x” → \u2068مرحبا\u2069 carries" in sentence
    assert "\u2068" not in dallas.figure().caption[0]
