"""Tiny seeded float64 models, one per supported architecture, and toy dictionaries for them."""

from __future__ import annotations

import logging

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import JumpReLU, Nonlinearity, ReLU, TopK, Transcoder
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.architectures import LAYOUTS
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from graphs import DictionaryIdentity, ModelIdentity

VOCABULARY = 23
D_MODEL = 16
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": D_MODEL,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**COMMON, "num_key_value_heads": 2, "head_dim": 6}
WINDOW = {"sliding_window": 3}
SLIDING = ["sliding_attention", "sliding_attention", "full_attention"]
EXPERTS = {"num_experts_per_tok": 2, "sliding_window": None}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2}

# name → model class, config class, config
ARCHITECTURES = {
    "apertus": ("ApertusForCausalLM", "ApertusConfig", GROUPED),
    "cohere": (
        "CohereForCausalLM",
        "CohereConfig",
        {**COMMON, "num_key_value_heads": 2, "logit_scale": 0.7, "use_qk_norm": True},
    ),
    "cohere-2": (
        "Cohere2ForCausalLM",
        "Cohere2Config",
        {**GROUPED, **WINDOW, "logit_scale": 0.7, "layer_types": SLIDING},
    ),
    "ernie-4.5": ("Ernie4_5ForCausalLM", "Ernie4_5Config", {**GROUPED, "use_bias": True}),
    "exaone-4": (
        "Exaone4ForCausalLM",
        "Exaone4Config",
        {**GROUPED, **WINDOW, "layer_types": SLIDING},
    ),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", GROUPED),
    "gemma-2": ("Gemma2ForCausalLM", "Gemma2Config", {**GROUPED, **WINDOW}),
    "gemma-3": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**GROUPED, **WINDOW, "layer_types": SLIDING},
    ),
    "gemma-3-one-kv-head": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**GROUPED, "num_key_value_heads": 1},
    ),
    "gemma-3-multimodal": (
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        {
            "text_config": {**GROUPED, **WINDOW},
            "vision_config": {
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "image_size": 8,
                "patch_size": 4,
            },
            "mm_tokens_per_image": 4,
            "image_token_index": 20,
            "boi_token_index": 21,
            "eoi_token_index": 22,
        },
    ),
    "gpt-oss": (
        "GptOssForCausalLM",
        "GptOssConfig",
        {**GROUPED, **WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "granite": (
        "GraniteForCausalLM",
        "GraniteConfig",
        {
            **COMMON,
            "num_key_value_heads": 2,
            "residual_multiplier": 0.7,
            "embedding_multiplier": 3.0,
            "logits_scaling": 1.5,
            "attention_multiplier": 0.4,
        },
    ),
    "helium": (
        "HeliumForCausalLM",
        "HeliumConfig",
        {**COMMON, "num_key_value_heads": 2, "head_dim": 4},
    ),
    "hunyuan": ("HunYuanDenseV1ForCausalLM", "HunYuanDenseV1Config", GROUPED),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**GROUPED, "attention_bias": True}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**GROUPED, **WINDOW}),
    "mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {**GROUPED, **EXPERTS, "num_local_experts": 4},
    ),
    "olmo-2": ("Olmo2ForCausalLM", "Olmo2Config", {**COMMON, "num_key_value_heads": 2}),
    "olmo-3": (
        "Olmo3ForCausalLM",
        "Olmo3Config",
        {**COMMON, **WINDOW, "num_key_value_heads": 2, "layer_types": SLIDING},
    ),
    "phi-3": ("Phi3ForCausalLM", "Phi3Config", {**COMMON, "num_key_value_heads": 2}),
    "qwen-2": ("Qwen2ForCausalLM", "Qwen2Config", {**COMMON, "num_key_value_heads": 2}),
    "qwen-3": ("Qwen3ForCausalLM", "Qwen3Config", GROUPED),
    "qwen-3-moe": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {
            **GROUPED,
            **EXPERTS,
            "num_experts": 4,
            "moe_intermediate_size": 8,
            "mlp_only_layers": [1],
        },
    ),
    "seed-oss": ("SeedOssForCausalLM", "SeedOssConfig", {**GROUPED, "attention_bias": True}),
    "smollm-3": ("SmolLM3ForCausalLM", "SmolLM3Config", {**GROUPED, "no_rope_layer_interval": 2}),
    "stablelm": (
        "StableLmForCausalLM",
        "StableLmConfig",
        {**COMMON, "num_key_value_heads": 2, "use_qkv_bias": True},
    ),
    "stablelm-parallel": (
        "StableLmForCausalLM",
        "StableLmConfig",
        {
            **COMMON,
            "num_key_value_heads": 2,
            "use_parallel_residual": True,
            "qk_layernorm": True,
        },
    ),
    "gpt-2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {
            "vocab_size": VOCABULARY,
            "n_embd": D_MODEL,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 64,
            "n_inner": 24,
            **SPECIAL,
        },
    ),
    "gpt-neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", COMMON),
    "gpt-neox-sequential": (
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        {**COMMON, "use_parallel_residual": False},
    ),
}


# Those whose MLPs have neurons.
DENSE = [name for name, (of, _, _) in ARCHITECTURES.items() if not LAYOUTS[of].experts]


def toy_tokenizer(
    bos: int | None = 1, eos: int | None = None, *, adds_bos: bool = True
) -> PreTrainedTokenizerFast:
    """Spells every id as one letter; `bos` and `eos` are ids of such tokens, if it has them.

    It puts BOS in front of a text by itself unless it is told not to.
    """
    letters = [chr(ord("a") + token) for token in range(VOCABULARY)]
    backend = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}, "a"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    if adds_bos and bos is not None:
        front = letters[bos]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{front} $A", special_tokens=[(front, bos)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=None if bos is None else letters[bos],
        eos_token=None if eos is None else letters[eos],
        clean_up_tokenization_spaces=False,
    )


def tiny_model(name: str, **told: object) -> PreTrainedModel:
    """A random model; every parameter is random, biases and norm gains too.

    `told` are further fields of its config, of a multimodal one's text config.
    """
    model_class, config_class, config = ARCHITECTURES[name]
    within = "text_config" in config
    config = {**config, "text_config": config["text_config"] | told} if within else config | told
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**config))
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.set_attn_implementation("eager")
    if name not in DENSE:
        model.set_experts_implementation("eager")  # the others know no float64
    return model.requires_grad_(False)


def tiny_subject(name: str) -> Subject:
    model = tiny_model(name)
    frozen = FrozenModel(model)
    identity = ModelIdentity(name=name, architecture=type(model).__name__, n_layers=frozen.n_layers)
    return Subject(frozen, toy_tokenizer(), identity)


def tiny_prompt(ids: tuple[int, ...] = (1, 5, 9, 5, 14, 8), n_prefix: int = 1) -> Prompt:
    text = toy_tokenizer().decode(list(ids))
    return Prompt(text=text, ids=ids, tokens=tuple(text), n_prefix=n_prefix)


def toy_dictionary(
    *,
    cross_layer: bool = False,
    skip: bool = False,
    higher_skips: bool = False,
    nonlinearity: str = "jumprelu",
    read: ReadPoint = ReadPoint.MLP_INPUT,
    write: WritePoint = WritePoint.CONTRIBUTION,
    n_layers: int = 3,
    d_dict: int = 20,
    d_model: int = D_MODEL,
) -> TranscoderSet:
    """Random transcoders of the given kind."""
    generator = torch.Generator().manual_seed(11)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def one(layer: int) -> Transcoder:
        nonlinearities: dict[str, Nonlinearity] = {
            "relu": ReLU(),
            "jumprelu": JumpReLU(random(d_dict).abs()),
            "topk": TopK(5, signed=True),
        }
        return Transcoder(
            encoder=random(d_dict, d_model),
            encoder_bias=random(d_dict),
            decoders=random(d_dict, n_layers - layer if cross_layer else 1, d_model).unbind(1),
            decoder_bias=random(d_model),
            nonlinearity=nonlinearities[nonlinearity],
            skip=random(d_model, d_model) if skip else None,
            higher_skips=tuple(
                random(d_model, d_model) / 4 for _ in range(higher_skips * (n_layers - layer - 1))
            ),
        )

    return TranscoderSet(
        layers=tuple(one(layer) for layer in range(n_layers)),
        read=read,
        write=write,
        identity=DictionaryIdentity(kind="transcoder", name="toy"),
    )


logging.getLogger("transformers").setLevel(logging.ERROR)
