"""Workspace: traces and interventions on one model and dictionary, with graphs in one folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import circuits
import graphs
from circuits.attribution.trace_settings import TraceSettings
from circuits.model.prompt_rule import DEFAULT_RULE, PromptRule
from circuits.progress import Progress
from graphs.core.annotations import Annotations
from graphs.core.graph import AttributionGraph
from graphs.disk.locks import locked
from graphs.formats.updates import keep_measured
from graphs.interventions.remaining import remaining
from headwater.arguments.edits import Written, written
from headwater.arguments.usage import UsageError
from headwater.opened import open_graph
from headwater.server.naming import SUFFIX, free_path, path_of
from headwater.server.requests import MOST_NEW_TOKENS, InterventionRequest
from viz.text.effects import MEANING, disagreement, unpredicted

IN_PAGE = 6  # tokens and features that a page shows for an intervention


@dataclass(frozen=True)
class ModelWorkspace:
    """One model and dictionary, and a folder for graphs."""

    folder: Path
    subject: circuits.Subject
    source: circuits.FeatureSource
    settings: TraceSettings
    rule: PromptRule = DEFAULT_RULE

    def trace(self, prompt: str, report: Progress) -> str:
        """Write the graph of a prompt; returns the name of its file."""
        text = circuits.read_prompt(prompt, self.subject.tokenizer, self.rule)
        graph = circuits.trace(text, self.subject, self.source, self.settings, report)
        with locked(self.folder / "graph"):  # another server may find the same name free
            about = graph.provenance
            path = free_path(self.folder, prompt, about.model.name, about.dictionary.name)
            graphs.write_graph(graph, path)
        return path.stem

    def intervene(self, path: Path, request: InterventionRequest, report: Progress) -> object:
        """The effects of an intervention; measurements are stored in the graph's file.

        Raises UsageError and EditError for edits that cannot be made, and ExperimentError for a
        graph of another model or dictionary.
        """
        graph = graphs.read_graph(path)
        said = written(request.words, self._opened)
        edits = [*(edit.edit() for edit in request.edits), *said.edits]
        new_tokens = _new_tokens(request, said, edits)
        regime = said.regime or request.regime
        intervention = graphs.intervention(graph, edits, request.annotations)
        report("prepare", 0, 1)
        experiment = circuits.prepare(graph, self.subject, self.source)
        outcomes = circuits.intervene(experiment, [intervention], regime, said.through, report)
        report("generate", 0, 1)
        texts = circuits.generate(experiment, intervention, new_tokens) if new_tokens else None
        measured = tuple(circuits.at_targets(experiment, outcomes))
        keep_measured(path, graph, measured)
        found = circuits.effects(experiment, outcomes, 0, IN_PAGE)
        left = remaining(graph, outcomes.measured[0], found.edited)
        return {
            **asdict(found),
            "stored": [one.model_dump(mode="json") for one in measured],
            "meaning": MEANING[regime],
            "unpredicted": unpredicted(found),
            "disagreement": disagreement(found),
            "continuations": texts and {"before": texts.before, "after": texts.after},
            "remaining": {
                str(graph.nodes[row]): float(left[row])
                for row in np.flatnonzero(np.isfinite(left)).tolist()
            },
        }

    def _opened(self, name: str) -> tuple[AttributionGraph, Annotations]:
        """A graph of the folder, for a swap.  Raises MissingGraph."""
        graph, annotations, _ = open_graph(path_of(self.folder, name.removesuffix(SUFFIX)))
        return graph, annotations


def _new_tokens(request: InterventionRequest, said: Written, edits: list[graphs.Edit]) -> int:
    """How many tokens to generate.  Raises UsageError for too many, and for no edit."""
    if not edits:
        raise UsageError("There is no edit: write one, as in scale concept:Texas=0.")
    new_tokens = request.generate if said.new_tokens is None else said.new_tokens
    if new_tokens > MOST_NEW_TOKENS:
        raise UsageError(f"generate is at most {MOST_NEW_TOKENS} here, got {new_tokens}.")
    return new_tokens
