"""Texts of tokens: the bytes of pieces of characters, and the way back."""

from __future__ import annotations

from collections import defaultdict

import pytest
from transformers import PreTrainedTokenizerBase

from circuits.model.loading import load_tokenizer
from circuits.model.prompt import read_prompt
from circuits.model.spelling import entries, spell, speller, vocabulary_digest
from tests.tiny import toy_tokenizer
from tests.tokenizers_like import byte_fallback, byte_level, llama_like


def test_a_leading_space_is_part_of_a_token():
    tokenizer = llama_like()
    assert tokenizer.decode([3]) == "Paris"
    assert [spell(token, tokenizer) for token in (3, 4, 5)] == [" Paris", "Paris", " "]
    assert read_prompt("a Paris", tokenizer).tokens == (" a", " Paris")


def test_pieces_of_characters_are_written_as_their_bytes():
    tokens = read_prompt("é 🇫🇷", byte_level()).tokens
    pieces = [f"<0x{byte:02X}>" for byte in "é 🇫🇷".encode()]
    # U+1F1EB and U+1F1F7: the first two bytes of both are one token, with the space or without.
    assert pieces[3:5] == pieces[7:9] == ["<0xF0>", "<0x9F>"]
    expected = [*pieces[:2], " <0xF0><0x9F>", *pieces[5:7], "<0xF0><0x9F>", *pieces[9:]]
    assert list(tokens) == expected


def test_every_byte_has_a_text_of_its_own():
    tokenizer = byte_level()
    texts = [spell(token, tokenizer) for token in range(256)]
    assert len(set(texts)) == 256
    letters = {chr(byte) for byte in range(128)}
    assert {text for text in texts if len(text) == 1} == letters
    assert {text for text in texts if len(text) > 1} == {f"<0x{b:02X}>" for b in range(128, 256)}


def test_bytes_that_are_a_character_read_as_it():
    tokenizer = byte_fallback()
    assert [spell(token, tokenizer) for token in (2, 3, 4, 6)] == ["\n", "\n", "<0xF0>", " b"]
    assert entries("\n", tokenizer) == (2, 3)
    assert entries("<0xF0>", tokenizer) == (4,)
    assert entries("c", tokenizer) == ()


def test_the_mark_of_other_programs_stands_for_all_pieces():
    tokenizer = byte_level()
    assert len(entries("\ufffd", tokenizer)) == 129  # 128 bytes, and the two that are one token
    assert entries(" \ufffd", tokenizer) == (257,)


@pytest.mark.real_model
@pytest.mark.parametrize("name", ["atlas-large", "smollm2-135m", "gemma-3-270m"])
def test_entries_of_a_text_are_those_that_a_search_of_all_finds(name: str):
    tokenizer = load_tokenizer(name)
    text_of, found = speller(tokenizer), defaultdict[str, list[int]](list)
    for token in range(len(tokenizer)):
        found[text_of(token)].append(token)
    several = [text for text, tokens in found.items() if len(tokens) > 1]
    assert (len(several) > 100) == (name == "gemma-3-270m")
    for text in [*several, *list(found)[:: max(1, len(found) // 300)]]:
        if "\ufffd" not in text:
            assert list(entries(text, tokenizer)) == found[text]


def test_a_vocabulary_is_named_by_what_its_ids_are():
    def digest(tokenizer: PreTrainedTokenizerBase) -> str:
        return vocabulary_digest(tokenizer)

    assert digest(toy_tokenizer()) == digest(toy_tokenizer(bos=None, eos=2))
    assert digest(toy_tokenizer()) != digest(byte_level())
    swapped = byte_fallback()
    swapped.add_tokens(["new"])
    assert digest(swapped) != digest(byte_fallback())
