"""Misfits: signs on one prompt that a dictionary is not of this model, or reads elsewhere.

A few tokens suffice.  A dictionary that fits leaves part of the variance of what the MLPs write
unexplained, and has about as many active features as its files state; one that reads or writes at
another point leaves many times the variance.  So does one of another revision or model, for which
no point fits.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from statistics import median

import torch

from circuits.attribution.local_replacement import (
    dictionary_fit,
    error_squares,
    local_replacement,
    written_at,
)
from circuits.attribution.trace_settings import TargetSettings
from circuits.features.active import FeatureSource
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder_set import TranscoderSet
from circuits.machine import exactly, in_float64
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from graphs.core.graph import AttributionGraph
from graphs.core.provenance import DictionaryFit

MOST_UNEXPLAINED = 1.0  # median over layers
L0_FACTOR = 3.0  # by which the number of active features may differ from what is stated


def misfits(graph: AttributionGraph, subject: Subject, source: FeatureSource) -> tuple[str, ...]:
    """One sentence per sign that the dictionary of a traced graph does not fit its model.

    If too much is unexplained, the prompt is recorded again and other read and write points tried.
    """
    fit = graph.provenance.fit
    if fit is None or not isinstance(source, TranscoderSet):
        return ()
    found: list[str] = []
    if fit.overall > MOST_UNEXPLAINED:
        found.append(
            "The dictionary does not fit the model on this prompt: it leaves "
            f"{fit.overall:.2g} times the variance of what the MLPs write unexplained (median over "
            f"layers), where less than 1 is expected; {_cause(graph, subject, source)}."
        )
    stated = graph.provenance.dictionary.l0
    if stated is not None and len(stated) == len(fit.l0):
        found += _unlike_stated(fit, stated)
    return tuple(found)


def _cause(graph: AttributionGraph, subject: Subject, source: TranscoderSet) -> str:
    header = graph.provenance
    prompt = Prompt(header.prompt, header.token_ids, header.tokens, header.n_prefix)
    others = [
        replace(source, read=read, write=write)
        for read, write in product(ReadPoint, WritePoint)
        if (read, write) != (source.read, source.write)
    ]
    with exactly():
        least, best = min(
            ((_unexplained(prompt, subject, other), other) for other in others),
            key=lambda pair: pair[0],
        )
    if least > MOST_UNEXPLAINED:
        return (
            "no other read or write point fits, so it may be of another revision, or of another "
            "model, as a base model's is for its chat model"
        )
    return (
        f"read at {best.read} and written at {best.write} it leaves {least:.2g}: use --read-at "
        f"{best.read} --write-at {best.write}"
    )


def _unexplained(prompt: Prompt, subject: Subject, source: TranscoderSet) -> float:
    """Median over the layers of the share of variance that is unexplained."""
    local = local_replacement(prompt, subject, source, TargetSettings())
    layers = range(subject.frozen.n_layers)
    squares = [
        in_float64(error_squares(local, layer, written_at(local, layer).error)) for layer in layers
    ]
    fit = dictionary_fit(local, torch.stack(squares).numpy())
    assert fit is not None  # as of the graph
    return fit.overall


def _unlike_stated(fit: DictionaryFit, stated: tuple[float, ...]) -> list[str]:
    """A sentence if most layers have other numbers of active features than their files state."""
    pairs = zip(fit.l0, stated, strict=True)
    wrong = [
        not 1 / L0_FACTOR <= own / named <= L0_FACTOR for own, named in pairs if own is not None
    ]
    if sum(wrong) <= 0.5 * len(wrong):
        return []
    return [
        f"The dictionary has {fit.typical_l0:.2g} active features per token and layer on this "
        f"prompt, and its files state {median(stated):.2g}: it may read at another point, or be of "
        "another revision or model."
    ]
