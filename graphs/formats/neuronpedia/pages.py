"""Neuronpedia's pages for features of known dictionaries, with their examples.

A page is https://www.neuronpedia.org/MODEL/LAYER-SET/INDEX.  Which set belongs to which published
dictionary was collected from links in public repositories in 2026; for Gemma Scope 2 it has the
sparser transcoders with affine skip, which are also those that circuit-tracer uses.
"""

from __future__ import annotations

import re

from graphs.core.provenance import Provenance

_SITE = "https://www.neuronpedia.org"
_KNOWN = (  # name of a dictionary, model, set
    (
        r"(?:google|mwhanna)/gemma-scope-2-(?P<size>270m|1b|4b|12b|27b)-(?P<kind>pt|it)"
        r"/transcoder_all/width_(?P<width>16k|262k)_l0_small_affine",
        "gemma-3-{size}{kind}",
        "gemmascope-2-transcoder-{width}",
    ),
    (r"mwhanna/gemma-scope-transcoders", "gemma-2-2b", "gemmascope-transcoder-16k"),
    (r"mwhanna/qwen3-(?P<size>4b|8b)-transcoders", "qwen3-{size}", "transcoder-hp"),
)
_SETS = re.compile(r"gemmascope-(?:2-)?transcoder-\d+k|transcoder-hp", re.ASCII)
_MODELS = re.compile(  # model ids of Neuronpedia
    r"gemma-2-\d+b(?:-it)?|gemma-3-\d+[mb](?:-it)?|qwen3-[\d.]+b|qwen2\.5-[\d.]+b(?:-it)?"
    r"|llama-?3(?:\.\d)?-\d+b(?:-it)?|gpt2-small|gpt-oss-\d+b|pythia-\d+m(?:-deduped)?",
    re.ASCII,
)


def feature_page(header: Provenance) -> str | None:
    """Address of a feature's page, with {layer} and {index} to be filled in; None if unknown.

    A graph made by Neuronpedia names its set itself.
    """
    name, model = header.dictionary.name, header.model.name
    for pattern, model_id, source_set in _KNOWN:
        if found := re.fullmatch(pattern, name, re.ASCII):
            parts = found.groupdict()
            if "kind" in parts:
                parts["kind"] = "-it" if parts["kind"] == "it" else ""
            return _address(model_id.format(**parts), source_set.format(**parts))
    if _SETS.fullmatch(name) and is_model(model):
        return _address(model, name)
    return None


def is_model(name: str) -> bool:
    """Whether a name is a model id of Neuronpedia.

    >>> is_model("gemma-2-2b"), is_model("mntss/gemma-scope-transcoders")
    (True, False)
    """
    return _MODELS.fullmatch(name) is not None


def _address(model: str, source_set: str) -> str:
    return f"{_SITE}/{model}/{{layer}}-{source_set}/{{index}}"
