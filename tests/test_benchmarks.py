"""What benchmarks give to both sides of a comparison."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from circuits.model.subject import Subject
from tests.conftest import cached_subject
from tests.graph_oracles import make_graph
from tests.test_words import EDGES, NAMES
from tests.tiny import toy_tokenizer


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
