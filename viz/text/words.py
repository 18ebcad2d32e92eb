"""Words: visible tokens, and labels of nodes and graphs.

All of it is plain text; callers that put it into HTML or plotly's markup escape it.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from graphs.analysis.strengths import Strengths
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import TARGET_KINDS, NodeId, NodeKind
from graphs.core.opening import PrefixRule
from graphs.core.provenance import NEURONS, Target
from graphs.naming.names import Names

_SIGNS = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
_JOINER = re.compile("(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")  # in Persian and emoji
_ISOLATE, _POP = "\u2068", "\u2069"
_UNUSUAL = re.compile("[^\n\t -~]")
# Controls, direction marks and other invisible characters, surrogates, line separators.
_CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")
_LONGEST = 40  # characters of a text in a sentence
_LONGEST_PROMPT, _LONGEST_PREDICTION = 80, 24  # characters in the title
_NEIGHBOURS = 3  # inputs and outputs named per node


def visible(text: str) -> str:
    """A text with every character visible; unprintable ones become Python escapes.

    >>> visible("a\\n"), visible("  "), visible(""), visible("\\x00\\u202e")
    ('a⏎', '␣␣', "''", '\\\\x00\\\\u202e')
    """
    if not text:
        return "''"
    if not text.strip(" "):
        return "␣" * len(text)
    joiners = {match.start() for match in _JOINER.finditer(text)}
    shown = "".join(
        char if place in joiners else _SIGNS.get(char) or _printable(char)
        for place, char in enumerate(text)
    )
    return f"◌{shown}" if unicodedata.category(text[0]).startswith("M") else shown


def readable(text: str) -> str:
    """A text that is safe to print: control characters cannot act on the terminal.

    Control characters become Python escapes; line breaks, tabs and isolates stay.

    >>> readable("\\x1b[2J é\\n"), readable("\\u202e")
    ('\\\\x1b[2J é\\n', '\\\\u202e')
    """
    return _UNUSUAL.sub(_shown, text)


def one_line(text: str) -> str:
    """A readable text in one line.

    >>> one_line("a\\n\\tb")
    'a⏎⇥b'
    """
    return readable(text).replace("\n", _SIGNS["\n"]).replace("\t", _SIGNS["\t"])


def letters(text: str) -> float:
    """Width of a text, in characters of average width."""
    return sum(
        0.0
        if unicodedata.category(char) in ("Mn", "Me", "Cf")
        else 1.75
        if unicodedata.east_asian_width(char) in "WF"
        else 1.0
        for char in text
    )


def short(text: str, length: int) -> str:
    """A visible text without surrounding blanks, at most `length` characters wide."""
    return isolated(_shortened(visible(text).strip(), length))


def quoted(text: str) -> str:
    """A visible text in quotation marks, with surrounding blanks."""
    return f"“{isolated(_shortened(visible(text), _LONGEST))}”"


def isolated(text: str) -> str:
    """A text whose writing direction does not affect its surroundings."""
    return f"{_ISOLATE}{text}{_POP}"


def percent(share: float) -> str:
    """A share as a percentage.

    >>> percent(0.123), percent(0.0001), percent(0.0)
    ('12.3%', '<0.1%', '0%')
    """
    if share == 0:
        return "0%"
    return f"{share:.1%}" if share >= 0.0005 else "<0.1%"


def signed_percent(share: float) -> str:
    """A change as a percentage, with its sign.

    >>> signed_percent(0.123), signed_percent(-0.0001), signed_percent(0.0)
    ('+12.3%', '−<0.1%', '0%')
    """
    sign = "" if share == 0 else "+" if share > 0 else "−"
    return f"{sign}{percent(abs(share))}"


def number(value: float) -> str:
    """Three digits of a number, with a real minus sign; empty for nan."""
    return "" if value != value else f"{value:.3g}".replace("-", "−")


def label(names: Names, row: int) -> str:
    """Label of a node: a person's, else by `graphs.naming`, which says of what kind it is."""
    graph, node = names.graph, names.graph.nodes[row]
    own = names.annotations.label(graph, row)
    if own:
        return visible(own)
    match node.kind:
        case NodeKind.FEATURE:
            return visible(names.label(row)) if names.label(row) else "no label"
        case NodeKind.LOGIT | NodeKind.TARGET:
            return f"{quoted(_target(graph, row).text)} {probability(graph, row)}".strip()
        case _:
            return plain_label(graph, node)


def plain_label(graph: AttributionGraph, node: NodeId) -> str:
    """Label of a node on the graph's prompt that is neither a feature nor a target."""
    match node.kind:
        case NodeKind.TOKEN:
            return quoted(graph.token_text(node.pos or 0))
        case NodeKind.POSITION:
            return f"embedding of position {node.pos}"
        case NodeKind.BIAS:
            return f"constants at layer {node.layer}"
        case NodeKind.ERROR:
            return _error_label(graph, node)
        case NodeKind.HEAD:
            return f"head {node.layer}.{node.index}"
        case _:
            return str(node)


def _error_label(graph: AttributionGraph, node: NodeId) -> str:
    """What an error is: of neurons, which leave nothing unexplained, those that are no nodes."""
    kind = graph.provenance.dictionary.kind
    if kind == NEURONS:
        return f"neurons of layer {node.layer} that were not kept"
    rest = " or neurons that were not kept" if kind.endswith(f" and {NEURONS}") else ""
    return f"error of layer {node.layer}'s dictionary{rest}"


def mark(names: Names, row: int, length: int = 16) -> str:
    """Short text next to a feature, head or target; empty if nothing is known."""
    graph, kind = names.graph, names.graph.nodes.kind[row]
    if kind in TARGET_KINDS:
        return target_mark(graph, row, length)
    if kind not in (NodeKind.FEATURE, NodeKind.HEAD) or not names.short(row):
        return ""
    return short(names.short(row), length)


def target_mark(graph: AttributionGraph, row: int, length: int) -> str:
    """Text and probability of a target."""
    return f"{short(_target(graph, row).text, length)} {probability(graph, row)}".strip()


def probability(graph: AttributionGraph, row: int) -> str:
    """The model's probability of a target token, if known; else empty."""
    target = _target(graph, row)
    known = None if target.token_id is None else target.probability
    return "" if known is None else percent(known)


def position_text(graph: AttributionGraph, row: int) -> str:
    """Token and position of a node; empty for biases."""
    pos = graph.nodes[row].pos
    return "" if pos is None else f"{quoted(graph.token_text(pos))} at {pos}"


def hover_lines(graph: AttributionGraph, strengths: Strengths, rows: list[int]) -> list[list[str]]:
    """Lines for each node: id, label, position, numbers, strongest inputs and outputs."""
    inputs, outputs = strengths.inputs(_NEIGHBOURS), strengths.outputs(_NEIGHBOURS)
    names = Names(graph)
    return [
        [
            *_own_lines(names, strengths, row),
            *_edge_lines(names, strengths, "from", strengths.source, inputs.get(row, [])),
            *_edge_lines(names, strengths, "to", strengths.target, outputs.get(row, [])),
        ]
        for row in rows
    ]


def heading(graph: AttributionGraph) -> str:
    """The prompt and the most heavily weighted target."""
    header = graph.provenance
    is_explicit = header.opening is not None and header.opening.rule == PrefixRule.ASKED
    opening = "" if is_explicit else "".join(header.tokens[: header.n_prefix])
    prompt = visible(header.prompt.removeprefix(opening)).lstrip()
    if letters(prompt) > _LONGEST_PROMPT:  # its end is what the prediction follows
        prompt = _ending(prompt, _LONGEST_PROMPT)
    if not len(graph.target_rows()):
        return f"“{isolated(prompt)}”"
    answer = target_mark(graph, graph.heaviest_target(), _LONGEST_PREDICTION)
    return f"“{isolated(prompt)}” → {answer}"


def counted(drawn: int, total: int, noun: str) -> str:
    """Number of things, and how many of them are drawn.

    >>> counted(1, 1, "node"), counted(400, 1543, "edge")
    ('1 node', 'the strongest 400 of 1,543 edges')
    """
    nouns = noun if total == 1 else f"{noun}s"
    return (
        f"{total:,} {nouns}" if drawn == total else f"the strongest {drawn:,} of {total:,} {nouns}"
    )


def _own_lines(names: Names, strengths: Strengths, row: int) -> list[str]:
    graph, numbers = names.graph, list[str]()
    if number(float(graph.nodes.activation[row])):
        numbers.append(f"activation {number(float(graph.nodes.activation[row]))}")
    if graph.nodes.kind[row] not in TARGET_KINDS:
        numbers.append(f"influence {percent(float(strengths.influence[row]))}")
    lines = [str(graph.nodes[row]), label(names, row), " · ".join(numbers)]
    if graph.nodes.kind[row] != NodeKind.TOKEN:
        lines.insert(2, position_text(graph, row))
    return [line for line in lines if line]


def _edge_lines(
    names: Names,
    strengths: Strengths,
    word: str,
    ends: Int[ndarray, " edge"],
    edges: list[int],
) -> list[str]:
    """One line per edge: its share of the target's inputs, and the other end."""
    lines: list[str] = []
    for edge in edges:
        share, other = float(strengths.share[edge]), int(ends[edge])
        sign = "+" if share > 0 else "−"
        name = f"{names.graph.nodes[other]} {_brief(names, other)}".strip()
        lines.append(f"{word} {sign}{percent(abs(share))} {name}")
    return lines


def _brief(names: Names, row: int) -> str:
    graph = names.graph
    if graph.nodes.kind[row] == NodeKind.TOKEN:
        return label(names, row)
    if graph.nodes.kind[row] in TARGET_KINDS:
        return quoted(_target(graph, row).text)
    known = names.short(row) if graph.nodes.kind[row] == NodeKind.FEATURE else ""
    return visible(known) if known else ""


def _target(graph: AttributionGraph, row: int) -> Target:
    return graph.provenance.targets[int(np.searchsorted(graph.target_rows(), row))]


def _shown(found: re.Match[str]) -> str:
    """A character, or its Python escape if it is a control character."""
    char = found[0]
    kept = char in (_ISOLATE, _POP) or _JOINER.match(found.string, found.start())
    is_control = not kept and unicodedata.category(char) in _CONTROLS
    return repr(char)[1:-1] if is_control else char


def _printable(char: str) -> str:
    return char if char.isprintable() else repr(char)[1:-1]


def _shortened(text: str, length: int) -> str:
    if len(text) <= length and letters(text) <= length:
        return text
    text = text[:length]
    while letters(text) > length - 1:
        text = text[:-1]
    return f"{text}…"


def _ending(text: str, length: int) -> str:
    """The last words of a text, with an ellipsis."""
    text = text[-length:]
    while letters(text) > length - 2:
        text = text[1:]
    return f"… {text.partition(' ')[2] or text}"
