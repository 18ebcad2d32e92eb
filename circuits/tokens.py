"""Text to `Prompt`: token ids, their strings, and which first positions are context only.

A context-only position carries no features and no error: dictionaries are not trained there and
its MLP outputs do not depend on the prompt.  They are the BOS token, and the fixed opening of a
Gemma 3 chat prompt.  Both are decided by token ids, never by the model's name.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

# <bos><start_of_turn>user\n in Gemma 3's vocabulary; Gemma Scope 2 leaves these positions out.
GEMMA_3_CHAT_OPENING = (2, 105, 2364, 107)
GEMMA_3_CHAT_MARK = "<start_of_turn>"
ANCHOR = "a"  # any word that every vocabulary holds


class PromptError(ValueError):
    """The text cannot be traced as a prompt."""


class TargetError(ValueError):
    """The text does not name one token."""


@dataclass(frozen=True)
class Prompt:
    """One tokenised prompt."""

    text: str  # decoded from the ids, special tokens included
    ids: tuple[int, ...]
    tokens: tuple[str, ...]  # one string per position
    context_only: int  # number of first positions without features and errors

    def __len__(self) -> int:
        return len(self.ids)


def read_prompt(text: str, tokenizer: PreTrainedTokenizerBase, *, chat: bool = False) -> Prompt:
    """Tokenise a prompt; BOS is added where the tokenizer has one and the text does not.

    With `chat`, the text becomes a user's turn in the tokenizer's chat template.
    Raises PromptError for a text without tokens and for `chat` without a template.
    """
    if not encode(text, tokenizer):  # a line break or a space is a token of most vocabularies
        raise PromptError(f"The prompt {text[:20]!r} has no tokens: give a text of at least one.")
    if chat:
        if not tokenizer.chat_template:
            raise PromptError("This tokenizer has no chat template: leave out --chat.")
        text = str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
        )
    require_known(text, tokenizer)
    return prompt_from_ids(with_bos(encode(text, tokenizer), tokenizer), tokenizer)


def with_bos(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids behind BOS, where the tokenizer has one and they do not start with it."""
    bos = tokenizer.bos_token_id
    return ids if not isinstance(bos, int) or ids[:1] == [bos] else [bos, *ids]


def prompt_from_ids(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """A prompt of exactly these token ids.  Raises PromptError if there are none."""
    if not ids:
        raise PromptError("The prompt has no tokens: give a text of at least one token.")
    spelled = {token: spell(token, tokenizer) for token in set(ids)}
    return Prompt(
        text=str(tokenizer.decode(ids)),
        ids=tuple(ids),
        tokens=tuple(spelled[token] for token in ids),
        context_only=context_only_positions(ids, tokenizer),
    )


def context_only_positions(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """How many first positions are context only."""
    opening = GEMMA_3_CHAT_OPENING
    if tuple(ids[: len(opening)]) == opening:
        mark = tokenizer.convert_ids_to_tokens(opening[1])
        if mark == GEMMA_3_CHAT_MARK:  # other vocabularies have other tokens under these ids
            return len(opening)
    # An id of 0 is an id: compare with None, not with truth.
    return int(tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id)


def single_token(text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of a text that is one token.  Raises TargetError, naming its tokens, if it is not."""
    require_known(text, tokenizer)
    # Some tokenizers put a space before a text's first word: behind a word they do not.
    anchor = encode(ANCHOR, tokenizer)
    behind = encode(ANCHOR + text, tokenizer)
    readings = [encode(text, tokenizer)]
    if anchor and behind[: len(anchor)] == anchor:
        readings.append(behind[len(anchor) :])
    single = [ids[0] for ids in readings if len(ids) == 1]
    exact = [token for token in single if spell(token, tokenizer) == text]
    if exact or single:
        return (exact or single)[0]
    pieces = ", ".join(repr(spell(token, tokenizer)) for token in readings[0]) or "none"
    raise TargetError(
        f"The target {text!r} is {len(readings[0])} tokens ({pieces}): give a text that is one "
        "token; a leading space often matters."
    )


def spell(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a token as it reads inside a text, its leading space included.

    Decoders of SentencePiece vocabularies drop a text's first space, so the token is decoded
    behind another.
    """
    anchor = encode(ANCHOR, tokenizer)
    alone, both = str(tokenizer.decode(anchor)), str(tokenizer.decode([*anchor, token]))
    return both.removeprefix(alone) if both.startswith(alone) else str(tokenizer.decode([token]))


def require_known(text: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises PromptError, naming them, if the text has words that the vocabulary lacks."""
    if tokenizer.unk_token_id is None or tokenizer.unk_token_id not in encode(text, tokenizer):
        return
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    pieces = [
        text[start:end].strip() or text[start:end]
        for token, (start, end) in zip(read["input_ids"], read["offset_mapping"], strict=True)
        if token == tokenizer.unk_token_id
    ]
    # A text may spell the token itself: GPT-2's is its end of text.
    unknown = list(dict.fromkeys(piece for piece in pieces if piece != tokenizer.unk_token))
    if unknown:
        raise PromptError(
            f"The model's vocabulary does not know {', '.join(map(repr, unknown))}: "
            "use words that it was trained on."
        )


def encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a text, with no special tokens added.  Raises PromptError if it is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PromptError(f"{text!r} is not a text in UTF-8: give one that is.") from None
    # Whether the text is too long is for the model to say, not for the tokenizer to log.
    ids = tokenizer.encode(text, add_special_tokens=False, verbose=False)
    return [int(token) for token in ids]  # pyright: ignore[reportArgumentType]  # stubs allow nested lists
