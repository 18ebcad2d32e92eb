"""Attention entries on the atlas models: few are chosen on half of the known circuits and cut.

    python benchmarks/entries.py --out benchmarks/results/entries.md

An entry is a head with a query and a key, named by their roles: the token that names the start of
the circuit, the last token, or a distance from these.  On every second circuit entries are chosen
by flow and by scores: what an entry carries into the answer, over all paths of the pruned graph,

    flow[entry] into the answer + Σ_feature effect on the answer · flow[entry] into it / activation

counts where the score of its key is above that of the keys that compete with it.  On the others
the N entries that carry most are cut together, with nothing held, and answers that change are
counted.  Controls cut as many entries of other keys: of the same heads and queries; of any heads at
the same queries that get nearly as much attention, with and without those that the choice names;
and of any heads at any queries, drawn among those of like attention.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import product

import numpy as np
import torch
from faithfulness import parser, show

import graphs
from circuits.atlas.known import KnownCircuit, known_circuits
from circuits.atlas.shipped import ATLAS, atlas_transcoders
from circuits.attention.entries import attention_entries
from circuits.attention.scores import attention_score
from circuits.attribution.target_names import candidates
from circuits.attribution.trace_settings import TargetSettings, TraceSettings
from circuits.features.files.reading import read_transcoders
from circuits.features.transcoder_set import TranscoderSet
from circuits.interventions.experiment import prepare
from circuits.interventions.intervene import intervene
from circuits.model.prompt import read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from graphs import Intervention, NodeKind, Regime
from graphs.interventions.heads import HeadChange, HeadPlace

COUNTS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
LIKE = "like attention, same queries"
NEAR, DRAWS = 0.05, 8
SCORED = 40  # entries of each circuit whose scores are looked at, those that carry most
EVERY = 10**6

Place = tuple[int, int, int, int]  # layer, head, query, key
Role = tuple[str, int]  # from which token, and how far behind it
Entry = tuple[int, int, Role, Role]
NONE: frozenset[Entry] = frozenset()


@dataclass(frozen=True)
class Known:
    """A circuit with its graph and recording."""

    circuit: KnownCircuit
    subject: Subject
    source: TranscoderSet

    @cached_property
    def experiment(self):
        token = candidates(f" {self.circuit.answer}", self.subject.tokenizer)[0]
        settings = TraceSettings(TargetSettings(tokens=(token,)), labels=0)
        prompt = read_prompt(self.circuit.prompt, self.subject.tokenizer)
        graph = graphs.prune(trace(prompt, self.subject, self.source, settings))
        return prepare(graph, self.subject, self.source)

    @cached_property
    def start(self) -> int:
        tokens = self.experiment.graph.provenance.tokens
        return [pos for pos, token in enumerate(tokens) if token.strip() == self.circuit.start][-1]

    @cached_property
    def last(self) -> int:
        return len(self.experiment.graph.provenance.tokens) - 1

    @cached_property
    def patterns(self) -> np.ndarray:
        """Attention on the prompt: (layer, head, query, key)."""
        blocks = self.experiment.local.recording.blocks
        return torch.stack([block.pattern for block in blocks]).double().numpy()

    def role(self, pos: int) -> Role:
        """The start, what precedes it, or what precedes the last token."""
        return ("start", pos - self.start) if pos <= self.start else ("last", pos - self.last)

    def place(self, entry: Entry) -> Place | None:
        """Where an entry is on this prompt; None: it has no such position."""
        layer, head, *roles = entry
        ends = {"start": self.start, "last": self.last}
        query, key = (ends[name] + distance for name, distance in roles)
        inside = 0 <= key <= query <= self.last
        same = inside and (self.role(query), self.role(key)) == tuple(roles)
        return (layer, head, query, key) if same else None

    def others(self, queries: Iterable[int]) -> list[Place]:
        """All entries of these queries at other keys than the start."""
        n_layers, n_heads = self.patterns.shape[:2]
        heads = product(range(n_layers), range(n_heads))
        return [
            (layer, head, query, key)
            for (layer, head), query in product(heads, queries)
            for key in range(query + 1)
            if key != self.start
        ]

    def entry(self, place: Place) -> Entry:
        """A place by the roles of its positions."""
        layer, head, query, key = place
        return layer, head, self.role(query), self.role(key)

    def carried(self) -> dict[Place, float]:
        """What each entry carries into the answer over the paths of the graph, over its value."""
        experiment, graph = self.experiment, self.experiment.graph
        target = int(graph.target_rows()[0])
        total = graphs.total_effects(graph, target)
        found: dict[Place, float] = defaultdict(float)
        features = graph.nodes.is_kind(NodeKind.FEATURE) & graph.expanded & (total != 0)
        per_unit = {
            row: total[row] / graph.nodes.activation[row] for row in np.flatnonzero(features)
        }
        for row, factor in [*per_unit.items(), (target, 1.0)]:
            entries = attention_entries(experiment, int(row), EVERY)
            columns = (entries.layer, entries.head, entries.query, entries.key)
            places = zip(*(column.tolist() for column in columns), strict=True)
            for place, flow in zip(places, entries.flow.tolist(), strict=True):
                found[place] += factor * flow / graph.nodes.value[target]
        return found

    def chosen(self) -> dict[Entry, float]:
        """What counts of each entry: flow where the score of its key is above its competitors'."""
        found: dict[Entry, float] = {}
        carried = self.carried()
        for place in sorted(carried, key=lambda place: -carried[place])[:SCORED]:
            layer, head, query, key = place
            score = attention_score(self.experiment, layer, head, query, key)
            if score.odds is not None and score.odds.value > 0:
                found[self.entry(place)] = carried[place]
        return found

    def answers(self, cuts: list[list[Place]]) -> list[str]:
        """The model's answers if these entries are cut, set by set."""
        made = [
            Intervention("cut", heads=tuple(HeadChange(HeadPlace(*one), 0.0) for one in places))
            for places in cuts
        ]
        outcomes = intervene(self.experiment, made, Regime.FREE)
        return [self.subject.spell(int(one)).strip() for one in outcomes.after.argmax(1)]


def same_heads(known: Known, cut: list[Place]) -> list[Place]:
    """Other keys of the same heads and queries: those that get most attention."""
    found: list[Place] = []
    for layer, head, query, key in cut:
        row = known.patterns[layer, head, query].copy()
        row[[key, known.start]] = -1
        for taken in found:
            if taken[:3] == (layer, head, query):
                row[taken[3]] = -1
        found.append((layer, head, query, int(row[: query + 1].argmax())))
    return found


def like_attention(known: Known, cut: list[Place], without: frozenset[Entry] = NONE) -> list[Place]:
    """Entries of any head at the same query and another key, with the nearest attention.

    `without`: entries that are left out.
    """
    found: list[Place] = []
    for place in cut:
        free = [one for one in known.others(place[2:3]) if one not in cut and one not in found]
        free = [one for one in free if known.entry(one) not in without]
        if free:
            found.append(
                min(free, key=lambda one: abs(known.patterns[one] - known.patterns[place]))
            )
    return found


def anywhere(known: Known, cut: list[Place], seed: int) -> list[Place]:
    """The same at any query: drawn among those whose attention is within NEAR of it, or nearest."""
    chooser = random.Random(seed)
    found: list[Place] = []
    every = known.others(range(known.last + 1))
    for place in cut:
        own = known.patterns[place]
        free = [one for one in every if one not in cut and one not in found]
        near = [one for one in free if abs(known.patterns[one] - own) <= NEAR]
        nearest = min(free, key=lambda one, own=own: abs(known.patterns[one] - own))
        found.append(chooser.choice(near or [nearest]))
    return found


def ranked(circuits: Iterable[Known]) -> list[Entry]:
    """Entries by what they carry on average, most first."""
    total: dict[Entry, float] = defaultdict(float)
    for known in circuits:
        for entry, share in known.chosen().items():
            total[entry] += share
    return sorted(total, key=lambda entry: -total[entry])


def sets(order: list[Entry], known: Known, count: int) -> list[tuple[str, list[Place]]]:
    """What is cut on one prompt, and the controls."""
    cut = [place for entry in order[:count] if (place := known.place(entry)) is not None]
    return [
        ("chosen", cut),
        ("same heads and queries", same_heads(known, cut)),
        (LIKE, like_attention(known, cut)),
        ("… not named by the choice", like_attention(known, cut, frozenset(order))),
        *(("like attention, any query", anywhere(known, cut, seed)) for seed in range(DRAWS)),
    ]


@dataclass
class Row:
    """What happens if so many entries are cut, by kind."""

    count: int
    changed: dict[str, list[bool]]
    middle: dict[str, list[bool]]  # whether the answer is the concept in the middle
    attention: dict[str, list[float]]

    def cell(self, kind: str) -> str:
        return f"{np.mean(self.changed[kind]):.0%} ({np.mean(self.attention[kind]):.2f})"


def curve(order: list[Entry], circuits: list[Known]) -> list[Row]:
    """The curve over the number of entries."""
    rows = [Row(count, *(defaultdict(list) for _ in range(3))) for count in COUNTS]
    for known in circuits:
        for row in rows:
            cuts = sets(order, known, row.count)
            answers = known.answers([cut for _, cut in cuts])
            for (kind, cut), answer in zip(cuts, answers, strict=True):
                row.changed[kind].append(answer != known.circuit.answer)
                row.middle[kind].append(answer == known.circuit.middle)
                row.attention[kind] += [float(known.patterns[one]) for one in cut]
    return rows


def named(entry: Entry) -> str:
    """An entry as in 0.4 last<start."""
    layer, head, *roles = entry
    query, key = (f"{name}{distance:+d}" if distance else name for name, distance in roles)
    return f"{layer}.{head} {query}<{key}"


def table(name: str) -> list[str]:
    """One model's lines."""
    subject = read_subject(name)
    source = read_transcoders(str(atlas_transcoders(name)))
    every = [Known(circuit, subject, source) for circuit in known_circuits()]
    order = ranked(every[::2])
    rows = curve(order, every[1::2])
    kinds = [*rows[0].changed]
    share_of_middle = sum(sum(row.middle[LIKE]) for row in rows) / sum(
        sum(row.changed[LIKE]) for row in rows
    )
    return [
        "",
        f"{name}, in the order of what they carry: {', '.join(map(named, order[:12]))}, …",
        "",
        f"| entries | {' | '.join(kinds)} |",
        f"|--:{'|--:' * len(kinds)}|",
        *(f"| {row.count} | {' | '.join(map(row.cell, kinds))} |" for row in rows),
        "",
        f"Of the answers that change with {LIKE}, {share_of_middle:.0%} name the concept in the "
        "middle, as Texas for Austin: what is cut there has read what is asked for.",
    ]


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(models=[*ATLAS])
    arguments = options.parse_args()
    lines = [
        f"Attention entries that are cut with nothing held, {date.today():%Y-%m-%d}, two CPU "
        f"cores: chosen on every second of the {len(known_circuits())} known circuits; shares of "
        "the others whose answer changes, and in brackets the mean attention of what is cut.",
        *(line for name in arguments.models for line in table(name)),
    ]
    show(lines, arguments.out)


if __name__ == "__main__":
    main()
