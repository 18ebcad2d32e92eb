"""Text about the start of a prompt: BOS, prefix positions, attention sinks."""

from __future__ import annotations

from graphs.core.opening import Bos, Opening, PrefixRule
from graphs.core.provenance import Sink
from viz.text.words import percent, quoted


def opening_text(opening: Opening, n_prefix: int) -> str:
    """BOS and prefix positions of a prompt, in one short line."""
    return f"{_bos(opening)} · {_prefix(opening.rule, n_prefix)}"


def _bos(opening: Opening) -> str:
    is_default = opening.asked == Bos.AUTO
    match opening.bos:
        case "added":
            return "BOS added by the tokenizer" if is_default else "BOS added, as requested"
        case "typed":
            return "BOS is in the text"
        case "left out":
            return "no BOS: the tokenizer adds none" if is_default else "no BOS, as requested"
        case "unknown":
            return "no BOS: the tokenizer has none"


def _prefix(rule: PrefixRule, count: int) -> str:
    positions = {0: "none", 1: "position 0"}.get(count, f"first {count} positions")
    why = {
        PrefixRule.CHAT: ", the opening of a chat",
        PrefixRule.SPECIAL: ", a special token",
        PrefixRule.ASKED: ", as given",
        PrefixRule.ORDINARY: "",
    }
    return f"prefix: {positions}{why[rule]}"


def sink_text(sink: Sink, token: str) -> str:
    """One attention sink, in one line."""
    return (
        f"attention sink {quoted(token)} at {sink.pos}: {sink.ratio:.0f} × the median norm, "
        f"{percent(sink.influence)} of feature influence"
    )
