"""How well a dictionary stands for what it reconstructs, on one text.

For each of its sites: how much of the variance it leaves unexplained, how many of its features are
active and how many never are, and the loss of the model's next tokens if the reconstruction runs on
through the model in the place of its own vectors (Gemma Scope 2's tutorial; Rajamanoharan et al.,
arXiv 2404.16014):

    delta     = patched - own
    recovered = (ablated - patched) / (ablated - own)

One site is patched at a time; `ablated` is the loss with the same site set to zero, or to its mean.
A cross-layer set reconstructs a site from the features of all layers up to it, which are those of
the model's own run: what they write elsewhere is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.cost import DoesNotFit, free_for_blocks
from circuits.evaluation.evaluation_settings import Ablated, EvaluationSettings
from circuits.evaluation.fidelity import Reconstructed
from circuits.evaluation.replacement import Replacement
from circuits.evaluation.windows import Windows, windows_of
from circuits.features.autoencoders import AutoencoderSet
from circuits.features.points import Site, WritePoint
from circuits.features.transcoder_set import DictionaryMismatch, TranscoderSet
from circuits.machine import exactly, gigabytes, moved, widest
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from circuits.progress import Progress, ignore_progress
from graphs.core.brief import Brief

PASS_VALUES = 2**27  # activations, or logits, of the windows that go through the model together
LEAST_COST = 1e-6  # nats: less is rounding of float32
COPIES = 3  # of activations and logits, at once


@dataclass(frozen=True)
class PatchedLoss:
    """Losses of next tokens in nats, mean over the same predictions."""

    own: float  # of the model as it is
    patched: float  # with the reconstruction in the place of the model's own vectors
    ablated: float  # with zero, or the mean, in their place

    @property
    def delta(self) -> float:
        """What the patch costs."""
        return self.patched - self.own

    @property
    def recovered(self) -> float | None:
        """1 if the patch costs nothing, 0 if as much as ablation; None if that costs nothing."""
        cost = self.ablated - self.own
        return (self.ablated - self.patched) / cost if cost > LEAST_COST else None


@dataclass(frozen=True)
class SiteEvaluation:
    """One dictionary at its site."""

    layer: int
    site: Site
    unexplained: float | None  # squared error over variance; None if all vectors are the same
    l0: float  # active features per token
    dead: float  # share of its features that were never active on the text
    loss: PatchedLoss


@dataclass(frozen=True, repr=False)
class Evaluation(Brief):
    """A dictionary on one text."""

    model: str
    dictionary: str
    kind: str  # of dictionary
    tokens: int  # that count: those behind the prefix positions
    windows: int
    ablated: Ablated
    loss: float  # of the model itself, mean over all tokens that count but the last
    sites: tuple[SiteEvaluation, ...]
    together: PatchedLoss | None  # transcoders of all these layers at once; None of one layer

    def as_json(self) -> dict[str, object]:
        """All numbers, by the names that are shown."""
        return {
            "model": self.model,
            "dictionary": self.dictionary,
            "kind": self.kind,
            "tokens": self.tokens,
            "windows": self.windows,
            "ablated": str(self.ablated),
            "loss": self.loss,
            "sites": [
                {
                    "layer": one.layer,
                    "site": str(one.site),
                    "unexplained": one.unexplained,
                    "l0": one.l0,
                    "dead": one.dead,
                    **_losses(one.loss),
                }
                for one in self.sites
            ],
            "together": None if self.together is None else _losses(self.together),
        }


def _losses(loss: PatchedLoss) -> dict[str, float | None]:
    return {
        "patched": loss.patched,
        "delta": loss.delta,
        "ablated": loss.ablated,
        "recovered": loss.recovered,
    }


def evaluate(
    prompt: Prompt,
    subject: Subject,
    dictionary: TranscoderSet | AutoencoderSet,
    settings: EvaluationSettings | None = None,
    progress: Progress = ignore_progress,
) -> Evaluation:
    """Evaluate a dictionary on a text, which may be longer than the model's context.

    Prefix positions are neither replaced nor counted.  If a joint top-k chooses among the features
    of all layers, those of layers that are patched together compete within their layer only.
    Raises DictionaryMismatch for a dictionary of another model or layers that it lacks, PromptError
    as `windows_of`, and DoesNotFit if the features of one window take more memory than is free.
    """
    chosen = settings or EvaluationSettings()
    if isinstance(dictionary, TranscoderSet):
        dictionary = dictionary.fitted(subject.frozen)
    sites = _sites(dictionary, chosen.layers)
    windows = windows_of(prompt, subject, chosen.window)
    run = _Run(Replacement(subject.frozen, dictionary), list(sites))
    with exactly():
        run.measure(windows, chosen.ablated, progress)
    predictions = windows.tokens - 1
    own = run.own / predictions

    def loss(key: int | None) -> PatchedLoss:
        return PatchedLoss(own, run.patched[key] / predictions, run.ablated[key] / predictions)

    return Evaluation(
        model=subject.identity.name,
        dictionary=dictionary.identity.name,
        kind=dictionary.identity.kind,
        tokens=windows.tokens,
        windows=len(windows),
        ablated=chosen.ablated,
        loss=own,
        sites=tuple(
            SiteEvaluation(
                *site,
                unexplained=None if isnan(sums.unexplained) else sums.unexplained,
                l0=sums.l0,
                dead=sums.dead,
                loss=loss(place),
            )
            for (place, site), sums in zip(sites.items(), run.sums.values(), strict=True)
        ),
        together=loss(None) if run.together else None,
    )


class _Run:
    """Sums over the windows of a text."""

    def __init__(self, model: Replacement, places: list[int]) -> None:
        self.model, self.places = model, places
        transcoders = isinstance(model.dictionary, TranscoderSet)
        self.together = transcoders and len(places) > 1
        self.sums = {place: Reconstructed(model.weights[place].d_dict) for place in places}
        self.own = 0.0
        keys = [*places, None]  # None: all places together
        self.patched, self.ablated = (dict.fromkeys(keys, 0.0) for _ in range(2))
        # A joint top-k chooses among all layers, whichever are evaluated.
        joint = isinstance(model.dictionary, TranscoderSet) and model.dictionary.joint is not None
        self.encoded = None if joint else set(places)

    def measure(self, windows: Windows, ablated: Ablated, progress: Progress) -> None:
        """Run all windows, several at once where their features or logits are few.

        Raises DoesNotFit.
        """
        batches = list(windows.batches(self._at_once(windows)))
        each = 1 + 2 * len(self.places) + 2 * self.together
        absent = self._means(batches) if ablated == Ablated.MEAN else None
        for number, batch in enumerate(batches):
            for done, _ in enumerate(self._passes(batch, absent)):
                progress("evaluate", number * each + done, each * len(batches))

    def _passes(self, batch: Windows, absent: dict[int, Tensor] | None) -> Iterator[None]:
        """Add a batch, one pass of the model after the other."""
        model, counted = self.model, batch.counted
        yield
        logits = model.logits(batch.ids, None, counted=counted, places=self.encoded)
        self.own += batch.loss(logits)
        if absent is None:
            absent = {place: torch.zeros_like(model.outputs[place][0, 0]) for place in self.places}
        for place in self.places:
            reconstruction = model.reconstruction(place)
            parts = model.outputs[place], reconstruction, model.activations[place]
            there = moved(counted, reconstruction.device)
            self.sums[place].add(*(part[there] for part in parts))
            for sums, vectors in ((self.patched, reconstruction), (self.ablated, absent[place])):
                yield
                sums[place] += batch.loss(model.patched(batch.ids, counted, {place: vectors}))
        if self.together:
            yield
            self.ablated[None] += batch.loss(model.patched(batch.ids, counted, absent))
            yield
            patched = model.logits(batch.ids, counted, places=set(self.places))
            self.patched[None] += batch.loss(patched)

    def _means(self, batches: list[Windows]) -> dict[int, Float[Tensor, " d_in"]]:
        """Of what the model itself computes at each place, over the tokens that count."""
        totals: dict[int, Tensor] = {}
        for batch in batches:
            self.model.logits(batch.ids, None, last_only=True, places=())
            for place in self.places:
                own = self.model.outputs[place]
                own = own[moved(batch.counted, own.device)]
                total = own.to(widest(own)).sum(0)
                totals[place] = total + totals.get(place, 0)
        tokens, like = sum(batch.tokens for batch in batches), self.model.frozen.unembedding
        return {place: (total / tokens).to(like.dtype) for place, total in totals.items()}

    def _at_once(self, windows: Windows) -> int:
        """How many windows one pass takes.  Raises DoesNotFit if there is no room for one."""
        weights, frozen = self.model.weights, self.model.frozen
        features = sum(weights[place].d_dict for place in self.model.sources(self.encoded))
        per_token = max(features, len(frozen.unembedding))
        length = windows.ids.shape[1]
        needed = COPIES * length * per_token * frozen.unembedding.element_size()
        free = free_for_blocks(frozen)
        if needed > free:
            raise DoesNotFit(
                f"The features and logits of a window of {length:,} tokens take about "
                f"{gigabytes(needed)} and {gigabytes(free)} are free: choose shorter windows "
                "(--window) or fewer layers (--layer)."
            )
        return max(1, PASS_VALUES // (length * per_token))


def _sites(
    dictionary: TranscoderSet | AutoencoderSet, layers: tuple[int, ...]
) -> dict[int, tuple[int, Site]]:
    """Layer and site of each dictionary of these layers, by its place in the set.

    Raises DictionaryMismatch for a layer that it lacks.
    """
    if isinstance(dictionary, TranscoderSet):
        whole = dictionary.write == WritePoint.CONTRIBUTION
        site = Site.MLP if whole else Site.MLP_OUTPUT
        found = {i: (i, site) for i, one in enumerate(dictionary.layers) if one.d_dict}
    else:
        found = {i: (one.layer, one.site) for i, one in enumerate(dictionary.autoencoders)}
    has = sorted({layer for layer, _ in found.values()})
    for layer in layers:
        if layer not in has:
            raise DictionaryMismatch(
                f"{dictionary.identity.name!r} has no layer {layer}: choose among "
                f"{', '.join(map(str, has))}."
            )
    return {place: one for place, one in found.items() if not layers or one[0] in layers}
