"""Recording: one forward pass of the plain model, keeping what the linear view needs.

Hooks on the model's own modules store attention patterns, norm denominators, MLP inputs and
outputs, the embedding that enters layer 0 and the logits; they are removed when the pass ends.
Everything afterwards is plain linear algebra on these tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.model.architectures import optional_part, part
from circuits.model.frozen import FrozenBlock, FrozenModel, Norm, require_finite
from circuits.model.prompt import Prompt, PromptError


@dataclass(frozen=True)
class BlockRecording:
    """One block's nonlinearities on one prompt."""

    pattern: Float[Tensor, "head query key"]  # after softmax, mask and window
    attention_denominator: Float[Tensor, " pos"]
    post_attention_denominator: Float[Tensor, " pos"]  # one where there is no such norm
    mlp_residual: Float[Tensor, "pos d_model"]  # what the MLP's norm reads
    mlp_denominator: Float[Tensor, " pos"]
    mlp_input: Float[Tensor, "pos d_model"]  # normalised, with gain
    post_mlp_denominator: Float[Tensor, " pos"]
    contribution: Float[Tensor, "pos d_model"]  # what the MLP adds to the residual


@dataclass(frozen=True)
class Recording:
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


def record(frozen: FrozenModel, prompt: Prompt, position: int = -1) -> Recording:
    """Run the model once on a prompt; logits are kept at one position.

    Raises PromptError as `require_possible`, DamagedWeights if logits are not finite.
    """
    require_possible(frozen, prompt, position)
    kept = torch.tensor([position % len(prompt)], device=frozen.device)
    seen: dict[str, Tensor] = {}
    ids = torch.tensor([prompt.ids], device=frozen.device)
    with torch.no_grad(), eager_attention(frozen), _hooks(frozen, seen):
        output = frozen.model(input_ids=ids, use_cache=False, logits_to_keep=kept)
    require_finite(output.logits, "output (its logits)")
    if frozen.dtype == torch.float64 and frozen.recording_difference is None:
        frozen.recording_difference = _difference(frozen, ids, kept, output.logits)
    entering, learned = seen["embedding"], seen.get("position_embedding")
    return Recording(
        prompt=prompt,
        blocks=tuple(_block_recording(i, block, seen) for i, block in enumerate(frozen.blocks)),
        tokens=entering if learned is None else entering - learned,
        positions=learned,
        final_residual=seen["final_norm"],
        final_denominator=frozen.final_norm.denominator(seen["final_norm"]),
        position=position % len(prompt),
        logits=output.logits[0, 0],
    )


def _difference(frozen: FrozenModel, ids: Tensor, kept: Tensor, recorded: Tensor) -> float:
    """Largest difference of a recorded logit from those of an untouched pass, over the largest.

    In float64 the recording puts its own norms in the place of the model's, so that wrong ones
    would change the logits and everything that is compared with them alike.
    """
    with torch.no_grad():
        own = frozen.model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
    return relative_difference(recorded, own)


def relative_difference(found: Float[Tensor, "*any"], own: Float[Tensor, "*any"]) -> float:
    """Largest difference from the model's own numbers, over the largest of these, if not 0."""
    return float((found - own).abs().max()) / (float(own.abs().max()) or 1.0)


def require_possible(frozen: FrozenModel, prompt: Prompt, position: int) -> None:
    """Whether the model can run on a prompt and be asked at one position of it.

    Raises PromptError for a prompt longer than the model's context or without that position, or
    of tokens that the model does not embed.
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


def _block_recording(layer: int, block: FrozenBlock, seen: dict[str, Tensor]) -> BlockRecording:
    residual = seen[f"{layer}.mlp_norm"]
    return BlockRecording(
        pattern=seen[f"{layer}.pattern"],
        attention_denominator=block.attention_norm.denominator(seen[f"{layer}.attention_norm"]),
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
    """Eager attention for the pass, since only it returns patterns."""
    before = frozen.model.config._attn_implementation
    if before is None or before == "eager":
        yield
        return
    frozen.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        frozen.model.set_attn_implementation(before)


@contextmanager
def _hooks(frozen: FrozenModel, seen: dict[str, Tensor]) -> Iterator[None]:
    """Store what passes through the modules in `seen`, without the batch axis."""
    layout = frozen.layout
    with ExitStack() as stack:

        def keep_input(module: nn.Module | None, name: str) -> None:
            if module is not None:
                hook = _store_input(seen, name)
                handle = module.register_forward_pre_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)

        def keep_output(module: nn.Module | None, name: str, index: int | None = None) -> None:
            if module is not None:
                stack.callback(module.register_forward_hook(_store(seen, name, index)).remove)

        def exact(module: nn.Module | None, norm: Norm | None) -> None:
            if module is not None and norm is not None and frozen.dtype == torch.float64:
                stack.callback(module.register_forward_hook(exact_norm(norm)).remove)

        keep_input(frozen.modules[0], "embedding")
        keep_output(optional_part(frozen.model, layout.position_embedding), "position_embedding")
        final = part(frozen.model, layout.final_norm)
        keep_input(final, "final_norm")
        exact(final, frozen.final_norm)
        for layer, (module, block) in enumerate(zip(frozen.modules, frozen.blocks, strict=True)):
            norms = {
                "attention_norm": (layout.attention_norm, block.attention_norm),
                "post_attention_norm": (layout.post_attention_norm, block.post_attention_norm),
                "mlp_norm": (layout.mlp_norm, block.mlp_norm),
                "post_mlp_norm": (layout.post_mlp_norm, block.post_mlp_norm),
            }
            for name, (path, norm) in norms.items():
                keep_input(optional_part(module, path), f"{layer}.{name}")
                exact(optional_part(module, path), norm)
            keep_output(part(module, layout.attention), f"{layer}.pattern", 1)
            keep_output(part(module, layout.mlp_norm), f"{layer}.mlp_input")
            keep_output(part(module, layout.mlp_contribution), f"{layer}.contribution")
        yield


def _store_input(seen: dict[str, Tensor], name: str):
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        seen[name] = (args[0] if args else kwargs["hidden_states"])[0].detach()

    return hook


def _store(seen: dict[str, Tensor], name: str, index: int | None):
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor | tuple[Any, ...]) -> None:
        del module, args
        # The MLP of a mixture of experts returns its routing as well.
        value = output[index or 0] if isinstance(output, tuple) else output
        seen[name] = value[0].detach()

    return hook


def exact_norm(norm: Norm):
    """A hook that computes a norm in the number type of its input."""

    # transformers computes RMSNorm in float32 whatever the dtype; in float64 that rounding would
    # be the only term that the linear view does not account for.
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        del module, output
        return norm.linear(args[0], norm.denominator(args[0])) + norm.bias

    return hook
