"""The local replacement model of one prompt, from which every later stage of a trace starts.

The term is from "Circuit tracing: revealing computational graphs in language models" (Ameisen et
al., 2025): the model as it ran on one prompt, with features in the place of its MLPs, attention
patterns and norm denominators frozen, and reconstruction errors added.

Models direct unused attention to one position, a sink, mostly the first, whose residual grows a
hundredfold.  If it is BOS, it is a prefix position without features.  If it is an ordinary token,
its features are as large as its residual: they influence everything and reveal little about the
prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.targets import Targets, read_targets
from circuits.attribution.trace_settings import TargetSettings
from circuits.features.active import ActiveFeatures, FeatureSource, LinearPath
from circuits.machine import exact, gathered, is_accelerator, on_device
from circuits.model.frozen import DamagedWeights, FrozenModel, Norm
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from circuits.progress import Progress, ignore_progress
from circuits.recording.record import Recording, record
from graphs.core.brief import Brief
from graphs.core.provenance import DictionaryFit, Reading, Sink

# Of the residual's norm to the median.  Without BOS, the first token of SmolLM2-135M has 157 to
# 234; no other token of it or of Gemma 3 270M has more than 12.
LEAST_RATIO = 100.0
LEAST_POSITIONS = 4  # of which a variance says something
SHORT = 8  # a prefix of an eighth of the prompt


@dataclass(frozen=True, repr=False)
class LocalReplacement(Brief):
    """A model on one prompt, linear between what enters the residual stream and its targets."""

    frozen: FrozenModel
    recording: Recording
    features: ActiveFeatures  # in the place of the MLPs
    targets: Targets  # what a graph of it explains

    @property
    def first_swept(self) -> int:
        """The first position that needs covectors: after the prefix, unless a target is in it.

        On an accelerator a few more positions cost less than what the prefix needs apart.
        """
        prefix = self.recording.prompt.n_prefix
        short = is_accelerator(self.frozen.device) and SHORT * prefix <= len(self.recording.prompt)
        return 0 if short or (self.targets.covectors.pos < prefix).any() else prefix

    def norm_scale(
        self, targets: Int[ndarray, " some"], residual: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch some"]:
        """What the norm that targets read through divides by here, over what by at other residuals.

        The targets read one residual; 1 for those that read it as it is.
        """
        readings = [self.targets.readings[row] for row in targets.tolist()]
        norm, own = self._norm_before(readings[0])
        places, place = np.unique(self.targets.covectors.pos[targets], return_inverse=True)
        at = on_device(places, residual.device)
        # A copy, since what was recorded in inference mode takes no part in a gradient.
        scale = own[at].clone() / norm.denominator(residual.index_select(1, at))
        scale = scale.index_select(1, on_device(place, residual.device))
        through = np.array([one.norm is not None for one in readings])
        return scale if through.all() else torch.where(on_device(through, scale.device), scale, 1)

    def _norm_before(self, reading: Reading) -> tuple[Norm, Float[Tensor, " pos"]]:
        """The norm of the residual that a target reads, and what it divides by on the prompt."""
        if reading.layer is None:
            return self.frozen.final_norm, self.recording.final_denominator
        block, recorded = self.frozen.blocks[reading.layer], self.recording.blocks[reading.layer]
        if reading.before == "attention":
            return block.attention_norm, recorded.attention_denominator
        return block.mlp_norm, recorded.mlp_denominator


def local_replacement(
    prompt: Prompt,
    subject: Subject,
    source: FeatureSource,
    settings: TargetSettings,
    progress: Progress = ignore_progress,
) -> LocalReplacement:
    """Run a prompt once, and find its targets and active features.

    Raises as `circuits.recording.record.record`, `read_targets` and `FeatureSource.activate`.
    """
    frozen = subject.frozen
    progress("record", 0, 1)
    recording = record(frozen, prompt, settings.position)
    targets = read_targets(frozen, recording, settings, subject.spell, source)
    progress("features", 0, 1)
    features = source.activate(frozen, recording, targets.covectors)
    return LocalReplacement(frozen, recording, features, targets)


class Written(NamedTuple):
    """The parts of an MLP's contribution."""

    features: Int[ndarray, " feat"]  # those that write here
    vectors: Float[Tensor, "feat d_model"]  # what each of them adds
    constant: Float[Tensor, "pos d_model"]
    linear: dict[int, LinearPath]  # by the layer that is read
    error: Float[Tensor, "pos d_model"]  # the rest, at positions with features


def written_at(local: LocalReplacement, layer: int) -> Written:
    """The parts of a layer's contribution, where it lies; `require_sound` raises on overflow."""
    recording, features = local.recording, local.features
    first, device = recording.prompt.n_prefix, local.frozen.blocks[layer].device
    writing = [np.arange(0)]
    parts = [recording.blocks[layer].contribution[:0]]
    for source in features.writing_to(layer):
        here = features.read_at(source)
        writing.append(np.arange(here.start, here.stop))
        parts.append(features.rows.decoder(source, layer, here))
    rows, vectors = np.concatenate(writing), torch.cat(parts)
    linear = features.rows.linear(layer)
    constant = features.rows.constant(layer).clone()
    error = recording.blocks[layer].contribution - constant
    for read, path in linear.items():
        error[first:] -= path.forward(recording.blocks[read].mlp_residual[first:], first)
    error.index_add_(0, on_device(features.on_host.pos[rows], device), vectors, alpha=-1)
    return Written(rows, vectors, constant, linear, error)


def require_sound(local: LocalReplacement, finite: dict[int, Bool[Tensor, ""]]) -> None:
    """Raises DamagedWeights if the errors of a layer are not finite."""
    flags = gathered([flag[None] for flag in finite.values()], local.frozen.device)
    for layer, sound in zip(finite, flags.tolist(), strict=True):
        if not sound:
            raise DamagedWeights(
                f"The output of {local.features.identity.name!r} at layer {layer} overflows: its "
                "weights are damaged or not meant for this model."
            )


def error_squares(
    local: LocalReplacement, layer: int, error: Float[Tensor, "pos d_model"]
) -> Float[Tensor, " 2"]:
    """Squares of a layer's errors, and of what its MLP writes less the mean.

    Both are sums over the positions with features.
    """
    first = local.recording.prompt.n_prefix
    written = exact(local.recording.blocks[layer].contribution[first:])
    return torch.stack(
        [exact(error[first:]).square().sum(), (written - written.mean(0)).square().sum()]
    )


def dictionary_fit(
    local: LocalReplacement, squares: Float[ndarray, "layer 2"]
) -> DictionaryFit | None:
    """How well a dictionary fits, from `error_squares` of all layers.

    None where none is used, and on prompts of too few tokens.
    """
    swept = len(local.recording.prompt) - local.recording.prompt.n_prefix
    covered = local.features.covered
    if swept < LEAST_POSITIONS or not any(covered):
        return None
    error, variance = squares.T
    shares = np.divide(error, variance, out=np.zeros_like(error), where=variance > 0).tolist()
    l0 = (np.bincount(local.features.on_host.layer, minlength=len(shares)) / swept).tolist()
    unexplained, active = (
        tuple(one if there else None for one, there in zip(column, covered, strict=True))
        for column in (shares, l0)
    )
    return DictionaryFit(unexplained=unexplained, l0=active)


def attention_sinks(
    local: LocalReplacement, influence: Float[ndarray, " feat"]
) -> tuple[Sink, ...]:
    """The sinks behind the prefix; `influence` is that of the features.

    Residuals are those that the MLPs read, compared with the median over positions of each layer.
    """
    recording, features = local.recording, local.features
    norms = [block.mlp_residual.float().norm(dim=1)[None] for block in recording.blocks]
    norms = gathered(norms, local.frozen.device)
    # Of two middle values the lower: two tokens suffice.
    median = norms.median(1, keepdim=True).values
    ratios, layers = torch.where(median > 0, norms / median, 0.0).cpu().max(0)
    pos, total = features.on_host.pos, float(influence.sum())
    return tuple(
        Sink(
            pos=at,
            layer=int(layers[at]),
            ratio=float(ratios[at]),
            influence=float(influence[pos == at].sum()) / total if total > 0 else 0.0,
        )
        for at in range(recording.prompt.n_prefix, len(recording.prompt))
        if ratios[at] > LEAST_RATIO
    )
