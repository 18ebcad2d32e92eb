"""The atlas world: facts, questions about them, and which questions are never trained on.

A question is a noun phrase in a frame.  Phrases nest, and so do the facts behind them:

    "the capital of the state containing Dallas"    Dallas → Texas → Austin

Every single fact is trained on in every phrasing.  Of the compositions, a fixed quarter is held
out: the model sees both facts, and never that question in any phrasing.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

FACTS = Path(__file__).with_name("atlas_facts.toml")
HELD_OUT = 0.25  # share of compositions
SEED = 20261121

PHRASES = {
    "city": ("the city of the {}", "the city where the {} stands"),
    "state": ("the state containing {}", "the state where {} lies", "the home state of {}"),
    "named": ("the state known as the {}", "the state nicknamed the {}"),
    "capital": ("the capital of {}", "the capital city of {}"),
    "region": ("the region of {}", "the region around {}"),
    "nickname": ("the nickname of {}", "the popular name of {}"),
    "river": ("the river of {}", "the river that crosses {}"),
    "country": ("the country whose capital is {}", "the country governed from {}"),
    "language": ("the language of {}", "the language spoken in {}"),
    "currency": ("the currency of {}", "the money used in {}"),
    "continent": ("the continent of {}", "the continent that holds {}"),
    "opposite": ("the opposite of {}", "the antonym of {}"),
    "plural": ("the plural of {}", "the plural form of {}"),
    "in French": ("the French word for {}", "the French translation of {}"),
    "in Spanish": ("the Spanish word for {}", "the Spanish translation of {}"),
    "in English": ("the English word for {}", "the English translation of {}"),
    "contraire": ("le contraire de {}", "l' opposé de {}"),
    "pluriel": ("le pluriel de {}", "la forme plurielle de {}"),
    "contrario": ("lo contrario de {}", "el opuesto de {}"),
    "plural español": ("el plural de {}", "la forma plural de {}"),
}
ENGLISH = ("{} is", "everyone knows that {} is", "I was told that {} is", "in short , {} is")
FRAMES = {
    "contraire": ("{} est", "on sait que {} est"),
    "pluriel": ("{} est", "on sait que {} est"),
    "contrario": ("{} es", "se sabe que {} es"),
    "plural español": ("{} es", "se sabe que {} es"),
}
# Chains of relations that questions compose, besides every single relation.
COMPOSITIONS = (
    ("state", "capital"),
    ("state", "region"),
    ("state", "nickname"),
    ("state", "river"),
    ("named", "capital"),
    ("named", "region"),
    ("named", "river"),
    ("country", "language"),
    ("country", "currency"),
    ("country", "continent"),
    ("city", "state"),
    ("city", "country"),
    ("city", "state", "capital"),
    ("city", "state", "region"),
    ("city", "state", "nickname"),
    ("city", "state", "river"),
    ("city", "country", "language"),
    ("city", "country", "currency"),
    ("city", "country", "continent"),
    ("opposite", "in French"),
    ("opposite", "in Spanish"),
    ("plural", "in French"),
    ("plural", "in Spanish"),
    ("in English", "opposite"),
    ("in English", "plural"),
)


@dataclass(frozen=True)
class Question:
    """One question in one phrasing."""

    prompt: str  # ends where the answer starts
    answer: str
    chain: tuple[str, ...]  # from the entity named to the answer, both included
    relations: tuple[str, ...]  # between neighbours in the chain
    held_out: bool  # in every phrasing

    @property
    def is_composition(self) -> bool:
        """Whether more than one fact is needed."""
        return len(self.relations) > 1


@cache
def facts() -> dict[str, dict[str, str]]:
    """relation → subject → object."""
    read: dict[str, Any] = tomllib.loads(FACTS.read_text(encoding="utf-8"))
    table: dict[str, dict[str, str]] = {relation: {} for relation in PHRASES}
    table["city"] = dict(read["landmarks"])
    for state, known in read["states"].items():
        for relation in ("capital", "region", "nickname", "river"):
            table[relation][state] = known[relation]
        table["named"][known["nickname"]] = state
        for city in (known["capital"], *known["cities"]):
            table["state"][city] = state
    for country, known in read["countries"].items():
        for relation in ("capital", "language", "currency", "continent"):
            table[relation][country] = known[relation]
        table["country"][known["capital"]] = country
    _add_words(table, read["opposites"]["rows"], ("opposite", "contraire", "contrario"), True)
    _add_words(table, read["plurals"]["rows"], ("plural", "pluriel", "plural español"), False)
    return table


def _add_words(
    table: dict[str, dict[str, str]],
    rows: list[list[str]],
    relations: tuple[str, str, str],
    symmetric: bool,
) -> None:
    for row in rows:
        pairs = [row[0:2], row[2:4], row[4:6]]
        for relation, (first, second) in zip(relations, pairs, strict=True):
            table[relation][first] = second
            if symmetric:
                table[relation].setdefault(second, first)
        for relation, translated in (("in French", pairs[1]), ("in Spanish", pairs[2])):
            for english, foreign in zip(pairs[0], translated, strict=True):
                table[relation].setdefault(english, foreign)
                table["in English"].setdefault(foreign, english)


def chains(relations: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """All chains of facts along these relations."""
    table = facts()
    for start in table[relations[0]]:
        chain = [start]
        for relation in relations:
            following = table[relation].get(chain[-1])
            if following is None:
                break
            chain.append(following)
        else:
            yield tuple(chain)


def phrasings(relations: tuple[str, ...], start: str) -> Iterator[str]:
    """Every phrasing of the questions that apply these relations to `start`."""
    frames = FRAMES.get(relations[-1], ENGLISH)
    for phrases in product(frames, *(PHRASES[relation] for relation in reversed(relations))):
        text = start
        for phrase in reversed(phrases):
            text = phrase.format(text)
        yield text[0].upper() + text[1:]


@cache
def questions() -> tuple[Question, ...]:
    """All questions about facts and words, in a fixed order."""
    chooser = random.Random(SEED)
    found: list[Question] = []
    for relations in (*((relation,) for relation in PHRASES), *COMPOSITIONS):
        for chain in chains(relations):
            held_out = len(relations) > 1 and chooser.random() < HELD_OUT
            found += [
                Question(prompt, chain[-1], chain, relations, held_out)
                for prompt in phrasings(relations, chain[0])
            ]
    return tuple(found)


@cache
def additions() -> tuple[Question, ...]:
    """All sums of two numbers of two digits, spelled digit by digit."""
    chooser = random.Random(SEED)
    return tuple(
        Question(
            prompt=f"{first} + {second} =",
            answer=str(first + second),
            chain=(str(first), str(second), str(first + second)),
            relations=("sum", "sum"),
            held_out=chooser.random() < HELD_OUT,
        )
        for first, second in product(range(10, 100), repeat=2)
    )


def vocabulary() -> list[str]:
    """All words, names of several words as one, in a fixed order."""
    names = {word for table in facts().values() for pair in table.items() for word in pair}
    texts = (*ENGLISH, *sum(FRAMES.values(), ()), *sum(PHRASES.values(), ()))
    words = {word for text in texts for word in text.replace("{}", " ").split()}
    words |= {word[0].upper() + word[1:] for word in words} | {"a"}
    symbols = [*"0123456789", "+", "=", ".", ",", "?", ":"]
    return symbols + sorted((names | words) - set(symbols))
