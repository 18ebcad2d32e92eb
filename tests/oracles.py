"""The frozen model written out as plainly as possible, to differentiate and to compare with.

`source_scales` has one number per column of a graph, 1 at the recorded point; `target_values` is
the value of every active feature and of every target as a function of these numbers.  Its
Jacobian is the matrix of direct effects.  Nothing is shared with the sweep: modules of the model
compute their own projections, gains are not folded, and attention is written as a sum.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from circuits.attribution.sources import Sources
from circuits.attribution.targets import Targets
from circuits.features.active import ActiveFeatures
from circuits.features.neurons import NeuronRows
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.architectures import Layout
from circuits.model.frozen import FrozenModel
from circuits.recording.record import Recording


def frozen_norm(
    module: nn.Module | None, offset: float, x: Tensor, at: Tensor, bias_scale
) -> Tensor:
    """A norm with its denominator computed from `at` instead of x; its bias is scaled."""
    if module is None:
        return x
    centred, centred_at = x, at
    if type(module).__name__ in ("LayerNorm", "CohereLayerNorm", "Cohere2LayerNorm"):
        centred, centred_at = x - x.mean(-1, keepdim=True), at - at.mean(-1, keepdim=True)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    denominator = (centred_at.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    out = centred / denominator * (module.weight + offset)
    bias = getattr(module, "bias", None)
    return out if bias is None else out + bias * bias_scale


def norm_of(block: nn.Module, path: str | None) -> nn.Module | None:
    """The norm in front of attention or MLP; some models have none there."""
    return None if path is None else block.get_submodule(path)


def multiplied(frozen: FrozenModel, output: Tensor) -> Tensor:
    """What attention or MLP adds to the residual stream, from what it gives."""
    if type(frozen.model).__name__ == "GraniteForCausalLM":
        return output * frozen.config.residual_multiplier
    return output


def gate_and_up(mlp: nn.Module, layout: Layout, x: Tensor, bias_scale) -> list[Tensor]:
    """What goes into the neurons: through the gate, where there is one, and beside it."""
    if layout.gate == "gate_up_proj":
        return list(linear_map(mlp.gate_up_proj, x, bias_scale).chunk(2, -1))
    paths = [layout.up] if layout.gate is None else [layout.gate, layout.up]
    return [linear_map(mlp.get_submodule(path), x, bias_scale) for path in paths]


def linear_map(module: nn.Module, x: Tensor, bias_scale) -> Tensor:
    """A linear layer with its bias scaled."""
    without_bias = module(x) if module.bias is None else module(x) - module.bias
    return without_bias if module.bias is None else without_bias + module.bias * bias_scale


def values_of(frozen: FrozenModel, attention: nn.Module, x: Tensor, bias_scale) -> Tensor:
    """Value vectors (pos, head, d_head), kv heads repeated for their groups."""
    n_heads = frozen.config.num_attention_heads
    name = type(frozen.model).__name__
    if name == "GPT2LMHeadModel":
        values = linear_map(attention.c_attn, x, bias_scale).chunk(3, -1)[2]
    elif name == "GPTNeoXForCausalLM":
        fused = linear_map(attention.query_key_value, x, bias_scale)
        values = fused.view(len(x), n_heads, -1).chunk(3, -1)[2].reshape(len(x), -1)
    elif name == "Phi3ForCausalLM":
        fused = linear_map(attention.qkv_proj, x, bias_scale)
        values = fused[:, -frozen.config.num_key_value_heads * attention.head_dim :]
    else:
        values = linear_map(attention.v_proj, x, bias_scale)
    n_kv = getattr(frozen.config, "num_key_value_heads", n_heads)
    return values.view(len(x), n_kv, -1).repeat_interleave(n_heads // n_kv, 1)


class Run(NamedTuple):
    """What one run of the frozen model has computed."""

    entering: list[Tensor]  # residual that enters each layer
    reads: list[Tensor]  # residual that each layer's MLP reads
    values: list[Tensor]  # of active features
    final: Tensor  # residual


class Oracle:
    """One prompt's frozen model as a function of the scales of its sources."""

    def __init__(
        self,
        frozen: FrozenModel,
        recording: Recording,
        dictionary: TranscoderSet | None,
        features: ActiveFeatures,
        sources: Sources,
        targets: Targets,
    ) -> None:
        self.frozen, self.recording, self.dictionary = frozen, recording, dictionary
        self.features, self.sources, self.targets = features, sources, targets
        self.entering: list[Tensor] = []  # residual at each layer, unrolled forward
        x = recording.tokens
        x = x if recording.positions is None else x + recording.positions
        for layer in range(frozen.n_layers):
            self.entering.append(x)
            x = x + self._attention(layer, x, torch.ones(())) + recording.blocks[layer].contribution
        self.errors = [self._error(layer) for layer in range(frozen.n_layers)]

    def target_values(self, scale: Tensor) -> Tensor:
        """Values of all active features, then of all targets."""
        run = self.run(scale)
        return torch.stack([*run.values, *self._outputs(run.final, scale)])

    def run(self, scale: Tensor, through: Tensor | None = None) -> Run:
        """The frozen model; `through` scales what goes into values, by layer and position."""
        frozen, recording = self.frozen, self.recording
        length, context = len(recording.prompt), recording.prompt.n_prefix
        x = recording.tokens * scale[:length, None]
        if recording.positions is not None:
            x = x + recording.positions * scale[length : 2 * length, None]
        values = [torch.zeros(())] * len(self.features)
        reads: list[Tensor] = []
        entering: list[Tensor] = []
        for layer in range(frozen.n_layers):
            bias = scale[self.sources.bias_column + layer]
            entering.append(x)
            given = x if through is None else x * through[layer][:, None]
            attended = self._attention(layer, given, bias)
            read = x if frozen.parallel else x + attended
            reads.append(read)
            for feature in (self.features.layer == layer).nonzero()[:, 0].tolist():
                values[feature] = self._feature_value(feature, read, bias)
            added = self._written(layer, scale)
            added = added + self._constant(layer, bias, reads)
            first = self.sources.first_column[layer + 1] - (length - context)
            error_scale = torch.cat(
                [scale.new_zeros(context), scale[first : first + length - context]]
            )
            added = added + self.errors[layer] * error_scale[:, None]
            contribution = recording.blocks[layer].contribution
            added = torch.where(self._is_context(), contribution * bias, added)
            x = x + attended + added
        return Run(entering, reads, values, x)

    def _attention(self, layer: int, x: Tensor, bias: Tensor) -> Tensor:
        layout, block = self.frozen.layout, self.frozen.modules[layer]
        attention = block.get_submodule(layout.attention)
        offset = layout.gain_offset
        norm = norm_of(block, layout.attention_norm)
        entering = self.entering[layer]
        values = values_of(
            self.frozen, attention, frozen_norm(norm, offset, x, entering, bias), bias
        )
        pattern = self.recording.blocks[layer].pattern
        mixed = torch.zeros_like(values)
        for head in range(len(pattern)):
            mixed[:, head] = pattern[head] @ values[:, head]
        out = linear_map(attention.get_submodule(layout.output), mixed.flatten(1), bias)
        if layout.post_attention_norm is None:
            return multiplied(self.frozen, out)
        post = block.get_submodule(layout.post_attention_norm)
        recorded = self._recorded_attention(layer)
        return frozen_norm(post, offset, out, recorded, bias)

    def _recorded_attention(self, layer: int) -> Tensor:
        """What attention gave before its post norm, at the recorded point."""
        layout, block = self.frozen.layout, self.frozen.modules[layer]
        attention = block.get_submodule(layout.attention)
        x, one = self.entering[layer], torch.ones(())
        norm = norm_of(block, layout.attention_norm)
        values = values_of(
            self.frozen, attention, frozen_norm(norm, layout.gain_offset, x, x, one), one
        )
        mixed = torch.einsum("hqk,khd->qhd", self.recording.blocks[layer].pattern, values)
        return linear_map(attention.get_submodule(layout.output), mixed.flatten(1), one)

    def _read(self, layer: int, x: Tensor, bias) -> Tensor:
        """What the dictionary of a layer reads."""
        layout, block = self.frozen.layout, self.frozen.modules[layer]
        point = ReadPoint.MLP_INPUT if self.dictionary is None else self.dictionary.read
        if point == ReadPoint.RESIDUAL:
            return x
        norm = norm_of(block, layout.mlp_norm)
        at = self.recording.blocks[layer].mlp_residual
        if point == ReadPoint.MLP_INPUT:
            return frozen_norm(norm, layout.gain_offset, x, at, bias)
        plain = frozen_norm(norm, layout.gain_offset, x, at, 0.0)
        return plain if norm is None else plain / (norm.weight + layout.gain_offset)

    def _feature_value(self, feature: int, x: Tensor, bias) -> Tensor:
        features = self.features
        layer, pos = int(features.layer[feature]), int(features.pos[feature])
        index = int(features.index[feature])
        read = self._read(layer, x, bias)[pos]
        if self.dictionary is not None:
            transcoder = self.dictionary.layers[layer]
            return transcoder.encoder[index] @ read + transcoder.encoder_bias[index] * bias
        layout = self.frozen.layout
        mlp = self.frozen.modules[layer].get_submodule(layout.mlp)
        recorded = self.recording.blocks[layer].mlp_input[pos]
        act = mlp.get_submodule(layout.nonlinearity)
        before, *branch = gate_and_up(mlp, layout, recorded, 1.0)
        first, *second = (x[0, index] for x in gate_and_up(mlp, layout, read[None], bias))
        after = act(before)[index]
        ratio = after / before[index]
        if layout.gate is None:
            return ratio * first
        return (ratio * branch[0][index] * first + after * second[0]) / 2

    def _to_residual(self, layer: int, written: Tensor) -> Tensor:
        """From what the dictionary writes to what is added to the residual, bias of norms apart."""
        layout, block = self.frozen.layout, self.frozen.modules[layer]
        at_output = self.dictionary is None or self.dictionary.write == WritePoint.MLP_OUTPUT
        if not at_output:
            return written
        if layout.post_mlp_norm is None:
            return multiplied(self.frozen, written)
        post = block.get_submodule(layout.post_mlp_norm)
        mlp = block.get_submodule(layout.mlp)
        recorded = mlp(self.recording.blocks[layer].mlp_input)
        return frozen_norm(post, layout.gain_offset, written, recorded, 1.0)

    def _written(self, layer: int, scale: Tensor | None) -> Tensor:
        features, length = self.features, len(self.recording.prompt)
        total = self.recording.tokens.new_zeros(length, self.frozen.d_model)
        for feature in range(len(features)):
            source, pos = int(features.layer[feature]), int(features.pos[feature])
            if not source <= layer <= features.reach[source]:
                continue
            index, activation = int(features.index[feature]), features.activation[feature]
            if self.dictionary is None:
                layout = self.frozen.layout
                mlp = self.frozen.modules[layer].get_submodule(layout.mlp)
                down = mlp.get_submodule(layout.down)
                one = torch.zeros(self.neurons(layer), dtype=total.dtype)
                one[index] = 1.0
                row = linear_map(down, one, 0.0)
            else:
                row = self.dictionary.layers[source].decoders[layer - source][index]
            size = activation if scale is None else activation * scale[self.column(feature)]
            spread = torch.zeros(length, dtype=total.dtype)
            spread[pos] = 1.0
            total = total + spread[:, None] * (size * row)
        return self._to_residual(layer, total)

    def _constant(self, layer: int, bias, reads: list[Tensor]) -> Tensor:
        length = len(self.recording.prompt)
        if self.dictionary is None:
            layout = self.frozen.layout
            mlp = self.frozen.modules[layer].get_submodule(layout.mlp)
            down_bias = mlp.get_submodule(layout.down).bias
            constant = torch.zeros(self.frozen.d_model) if down_bias is None else down_bias
            return self._to_residual(layer, (constant * bias).expand(length, -1))
        constant = (self.dictionary.layers[layer].decoder_bias * bias).expand(length, -1)
        for source in range(layer + 1):
            skip = self._skip(source, layer)
            if skip is not None:
                read = self._read(source, reads[source], bias)
                read = torch.where(self._is_context(), 0, read)  # no skip there
                constant = constant + torch.stack([skip @ row for row in read])
        return self._to_residual(layer, constant)

    def _error(self, layer: int) -> Tensor:
        recorded = self.recording.blocks[layer]
        explained = self._written(layer, None)
        explained = explained + self._constant(
            layer, 1.0, [block.mlp_residual for block in self.recording.blocks]
        )
        return recorded.contribution - explained

    def _outputs(self, x: Tensor, scale: Tensor) -> list[Tensor]:
        frozen, layout = self.frozen, self.frozen.layout
        norm = frozen.model.get_submodule(layout.final_norm)
        bias = scale[self.sources.bias_column + frozen.n_layers]
        final = frozen_norm(norm, layout.gain_offset, x, self.recording.final_residual, bias)
        head = frozen.model.get_output_embeddings()
        logits = final[self.recording.position] @ head.weight.T
        if head.bias is not None:
            logits = logits + head.bias * bias
        if type(frozen.model).__name__ == "GraniteForCausalLM":
            logits = logits / frozen.config.logits_scaling
        if type(frozen.model).__name__.startswith("Cohere"):
            logits = logits * frozen.config.logit_scale
        return [logits[token] - logits.mean() for token in self.targets.index.tolist()]

    def _is_context(self) -> Tensor:
        prompt = self.recording.prompt
        return (torch.arange(len(prompt)) < prompt.n_prefix)[:, None]

    def _skip(self, source: int, layer: int) -> Tensor | None:
        assert self.dictionary is not None
        transcoder = self.dictionary.layers[source]
        every = [transcoder.skip, *transcoder.higher_skips]
        return every[layer - source] if layer - source < len(every) else None

    def column(self, feature: int) -> int:
        return int(self.sources.feature_column[feature])

    def neurons(self, layer: int) -> int:
        rows = self.features.rows
        assert isinstance(rows, NeuronRows)
        return rows.layers[layer].activation.shape[1]
