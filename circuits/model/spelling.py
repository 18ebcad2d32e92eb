"""Spelling: the text of a vocabulary entry, and the entries of a text.

Tokens of byte-level vocabularies may end within a character.  Bytes that do not form a whole
character are written in SentencePiece's notation, `<0xF0>`, so that tokens stay distinct:

    🇫 on SmolLM2, three tokens         " <0xF0><0x9F>"  "<0x87>"  "<0xAB>"

Several entries may still share a text, such as the newline and byte 10 in Gemma's vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256

from transformers import PreTrainedTokenizerBase

ANCHOR = "a"  # a word of every vocabulary
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_PIECE = "\ufffd"  # what decoders write for bytes that do not form a whole character
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
    """The text of single tokens, in which every partial character is �.

    Decoders of SentencePiece vocabularies drop a text's first space, so tokens are decoded after
    another token.
    """
    anchor = [int(token) for token in tokenizer.encode(ANCHOR, add_special_tokens=False)]  # pyright: ignore[reportArgumentType]  # stubs allow nested lists
    alone = str(tokenizer.decode(anchor))

    def decoded(token: int) -> str:
        both = str(tokenizer.decode([*anchor, token]))
        complete = both.startswith(alone)
        return both.removeprefix(alone) if complete else str(tokenizer.decode([token]))

    return decoded


def entries(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """All vocabulary entries with this text, in ascending order.

    A text of whole characters has few forms in a vocabulary, which are looked up; for partial
    characters all entries are compared.  � matches every partial character, as other programs
    write them all so.
    """
    text_of = _decoder(tokenizer) if _PIECE in text else speller(tokenizer)
    if _PIECE in text or _BYTE.search(text):
        return tuple(token for token in range(len(tokenizer)) if text_of(token) == text)
    found = (tokenizer.convert_tokens_to_ids(form) for form in _forms(text))  # None or <unk>, or it
    known = {int(token) for token in found if isinstance(token, int)}
    return tuple(sorted(token for token in known if text_of(token) == text))


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of a vocabulary: equal for tokenizers in which every id is the same token."""
    known = sorted((entry, token) for token, entry in tokenizer.get_vocab().items())
    text = "\0".join(f"{entry} {token}" for entry, token in known)
    return f"sha256:{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _forms(text: str) -> set[str]:
    """Forms of a text in vocabularies: plain, byte-level, SentencePiece's and BERT's."""
    raw = text.encode("utf-8", "surrogatepass")
    forms = {text, text.removeprefix(" "), text.replace(" ", "▁"), f"▁{text}", f"##{text}"}
    forms.add("".join(_LETTERS[byte] for byte in raw))
    if len(raw) == 1:
        forms.add(f"<0x{raw[0]:02X}>")
    return forms


def _with_bytes(text: str, token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text with bytes for partial characters, if they can be read from the vocabulary."""
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

    Bytes that are printable in Latin-1 stand for themselves, the others for U+0100 and following.
    """
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {
        byte: chr(0x100 + place) for place, byte in enumerate(others)
    }


_LETTERS = _byte_letters()
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}
