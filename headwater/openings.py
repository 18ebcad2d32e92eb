"""How prompts begin: as is asked for, else as the documents of the dictionary that reads them."""

from __future__ import annotations

import circuits
from circuits.model.prompt_rule import PromptRule
from graphs.core.opening import Bos, DocumentOpening


def rule_beside(
    source: circuits.FeatureSource | circuits.AutoencoderSet, bos: Bos, n_prefix: int | None
) -> PromptRule:
    """How prompts begin that this source is used on."""
    return PromptRule(bos, n_prefix).as_trained(documents_of(source))


def documents_of(
    source: circuits.FeatureSource | circuits.AutoencoderSet,
) -> DocumentOpening | None:
    """How the documents began that a dictionary was trained on, where it is known."""
    dictionary = source.transcoders if isinstance(source, circuits.Filled) else source
    known = isinstance(dictionary, (circuits.TranscoderSet, circuits.AutoencoderSet))
    return dictionary.identity.documents if known else None
