from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from circuits.naming import candidates
from circuits.tokens import (
    GEMMA_3_CHAT_OPENING,
    PromptError,
    context_only_positions,
    read_prompt,
)
from tests.tiny import toy_tokenizer
from tests.tokenizers_like import llama_like


def gemma_like(mark: str = "<start_of_turn>", bos: str | None = "<bos>"):
    """A tokenizer that has Gemma 3's opening under Gemma 3's ids, or another word for its mark."""
    vocabulary = {"<bos>": 2, mark: 105, "user": 2364, "\n": 107, "x": 9}
    backend = Tokenizer(models.WordLevel(vocabulary, "x"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos)


def test_a_missing_bos_is_added():
    assert read_prompt("fj", toy_tokenizer(bos=1)).ids == (1, 5, 9)


def test_a_bos_in_the_text_is_not_doubled():
    assert read_prompt("bfj", toy_tokenizer(bos=1)).ids == (1, 5, 9)


def test_a_tokenizer_without_bos_gets_none():
    prompt = read_prompt("fj", toy_tokenizer(bos=None))
    assert (prompt.ids, prompt.context_only) == ((5, 9), 0)


def test_a_bos_of_id_zero_counts():
    prompt = read_prompt("fj", toy_tokenizer(bos=0))
    assert (prompt.ids, prompt.context_only) == ((0, 5, 9), 1)
    assert read_prompt("afj", toy_tokenizer(bos=0)).ids == (0, 5, 9)


def test_one_string_per_position():
    prompt = read_prompt("fj", toy_tokenizer())
    assert (prompt.text, prompt.tokens, len(prompt)) == ("bfj", ("b", "f", "j"), 3)


def test_words_that_the_vocabulary_lacks_are_named():
    tokenizer = llama_like()
    tokenizer.unk_token = "<unk>"
    with pytest.raises(PromptError, match="does not know 'x', 'yz': use words"):
        read_prompt("a x Paris yz x", tokenizer)
    with pytest.raises(PromptError, match="does not know 'x'"):
        candidates("x", tokenizer)
    assert read_prompt("a <unk>", tokenizer).ids[-1] == 0


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_an_empty_prompt_is_refused(text: str):
    with pytest.raises(PromptError, match="The prompt is empty"):
        read_prompt(text, toy_tokenizer())


def test_chat_needs_a_template():
    with pytest.raises(PromptError, match="no chat template"):
        read_prompt("fj", toy_tokenizer(), chat=True)


def test_chat_applies_the_template():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = (
        "bc{{ messages[0]['content'] }}{% if add_generation_prompt %}d{% endif %}"
    )
    assert read_prompt("fj", tokenizer, chat=True).ids == (1, 2, 5, 9, 3)


def test_the_opening_of_a_gemma_3_chat_is_context_only():
    ids = [*GEMMA_3_CHAT_OPENING, 9, 10]
    assert context_only_positions(ids, gemma_like()) == 4


def test_the_same_ids_in_another_vocabulary_are_only_a_bos():
    ids = [*GEMMA_3_CHAT_OPENING, 9, 10]
    assert context_only_positions(ids, gemma_like(mark="the")) == 1
    assert context_only_positions(ids, gemma_like(mark="the", bos=None)) == 0


def test_a_broken_opening_is_only_a_bos():
    assert context_only_positions([2, 105, 2364, 9], gemma_like()) == 1
