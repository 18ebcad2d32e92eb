"""Remarks on prompts that begin unlike the documents that a dictionary was trained on."""

from __future__ import annotations

from collections.abc import Iterable

import circuits
from graphs.core.opening import mismatches
from headwater.openings import documents_of
from headwater.terminal.printing import remark


def remark_mismatches(
    prompts: Iterable[circuits.Prompt], source: circuits.FeatureSource | circuits.AutoencoderSet
) -> None:
    """Print each difference once, on standard error."""
    documents = documents_of(source)
    remark_once(
        sentence
        for prompt in prompts
        for sentence in mismatches(documents, prompt.opening, prompt.n_prefix)
    )


def remark_once(sentences: Iterable[str]) -> None:
    """Print sentences on standard error, each once."""
    for sentence in dict.fromkeys(sentences):
        remark(sentence)
