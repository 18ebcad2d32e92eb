"""The atlas tokenizer: one token per word, name, digit or symbol."""

from __future__ import annotations

import re

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from atlas_world import vocabulary

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
SYMBOLS = "+=.,?:"


def atlas_tokenizer() -> PreTrainedTokenizerFast:
    """Names of several words are one token, unknown words become <unk>, and <bos> goes in front."""
    words = [*SPECIAL, *vocabulary()]
    names = sorted((word for word in words if " " in word), key=len, reverse=True)
    pattern = "|".join(
        [
            *(f"{re.escape(name)}(?![^\\s{SYMBOLS}])" for name in names),
            f"[0-9{SYMBOLS}]",
            f"[^\\s0-9{SYMBOLS}]+",
        ]
    )
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", words.index("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
