"""Two-hop swaps on atlas: replace one state's features by another's; the answer must follow.

    python benchmarks/swaps.py --out benchmarks/results/swaps.md

"The capital of the state containing Dallas is" with Texas's features swapped for California's, as
they are in the graph of Oakland's prompt, should answer Sacramento.  Prompts are held out from
training in every phrasing.  There are two nulls: swapping in a third state, and swapping as many
features at other layers and positions at which the graphs differ too.
"""

from __future__ import annotations

import platform
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import cache

from faithfulness import parser, show

import graphs
from atlas_world import Question, questions
from circuits.atlas.shipped import ATLAS, atlas_transcoders
from circuits.attribution.target_names import candidates
from circuits.attribution.trace_settings import TargetSettings, TraceSettings
from circuits.features.files.reading import read_transcoders
from circuits.features.transcoder_set import TranscoderSet
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.intervene import intervene
from circuits.model.prompt import read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from graphs import AttributionGraph, EditError, Intervention, Regime, SelectionError, Swap

ASKED = ("state", "capital")
PAIRS, SEED = 100, 7


@dataclass(frozen=True)
class Swapped:
    """The answer to one pair."""

    one: Question
    other: Question
    answer: str  # most probable token under the swap, or why there was none

    @property
    def holds(self) -> bool:
        return self.answer == self.other.answer


def held_out() -> list[Question]:
    """One phrasing of every held-out question for a capital."""
    found = [q for q in questions() if q.relations == ASKED and q.held_out]
    return [q for q in found if q.prompt == f"The capital of the state containing {q.chain[0]} is"]


def pairs(asked: list[Question]) -> list[tuple[Question, Question, Question]]:
    """Ordered pairs of two states, and a third question for the null."""
    chooser = random.Random(SEED)
    found: list[tuple[Question, Question, Question]] = []
    while len(found) < PAIRS:
        three = chooser.sample(asked, 3)
        if len({question.chain[1] for question in three}) == 3:
            found.append((three[0], three[1], three[2]))
    return found


class World:
    """One model, with cached graphs of questions."""

    def __init__(self, name: str) -> None:
        self.subject: Subject = read_subject(name)
        self.source: TranscoderSet = read_transcoders(str(atlas_transcoders(name)))
        self.graph = cache(self._graph)
        self.experiment = cache(self._experiment)

    def _graph(self, question: Question) -> AttributionGraph:
        token = candidates(f" {question.answer}", self.subject.tokenizer)[0]
        settings = TraceSettings(TargetSettings(tokens=(token,)), labels=4096)
        prompt = read_prompt(question.prompt, self.subject.tokenizer)
        return trace(prompt, self.subject, self.source, settings)

    def _experiment(self, question: Question) -> Experiment:
        return prepare(self.graph(question), self.subject, self.source)

    def knows(self, question: Question) -> bool:
        """Whether the model answers it correctly."""
        logits = self.experiment(question).local.recording.logits
        return self.subject.spell(int(logits.argmax())).strip() == question.answer

    def answer(self, one: Question, intervention: Intervention, regime: Regime) -> str:
        """The model's most probable next token on a prompt under an intervention."""
        outcomes = intervene(self.experiment(one), [intervention], regime)
        return self.subject.spell(int(outcomes.after[0].argmax())).strip()

    def swap(self, one: Question, other: Question) -> Intervention:
        """Replace one state's features by the other's, at the places where labels name it."""
        edit = Swap(one.chain[1], other.chain[1], self.graph(other))
        return graphs.intervention(self.graph(one), [edit])

    def elsewhere(self, one: Question, other: Question, seed: int) -> Intervention:
        """As many features that differ, none at the layers and positions of the swap."""
        swapped = self.swap(one, other).changes
        places = {(change.node.layer, change.node.pos) for change in swapped}
        every = graphs.intervention(
            self.graph(one), [Swap("feature", "feature", self.graph(other))]
        ).changes
        rest = [c for c in every if (c.node.layer, c.node.pos) not in places]
        chosen = random.Random(seed).sample(rest, min(len(swapped), len(rest)))
        return Intervention("elsewhere", tuple(chosen))


@dataclass(frozen=True)
class Rates:
    """Shares of the pairs whose answer is the second state's capital."""

    found: list[Swapped]
    third: float  # with a third state's features
    elsewhere: float  # with as many others that differ
    features: float  # changed, on average

    @property
    def share(self) -> float:
        return sum(one.holds for one in self.found) / len(self.found)


def measure(world: World, regime: Regime) -> Rates:
    """All pairs, and their nulls, of a model."""
    chosen = pairs([question for question in held_out() if world.knows(question)])
    found: list[Swapped] = []
    third = elsewhere = features = 0
    for number, (one, two, other) in enumerate(chosen):
        try:
            made = world.swap(one, two)
            found.append(Swapped(one, two, world.answer(one, made, regime)))
            features += len(made.changes)
            null = world.elsewhere(one, two, number)
            elsewhere += world.answer(one, null, regime) == two.answer
        except (EditError, SelectionError) as error:
            found.append(Swapped(one, two, str(error)))
        with suppress(EditError, SelectionError):
            third += world.answer(one, world.swap(one, other), regime) == two.answer
    n = len(chosen)
    return Rates(found, third / n, elsewhere / n, features / n)


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(models=[*ATLAS])
    arguments = options.parse_args()
    lines = [
        f"Two-hop swaps of {PAIRS} ordered pairs of held-out prompts, {date.today():%Y-%m-%d}, "
        f"{platform.machine()}: how many answer with the other state's capital.",
        "",
        "| model | regime | swapped | features | null: third state | null: others that differ |",
        "|---|---|--:|--:|--:|--:|",
    ]
    misses: list[str] = []
    for name in arguments.models:
        world = World(name)
        for regime in (Regime.FREE, Regime.CONSTRAINED):
            rates = measure(world, regime)
            lines.append(
                f"| {name} | {regime} | {rates.share:.0%} | {rates.features:.0f} | "
                f"{rates.third:.0%} | {rates.elsewhere:.0%} |"
            )
            misses += [
                f"{name}, {regime}: {one.one.chain[0]} → {one.other.chain[0]}: "
                f"{one.answer}, expected {one.other.answer}"
                for one in rates.found
                if not one.holds
            ]
    show([*lines, "", "Misses:", "", *(f"- {miss}" for miss in misses)], arguments.out)


if __name__ == "__main__":
    main()
