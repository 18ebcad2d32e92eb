"""Which token a person means, by a text or by an id."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import graphs
from circuits.attribution.target_names import candidates, named_token
from circuits.model.prompt import PromptError, TargetError, read_prompt
from circuits.model.subject import Subject, read_subject
from tests.test_cli import assert_refused, run
from tests.tiny import GROUPED, toy_tokenizer
from tests.tokenizers_like import byte_fallback, byte_level, llama_like

PROMPT = "flags 🇫🇷"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of bytes, which is sure of what follows: pieces of characters."""
    torch.manual_seed(5)
    tokenizer, path = byte_level(), tmp_path_factory.mktemp("bytes") / "model"
    model = LlamaForCausalLM(LlamaConfig(**{**GROUPED, "vocab_size": len(tokenizer)}))
    with torch.no_grad():
        model.lm_head.weight.mul_(60)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def subject(folder: Path) -> Subject:
    return read_subject(str(folder))


def by_probability(subject: Subject) -> list[int]:
    """All ids, from a plain pass of the model."""
    ids = torch.tensor([subject.tokenizer(PROMPT).input_ids])
    with torch.no_grad():
        logits = subject.frozen.model(ids).logits[0, -1]
    return logits.argsort(descending=True).tolist()


def pieces(subject: Subject) -> list[int]:
    """Tokens that other programs write as �, the most probable first."""
    decoded = subject.tokenizer.decode
    return [token for token in by_probability(subject) if decoded([token]) == "\ufffd"]


def test_one_token_is_a_target():
    assert candidates("f", toy_tokenizer()) == (5,)
    assert candidates(" Paris", llama_like()) == (3,)
    assert candidates("id:7365", toy_tokenizer()) == (7365,)


def test_a_target_without_its_space_is_the_token_that_its_text_begins_with():
    assert candidates("Paris", llama_like()) == (3,)


def test_a_target_of_several_tokens_is_refused_with_its_tokens():
    with pytest.raises(TargetError, match=r"'fj' is 2 tokens \('f', 'j'\).* as in id:7365"):
        candidates("fj", toy_tokenizer())


def test_all_tokens_of_one_text_are_meant():
    assert candidates("\n", byte_fallback()) == (2, 3)
    assert candidates("<0x9F>", byte_fallback()) == (5,)


def test_of_tokens_written_alike_the_most_probable_is_named_and_all_are_listed(subject: Subject):
    prompt = read_prompt(PROMPT, subject.tokenizer)
    named, expected = named_token("\ufffd", subject, prompt), pieces(subject)
    assert len(expected) == 129
    assert named.token == expected[0]
    assert "the text of 129 tokens" in named.remark
    places = [named.remark.index(f"id:{token} (") for token in expected[:5]]
    assert places == sorted(places)
    assert "and 124 more; choose another by its id." in named.remark
    spelled = subject.spell(expected[3])
    assert named_token(spelled, subject, prompt) == (expected[3], "")
    with pytest.raises(PromptError, match="no position 99"):
        named_token("\ufffd", subject, prompt, 99)


def test_trace_explains_the_most_probable_and_says_so(folder: Path, subject: Subject):
    best, second = pieces(subject)[:2]
    few = ("trace", PROMPT, "--model", folder, "--max-features", 3, "--json")
    result = run(*few, "--target", "\ufffd")
    assert result.exit_code == 0, result.output
    [target] = json.loads(result.stdout)["targets"]
    assert target["node"].startswith(f"logit:{best}@")
    assert f"id:{best} (" in result.stderr
    assert result.stderr.count("\n") == 1
    result = run(*few, "--target", f"id:{second}", "--against", f"id:{best}")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert_refused(run(*few, "--target", "id:9999"), "not in the vocabulary of 258 tokens")


def test_show_tells_targets_of_one_text_apart(folder: Path, subject: Subject, tmp_path: Path):
    # As files of the first schema have them: every piece is written in the same way.
    best, second = pieces(subject)[:2]
    out = tmp_path / "graph.safetensors"
    both = ("--target", f"id:{second}", "--target", f"id:{best}")
    traced = run("trace", PROMPT, "--model", folder, "--max-features", 9, *both, "--out", out)
    assert traced.exit_code == 0, traced.output
    graph = graphs.read_graph(out)
    targets = [one.model_copy(update={"text": "\ufffd"}) for one in graph.provenance.targets]
    header = graph.provenance.model_copy(update={"targets": tuple(targets)})
    graphs.write_graph(replace(graph, provenance=header), out)
    chosen = run("show", out, "--why", "\ufffd", "--json")
    named = [run("show", out, "--why", f"id:{token}", "--json") for token in (best, second)]
    told = [json.loads(result.stdout)["helping"] for result in (chosen, *named)]
    assert told[0] == told[1] != told[2]
    assert f"id:{best} (" in chosen.stderr
    assert f"id:{second} (" in chosen.stderr
    assert named[0].stderr == ""
    assert_refused(run("show", out, "--why", "id:3"), "has no target 'id:3'")
