"""Spelling: the text of a vocabulary entry, and the entries of a text.

Tokens of byte-level vocabularies may end within a character.  Their bytes that are no whole
character are written as SentencePiece names them, `<0xF0>`, so that tokens can be told apart:

    🇫 on SmolLM2, three tokens         " <0xF0><0x9F>"  "<0x87>"  "<0xAB>"

Several entries may still have one text, as a newline and the byte 10 in Gemma's vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256

from transformers import PreTrainedTokenizerBase

ANCHOR = "a"  # any word that every vocabulary holds
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_PIECE = "\ufffd"  # what decoders write for bytes that are no whole character
_ESCAPED = re.compile("[\udc80-\udcff]")


def spell(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a token as it reads inside a text, its leading space included."""
    return speller(tokenizer)(token)


def speller(tokenizer: PreTrainedTokenizerBase) -> Callable[[int], str]:
    """`spell` of one tokenizer, for many tokens."""
    decoded = _decoder(tokenizer)

    def text_of(token: int) -> str:
        text = decoded(token)
        return _with_bytes(text, token, tokenizer) if _PIECE in text else text

    return text_of


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[int], str]:
    """The text of a token, in which pieces of characters are all alike.

    Decoders of SentencePiece vocabularies drop a text's first space, so tokens are decoded behind
    another.
    """
    anchor = [int(token) for token in tokenizer.encode(ANCHOR, add_special_tokens=False)]  # pyright: ignore[reportArgumentType]  # stubs allow nested lists
    alone = str(tokenizer.decode(anchor))

    def decoded(token: int) -> str:
        both = str(tokenizer.decode([*anchor, token]))
        behind = both.startswith(alone)
        return both.removeprefix(alone) if behind else str(tokenizer.decode([token]))

    return decoded


def entries(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """All vocabulary entries whose text this is, in rising order.

    A text of whole characters has few forms in a vocabulary, which are looked up; where it has
    pieces, all entries are spelled.  A text with � means all that other programs write so.
    """
    text_of = _decoder(tokenizer) if _PIECE in text else speller(tokenizer)
    if _PIECE in text or _BYTE.search(text):
        return tuple(token for token in range(len(tokenizer)) if text_of(token) == text)
    found = (tokenizer.convert_tokens_to_ids(form) for form in _forms(text))  # None or <unk>, or it
    known = {int(token) for token in found if isinstance(token, int)}
    return tuple(sorted(token for token in known if text_of(token) == text))


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Names a vocabulary: the same for tokenizers in which every id is the same token."""
    known = sorted((entry, token) for token, entry in tokenizer.get_vocab().items())
    text = "\0".join(f"{entry} {token}" for entry, token in known)
    return f"sha256:{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _forms(text: str) -> set[str]:
    """How vocabularies write a text: as it is, in bytes, and SentencePiece's or BERT's way."""
    raw = text.encode("utf-8", "surrogatepass")
    forms = {text, text.removeprefix(" "), text.replace(" ", "▁"), f"▁{text}", f"##{text}"}
    forms.add("".join(_LETTERS[byte] for byte in raw))
    if len(raw) == 1:
        forms.add(f"<0x{raw[0]:02X}>")
    return forms


def _with_bytes(text: str, token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text with its bytes, if the vocabulary tells them."""
    raw = str(tokenizer.convert_ids_to_tokens(token))
    if one := _BYTE.fullmatch(raw):
        content = bytes.fromhex(one[1])
    elif all(letter in _BYTES for letter in raw):
        content = bytes(_BYTES[letter] for letter in raw)
    else:
        return text
    readable = content.decode("utf-8", "surrogateescape")
    return _ESCAPED.sub(lambda match: f"<0x{ord(match[0]) - 0xDC00:02X}>", readable)


def _byte_letters() -> dict[int, str]:
    """The letter of each byte in byte-level vocabularies, as in GPT-2's encoder.

    Bytes that are printed in Latin-1 are themselves, the others follow behind it.
    """
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {
        byte: chr(0x100 + place) for place, byte in enumerate(others)
    }


_LETTERS = _byte_letters()
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}
