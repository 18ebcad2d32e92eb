"""The frozen model: the linear maps that are left of a model when nonlinearities are held fixed.

With attention patterns, norm denominators and MLP outputs frozen at their values on one prompt, a
block is linear in the residual stream x (per position, except for the pattern):

    x_mid = x + post(W_O · pattern · W_V · norm(x)) + constant          attention
    x_out = x_mid + what the MLP added on this prompt                   features, error, bias

A norm with its denominator frozen is a linear map (LayerNorm: with centring) and a constant; where
a model has none, or a constant factor in its place, that is a norm whose denominator is 1.
`FrozenBlock` holds the weights with the norms' gains folded in; what depends on the prompt is in
`circuits.recording.record`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor, nn
from transformers import PreTrainedModel

from circuits.machine import moved, on_device, warm_up_mkl
from circuits.model.architectures import (
    Layout,
    affine,
    layout_of,
    optional_part,
    part,
    require_traceable,
    value_projection,
)
from circuits.model.placement import DeviceError, connect, device_of
from circuits.model.prompt import PromptError
from graphs.core.brief import Brief
from graphs.errors import HeadwaterError


class DamagedWeights(HeadwaterError):
    """A weight of the model is NaN or infinite."""


@dataclass(frozen=True)
class Norm:
    """RMSNorm or LayerNorm, split into a denominator and a linear map."""

    gain: Float[Tensor, "*head width"]  # width: d_model, or of what is normalised inside attention
    bias: Float[Tensor, "*head width"]  # zero for RMSNorm
    biased: bool
    centred: bool  # LayerNorm subtracts the mean
    eps: float | None  # None: the denominator is 1, of any residual

    def denominator(self, x: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos"]:
        """Root mean square (LayerNorm: standard deviation) of each position."""
        if self.eps is None:
            return torch.ones_like(x[..., 0])
        centred = self.centre(x)
        return (centred.square().mean(-1) + self.eps).sqrt()

    def linear(
        self, x: Float[Tensor, "*#pos d_model"], denominator: Float[Tensor, "*#pos"]
    ) -> Float[Tensor, "*#pos d_model"]:
        """The norm without its bias, with the denominator frozen (one per position)."""
        return self.centre(x) / denominator[..., None] * self.gain

    def transpose(
        self, covector: Float[Tensor, "*#pos d_model"], denominator: Float[Tensor, "*#pos"]
    ) -> Float[Tensor, "*#pos d_model"]:
        """Transpose of `linear`."""
        return self.centre(covector * self.gain) / denominator[..., None]

    def on(self, device: torch.device) -> Norm:
        """The same norm on a device."""
        return replace(self, gain=moved(self.gain, device), bias=moved(self.bias, device))

    def centre(self, x: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos d_model"]:
        """LayerNorm: x minus its mean over d_model; RMSNorm: x.  Its own transpose."""
        return x - x.mean(-1, keepdim=True) if self.centred else x


@dataclass(frozen=True)
class BlockModules:
    """The model's own modules of one block; None for norms that it does not have."""

    attention_norm: nn.Module | None
    attention: nn.Module
    post_attention_norm: nn.Module | None
    mlp_norm: nn.Module | None
    mlp: nn.Module
    post_mlp_norm: nn.Module | None

    @property
    def mlp_reader(self) -> nn.Module:
        """The module whose input is the residual stream that the MLP reads."""
        return self.mlp if self.mlp_norm is None else self.mlp_norm

    @property
    def mlp_contribution(self) -> nn.Module:
        """The module whose output, times the multiplier, the MLP adds to the residual stream."""
        return self.mlp if self.post_mlp_norm is None else self.post_mlp_norm


NORMS = ("attention_norm", "post_attention_norm", "mlp_norm", "post_mlp_norm")


@dataclass(frozen=True, repr=False)
class FrozenBlock(Brief):
    """Modules and weights of one block, prompt-independent."""

    modules: BlockModules
    attention_norm: Norm
    post_attention_norm: Norm | None
    mlp_norm: Norm
    post_mlp_norm: Norm | None
    output: Float[Tensor, "d_model heads"]  # W_O, rows scaled by the post-attention gain
    value: Float[Tensor, "kv_heads d_model"]  # W_V, columns scaled by the norm's gain and centred
    value_constant: Float[Tensor, " kv_heads"]  # value of a zero residual: norm bias and W_V bias
    output_constant: Float[Tensor, " d_model"]  # bias of W_O, scaled like its rows
    biased: bool  # whether either constant is nonzero; most models have no biases here
    d_head: int
    inner_norms: tuple[tuple[nn.Module, Norm], ...]  # of queries and keys

    @property
    def device(self) -> torch.device:
        """Where the block lies, with its recording, its dictionary and what is added there."""
        return self.output.device

    @property
    def n_heads(self) -> int:
        """Number of query heads."""
        return self.output.shape[1] // self.d_head

    @property
    def n_kv_heads(self) -> int:
        """Number of heads with keys and values of their own, each for a group of query heads."""
        return len(self.value) // self.d_head

    def norms(self) -> Iterator[tuple[str, nn.Module, Norm]]:
        """Name, module and linear form of each norm that the block has."""
        for name in NORMS:
            module, norm = getattr(self.modules, name), getattr(self, name)
            if module is not None and norm is not None:
                yield name, module, norm


class FrozenModel:
    """A transformers model as linear maps.

    The model itself is not changed: `modules` are its own, the weights here are copies with gains
    folded in.  If it lies on several devices, what its blocks are given follows them from now on.
    Raises UnsupportedArchitecture for a class without a layout and for attention that is not
    causal, DamagedWeights for weights that are not finite, DeviceError for a block on several
    devices or on none.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        warm_up_mkl()
        self.model = model
        self.layout: Layout = layout_of(model)
        self.config = model.config.get_text_config()
        require_traceable(self.config, model.dtype)
        self.modules = list(part(model, self.layout.blocks).children())
        head = model.get_output_embeddings()
        assert isinstance(head, nn.Module)
        self.unembedding_module = head
        devices = self._connected()
        weight, bias = self._unembedding()
        self.unembedding: Float[Tensor, "d_vocab d_model"] = weight
        self.unembedding_bias: Float[Tensor, " d_vocab"] | None = bias
        self.unembedding_mean: Float[Tensor, " d_model"] = moved(weight.mean(0), devices[0])
        self.softcap: float | None = self._config_value(self.layout.logit_softcap)
        self.parallel = bool(self.layout.parallel)
        self.residual_multiplier = self._factor_in_config(self.layout.residual_multiplier)
        self.position_embedding = optional_part(model, self.layout.position_embedding)
        self.final_norm_module = part(model, self.layout.final_norm)
        self.final_norm_there = self._norm(self.final_norm_module)  # where that lies
        self.final_norm = self.final_norm_there.on(devices[0])
        self.blocks = tuple(map(self._block, range(len(devices)), self.modules, devices))
        # Relative, of recorded logits from the model's; measured by the first float64 recording.
        self.recording_difference: float | None = None

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        return self.unembedding.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.unembedding.dtype

    @property
    def device(self) -> torch.device:
        """Where all lies that belongs to no block, but the unembedding: with the first block."""
        return self.blocks[0].device

    def device_at(self, layer: int) -> torch.device:
        """Where a block lies; `n_layers` stands for what is behind the last."""
        return self.device if layer == self.n_layers else self.blocks[layer].device

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """All devices with blocks, in the order of these."""
        return tuple(dict.fromkeys(block.device for block in self.blocks))

    def require_one_device(self, what: str) -> None:
        """Raises DeviceError for a model over several devices, which `what` does not support."""
        if len(self.devices) > 1:
            raise DeviceError(
                f"{what} needs the model on one device, and it lies on "
                f"{', '.join(map(str, self.devices))}: give --device with one."
            )

    @property
    def context_length(self) -> int | None:
        """Longest prompt in tokens; None if the config does not specify it."""
        return getattr(self.config, "max_position_embeddings", None)

    def require_embedded(self, ids: Int[Tensor, "*pos"]) -> None:
        """Raises PromptError for a token id that the model does not embed."""
        table = self.model.get_input_embeddings().weight
        assert isinstance(table, Tensor)
        if int(ids.max()) >= len(table):
            raise PromptError(
                f"The tokenizer gives token id {int(ids.max()):,}, the model embeds ids up to "
                f"{len(table) - 1:,}: use the tokenizer that belongs to the model."
            )

    def logits(self, final: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos d_vocab"]:
        """Logits of a normalised residual, capped where the model caps them."""
        logits = moved(final, self.unembedding.device) @ self.unembedding.T
        if self.unembedding_bias is not None:
            logits = logits + self.unembedding_bias
        capped = (
            logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap
        )
        return moved(capped, final.device)

    def _connected(self) -> list[torch.device]:
        """Where each block lies; what blocks and ends of the model are given goes there."""
        devices = [device_of(one, f"block {n}") for n, one in enumerate(self.modules)]
        paths = (self.layout.embedding, self.layout.position_embedding, self.layout.final_norm)
        ends = {path: part(self.model, path) for path in paths if path}
        ends["unembedding"] = self.unembedding_module
        placed = [(one, device_of(one, f"the {name}")) for name, one in ends.items()]
        connect(self.model, [*placed, *zip(self.modules, devices, strict=True)])
        return devices

    def _unembedding(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias from the normalised residual to logits, logit multipliers included."""
        weight, bias = affine(self.unembedding_module)
        require_finite(weight, "unembedding")
        factor = self._factor_in_config(self.layout.logit_multiplier)
        factor = factor / self._factor_in_config(self.layout.logit_divisor)
        if factor == 1:
            return weight, bias  # no copy of what may be the largest matrix
        return weight * factor, None if bias is None else bias * factor

    def _config_value(self, field: str | None) -> Any:
        """The value of a config field; None if the layout names no field."""
        return None if field is None else getattr(self.config, field)

    def _factor_in_config(self, field: str | None) -> float:
        """The factor in a config field; 1 if the layout names no field."""
        return 1.0 if field is None else float(self._config_value(field))

    def _norm(self, module: nn.Module) -> Norm:
        weight = module.weight
        assert isinstance(weight, Tensor)
        gain = weight.detach() + self.layout.gain_offset
        bias = getattr(module, "bias", None)
        eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
        return Norm(
            gain=gain,
            bias=torch.zeros_like(gain) if bias is None else bias.detach(),
            biased=bias is not None,
            centred=self.layout.centred,
            eps=float(eps),  # pyright: ignore[reportArgumentType]  # stubs say Module
        )

    def _norm_before(self, module: nn.Module | None, device: torch.device) -> Norm:
        """A norm in front of attention or MLP; where there is none, they read the residual."""
        return self._factor(1.0, device) if module is None else self._norm(module)

    def _norm_behind(self, module: nn.Module | None, device: torch.device) -> Norm | None:
        """A norm behind attention or MLP, or a constant factor in its place."""
        if module is not None:
            return self._norm(module)
        factor = self.residual_multiplier
        return None if factor == 1 else self._factor(factor, device)

    def _factor(self, number: float, device: torch.device) -> Norm:
        """A constant factor as a norm whose denominator is 1."""
        gain = torch.full_like(self.unembedding[0], number, device=device)
        return Norm(gain, torch.zeros_like(gain), biased=False, centred=False, eps=None)

    def _block(self, layer: int, block: nn.Module, device: torch.device) -> FrozenBlock:
        layout = self.layout
        modules = BlockModules(
            attention=part(block, layout.attention),
            mlp=part(block, layout.mlp),
            **{name: optional_part(block, getattr(layout, name)) for name in NORMS},
        )
        n_heads = self.config.num_attention_heads
        value, value_bias = value_projection(modules.attention, layout, n_heads)
        output, output_bias = affine(part(modules.attention, layout.output))
        for name, matrix in (("value", value), ("output", output)):
            require_finite(matrix, f"attention {name} matrix of layer {layer}")
        norm = self._norm_before(modules.attention_norm, device)
        post = self._norm_behind(modules.post_attention_norm, device)
        gain = torch.ones_like(output[:, 0]) if post is None else post.gain
        bias = torch.zeros_like(gain) if output_bias is None else output_bias
        value_constant, output_constant = value @ norm.bias + value_bias, bias * gain
        return FrozenBlock(
            modules=modules,
            attention_norm=norm,
            post_attention_norm=post,
            mlp_norm=self._norm_before(modules.mlp_norm, device),
            post_mlp_norm=self._norm_behind(modules.post_mlp_norm, device),
            output=(output * gain[:, None]).contiguous(),
            value=norm.centre(value * norm.gain).contiguous(),
            value_constant=value_constant,
            output_constant=output_constant,
            biased=bool(value_constant.any() | output_constant.any()),
            d_head=output.shape[1] // n_heads,
            inner_norms=tuple(
                (module, self._norm(module))
                for module in modules.attention.modules()
                if hasattr(module, "eps") or hasattr(module, "variance_epsilon")
            ),
        )


@dataclass(frozen=True, repr=False)
class Covectors(Brief):
    """Targets as covectors on the residual stream that they read.

    Where they read is known on the host, so that no accelerator is asked what to do next.
    """

    layer: Int[ndarray, " row"]  # block whose MLP reads that residual; n_layers: the final one
    pos: Int[ndarray, " row"]
    covector: Float[Tensor, "row d_model"]
    weight: Float[ndarray, " row"]  # seed of influence; 0 for features
    # Which read the residual that enters the block, before its attention; None: none does.
    entering: Bool[ndarray, " row"] | None = None

    @property
    def level(self) -> Int[ndarray, " row"]:
        """Order in which a pass reaches what is read: 2 · layer, and 1 less before attention."""
        return 2 * self.layer - (0 if self.entering is None else self.entering.astype(np.int64))

    @staticmethod
    def joined(parts: Sequence[Covectors]) -> Covectors:
        """All of these, one after the other."""
        entering = None
        if any(part.entering is not None for part in parts):
            none = [np.zeros(len(part.pos), dtype=bool) for part in parts]
            pairs = zip(parts, none, strict=True)
            entering = np.concatenate([no if p.entering is None else p.entering for p, no in pairs])
        return Covectors(
            layer=np.concatenate([part.layer for part in parts]),
            pos=np.concatenate([part.pos for part in parts]),
            covector=torch.cat([part.covector for part in parts]),
            weight=np.concatenate([part.weight for part in parts]),
            entering=entering,
        )

    def take(self, rows: Int[ndarray, " kept"]) -> Covectors:
        """Only these rows, in this order."""
        covector = self.covector.index_select(0, on_device(rows, self.covector.device))
        entering = None if self.entering is None else self.entering[rows]
        return Covectors(self.layer[rows], self.pos[rows], covector, self.weight[rows], entering)


def require_finite(weight: Tensor, name: str) -> None:
    """Raises DamagedWeights if a weight is NaN or infinite."""
    if not bool(torch.isfinite(weight).all()):
        raise DamagedWeights(
            f"The model's {name} has NaN or infinite values: the weights are damaged, "
            "download them again."
        )
