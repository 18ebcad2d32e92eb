"""Text to `Prompt`: token ids, their strings, and the number of prefix positions.

Prefix positions carry no features and no errors: dictionaries are not trained there and their MLP
outputs do not depend on the prompt.  They are the fixed opening of a Gemma 3 chat prompt, else the
first position if it holds a special token such as BOS.  Token ids decide, never the model's name.
Training, profiles, audits and traces all use these functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from circuits.atlas.shipped import ATLAS
from circuits.model.packaged import first_sentence
from circuits.model.prompt_rule import DEFAULT_RULE, PromptRule
from circuits.model.spelling import ANCHOR, speller
from graphs.core.brief import Brief
from graphs.core.opening import Bos, Opening, PrefixRule
from graphs.errors import HeadwaterError

# <bos><start_of_turn>user\n in Gemma 3's vocabulary; Gemma Scope 2 leaves these positions out.
GEMMA_3_CHAT_OPENING = (2, 105, 2364, 107)
GEMMA_3_CHAT_MARK = "<start_of_turn>"


class PromptError(HeadwaterError):
    """The text cannot be traced as a prompt."""


class TargetError(HeadwaterError):
    """The text does not name one token."""


@dataclass(frozen=True, repr=False)
class Prompt(Brief):
    """One tokenised prompt."""

    text: str  # decoded from the ids, special tokens included
    ids: tuple[int, ...]
    tokens: tuple[str, ...]  # one string per position
    n_prefix: int  # number of first positions without features and errors
    opening: Opening | None = None  # how its beginning was decided; None if not made from a text

    def __len__(self) -> int:
        return len(self.ids)


def read_prompt(
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    rule: PromptRule = DEFAULT_RULE,
    *,
    chat: bool = False,
) -> Prompt:
    """Tokenise a prompt; `rule` decides about BOS and prefix, by default as the tokenizer does.

    With `chat`, the text becomes a user's turn in the tokenizer's chat template, which has its
    own opening.  Raises PromptError for a text without tokens, for `chat` without a template, and
    for a rule that requires a BOS token that does not exist or more prefix positions than tokens.
    """
    if not encode(text, tokenizer):  # a line break or a space is a token of most vocabularies
        raise PromptError(f"The prompt {text[:20]!r} has no tokens: give a text of at least one.")
    if chat:
        if not tokenizer.chat_template:
            raise PromptError("This tokenizer has no chat template: leave out --chat.")
        text = _chat(text, tokenizer)
    require_known(text, tokenizer)
    typed = encode(text, tokenizer)
    front = opening_ids(tokenizer, rule.bos, chat=chat)
    prompt = prompt_from_ids(with_opening(front, typed), tokenizer, rule.n_prefix)
    return replace(prompt, opening=_opening(prompt, typed, tokenizer, rule))


def _chat(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text as a user's turn in the tokenizer's chat template."""
    turns = [{"role": "user", "content": text}]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except MemoryError:
        raise
    except Exception as error:  # jinja2's, and any that the template's code raises
        raise PromptError(
            "The tokenizer's chat template fails on this prompt "
            f"({first_sentence(error)}): leave out --chat."
        ) from error


def opening_ids(
    tokenizer: PreTrainedTokenizerBase, bos: Bos = Bos.AUTO, *, chat: bool = False
) -> tuple[int, ...]:
    """Token ids in front of a text.  Raises PromptError for BOS if the tokenizer has none.

    A chat template has its own opening, to which tokenizers add nothing.
    """
    if bos == Bos.NEVER or (chat and bos == Bos.AUTO):
        return ()
    if bos == Bos.ALWAYS:
        own = own_bos(tokenizer)
        if not own:
            raise PromptError("This tokenizer has no BOS token: leave out --bos always.")
        return own
    # The tokenizer may also append tokens to a text, such as EOS, which are left out.
    plain = encode(ANCHOR, tokenizer)
    whole = [int(token) for token in tokenizer(ANCHOR, verbose=False)["input_ids"]]
    starts = range(len(whole) - len(plain) + 1)
    first = next((i for i in reversed(starts) if whole[i : i + len(plain)] == plain), 0)
    return tuple(whole[:first])


def own_bos(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The id of BOS, if the tokenizer has one."""
    bos = tokenizer.bos_token_id
    return (bos,) if isinstance(bos, int) else ()  # an id of 0 is an id


def with_opening(opening: tuple[int, ...], ids: list[int]) -> list[int]:
    """Token ids with an opening in front, unless they begin with it."""
    return ids if tuple(ids[: len(opening)]) == opening else [*opening, *ids]


def _opening(
    prompt: Prompt, typed: list[int], tokenizer: PreTrainedTokenizerBase, rule: PromptRule
) -> Opening:
    """How the beginning of a prompt was decided."""
    own = own_bos(tokenizer)
    by_tokens, reason = _prefix_of(prompt.ids, tokenizer)
    if by_tokens != prompt.n_prefix:
        reason = PrefixRule.ASKED
    if len(prompt) > len(typed):
        return Opening(asked=rule.bos, bos="added", rule=reason)
    if not own:
        return Opening(asked=rule.bos, bos="unknown", rule=reason)
    begins = prompt.ids[:1] == own
    return Opening(asked=rule.bos, bos="typed" if begins else "left out", rule=reason)


def prompt_from_ids(
    ids: list[int], tokenizer: PreTrainedTokenizerBase, n_prefix: int | None = None
) -> Prompt:
    """A prompt of exactly these token ids.

    Raises PromptError if there are none, or fewer than prefix positions.
    """
    if not ids:
        raise PromptError("The prompt has no tokens: give a text of at least one token.")
    if n_prefix is not None and n_prefix > len(ids):
        raise PromptError(
            f"The prompt has {len(ids)} tokens, fewer than the {n_prefix} prefix positions given: "
            "give fewer."
        )
    text_of = speller(tokenizer)
    spelled = {token: text_of(token) for token in set(ids)}
    return Prompt(
        text=str(tokenizer.decode(ids)),
        ids=tuple(ids),
        tokens=tuple(spelled[token] for token in ids),
        n_prefix=count_prefix(ids, tokenizer, n_prefix),
    )


def count_prefix(
    ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, asked: int | None = None
) -> int:
    """Number of prefix positions: as given, else decided by their tokens."""
    return _prefix_of(ids, tokenizer)[0] if asked is None else min(asked, len(ids))


def _prefix_of(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[int, PrefixRule]:
    """Number of prefix positions by their tokens, and the rule that decided it."""
    opening = GEMMA_3_CHAT_OPENING
    if tuple(ids[: len(opening)]) == opening:
        mark = tokenizer.convert_ids_to_tokens(opening[1])
        if mark == GEMMA_3_CHAT_MARK:  # other vocabularies have other tokens under these ids
            return len(opening), PrefixRule.CHAT
    if ids[0] in tokenizer.all_special_ids or ids[0] in _marked_special(tokenizer):
        return 1, PrefixRule.SPECIAL
    return 0, PrefixRule.ORDINARY


@lru_cache(maxsize=4)
def _marked_special(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that the tokenizer's file marks as special, whether or not they have a name.

    A BOS that a tokenizer's config removes (`bos_token: null`) is still among them.
    """
    added = tokenizer.added_tokens_decoder
    return frozenset(token for token, content in added.items() if content.special)


def require_known(text: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises PromptError that names the words of a text that the vocabulary lacks."""
    if tokenizer.unk_token_id is None or tokenizer.unk_token_id not in encode(text, tokenizer):
        return
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    pieces = [
        text[start:end].strip() or text[start:end]
        for token, (start, end) in zip(read["input_ids"], read["offset_mapping"], strict=True)
        if token == tokenizer.unk_token_id
    ]
    # A text may contain the unknown token itself: GPT-2's is its end of text.
    unknown = list(dict.fromkeys(piece for piece in pieces if piece != tokenizer.unk_token))
    if unknown:
        raise PromptError(
            f"The model's vocabulary does not contain {', '.join(map(repr, unknown))}: "
            f"{_offered(unknown, tokenizer)}, or a model of the real world, such as "
            "gemma-3-270m."
        )


def _offered(unknown: list[str], tokenizer: PreTrainedTokenizerBase) -> str:
    """Words of a vocabulary of whole words that are spelled like unknown ones."""
    known = {word.strip() for word in map(speller(tokenizer), range(len(tokenizer)))}
    plain = {word.casefold(): word for word in known}
    like = [get_close_matches(word.casefold(), plain, n=2) for word in unknown]
    words = dict.fromkeys(plain[one] for some in like for one in some)
    offered = f"it has {', '.join(map(repr, words))}; " if words else ""
    ours = next((name for name in ATLAS if Path(tokenizer.name_or_path).name == name), None)
    listed = f" (`headwater words {ours}` lists them)" if ours else ""
    return f"{offered}use words that it was trained on{listed}"


def encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a text, without special tokens.  Raises PromptError if it is not valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PromptError(f"{text!r} is not valid UTF-8: give a text that is.") from None
    # The model's context length is checked elsewhere, so the tokenizer need not warn about it.
    ids = tokenizer.encode(text, add_special_tokens=False, verbose=False)
    return [int(token) for token in ids]  # pyright: ignore[reportArgumentType]  # stubs allow nested lists
