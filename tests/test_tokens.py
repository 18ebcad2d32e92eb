from __future__ import annotations

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from circuits.tokens import (
    GEMMA_3_CHAT_OPENING,
    PromptError,
    TargetError,
    context_only_positions,
    read_prompt,
    single_token,
    spell,
)
from tests.tiny import toy_tokenizer


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


def llama_like() -> PreTrainedTokenizerFast:
    """SentencePiece manners: a space goes before the first word, and a text's first is dropped."""
    pieces = ["<unk>", "▁a", "a", "▁Paris", "Paris", "▁", "b"]
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_a_leading_space_is_part_of_a_token():
    tokenizer = llama_like()
    assert tokenizer.decode([3]) == "Paris"
    assert [spell(token, tokenizer) for token in (3, 4, 5)] == [" Paris", "Paris", " "]
    assert read_prompt("a Paris", tokenizer).tokens == (" a", " Paris")
    assert single_token(" Paris", tokenizer) == 3


def test_a_target_without_its_space_is_the_token_that_its_text_begins_with():
    assert single_token("Paris", llama_like()) == 3


def test_words_that_the_vocabulary_lacks_are_named():
    tokenizer = llama_like()
    tokenizer.unk_token = "<unk>"
    with pytest.raises(PromptError, match="does not know 'x', 'yz': use words"):
        read_prompt("a x Paris yz x", tokenizer)
    with pytest.raises(PromptError, match="does not know 'x'"):
        single_token("x", tokenizer)
    assert read_prompt("a <unk>", tokenizer).ids[-1] == 0


def spaced(*words: str) -> PreTrainedTokenizerFast:
    """These words and no others; what stands between words is no token unless it is such a word."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    between = "removed" if " " not in words else "isolated"
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), between)
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>")


WITH_SPACE, WITHOUT = ("<unk>", "<s>", "a", " ", "\n"), ("<unk>", "<s>", "a")


@pytest.mark.parametrize("text", [" ", "\n", "\n \n"])
@pytest.mark.parametrize("chat", [False, True])
def test_whether_a_prompt_is_empty_its_tokens_say(text: str, chat: bool):
    ids = {" ": 3, "\n": 4}
    tokenizer = spaced(*WITH_SPACE)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    read = read_prompt(text, tokenizer, chat=chat)
    assert read.ids == (1, *(ids[sign] for sign in text))
    assert read.tokens[1:] == tuple(text)
    tokenizer = spaced(*WITHOUT)
    tokenizer.chat_template = "{{ messages[0]['content'] }} a"
    with pytest.raises(
        PromptError, match=r"The prompt '.*' has no tokens: give a text of at least"
    ):
        read_prompt(text, tokenizer, chat=chat)


def test_a_prompt_of_nothing_is_refused_in_few_words():
    for text, tokenizer in (("", toy_tokenizer()), (" " * 10**5, spaced(*WITHOUT))):
        with pytest.raises(PromptError, match="has no tokens") as caught:
            read_prompt(text, tokenizer)
        assert len(str(caught.value)) < 100


def test_a_space_that_the_vocabulary_lacks_is_shown():
    with pytest.raises(PromptError, match=r"vocabulary does not know '\\t': use words"):
        read_prompt("a\ta", spaced("<unk>", "<s>", "a", " "))


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


def test_one_token_is_a_target():
    assert single_token("f", toy_tokenizer()) == 5


def test_a_target_of_several_tokens_is_refused_with_its_tokens():
    with pytest.raises(TargetError, match=r"'fj' is 2 tokens \('f', 'j'\)"):
        single_token("fj", toy_tokenizer())
