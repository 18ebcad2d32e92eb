"""How a prompt begins, in words: BOS, what is context only, and tokens that draw attention."""

from __future__ import annotations

from graphs.core.opening import Bos, ContextRule, Opening
from graphs.core.provenance import Sink
from viz.text.words import percent, quoted


def opening_text(opening: Opening, context_only: int) -> str:
    """BOS and context-only positions of a prompt, in one short line."""
    return f"{_bos(opening)} · {_context_only(opening.rule, context_only)}"


def _bos(opening: Opening) -> str:
    by_itself = opening.asked == Bos.AUTO
    match opening.bos:
        case "added":
            return "BOS added by the tokenizer" if by_itself else "BOS added, as asked"
        case "typed":
            return "BOS stands in the text"
        case "left out":
            return "no BOS: the tokenizer adds none" if by_itself else "no BOS, as asked"
        case "unknown":
            return "no BOS: the tokenizer has none"


def _context_only(rule: ContextRule, count: int) -> str:
    positions = {0: "none", 1: "position 0"}.get(count, f"first {count} positions")
    why = {
        ContextRule.CHAT: ", the opening of a chat",
        ContextRule.SPECIAL: ", a special token",
        ContextRule.ASKED: ", as asked",
        ContextRule.ORDINARY: "",
    }
    return f"context only: {positions}{why[rule]}"


def sink_text(sink: Sink, token: str) -> str:
    """One attention sink, in one line."""
    return (
        f"attention sink {quoted(token)} at {sink.pos}: {sink.ratio:.0f} × the median norm, "
        f"{percent(sink.influence)} of feature influence"
    )
