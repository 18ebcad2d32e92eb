"""Targets: what a graph explains, as directions in which an output is read.

A logit's direction is its unembedding row less the mean row over the vocabulary, before any
softcap, so that adding the same number to all logits changes nothing; its value is the logit
less the mean logit.  The mean row is one vector: no second copy of the unembedding is made.
Probabilities are the model's own, after the cap.  A token of a sequence is compared with the mean
row that its probabilities weigh; its value is not its log-probability, which is not linear.  What
is read inside the model is in `circuits.attribution.inner_targets`.

Beside the targets a sweep has rows of the final norm that these read: of its residual x, centred as
the norm centres it, and of covectors drawn at random (`graphs.core.responses`).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.inner_targets import Rows, inner_row
from circuits.attribution.trace_settings import Direction, TargetSettings
from circuits.features.active import FeatureSource
from circuits.machine import in_float64, moved, on_device
from circuits.model.frozen import Covectors, FrozenModel, Norm
from circuits.model.prompt import TargetError
from circuits.recording.record import Recording
from graphs.core.brief import Brief
from graphs.core.nodes import NodeKind
from graphs.core.provenance import (
    LEAST_SURPRISE,
    ContrastReading,
    DirectionReading,
    FinalReading,
    Reading,
    Target,
    TokenReading,
)
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
    kind: Int[ndarray, " target"]  # NodeKind
    index: Int[ndarray, " target"]  # vocabulary id of a logit, number of any other target
    value: Float[Tensor, " target"]  # the model's own value, what incoming weights must sum to
    constant: Float[Tensor, " target"]  # part of value that comes from biases
    described: tuple[Target, ...]

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What each reads."""
        return tuple(one.reading for one in self.described if one.reading is not None)

    def read_at(self, layer: int, before: str) -> Int[ndarray, " some"]:
        """The targets that read this residual of a layer."""
        same = [one.before == before for one in self.readings]
        return np.flatnonzero((self.covectors.layer == layer) & same)


def read_targets(
    frozen: FrozenModel,
    recording: Recording,
    settings: TargetSettings,
    token_texts: Callable[[int], str],
    source: FeatureSource | None = None,
) -> Targets:
    """Directions, values and seeds of the targets; `token_texts` spells a vocabulary id.

    `source` is needed for targets that are features.  Raises TargetError for settings that are
    inconsistent or do not fit the model and the prompt.
    """
    outputs = _Outputs(frozen, recording)
    _require_numbers(frozen, settings)
    readings, seeds = _asked(outputs, settings)
    _require_consistent(frozen, recording, settings, readings)
    if not readings:
        readings, seeds = outputs.leading(settings)
    covector, value, constant = _rows(outputs, readings, source)
    is_logit = np.array([one.what == "logit" for one in readings])
    number = (~is_logit).cumsum() - 1
    token = [one.index if isinstance(one, TokenReading) else 0 for one in readings]
    return Targets(
        covectors=Covectors(
            layer=np.array([frozen.n_layers if r.layer is None else r.layer for r in readings]),
            pos=np.array([one.pos for one in readings]),
            covector=covector,
            weight=np.array(seeds, dtype=np.float64),
            entering=_entering(frozen, readings),
        ),
        kind=np.where(is_logit, NodeKind.LOGIT, NodeKind.TARGET),
        index=np.where(is_logit, token, number),
        value=value,
        constant=constant,
        described=tuple(
            Target(
                text=_text(one, token_texts),
                token_id=one.index if isinstance(one, TokenReading) else None,
                probability=outputs.probability(one),
                reading=one,
            )
            for one in readings
        ),
    )


def _require_numbers(frozen: FrozenModel, settings: TargetSettings) -> None:
    """Raises TargetError for numbers that no reading can have, or none of this vocabulary."""
    named = [*settings.tokens, *settings.sequence]
    named += [] if settings.against is None else [settings.against]
    named += [one.index for one in settings.readings if isinstance(one, FinalReading)]
    named += [one.against for one in settings.readings if isinstance(one, ContrastReading)]
    if any(not 0 <= token < len(frozen.unembedding) for token in named):
        raise TargetError(
            f"A target is not in the vocabulary of {len(frozen.unembedding)} tokens: choose "
            "another."
        )
    for one in settings.directions:
        if not np.all(np.isfinite(in_float64(torch.as_tensor(one.vector)).numpy())):
            raise TargetError(f"The direction {one.text!r} has numbers that are not finite.")
        if min(one.layer or 0, one.pos or 0) < 0:
            raise TargetError(
                f"The direction {one.text!r} has layer {one.layer} and position {one.pos}: give "
                "numbers from 0 on."
            )


def _asked(outputs: _Outputs, settings: TargetSettings) -> tuple[list[Reading], list[float]]:
    """What the settings name, and weights."""
    recording, rival = outputs.recording, settings.against
    pos = recording.position
    found: list[Reading] = [
        TokenReading(what="logit", pos=pos, index=token)
        if rival is None
        else ContrastReading(pos=pos, index=token, against=rival)
        for token in settings.tokens
    ]
    first = pos + 1 - len(settings.sequence)
    if first < 0 or recording.prompt.ids[first + 1 : pos + 1] != settings.sequence[:-1]:
        raise TargetError(
            "A sequence is explained from the token in front of it on, but the prompt does not end "
            "with it up to its last token: append it with `circuits.continued`."
        )
    seeds = [1.0] * len(found)
    for place, token in enumerate(settings.sequence, first):
        found.append(TokenReading(what="sequence", pos=place, index=token))
        # As large as the gradient in the token's own logit, of which a sure token has none.
        seeds.append(max(LEAST_SURPRISE, 1 - outputs.probability(found[-1])))
    found += [_of_direction(one, pos) for one in settings.directions]
    seeds += [1.0] * len(settings.directions)
    seeds += settings.seeds or [1.0] * len(settings.readings)
    return [*found, *settings.readings], seeds


def _of_direction(direction: Direction, position: int) -> DirectionReading:
    vector = in_float64(torch.as_tensor(direction.vector)).numpy()
    return DirectionReading(
        pos=position if direction.pos is None else direction.pos,
        layer=direction.layer,
        before="unembedding" if direction.layer is None else direction.before,
        text=direction.text,
        vector=b64encode(vector.astype("<f8").tobytes()).decode(),
    )


def _require_consistent(
    frozen: FrozenModel, recording: Recording, settings: TargetSettings, readings: list[Reading]
) -> None:
    """Raises TargetError for settings that are inconsistent or do not fit model and prompt."""
    named = [*settings.tokens, *([] if settings.against is None else [settings.against])]
    if len(set(named)) < len(named):
        raise TargetError(
            "A token is given twice: give each target once, and a different --against."
        )
    if len(set(readings)) < len(readings):
        raise TargetError("A target is given twice: give each target once.")
    if settings.against is not None and not settings.tokens:
        raise TargetError(
            "A target is missing, to compare with what it is against: give at least one token."
        )
    if settings.max_logits < 1:
        raise TargetError(f"max_logits must be at least 1, got {settings.max_logits}.")
    for one in readings:
        what = f"The target {one.name!r}"
        if one.layer is not None and one.layer >= frozen.n_layers:
            raise TargetError(
                f"{what} reads layer {one.layer}, which does not exist: choose one of 0 to "
                f"{frozen.n_layers - 1}."
            )
        if isinstance(one, DirectionReading) and len(one.direction) != frozen.d_model:
            raise TargetError(
                f"{what} has {len(one.direction)} numbers, the model needs {frozen.d_model}."
            )
        if one.pos >= len(recording.prompt):
            raise TargetError(
                f"{what} is at position {one.pos} of a prompt of {len(recording.prompt)} tokens: "
                f"choose one of 0 to {len(recording.prompt) - 1}."
            )


def _text(reading: Reading, token_texts: Callable[[int], str]) -> str:
    match reading:
        case TokenReading():
            return token_texts(reading.index)
        case ContrastReading():
            return f"{token_texts(reading.index)} − {token_texts(reading.against)}"
        case _:
            return reading.name


def _entering(frozen: FrozenModel, readings: list[Reading]) -> Bool[ndarray, " target"] | None:
    """Which read the residual that enters attention, where that is another than the MLP's."""
    found = np.array([one.before == "attention" for one in readings])
    return found if found.any() and not frozen.parallel else None


def _rows(outputs: _Outputs, readings: list[Reading], source: FeatureSource | None) -> Rows:
    """Rows of all readings, in their order."""
    tokens: dict[int, FinalReading] = {}
    vectors: dict[int, DirectionReading] = {}
    inner: dict[int, Reading] = {}
    for row, one in enumerate(readings):
        match one:
            case FinalReading():
                tokens[row] = one
            case DirectionReading(layer=None):
                vectors[row] = one
            case _:
                inner[row] = one
    parts: list[Rows] = []
    if tokens:
        parts.append(outputs.of_tokens([*tokens.values()]))
    if vectors:
        parts.append(outputs.of_vectors([*vectors.values()]))
    for one in inner.values():
        parts.append(inner_row(outputs.frozen, outputs.recording, one, source))
    if len(parts) == 1:
        return parts[0]
    order = on_device(np.argsort([*tokens, *vectors, *inner]), outputs.frozen.device)
    return Rows(*(torch.cat(column)[order] for column in zip(*parts, strict=True)))


class _Outputs:
    """The model's output at the positions where targets read it."""

    def __init__(self, frozen: FrozenModel, recording: Recording) -> None:
        self.frozen, self.recording = frozen, recording
        self._probabilities: dict[int, Float[Tensor, " d_vocab"]] = {}

    def final(self, pos: int) -> Float[Tensor, " d_model"]:
        """The normalised final residual."""
        norm, recording = self.frozen.final_norm, self.recording
        residual, denominator = recording.final_residual[pos], recording.final_denominator[pos]
        return norm.linear(residual, denominator) + norm.bias

    def probabilities(self, pos: int) -> Float[Tensor, " d_vocab"]:
        """Of the next token, in float64 on the host."""
        if pos not in self._probabilities:
            own = pos == self.recording.position
            logits = self.recording.logits if own else self.frozen.logits(self.final(pos))
            self._probabilities[pos] = in_float64(logits).softmax(-1)
        return self._probabilities[pos]

    def probability(self, reading: Reading) -> float:
        """The model's own of a token; 1 of anything else."""
        if not isinstance(reading, TokenReading):
            return 1.0
        return min(1.0, float(self.probabilities(reading.pos)[reading.index]))

    def leading(self, settings: TargetSettings) -> tuple[list[Reading], list[float]]:
        """The most probable next tokens, and their probabilities."""
        pos = self.recording.position
        probabilities = self.probabilities(pos)
        top = probabilities.topk(min(settings.max_logits, len(probabilities)))
        before = top.values.cumsum(0) - top.values
        count = max(1, int((before < settings.probability_mass).sum()))
        tokens = top.indices[:count].tolist()
        found: list[Reading] = [
            TokenReading(what="logit", pos=pos, index=token) for token in tokens
        ]
        return found, top.values[:count].tolist()

    def of_tokens(self, readings: list[FinalReading]) -> Rows:
        """Rows of tokens, each less what it is compared with."""
        unembedding, bias = self.frozen.unembedding, self.frozen.unembedding_bias
        ids, home = np.array([one.index for one in readings]), self.frozen.device
        own = moved(unembedding[on_device(ids, unembedding.device)], home)
        behind = torch.stack([self._compared(one, unembedding) for one in readings])
        added = torch.zeros_like(own[:, 0])
        if bias is not None:
            compared = torch.stack([self._compared(one, bias) for one in readings])
            added = moved(bias[on_device(ids, bias.device)], home) - compared
        return self._read(own - behind, added, readings)

    def of_vectors(self, readings: list[DirectionReading]) -> Rows:
        """Rows of directions in the normalised final residual."""
        vectors = np.stack([one.direction for one in readings])
        directions = on_device(vectors, self.frozen.device, self.frozen.dtype)
        return self._read(directions, torch.zeros_like(directions[:, 0]), readings)

    def _compared(self, reading: FinalReading, rows: Tensor) -> Tensor:
        """What a token's row is compared with, of rows or biases of the vocabulary."""
        match reading:
            case ContrastReading():
                found = rows[reading.against]
            case TokenReading(what="logit"):
                found = self.frozen.unembedding_mean if rows.dim() > 1 else self._mean_bias
            case _:
                probabilities = self.probabilities(reading.pos).numpy()
                found = on_device(probabilities, rows.device, rows.dtype) @ rows
        return moved(found, self.frozen.device)

    @cached_property
    def _mean_bias(self) -> Float[Tensor, ""]:
        bias = self.frozen.unembedding_bias
        assert bias is not None
        return bias.mean()

    def _read(
        self,
        directions: Float[Tensor, "target d_model"],
        added: Float[Tensor, " target"],
        readings: Sequence[FinalReading | DirectionReading],
    ) -> Rows:
        """Rows of directions in the normalised final residual, with what biases of logits add."""
        norm, pos = self.frozen.final_norm, np.array([one.pos for one in readings])
        denominator = self.recording.final_denominator[on_device(pos, added.device)]
        first, *others = np.unique(pos).tolist()
        value = directions @ self.final(first)
        for at in others:
            here = on_device(pos == at, added.device)
            value = torch.where(here, directions @ self.final(at), value)
        covector = norm.transpose(directions, denominator)
        return Rows(covector, value + added, directions @ norm.bias + added)


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
