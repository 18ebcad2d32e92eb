"""Recording: one forward pass of the model, keeping what the frozen model needs.

Hooks on the model's own modules store attention patterns, norm denominators, MLP inputs and
outputs, the embedding that enters layer 0 and the logits; they are removed when the pass ends.
Everything afterwards is plain linear algebra on these tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.machine import on_device
from circuits.model.frozen import FrozenModel, Norm, require_finite
from circuits.model.prompt import Prompt, PromptError
from graphs.core.brief import Brief


@dataclass(frozen=True, repr=False)
class BlockRecording(Brief):
    """One block's attention pattern, norm denominators and MLP vectors on one prompt."""

    pattern: Float[Tensor, "head query key"]  # after softmax, mask and window
    attention_denominator: Float[Tensor, " pos"]
    post_attention_denominator: Float[Tensor, " pos"]  # 1 where there is no such norm
    mlp_residual: Float[Tensor, "pos d_model"]  # what the MLP's norm reads
    mlp_denominator: Float[Tensor, " pos"]
    mlp_input: Float[Tensor, "pos d_model"]  # normalised, with gain
    post_mlp_denominator: Float[Tensor, " pos"]
    contribution: Float[Tensor, "pos d_model"]  # what the MLP adds to the residual


@dataclass(frozen=True, repr=False)
class Recording(Brief):
    """One prompt's forward pass."""

    prompt: Prompt
    blocks: tuple[BlockRecording, ...]
    tokens: Float[Tensor, "pos d_model"]  # enters layer 0, scaled, without position embeddings
    positions: Float[Tensor, "pos d_model"] | None  # learned position embeddings
    final_residual: Float[Tensor, "pos d_model"]  # before the final norm
    final_denominator: Float[Tensor, " pos"]
    position: int  # whose logits are kept
    logits: Float[Tensor, " d_vocab"]  # the model's own

    @property
    def inputs(self) -> tuple[Float[Tensor, "pos d_model"], ...]:
        """What enters layer 0: token embeddings, then position embeddings where there are any."""
        return (self.tokens,) if self.positions is None else (self.tokens, self.positions)


def entering_attention(
    frozen: FrozenModel, recording: Recording, layer: int
) -> Float[Tensor, "pos d_model"]:
    """The residual that enters a layer's attention."""
    if frozen.parallel:
        return recording.blocks[layer].mlp_residual
    if layer == 0:
        return torch.stack(recording.inputs).sum(0)
    below = recording.blocks[layer - 1]
    return below.mlp_residual + below.contribution


def record(frozen: FrozenModel, prompt: Prompt, position: int = -1) -> Recording:
    """Run the model once on a prompt; logits are kept at one position.

    Raises PromptError as `require_recordable`, DamagedWeights if logits are not finite.
    """
    require_recordable(frozen, prompt, position)
    kept = on_device(np.array([position % len(prompt)]), frozen.device)
    seen: dict[str, Tensor] = {}
    ids = on_device(np.array([prompt.ids]), frozen.device)
    with torch.no_grad(), eager_attention(frozen), _recording_hooks(frozen, seen):
        output = frozen.model(input_ids=ids, use_cache=False, logits_to_keep=kept)
    require_finite(output.logits, "output (its logits)")
    if frozen.dtype == torch.float64 and frozen.recording_difference is None:
        frozen.recording_difference = _difference(frozen, ids, kept, output.logits)
    entering, learned = seen["embedding"], seen.get("position_embedding")
    return Recording(
        prompt=prompt,
        blocks=tuple(_block_recording(frozen, layer, seen) for layer in range(frozen.n_layers)),
        tokens=entering if learned is None else entering - learned,
        positions=learned,
        final_residual=seen["final_norm"],
        final_denominator=frozen.final_norm.denominator(seen["final_norm"]),
        position=position % len(prompt),
        logits=output.logits[0, 0],
    )


def _difference(frozen: FrozenModel, ids: Tensor, kept: Tensor, recorded: Tensor) -> float:
    """Relative difference of recorded logits from those of a pass without hooks.

    In float64 the recording replaces the model's norms by its own; wrong ones would change the
    logits and everything that is compared with them alike.
    """
    with torch.no_grad():
        own = frozen.model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
    return relative_difference(recorded, own)


def relative_difference(found: Float[Tensor, "*any"], own: Float[Tensor, "*any"]) -> float:
    """max |found - own| / max |own|, where `own` are the model's numbers; over 1 if all are 0."""
    difference, largest = torch.stack([(found - own).abs().max(), own.abs().max()]).tolist()
    return difference / (largest or 1.0)


def require_recordable(frozen: FrozenModel, prompt: Prompt, position: int) -> None:
    """Raises PromptError unless the model can be recorded on a prompt at one position.

    That is, for a prompt longer than the model's context or without that position, or with tokens
    that the model does not embed.
    """
    limit = frozen.context_length
    if limit is not None and len(prompt) > limit:
        raise PromptError(
            f"The prompt has {len(prompt)} tokens, the model's context holds {limit}: shorten it."
        )
    if not -len(prompt) <= position < len(prompt):
        raise PromptError(
            f"There is no position {position} in a prompt of {len(prompt)} tokens: choose one of "
            f"0 to {len(prompt) - 1}, or count from the end with a negative number."
        )
    frozen.require_embedded(torch.tensor(prompt.ids))


def _block_recording(frozen: FrozenModel, layer: int, seen: dict[str, Tensor]) -> BlockRecording:
    block, residual = frozen.blocks[layer], seen[f"{layer}.mlp_residual"]
    return BlockRecording(
        pattern=seen[f"{layer}.pattern"],
        attention_denominator=_denominator(
            block.attention_norm, seen.get(f"{layer}.attention_norm"), residual
        ),
        post_attention_denominator=_denominator(
            block.post_attention_norm, seen.get(f"{layer}.post_attention_norm"), residual
        ),
        mlp_residual=residual,
        mlp_denominator=block.mlp_norm.denominator(residual),
        mlp_input=seen[f"{layer}.mlp_input"],
        post_mlp_denominator=_denominator(
            block.post_mlp_norm, seen.get(f"{layer}.post_mlp_norm"), residual
        ),
        contribution=seen[f"{layer}.contribution"],
    )


def _denominator(norm: Norm | None, x: Tensor | None, like: Tensor) -> Float[Tensor, " pos"]:
    if norm is None or x is None:
        return torch.ones_like(like[:, 0])
    return norm.denominator(x)


@contextmanager
def eager_attention(frozen: FrozenModel) -> Iterator[None]:
    """Within the block, eager attention, the only implementation that returns patterns."""
    before = frozen.model.config._attn_implementation
    if before is None or before == "eager":
        yield
        return
    frozen.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        frozen.model.set_attn_implementation(before)


class Hooks(ExitStack):
    """Hooks on modules of a model, removed on leaving the `with` block."""

    def before(self, module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> None:
        """Call `change` with the module's input, before it runs; what it returns replaces that.

        None changes nothing.
        """

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            replacement = change(_first_argument(args, kwargs))
            if replacement is None:
                return None
            if args:
                return (replacement, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": replacement}

        self.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(
        self,
        module: nn.Module,
        change: Callable[[Tensor, Tensor], Tensor | None],
        part: int = 0,
        factor: float = 1.0,
    ) -> None:
        """Call `change` with the module's input and output; what it returns replaces the output.

        None changes nothing.  If the module returns several values, as attention returns its
        pattern and a mixture of experts its routing, the output is value `part` of them.  `factor`
        is what the model multiplies the output by: `change` sees and returns the product.
        """

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            parts = output if isinstance(output, tuple) else (output,)
            own = parts[part] if factor == 1 else parts[part] * factor
            replacement = change(_first_argument(args, kwargs), own)
            if replacement is None:
                return None
            if factor != 1:
                replacement = replacement / factor
            replaced = (*parts[:part], replacement, *parts[part + 1 :])
            return replaced if isinstance(output, tuple) else replacement

        self.callback(module.register_forward_hook(hook, with_kwargs=True).remove)


def _first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The first argument, which blocks and attention may receive by name."""
    return args[0] if args else kwargs["hidden_states"]


@contextmanager
def _recording_hooks(frozen: FrozenModel, seen: dict[str, Tensor]) -> Iterator[None]:
    """Within the block, store inputs and outputs of modules in `seen`, without the batch axis."""
    with Hooks() as hooks:

        def keep_input(module: nn.Module, name: str) -> None:
            hooks.before(module, lambda given: seen.update({name: given[0].detach()}))

        def keep_output(module: nn.Module, name: str, part: int = 0, factor: float = 1.0) -> None:
            def keep(_: Tensor, output: Tensor) -> None:
                seen[name] = output[0].detach()

            hooks.after(module, keep, part, factor)

        def keep_norm(module: nn.Module, norm: Norm, name: str) -> None:
            keep_input(module, name)
            if frozen.dtype == torch.float64:
                hooks.after(module, partial(exact_norm, norm))

        keep_input(frozen.modules[0], "embedding")
        if frozen.position_embedding is not None:
            keep_output(frozen.position_embedding, "position_embedding")
        keep_norm(frozen.final_norm_module, frozen.final_norm, "final_norm")
        for layer, block in enumerate(frozen.blocks):
            for name, module, norm in block.norms():
                keep_norm(module, norm, f"{layer}.{name}")
            keep_output(block.modules.attention, f"{layer}.pattern", 1)
            keep_input(block.modules.mlp_reader, f"{layer}.mlp_residual")
            keep_input(block.modules.mlp, f"{layer}.mlp_input")
            factor = frozen.residual_multiplier
            keep_output(block.modules.mlp_contribution, f"{layer}.contribution", factor=factor)
        yield


def exact_norm(norm: Norm, given: Tensor, output: Tensor) -> Tensor:
    """A norm's output in the dtype of its input, in place of the module's output.

    transformers computes RMSNorm in float32 for every dtype; in float64 that rounding would be
    the only term that the frozen model does not account for.
    """
    del output
    return norm.linear(given, norm.denominator(given)) + norm.bias
