"""Toy tokenizers with the manners of real ones."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def llama_like() -> PreTrainedTokenizerFast:
    """SentencePiece manners: a space goes before the first word, and a text's first is dropped."""
    pieces = ["<unk>", "▁a", "a", "▁Paris", "Paris", "▁", "b"]
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def byte_level() -> PreTrainedTokenizerFast:
    """GPT-2's manners: a token for each byte, in the order of their letters, and no BOS.

    The letter of a byte is itself where it is printed; a space is Ġ, and the first two bytes of an
    emoji behind a space are one token, as on SmolLM2.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["ðŁ", "ĠðŁ"]
    vocabulary = {token: i for i, token in enumerate([*letters, *merged])}
    backend = Tokenizer(models.BPE(vocabulary, [("ð", "Ł"), ("Ġ", "ðŁ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


def byte_fallback() -> PreTrainedTokenizerFast:
    """Gemma's manners: a newline is a token, and byte 10 is another of the same text."""
    pieces = ["<unk>", "a", "\n", "<0x0A>", "<0xF0>", "<0x9F>", "▁b"]
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
