"""Remarks on prompts that begin unlike the documents that a dictionary was trained on."""

from __future__ import annotations

from collections.abc import Iterable

from circuits.features.active import FeatureSource
from circuits.features.autoencoders import AutoencoderSet
from circuits.features.hybrid import Filled
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.prompt import Prompt
from graphs.core.opening import DocumentOpening, mismatches
from headwater.terminal.printing import remark


def remark_mismatches(prompts: Iterable[Prompt], source: FeatureSource | AutoencoderSet) -> None:
    """Print each difference once, on standard error."""
    documents = _documents(source)
    remark_once(
        sentence
        for prompt in prompts
        for sentence in mismatches(documents, prompt.opening, prompt.n_prefix)
    )


def remark_once(sentences: Iterable[str]) -> None:
    """Print sentences on standard error, each once."""
    for sentence in dict.fromkeys(sentences):
        remark(sentence)


def _documents(source: FeatureSource | AutoencoderSet) -> DocumentOpening | None:
    dictionary = source.transcoders if isinstance(source, Filled) else source
    known = isinstance(dictionary, (TranscoderSet, AutoencoderSet))
    return dictionary.identity.documents if known else None
