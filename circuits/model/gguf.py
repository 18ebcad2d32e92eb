"""GGUF files converted to an ordinary transformers folder: config, float32 weights, tokenizer.

A GGUF file holds metadata (sizes, the whole tokenizer) and quantised tensors under names of its
own.  Two of its conventions change weights; both are undone here:

    Gemma norms:    file = 1 + w         so  w = file - 1
    Llama q and k:  rows of each head are interleaved for another form of the rotary embedding

transformers reads GGUF too, but requires `accelerate`, and its tokenizers differ from the models'
own in long runs of spaces (Gemma) and in spaces before digits (SmolLM2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from graphs.errors import HeadwaterError

Metadata = Mapping[str, Any]

# Token types of the GGUF specification.
CONTROL, USER_DEFINED = 3, 4
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece vocabularies write a space

# GGUF name -> transformers name, without "blk.N." / "model.layers.N." and ".weight".
_SHARED = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NAMES = {
    "llama": _SHARED | {"ffn_norm": "post_attention_layernorm"},
    "gemma3": _SHARED
    | {
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
_OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


class GgufError(HeadwaterError):
    """A GGUF file that cannot be converted."""


def convert(source: Path, folder: Path) -> None:
    """Write the model in the GGUF file `source` into `folder` as save_pretrained would.

    Raises GgufError for an architecture, tokenizer or tensor that is not supported.
    """
    from gguf import GGUFReader  # of the extra `models`, so not needed for other models

    reader = GGUFReader(source)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    config = config_from(metadata, tied=tied)
    config.save_pretrained(folder)
    weights = dict(_weights(reader.tensors, metadata))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer_from(metadata).save_pretrained(folder)


def config_from(metadata: Metadata, *, tied: bool) -> PreTrainedConfig:
    """transformers' configuration of the model that the GGUF metadata describes."""
    kind = _architecture(metadata)
    sizes = {name.removeprefix(kind + "."): value for name, value in metadata.items()}
    heads = sizes["attention.head_count"]
    head_dim = sizes.get("attention.key_length", sizes["embedding_length"] // heads)
    shared = {
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": sizes["embedding_length"],
        "intermediate_size": sizes["feed_forward_length"],
        "num_hidden_layers": sizes["block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": sizes["attention.head_count_kv"],
        "head_dim": head_dim,
        "max_position_embeddings": sizes["context_length"],
        "rms_norm_eps": _decimal(sizes["attention.layer_norm_rms_epsilon"]),
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
        "tie_word_embeddings": tied,
        "dtype": "float32",
    }
    rope = {"rope_type": "default", "rope_theta": sizes["rope.freq_base"]}
    if kind == "llama":
        return LlamaConfig(**shared, rope_parameters=rope, architectures=["LlamaForCausalLM"])
    # GGUF files of Gemma 3 leave out what is the same in all sizes but 27B: every sixth layer has
    # full attention, the others a sliding window and rotary base 10 000.
    return Gemma3TextConfig(
        **shared,
        sliding_window=sizes["attention.sliding_window"],
        query_pre_attn_scalar=head_dim,
        rope_parameters={
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        architectures=["Gemma3ForCausalLM"],
    )


def tokenizer_from(metadata: Metadata) -> PreTrainedTokenizerBase:
    """The model's own tokenizer, rebuilt from the tokens in the GGUF metadata."""
    tokens: Sequence[str] = metadata["tokenizer.ggml.tokens"]
    model = metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre")
    if model == ("llama", "default"):
        tokenizer = _scored_tokenizer(tokens, metadata)
    elif model == ("gpt2", "smollm"):
        tokenizer = _byte_level_tokenizer(tokens, metadata["tokenizer.ggml.merges"])
    else:
        raise GgufError(
            f"Expected a tokenizer llama/default or gpt2/smollm in the GGUF file, "
            f"got {'/'.join(map(str, model))}; give a transformers folder of this model."
        )
    _add_tokens(tokenizer, tokens, metadata["tokenizer.ggml.token_type"])
    named = {
        f"{short}_token": tokens[int(metadata[key])]
        for short, key in (
            ("bos", "tokenizer.ggml.bos_token_id"),
            ("eos", "tokenizer.ggml.eos_token_id"),
            ("unk", "tokenizer.ggml.unknown_token_id"),
            ("pad", "tokenizer.ggml.padding_token_id"),
        )
        if key in metadata
    }
    # Default where the file does not specify it: BOS in front for scored vocabularies only.
    adds_bos = metadata.get("tokenizer.ggml.add_bos_token", model[0] == "llama")
    if adds_bos and "bos_token" in named:
        tokenizer.post_processor = _bos_in_front(tokenizer, named["bos_token"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        model_max_length=metadata[f"{_architecture(metadata)}.context_length"],
        **named,
    )


def _scored_tokenizer(tokens: Sequence[str], metadata: Metadata) -> Tokenizer:
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        raise GgufError(
            "Expected a scored vocabulary without a space prefix (as in Gemma), got one with it; "
            "give a transformers folder of this model."
        )
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        BPE(
            vocabulary,
            _merges(vocabulary, metadata["tokenizer.ggml.scores"]),
            unk_token=tokens[int(metadata["tokenizer.ggml.unknown_token_id"])],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def _merges(vocabulary: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every merge of two tokens into a token, best score first, then by the parts' ids."""
    ranked = sorted(
        (-scores[index], vocabulary[left], vocabulary[right], left, right)
        for token, index in vocabulary.items()
        for left, right in ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        if left in vocabulary and right in vocabulary
    )
    return [(left, right) for *_, left, right in ranked]


def _byte_level_tokenizer(tokens: Sequence[str], merges: Sequence[str]) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    # Neither part of a merge contains a space: byte-level tokens write it as another character.
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    tokenizer = Tokenizer(BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    kinds = list(zip(tokens, types, strict=True))
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token, kind in kinds if kind == CONTROL]
    )
    # A run of spaces exists only after the normaliser has rewritten the spaces.
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=SPACE in token)
            for token, kind in kinds
            if kind == USER_DEFINED
        ]
    )


def _bos_in_front(tokenizer: Tokenizer, bos: str) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos}:1 $B:1",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )


def _weights(tensors: Sequence[Any], metadata: Metadata) -> Iterator[tuple[str, np.ndarray]]:
    from gguf import dequantize

    kind = _architecture(metadata)
    heads = {
        "attn_q": metadata[f"{kind}.attention.head_count"],
        "attn_k": metadata[f"{kind}.attention.head_count_kv"],
    }
    for tensor in tensors:
        weight = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        part = tensor.name.split(".")[-2]
        if kind == "gemma3" and part.endswith("norm"):
            weight = weight - 1
        if kind == "llama" and part in heads:
            weight = _rows_by_half(weight, heads[part])
        yield _transformers_name(tensor.name, kind), np.ascontiguousarray(weight)


def _rows_by_half(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from pairs (0, half, 1, half + 1, ...) back to halves (0, 1, ...)."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _transformers_name(name: str, kind: str) -> str:
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    match name.split("."):
        case ["blk", layer, part, "weight"] if part in _LAYER_NAMES[kind]:
            return f"model.layers.{layer}.{_LAYER_NAMES[kind][part]}.weight"
    raise GgufError(
        f"Expected a tensor of a {kind} model in the GGUF file, got {name!r}; "
        "give a transformers folder of this model."
    )


def _architecture(metadata: Metadata) -> str:
    kind = metadata["general.architecture"]
    if kind not in _LAYER_NAMES:
        raise GgufError(
            f"Expected a GGUF file of {' or '.join(sorted(_LAYER_NAMES))}, got {kind!r}; "
            "give a transformers folder of this model."
        )
    return kind


def _decimal(value: float) -> float:
    """The shortest decimal of a float32, such as 1e-06 for 9.99999997e-07."""
    return float(str(np.float32(value)))
