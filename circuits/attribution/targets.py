"""Targets: what a graph explains, as directions in which an output is read.

A logit's direction is its unembedding row less the mean row over the vocabulary, before any
softcap, so that adding the same number to all logits changes nothing; its value is the logit
less the mean logit.  The mean row is one vector: no second copy of the unembedding is made.
Probabilities are the model's own, after the cap.

Beside the targets a sweep has rows of the final norm that these read: of its residual x, centred as
the norm centres it, and of covectors drawn at random (`graphs.core.responses`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.trace_settings import Direction, TargetSettings
from circuits.machine import in_float64, on_device
from circuits.model.frozen import Covectors, FrozenModel, Norm
from circuits.model.prompt import TargetError
from circuits.recording.record import Recording
from graphs.core.brief import Brief
from graphs.core.nodes import NodeKind
from graphs.core.provenance import Target
from graphs.core.responses import Before

# Random covectors of the final norm: of |δ|², K of them miss √(2 / K), three tenths with 24.  Fewer
# in a small trace: rows of the final norm cost more than most, and all are to cost a twentieth.
# More where rows inside the model are asked for too, which cost what they cost.
MOST_RANDOM, LEAST_RANDOM, SHARE, BESIDE_INNER = 24, 4, 0.03, 64
SEED = 0


@dataclass(frozen=True, repr=False)
class Targets(Brief):
    """The rows that a sweep starts from."""

    covectors: Covectors
    kind: NodeKind
    index: Int[ndarray, " target"]  # vocabulary id of a logit, number of any other direction
    value: Float[Tensor, " target"]  # the model's own value, what incoming weights must sum to
    constant: Float[Tensor, " target"]  # part of value that comes from final biases
    described: tuple[Target, ...]


def read_targets(
    frozen: FrozenModel,
    recording: Recording,
    settings: TargetSettings,
    token_texts: Callable[[int], str],
) -> Targets:
    """Directions, values and seeds of the targets; `token_texts` spells a vocabulary id.

    They are read at the recording's position.  Raises TargetError for settings that are
    inconsistent or do not fit the model.
    """
    _require_consistent(frozen, settings)
    pos = recording.position
    if settings.directions:
        return _direction_targets(frozen, recording, settings.directions, pos)
    chosen, probabilities = _chosen(recording.logits, settings)
    ids = on_device(chosen, frozen.device)
    rival, bias = settings.against, frozen.unembedding_bias
    against = frozen.unembedding_mean if rival is None else frozen.unembedding[rival]
    bias_value = torch.zeros_like(frozen.unembedding[ids, 0])
    if bias is not None:
        bias_value = bias[ids] - (bias.mean() if rival is None else bias[rival])
    named = bool(settings.tokens)
    return _final_targets(
        frozen,
        recording,
        directions=frozen.unembedding[ids] - against,
        bias_value=bias_value,
        pos=pos,
        seeds=np.ones(len(chosen)) if named else probabilities,
        kind=NodeKind.LOGIT if rival is None else NodeKind.TARGET,
        index=chosen if rival is None else np.arange(len(chosen)),
        described=tuple(
            _described(token, rival, probability, token_texts)
            for token, probability in zip(chosen.tolist(), probabilities.tolist(), strict=True)
        ),
    )


def _require_consistent(frozen: FrozenModel, settings: TargetSettings) -> None:
    """Raises TargetError for settings that are inconsistent or do not fit the model."""
    named = [*settings.tokens, *([] if settings.against is None else [settings.against])]
    if len(set(named)) < len(named):
        raise TargetError(
            "A token is given twice: give each target once, and a different --against."
        )
    if any(not 0 <= token < len(frozen.unembedding) for token in named):
        raise TargetError(
            f"A target is not in the vocabulary of {len(frozen.unembedding)} tokens: choose "
            "another."
        )
    if settings.against is not None and not settings.tokens:
        raise TargetError(
            "A target is missing, to compare with what it is against: give at least one token."
        )
    if settings.directions and settings.tokens:
        raise TargetError("Tokens and directions cannot be combined: trace them separately.")
    if settings.max_logits < 1:
        raise TargetError(f"max_logits must be at least 1, got {settings.max_logits}.")
    for direction in settings.directions:
        layer, shape = direction.layer, tuple(direction.vector.shape)
        if shape != (frozen.d_model,):
            raise TargetError(
                f"The direction {direction.text!r} has shape {shape}, the model needs "
                f"({frozen.d_model},)."
            )
        if layer is not None and not 0 <= layer < frozen.n_layers:
            raise TargetError(
                f"The direction {direction.text!r} reads layer {layer}, which does not exist: "
                f"choose one of 0 to {frozen.n_layers - 1}, or None."
            )


def _described(
    token: int, rival: int | None, probability: float, token_texts: Callable[[int], str]
) -> Target:
    if rival is not None:
        return Target(text=f"{token_texts(token)} − {token_texts(rival)}", probability=1.0)
    return Target(text=token_texts(token), token_id=token, probability=min(1.0, probability))


def _chosen(
    logits: Float[Tensor, " d_vocab"], settings: TargetSettings
) -> tuple[Int[ndarray, " target"], Float[ndarray, " target"]]:
    """The tokens to explain and their probabilities."""
    probabilities = in_float64(logits).softmax(-1)
    if settings.tokens:
        tokens = np.array(settings.tokens)
        return tokens, probabilities.numpy()[tokens]
    top = probabilities.topk(min(settings.max_logits, len(probabilities)))
    before = top.values.cumsum(0) - top.values
    count = max(1, int((before < settings.probability_mass).sum()))
    return top.indices[:count].numpy(), top.values[:count].numpy()


def _final_targets(
    frozen: FrozenModel,
    recording: Recording,
    *,
    directions: Float[Tensor, "target d_model"],
    bias_value: Float[Tensor, " target"],
    pos: int,
    seeds: Float[ndarray, " target"],
    kind: NodeKind,
    index: Int[ndarray, " target"],
    described: tuple[Target, ...],
) -> Targets:
    """Targets that read the normalised final residual."""
    norm, denominator = frozen.final_norm, recording.final_denominator[pos]
    final = norm.linear(recording.final_residual[pos], denominator) + norm.bias
    positions = np.full(len(directions), pos)
    return Targets(
        covectors=Covectors(
            layer=np.full(len(directions), frozen.n_layers),
            pos=positions,
            covector=norm.transpose(directions, denominator.expand(len(directions))),
            weight=seeds,
        ),
        kind=kind,
        index=index,
        value=directions @ final + bias_value,
        constant=directions @ norm.bias + bias_value,
        described=described,
    )


def _direction_targets(
    frozen: FrozenModel, recording: Recording, directions: tuple[Direction, ...], pos: int
) -> Targets:
    """Targets that read any vector, each from the residual that it names."""
    parts = []
    for number, direction in enumerate(directions):
        vector = direction.vector.to(frozen.unembedding)[None]
        described = (Target(text=direction.text, probability=1.0),)
        index, seed = np.array([number]), np.ones(1)
        if direction.layer is None:
            parts.append(
                _final_targets(
                    frozen,
                    recording,
                    directions=vector,
                    bias_value=torch.zeros_like(vector[:, 0]),
                    pos=pos,
                    seeds=seed,
                    kind=NodeKind.TARGET,
                    index=index,
                    described=described,
                )
            )
            continue
        residual = recording.blocks[direction.layer].mlp_residual[pos]
        parts.append(
            Targets(
                covectors=Covectors(np.array([direction.layer]), np.array([pos]), vector, seed),
                kind=NodeKind.TARGET,
                index=index,
                value=vector @ residual,
                constant=torch.zeros_like(vector[:, 0]),
                described=described,
            )
        )
    return _concatenate(parts)


def _concatenate(parts: list[Targets]) -> Targets:
    return Targets(
        covectors=Covectors.joined([part.covectors for part in parts]),
        kind=parts[0].kind,
        index=np.concatenate([part.index for part in parts]),
        value=torch.cat([part.value for part in parts]),
        constant=torch.cat([part.constant for part in parts]),
        described=tuple(target for part in parts for target in part.described),
    )


@dataclass(frozen=True, repr=False)
class ResponsePart(Brief):
    """Rows of a norm at one position, or of gates of one layer (`graphs.core.responses`)."""

    kind: NodeKind
    covectors: Covectors
    index: Int[ndarray, " row"]
    value: Float[Tensor, " row"]  # what each row must sum to
    constant: Float[Tensor, " row"]  # part of it that comes from biases
    norm: Norm | None = None
    before: Before = "mlp"  # what the norm is in front of

    def __len__(self) -> int:
        return len(self.index)


def random_covectors(n_rows: int) -> int:
    """How many a trace of so many rows affords for each final norm."""
    return min(MOST_RANDOM, max(LEAST_RANDOM, round(SHARE * n_rows) - 1))


def final_norms(
    frozen: FrozenModel, recording: Recording, targets: Covectors, count: int
) -> tuple[ResponsePart, ...]:
    """Rows of the final norm wherever a target reads it, of so many random covectors at each."""
    norm, layer = frozen.final_norm, frozen.n_layers
    if norm.eps is None:
        return ()
    drawn = on_device(_orthonormal(norm, count), frozen.device, frozen.dtype)
    residual = recording.final_residual
    return tuple(
        norm_rows("unembedding", norm, layer, pos, residual[pos], drawn)
        for pos in np.unique(targets.pos[targets.layer == layer]).tolist()
    )


def norm_rows(
    before: Before,
    norm: Norm,
    layer: int,
    pos: int,
    residual: Float[Tensor, " d_model"],
    more: Float[Tensor, "row d_model"],
    *,
    entering: bool = False,
) -> ResponsePart:
    """Rows of the residual that a norm reads at one position, and of more covectors.

    `entering`: whether it is the residual that enters a layer (`Covectors`).
    """
    covector = torch.cat([norm.centre(residual)[None], more])
    index = np.arange(len(covector))
    value = covector @ residual
    return ResponsePart(
        kind=NodeKind.ATTENTION_NORM if before == "attention" else NodeKind.NORM,
        covectors=Covectors(
            layer=np.full_like(index, layer),
            pos=np.full_like(index, pos),
            covector=covector,
            weight=np.zeros(len(index)),
            entering=np.full(len(index), True) if entering else None,
        ),
        index=index,
        value=value,
        constant=torch.zeros_like(value),
        norm=norm,
        before=before,
    )


def _orthonormal(norm: Norm, count: int) -> Float[ndarray, "row d_model"]:
    """Random covectors among those that the norm can read, the same on every device."""
    width = len(norm.gain)
    mean = np.ones((int(norm.centred), width))
    drawn = np.random.default_rng(SEED).standard_normal((min(count, width - len(mean)), width))
    return np.linalg.qr(np.concatenate([mean, drawn]).T).Q.T[len(mean) :]
