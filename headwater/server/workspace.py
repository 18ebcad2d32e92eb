"""Workspace: traces and interventions on one model and dictionary, with graphs in one folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

import circuits
import graphs
from circuits.atlas.shipped import ATLAS
from circuits.attribution.trace_settings import TraceSettings
from circuits.interventions.from_graph import most_neurons
from circuits.model.prompt_rule import DEFAULT_RULE, PromptRule
from circuits.progress import Progress
from graphs.core.annotations import Annotations
from graphs.core.graph import AttributionGraph
from graphs.disk.locks import locked
from graphs.errors import HeadwaterError
from graphs.formats.updates import keep_measured
from graphs.interventions.heads import chosen_heads, require_no_new_tokens
from graphs.interventions.remaining import remaining
from headwater.arguments.edits import Opening, Written, written
from headwater.arguments.usage import UsageError, require_consistent
from headwater.explaining import explained, vector_in
from headwater.model import Model
from headwater.opened import open_graph
from headwater.server.naming import SUFFIX, Traced, free_path, path_of, vector_of
from headwater.server.requests import MOST_NEW_TOKENS, InterventionRequest, TraceRequest
from viz.text.effects import MEANING, disagreement, unpredicted

IN_PAGE = 6  # tokens and features that a page shows for an intervention
# Continued rightly by the atlas models, and by the smallest packaged model and larger ones.
ATLAS_EXAMPLES = (
    "The capital of the state containing Dallas is",
    "The capital of the state containing Oakland is",
    "The capital of the state containing Miami is",
)
EXAMPLES = (
    "The Eiffel Tower is in the city of",
    "The opposite of hot is",
    "Monday, Tuesday, Wednesday, Thursday,",
)
FIELDS = {  # of viz/front/front.html, by the options of `headwater trace`
    "--against": "Contrast with",
    "--target": "Target",
    "--max-features": "Features with a row, at most",
    "--chat": "Apply the model's chat template",
}


@dataclass(frozen=True)
class ModelWorkspace:
    """One model and dictionary, and a folder for graphs."""

    folder: Path
    subject: circuits.Subject
    source: circuits.FeatureSource
    settings: TraceSettings
    rule: PromptRule = DEFAULT_RULE

    def examples(self) -> tuple[str, ...]:
        """Prompts that the model knows how to continue."""
        return ATLAS_EXAMPLES if self.subject.identity.name in ATLAS else EXAMPLES

    def trace(self, request: TraceRequest, report: Progress) -> str:
        """Write the graph of a prompt; returns the name of its file.

        Raises UsageError where `headwater trace` is refused, in the words of the form.
        """
        try:
            return self._traced(request, report)
        except HeadwaterError as error:
            raise UsageError(_in_form(str(error))) from error

    def _traced(self, request: TraceRequest, report: Progress) -> str:
        require_consistent(
            transcoders=None, features=None, targets=list(request.target), against=request.against
        )
        tokenizer = self.subject.tokenizer
        text = circuits.read_prompt(request.prompt, tokenizer, self.rule, chat=request.chat)
        parts = (request.target, request.against, None)
        text, targets, _ = explained(self.subject, text, self.settings.targets, *parts)
        expansion = self.settings.expansion
        most = request.max_features or expansion.max_features
        settings = replace(
            self.settings, targets=targets, expansion=replace(expansion, max_features=most)
        )
        graph = circuits.trace(text, self.subject, self._features(most), settings, report)
        with locked(self.folder / "graph"):  # another server may find the same name free
            about = graph.provenance
            traced = Traced(about.model.name, about.dictionary.name, about.targets[0].text, most)
            path = free_path(self.folder, request.prompt, traced)
            graphs.write_graph(graph, path)
        return path.stem

    def intervene(self, path: Path, request: InterventionRequest, report: Progress) -> object:
        """The effects of an intervention; measurements are stored in the graph's file.

        Raises UsageError and EditError for edits that cannot be made, and ExperimentError for a
        graph of another model or dictionary.
        """
        graph = graphs.read_graph(path)
        stated = written(request.words, Opening(self._opened, self._vector))
        edits = [*(edit.edit() for edit in request.edits), *stated.edits]
        new_tokens = _new_tokens(request, stated, edits)
        regime = stated.regime or request.regime
        heads = chosen_heads(graph, *stated.heads)
        require_no_new_tokens(heads, new_tokens)
        intervention = graphs.intervention(graph, edits, request.annotations)
        report("prepare", 0, 1)
        experiment = circuits.prepare(graph, self.subject, self._features(most_neurons(graph)))
        outcomes = circuits.intervene(
            experiment, [intervention], regime, stated.through, report, heads
        )
        report("generate", 0, 1)
        texts = circuits.generate(experiment, intervention, new_tokens) if new_tokens else None
        measured = tuple(circuits.at_targets(experiment, outcomes))
        keep_measured(path, graph, measured)
        found = circuits.effects(experiment, outcomes, 0, IN_PAGE)
        return {
            **_stated(graph, found, outcomes.measured[0]),
            "stored": [one.model_dump(mode="json") for one in measured],
            "continuations": texts and {"before": texts.before, "after": texts.after},
        }

    def _features(self, most: int) -> circuits.FeatureSource:
        return Model(self.subject, self.source).choosing(most)

    def _opened(self, name: str) -> tuple[AttributionGraph, Annotations]:
        """A graph of the folder, for a swap.  Raises MissingGraph."""
        graph, annotations, _ = open_graph(path_of(self.folder, name.removesuffix(SUFFIX)))
        return graph, annotations

    def _vector(self, name: str) -> Float[ndarray, " d_model"]:
        """A vector of the folder, to steer by.  Raises MissingFile, and as `vector_in`."""
        return vector_in(vector_of(self.folder, name))


def _in_form(sentence: str) -> str:
    """A sentence with fields of the form in the place of options of the command.

    >>> _in_form("--against needs --target.")
    '“Contrast with” needs “Target”.'
    """
    for option, field in FIELDS.items():
        sentence = sentence.replace(option, f"“{field}”")
    return sentence


def _stated(
    graph: AttributionGraph, found: graphs.Effects, measured: Float[ndarray, " node"]
) -> dict[str, object]:
    """Effects with what a page says of them, and the share of each node that is left."""
    # Where some heads alone react, nothing else is set in the run that is measured.
    left = remaining(graph, measured, () if found.only else found.edited)
    return {
        **asdict(found),
        "meaning": MEANING[found.regime],
        "changes_nothing": found.changes_nothing,
        "unpredicted": unpredicted(found),
        "disagreement": disagreement(found),
        "remaining": {
            str(graph.nodes[row]): float(left[row])
            for row in np.flatnonzero(np.isfinite(left)).tolist()
        },
    }


def _new_tokens(request: InterventionRequest, stated: Written, edits: list[graphs.Edit]) -> int:
    """How many tokens to generate.  Raises UsageError for too many, and for no edit."""
    if not edits:
        raise UsageError("There is no edit: write one, as in scale concept:Texas=0.")
    new_tokens = request.generate if stated.new_tokens is None else stated.new_tokens
    if new_tokens > MOST_NEW_TOKENS:
        raise UsageError(f"generate is at most {MOST_NEW_TOKENS} here, got {new_tokens}.")
    return new_tokens
