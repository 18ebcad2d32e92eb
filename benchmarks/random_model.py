"""Gemma 3 with random weights, in the shapes of the published sizes, or as thin as one wants.

A narrow model of the real number of layers asks for the same operations as the real one.
Source of the shapes: the configs of google/gemma-3-270m, 1b-pt, 4b-pt and 27b-pt.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt, prompt_from_ids
from circuits.model.subject import Subject
from graphs import ModelIdentity

COMMON = {"head_dim": 256, "query_pre_attn_scalar": 256, "vocab_size": 262144}
SHAPES: dict[str, dict[str, Any]] = {
    "270m": {
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "sliding_window": 512,
        "max_position_embeddings": 32768,
    },
    "1b": {
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "sliding_window": 512,
        "max_position_embeddings": 32768,
    },
    "4b": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "sliding_window": 1024,
        "max_position_embeddings": 131072,
    },
    "27b": {
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_hidden_layers": 62,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "query_pre_attn_scalar": 168,
        "sliding_window": 1024,
        "max_position_embeddings": 131072,
    },
}
NARROW = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "query_pre_attn_scalar": 16}


def random_subject(
    shape: str, *, narrow: bool = False, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Subject:
    """A model of this shape with random weights, made where it is used."""
    config = Gemma3TextConfig(**{**COMMON, **SHAPES[shape], **(NARROW if narrow else {})})
    with torch.device(device):
        model = Gemma3ForCausalLM(config)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.02 if parameter.dim() > 1 else 0.1  # of matrices, and of norms' gains less 1
            parameter.normal_(0.0, scale, generator=generator)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.eval().requires_grad_(False)
    identity = ModelIdentity(
        name=f"random {shape}", architecture=type(model).__name__, n_layers=config.num_hidden_layers
    )
    return Subject(FrozenModel(model), _tokenizer(config.vocab_size), identity)


def random_prompt(subject: Subject, length: int) -> Prompt:
    """BOS and random tokens."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(5, len(subject.frozen.unembedding), (length - 1,), generator=generator)
    return prompt_from_ids([2, *ids.tolist()], subject.tokenizer)


def _tokenizer(size: int) -> PreTrainedTokenizerFast:
    words = {f"w{number}": number for number in range(5, size)}
    first = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4}
    tokenizer = Tokenizer(models.WordLevel({**first, **words}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
