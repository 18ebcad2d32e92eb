"""What benchmarks give to both sides of a comparison."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from training_step import BANDWIDTH, D_DICT, D_MODEL, N_LAYERS, Case, counted

from circuits.model.subject import Subject
from circuits.training.settings import Kind, Sparsity
from tests.conftest import cached_subject
from tests.graph_oracles import make_graph
from tests.test_words import EDGES, NAMES
from tests.tiny import toy_tokenizer

ROOT = Path(__file__).parent.parent


def test_both_sides_get_ids_that_begin_with_bos():
    from speed import prompt_of

    whole = cached_subject("llama")
    subject = Subject(whole.frozen, toy_tokenizer(adds_bos=False), whole.identity)
    prompt = prompt_of(6, subject)
    assert (prompt.ids[0], len(prompt), prompt.n_prefix) == (1, 6, 1)


def test_a_graph_of_other_tokens_is_not_compared(tmp_path: Path):
    from agreement import read_circuit_tracer

    graph = make_graph(NAMES, EDGES)
    ids = graph.provenance.token_ids
    torch.save({"ids": [1, *ids]}, tmp_path / "graph.pt")
    with pytest.raises(ValueError, match=re.escape(f"is of tokens {[1, *ids]}, not {ids}")):
        read_circuit_tracer(tmp_path / "graph.pt", graph)


def test_a_counted_step_waits_for_nothing_and_its_optimizer_passes_nine_times_over_parameters():
    """It reads gradients for their norm, then four numbers per parameter, and writes four."""
    step = counted(Case(Kind.PER_LAYER, Sparsity.TOP_K, 2048), 1)
    assert step.waits == 0
    encoder = N_LAYERS * D_DICT * D_MODEL
    assert step.flops[torch.bfloat16] == 2 * encoder * 2048
    expected = 9 * 4 * 2 * encoder / BANDWIDTH  # biases are a thousandth
    assert step.parts["optimiser"] == pytest.approx(expected, rel=0.01)
    assert step.peak > 4 * 4 * 2 * encoder


def test_what_is_said_of_the_speed_of_a_page_is_what_was_measured():
    measured = (ROOT / "benchmarks" / "results" / "viewer.md").read_text(encoding="utf-8")
    lines = [line.strip("| ").split(" | ") for line in measured.splitlines() if "|" in line]
    rows = {(line[0], line[1]): dict(zip(lines[0], line, strict=True)) for line in lines[2:]}
    first, large = rows["Dallas, atlas-large", "799"], rows["random", "2,000"]
    said = " ".join((ROOT / "docs" / "reading.md").read_text(encoding="utf-8").split())
    shown, zooms = (int(first[name]) / 1000 for name in ("first picture", "zoom ready"))
    assert (
        f"{first['page']}, shows its graph after {shown:.1f} s and zooms after {zooms:.1f} s"
        in said
    )
    clicks, steps = int(large["click"]), int(large["slider step"])
    assert f"a click in {clicks} ms and a step of a slider in {steps} ms" in said
