"""Wording: how well a token reads as a word, and which words are forms of one.

A word of letters reads best, a piece of a word less, a number or sign less again.  Bytes, markup
and control tokens say nothing to a reader: they come last and are marked as what they are.
"""

from __future__ import annotations

import re
import unicodedata
from enum import IntEnum
from functools import lru_cache

BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
MARKUP = re.compile(r"</?[\w|:-]{1,40}/?>|\[/?[A-Z_]{2,20}\]|&\w{2,10};")
LATIN = "LATIN"
_JOINED = re.compile(r"[\s'’.-]+")  # between the letters of a name of several words
_STEM = 0.7  # of the shorter word's letters, with which both begin
_LEAST_STEM = 3
_LEAST_WORD = 3  # letters; shorter ones are read as pieces


class Reading(IntEnum):
    """How a token reads, the best first."""

    WORD = 0
    PIECE = 1  # letters that do not begin a word, or of another script than the prompt's
    SIGN = 2  # numbers and punctuation
    CONTROL = 3  # markup and control tokens
    BYTE = 4  # part of a character


WEIGHT = {
    Reading.WORD: 1.0,
    Reading.PIECE: 0.4,
    Reading.SIGN: 0.2,
    Reading.CONTROL: 0.0,
    Reading.BYTE: 0.0,
}


@lru_cache(maxsize=65536)
def reading(token: str, script: str = LATIN) -> Reading:
    """How a token reads beside a prompt in this script.

    >>> [reading(text).name for text in (" Texas", "ing", " 12", "<tfoot>", "<0xE2>", "�")]
    ['WORD', 'PIECE', 'SIGN', 'CONTROL', 'BYTE', 'BYTE']
    """
    text = token.strip()
    if BYTE.fullmatch(text) or "\N{REPLACEMENT CHARACTER}" in text:
        return Reading.BYTE
    if not text or MARKUP.fullmatch(text) or not text.isprintable():
        return Reading.CONTROL
    letters = _JOINED.sub("", text)
    if not letters.isalpha():
        return Reading.SIGN
    whole = token[0] == " " or not token[0].islower()
    known = all(script_of(char) == script for char in letters)
    return Reading.WORD if whole and known and len(letters) >= _LEAST_WORD else Reading.PIECE


def marked(token: str) -> str:
    """A token as part of a name: without blanks, bytes and control tokens marked.

    >>> marked(" Texas"), marked("<tfoot>"), marked("<0xE2>"), marked(" ")
    ('Texas', 'control <tfoot>', 'byte <0xE2>', "control ' '")
    """
    kind, text = reading(token), token.strip()
    if kind < Reading.CONTROL:
        return text
    return f"{kind.name.lower()} {text if text and text.isprintable() else repr(token)}"


def script_of(char: str) -> str:
    """Script of a letter, by the first word of its name in Unicode.

    >>> script_of("a"), script_of("я")
    ('LATIN', 'CYRILLIC')
    """
    return unicodedata.name(char, "").partition(" ")[0]


def main_script(text: str) -> str:
    """Script of most letters of a text; LATIN without letters."""
    found = [script_of(char) for char in text if char.isalpha()]
    return max(sorted(set(found)), key=found.count, default=LATIN)


@lru_cache(maxsize=65536)
def alike(one: str, other: str) -> bool:
    """Whether two words are forms of one: they begin alike, in any case.

    >>> alike("city", "Cities"), alike("Nairobi", "Newark"), alike("4", "4")
    (True, False, True)
    """
    one, other = one.casefold(), other.casefold()
    shorter = min(len(one), len(other))
    stem = max(_LEAST_STEM, -int(-_STEM * shorter // 1))
    return one == other or (shorter >= _LEAST_STEM and one[:stem] == other[:stem])
