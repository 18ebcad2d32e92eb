"""Paraphrases: other prompts, traced as a graph's own prompt was.

Model, dictionary, targets and size are those of the graph, and so is the rule for BOS and prefix;
whatever the graph explains by default, the most probable tokens, each paraphrase does by itself.
Targets that the graph names stay the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from circuits.attribution.trace_settings import Expansion, TargetSettings, TraceSettings
from circuits.features.active import FeatureSource
from circuits.interventions.experiment import asked_settings
from circuits.interventions.origin import ExperimentError, require_model
from circuits.model.prompt import read_prompt
from circuits.model.prompt_rule import PromptRule
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.progress import Progress, ignore_progress
from graphs.core.graph import AttributionGraph
from graphs.core.opening import Bos, PrefixRule
from graphs.core.provenance import Provenance, TokenReading


def trace_paraphrases(
    graph: AttributionGraph,
    texts: Sequence[str],
    subject: Subject,
    source: FeatureSource,
    progress: Progress = ignore_progress,
) -> Iterator[AttributionGraph]:
    """The graph of each text, one after the other.

    Raises ExperimentError for a graph of another model, or one that explains a position other than
    the last, which paraphrases do not have, and as `circuits.trace`.
    """
    header = graph.provenance
    require_model(header, subject)
    settings = TraceSettings(_targets(graph), _expansion(header))
    opening = header.opening
    asked = Bos.AUTO if opening is None else opening.asked
    fixed = opening is not None and opening.rule == PrefixRule.ASKED
    rule = PromptRule(asked, header.n_prefix if fixed else None)
    chat = opening is not None and opening.rule == PrefixRule.CHAT
    prompts = [read_prompt(text, subject.tokenizer, rule, chat=chat) for text in texts]
    return (trace(prompt, subject, source, settings, progress) for prompt in prompts)


def _targets(graph: AttributionGraph) -> TargetSettings:
    """What the graph explains, at the last position.  Raises ExperimentError for other places."""
    header, last = graph.provenance, len(graph.provenance.tokens) - 1
    asked = asked_settings(header)
    readings = [one.reading for one in header.targets if one.reading is not None]
    elsewhere = [
        one.name
        for one in readings
        if one.pos != last or one.what not in ("logit", "contrast")  # features have their places
    ]
    if asked.position not in (-1, last):
        elsewhere.append(f"position {asked.position}")
    if elsewhere:
        raise ExperimentError(
            f"The graph explains {elsewhere[0]}, which has its place in this prompt alone: trace "
            "the paraphrases yourself and give their graphs."
        )
    named = [one.index for one in readings if isinstance(one, TokenReading)]
    if not asked.tokens and np.all(graph.seed[graph.target_rows()] == 1):
        asked = replace(asked, tokens=tuple(named))  # by name, as in logit:57@8
    return replace(asked, position=-1)


def _expansion(header: Provenance) -> Expansion:
    """How far the graph was expanded, where its header says so."""
    stated, default = header.settings, Expansion()
    known: dict[str, Any] = {
        name: stated[name]
        for name, usual in vars(default).items()
        if isinstance(stated.get(name), (int, float) if isinstance(usual, float) else type(usual))
    }
    return replace(default, **known)
