"""Profiling: a model's features over a set of prompts (`graphs.comparison.profiles`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import coo_array, csr_array

from circuits.attribution.targets import read_targets
from circuits.attribution.trace_settings import TargetSettings
from circuits.features.active import ActiveFeatures, FeatureSource
from circuits.features.hook_points import MlpPoints
from circuits.features.hybrid import Filled
from circuits.features.labels import output_tokens, written
from circuits.features.neuron_layer import neuron_layer
from circuits.features.neurons import Neurons
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder_set import DictionaryMismatch
from circuits.machine import in_float64, on_device
from circuits.model.prompt import Prompt, PromptError, read_prompt
from circuits.model.prompt_rule import DEFAULT_RULE, PromptRule
from circuits.model.subject import Subject
from circuits.progress import Progress, ignore_progress
from circuits.recording.record import record
from graphs.comparison.profiles import Profile, Profiled
from graphs.disk.files import GraphFileError, regular_file

LARGEST_PROMPTS = 2**24  # bytes
PROMOTED = 10  # promoted tokens kept per feature
Feature = tuple[int, int]  # layer, index


def profile(
    subject: Subject,
    source: FeatureSource,
    texts: Sequence[str],
    wanted: set[Feature] | None = None,
    progress: Progress = ignore_progress,
    rule: PromptRule = DEFAULT_RULE,
) -> Profile:
    """Activations and promoted tokens over prompts, of all active features or those in `wanted`.

    All neurons are active, so without `wanted` they are those that `Neurons` would trace on any of
    the prompts; their activations are given at every token.
    Raises PromptError for no prompts or one that does not fit the model, DictionaryMismatch for a
    dictionary of another model.
    """
    if not texts:
        raise PromptError("There are no prompts: give at least one.")
    prompts = [read_prompt(text, subject.tokenizer, rule) for text in texts]
    promoted: dict[Feature, tuple[str, ...]] = {}
    decoder: dict[Feature, Float[ndarray, " d_model"]] = {}
    dictionary = ""
    firing: list[Float[ndarray, "4 _fired"]] = []  # layer, index, token of all prompts, activation
    start = 0
    with torch.inference_mode():
        for done, prompt in enumerate(prompts):
            progress("profile", done, len(prompts))
            recording = record(subject.frozen, prompt)
            targets = read_targets(subject.frozen, recording, TargetSettings(), subject.spell)
            found = source.activate(subject.frozen, recording, targets.covectors)
            dictionary = found.identity.name
            _describe(subject, found, wanted, promoted, decoder)
            if not isinstance(source, Neurons):
                firing.append(_columns(found, start))
            start += len(prompt)
        kept = sorted(promoted if wanted is None else wanted)
        if isinstance(source, (Neurons, Filled)):
            firing += _neurons(subject, prompts, kept, source)
    return Profile(
        model=subject.identity.name,
        dictionary=dictionary,
        prompts=tuple(
            Profiled(text=text, tokens=prompt.tokens)
            for text, prompt in zip(texts, prompts, strict=True)
        ),
        layer=np.array([layer for layer, _ in kept], dtype=np.int64),
        index=np.array([index for _, index in kept], dtype=np.int64),
        activation=_matrix(kept, firing, start),
        promoted=tuple(promoted.get(feature, ()) for feature in kept),
        decoder=np.array(
            [decoder.get(feature, np.zeros(subject.frozen.d_model)) for feature in kept],
            dtype=np.float32,
        ).reshape(len(kept), subject.frozen.d_model),
    )


def read_texts(path: Path) -> list[str]:
    """The prompts in a file, one a line; empty lines are skipped.

    Raises GraphFileError for a path that is not a file, PromptError for a file without prompts.
    """
    if regular_file(path).stat().st_size > LARGEST_PROMPTS:
        raise GraphFileError(
            f"{path} is too large: files of prompts have at most {LARGEST_PROMPTS:,} bytes."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PromptError(f"Cannot read prompts from {path}: {reason}.") from error
    return texts_in(text, str(path))


def texts_in(text: str, name: str) -> list[str]:
    """The prompts in a text, one a line; `name` is its own, for the message.

    Raises PromptError if there are none.
    """
    texts = [line for line in re.split(r"\r\n?|\n", text) if line]
    if not texts:
        raise PromptError(f"{name} has no prompts: write one per line.")
    return texts


def _describe(
    subject: Subject,
    found: ActiveFeatures,
    wanted: set[Feature] | None,
    promoted: dict[Feature, tuple[str, ...]],
    decoder: dict[Feature, Float[ndarray, " d_model"]],
) -> None:
    """Add promoted tokens and decoder directions of features that are new."""
    pairs = zip(found.on_host.layer.tolist(), found.on_host.index.tolist(), strict=True)
    new = {pair: row for row, pair in enumerate(pairs) if pair not in promoted}
    if wanted is not None:
        new = {pair: row for pair, row in new.items() if pair in wanted}
    rows = np.array(list(new.values()), dtype=np.int64)
    tokens = output_tokens(subject.frozen, found, rows, subject.spell, PROMOTED)
    promoted.update(zip(new, tokens, strict=True))
    if len(rows):
        vectors = written(subject.frozen, found, rows)
        directions = torch.nn.functional.normalize(vectors.float(), dim=1).cpu().numpy()
        decoder.update(zip(new, directions, strict=True))


def _columns(found: ActiveFeatures, start: int) -> Float[ndarray, "4 _fired"]:
    places, activation = found.on_host, found.numbers[0]
    columns = (places.layer, places.index, start + places.pos, activation)
    return np.stack([column.astype(np.float64) for column in columns])


def _neurons(
    subject: Subject, prompts: Sequence[Prompt], kept: list[Feature], source: FeatureSource
) -> Iterator[Float[ndarray, "4 _fired"]]:
    """Activations of neurons at every token of every prompt."""
    frozen = subject.frozen
    filled = range(frozen.n_layers)
    if isinstance(source, Filled):
        layers = source.transcoders.fitted(frozen).layers
        filled = [layer for layer in filled if layers[layer].d_dict == 0]
    start = 0
    for prompt in prompts:
        recording = record(frozen, prompt)
        points = MlpPoints(frozen, recording, ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
        for layer in filled:
            index = np.array([i for own, i in kept if own == layer], dtype=np.int64)
            every = neuron_layer(points, layer).activation
            if index.max(initial=0) >= every.shape[1]:
                raise DictionaryMismatch(
                    f"Layer {layer} has {every.shape[1]:,} neurons, and none with index "
                    f"{index.max()}: profile features from graphs of this model's neurons."
                )
            neurons = in_float64(every.index_select(1, on_device(index, every.device))).numpy()
            pos, which = (axis.ravel() for axis in np.indices(neurons.shape))
            columns = (np.full(pos.shape, layer), index[which], start + pos, neurons.ravel())
            yield np.stack([column.astype(np.float64) for column in columns])
        start += len(prompt)


def _matrix(
    kept: list[Feature], firing: Sequence[Float[ndarray, "4 _fired"]], tokens: int
) -> csr_array:
    """Activations of the kept features by token; of duplicates the later one counts."""
    row = {feature: place for place, feature in enumerate(kept)}
    places: dict[tuple[int, int], float] = {}
    for part in firing:
        layers, indices, pos = part[:3].astype(np.int64).tolist()
        for layer, index, token, value in zip(layers, indices, pos, part[3].tolist(), strict=True):
            if (layer, index) in row:
                places[row[layer, index], token] = value
    ends: Int[ndarray, "pair 2"] = np.array(list(places), dtype=np.int64).reshape(-1, 2)
    data = np.array(list(places.values()), dtype=np.float32)
    return csr_array(coo_array((data, (ends[:, 0], ends[:, 1])), shape=(len(kept), tokens)))
