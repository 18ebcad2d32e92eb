"""`headwater hops`: steps of one graph that another skips, as a command and in Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import headwater as hw
from circuits.atlas.shipped import atlas_transcoders
from tests.test_cli import assert_refused, run

PROMPT = "The capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Graphs of the same prompt: the shipped transcoders' and the neurons'."""
    folder = tmp_path_factory.mktemp("hops")
    features = hw.trace(PROMPT, "atlas-small").prune()
    neurons = hw.trace(PROMPT, "atlas-small", features="neurons", max_features=256).prune()
    return neurons.save(folder / "neurons.safetensors"), features.save(folder / "clt.safetensors")


def test_both_directions_are_told_with_their_nulls(pair: tuple[Path, Path]):
    shown = run("hops", *pair, "--top", 1)
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert " ".join(lines[0].split()) == "two steps of skipped by skipped null lost judged"
    assert lines[1].startswith("MLP neurons")
    assert lines[2].startswith("atlas-small-clt")
    data = json.loads(run("hops", *pair, "--json").stdout)
    turned = json.loads(run("hops", *reversed(pair), "--json").stdout)
    for side, other in (("first", "second"), ("second", "first")):
        one = data[side]
        assert 0 <= one["absent"] <= one["skipped"] <= one["lost"] <= 1
        assert len(one["null"]) == 20
        assert one["skipped"] == pytest.approx(turned[other]["skipped"])
        hops = one["hops"]
        assert [hop["skipped"] for hop in hops] == sorted(
            (h["skipped"] for h in hops), reverse=True
        )
        assert all(hop["direct_there"] > hop["direct"] for hop in hops)
        assert all(hop["skipped"] <= hop["step"] for hop in hops)
        assert all(hop["measured"] is None for hop in hops)


def test_a_graph_skips_nothing_of_itself(pair: tuple[Path, Path]):
    same = json.loads(run("hops", pair[1], pair[1], "--json").stdout)
    assert same["first"]["skipped"] == same["second"]["skipped"] == same["first"]["lost"] == 0.0
    assert "none is skipped" in run("hops", pair[1], pair[1]).stdout


def test_steps_are_tested_in_the_model(pair: tuple[Path, Path]):
    found = hw.compare(*pair, permutations=0).hops(measure=True)
    assert found.measured is not None
    features = [
        (hop, one)
        for skips, measured in zip((found.first, found.second), found.measured, strict=True)
        for hop, one in zip(skips.hops, measured, strict=False)
        if one is not None
    ]
    assert features
    graph = found.pair[0] if found.measured[0] else found.pair[1]
    hop, one = features[0]
    edits = [hw.Scale(str(graph.nodes[hop.nodes[0]]), 0.0)]
    layer = int(graph.nodes.layer[hop.nodes[0]])
    alone = hw.intervene(graph, *edits, through=layer, most=500)
    by_name = {effect.node: effect.measured for effect in (*alone.targets, *alone.features)}
    assert one.effect == pytest.approx(by_name[str(graph.nodes[hop.nodes[2]])], rel=1e-3)
    assert "mediated" in str(found)
    assert repr(found).startswith("<Hops: the second graph skips ")


def test_what_cannot_be_judged_is_refused(pair: tuple[Path, Path], tmp_path: Path):
    other = hw.trace("The capital of the state containing Oakland is", "atlas-small")
    file = other.save(tmp_path / "oakland.safetensors")
    assert_refused(run("hops", pair[0], file), "two graphs of one prompt, got '<bos> The capital")
    assert_refused(run("hops", *pair, "--least", "1"), "--least must be from 0 to below 1, got 1.0")
    once = ("--measure", "--transcoders", atlas_transcoders("atlas-small"))
    assert_refused(run("hops", *pair, *once), "--transcoders twice or not at all, got it 1 times")
    with pytest.raises(hw.ArgumentError, match="transcoders are two, of either graph, got 1"):
        hw.compare(*pair, permutations=0).hops(transcoders=[None])
