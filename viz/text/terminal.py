"""Tables of a graph's summary."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphs.core.report import Report
from graphs.reports.attended_summary import CarriedByHeads, LookReason
from graphs.reports.summary import NodeLine, Summary, WrittenByHeads
from viz.text.checked import report_lines
from viz.text.openings import opening_text, sink_text
from viz.text.tables import plain_table
from viz.text.words import one_line, percent, quoted, short, visible

LOOKS, PER_LOOK = 3, 3  # lines of looks, and heads that are named in each
LABEL = 32  # letters of a label there


def summary_tables(summary: Summary) -> RenderableType:
    """Prompt, predictions, strongest nodes per layer, scores and checks."""
    explained: list[RenderableType] = [_predictions(summary)]
    if summary.sequence is not None:
        explained.append(Text(summary.sequence))
    parts = [_headline(summary), Group(*explained), _top(summary), _strongest(summary)]
    if summary.groups:
        parts.append(_groups(summary))
    return Group(*(line for part in parts for line in (part, "")), _notes(summary))


def _headline(summary: Summary) -> RenderableType:
    text = Text()
    for pos, token in enumerate(summary.tokens):
        text.append(visible(token).replace("␣", " "), style="dim" * (pos < summary.n_prefix))
    head = f"{summary.model} · {summary.dictionary} · {summary.dtype}"
    return Group(Text(one_line(head), style="bold"), text, *_beginning(summary))


def _beginning(summary: Summary) -> list[Text]:
    """Lines about the start of the prompt, attention sinks and mismatches."""
    lines = [Text(sink_text(sink, summary.tokens[sink.pos])) for sink in summary.sinks or ()]
    lines += [Text(mismatch, style="yellow") for mismatch in summary.mismatches]
    if summary.opening is not None:
        text = opening_text(summary.opening, summary.n_prefix)
        lines.insert(0, Text(text, style="dim"))
    return lines


def _predictions(summary: Summary) -> Table:
    # Weights are shown for targets without probability, unless all are equal, as for contrasts.
    unequal = [one.weight for one in summary.targets if one.probability is None or one.of_sequence]
    has_weights = len({*unequal}) > 1
    headings = ("explained", "probability", *(["weight"] if has_weights else []), "value", "node")
    table = plain_table(*headings, right=("probability", "weight", "value"), texts=("explained",))
    for target in summary.targets:
        probability = "" if target.probability is None else f"{target.probability:.3f}"
        weight = [f"{target.weight:.1%}"] if has_weights else []
        value = "" if target.value is None else f"{target.value:.3f}"
        cells = (visible(target.text), probability, *weight, value, target.node)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _top(summary: Summary) -> Table:
    headings = ("strongest", "at", "activation", "influence", "label")
    table = plain_table(*headings, right=("activation", "influence"), texts=("at", headings[-1]))
    for line in summary.top:
        table.add_row(*map(Text, _cells(line)))
    return table


def _groups(summary: Summary) -> Table:
    table = plain_table(
        "group", "nodes", "influence", right=("nodes", "influence"), texts=("group",)
    )
    for group in summary.groups:
        table.add_row(
            *map(Text, (one_line(group.name), f"{group.members:,}", f"{group.influence:.2%}"))
        )
    return table


def _strongest(summary: Summary) -> Table:
    headings = ("layer", "node", "at", "activation", "influence", "label")
    table = plain_table(*headings, right=("activation", "influence"), texts=("at", headings[-1]))
    for layer, lines in groupby(summary.strongest, key=lambda line: line.layer):
        for rank, line in enumerate(lines):
            name = "input" if layer is None else str(layer)
            table.add_row(*(Text(cell) for cell in (name if rank == 0 else "", *_cells(line))))
    return table


def _cells(line: NodeLine) -> tuple[str, ...]:
    return (
        line.node,
        visible(line.token),
        "" if line.activation is None else f"{line.activation:.2f}",
        f"{line.influence:.2%}",
        visible(line.label) if line.label else "",
    )


def _notes(summary: Summary) -> RenderableType:
    checks, found = summary.checks, summary.scores
    lines = [
        f"{summary.n_nodes:,} nodes, {summary.n_edges:,} edges; "
        f"replacement {found.replacement:.3f}, completeness {found.completeness:.3f}"
    ]
    lines += summary.remarks
    if summary.fit is not None:
        lines.append(summary.fit.sentence)
    if summary.stability is not None:
        lines.append(f"stability: {summary.stability.sentence}")
    lines += _reach(summary)
    if summary.heads is not None:
        lines.append(_written_by_heads(summary.heads))
    if summary.attended is not None:
        lines += attended_lines(summary.attended, summary.tokens)
    if checks.conservation_max is not None and checks.conservation_median is not None:
        lines.append(
            f"rows sum to their targets' own values within {checks.conservation_max:.1e} "
            f"of their absolute sum (median {checks.conservation_median:.1e})"
        )
    if checks.edge_heads_max is not None and checks.scores_max is not None:
        lines.append(
            f"heads of edges sum to weights within {checks.edge_heads_max:.1e} of rows' absolute "
            f"sums, scores to their parts within {checks.scores_max:.1e} of these"
        )
    if checks.replay_max_difference is not None:
        lines.append(
            f"replayed logits differ from the model's own by {checks.replay_max_difference:.1e} "
            "of the largest"
        )
    if checks.recording_max_difference is not None:
        lines.append(
            "recorded logits differ from those of a plain forward pass by "
            f"{checks.recording_max_difference:.1e} of the largest"
        )
    failures = [Text(failure, style="bold red") for failure in summary.failures]
    tested = [] if summary.report is None else ["", report_table(summary.report)]
    return Group(*(Text(line) for line in lines), *tested, *failures)


def _written_by_heads(found: WrittenByHeads) -> str:
    named = (f"{layer}.{head} {part:+.2f}" for layer, head, part in found.strongest)
    return (
        f"attention heads write {found.total:+.2f} of {quoted(found.target)} at its position: "
        f"{', '.join(named)}, …"
    )


def attended_lines(found: CarriedByHeads, tokens: Sequence[str]) -> list[str]:
    """Which heads carry edges, and at what they look, a line each."""
    lines = [] if found.past is None else [_heads_of_edges(found, found.past)]
    for line in found.looks[:LOOKS]:
        named = ", ".join(f"{layer}.{head} ({at:.2f})" for layer, head, at in line.heads[:PER_LOOK])
        more = ", …" if len(line.heads) > PER_LOOK else ""
        query, key = (f"{quoted(tokens[pos])} @{pos}" for pos in (line.query, line.key))
        verb, noun = ("looks", "head") if len(line.heads) == 1 else ("look", "heads")
        reasons = f", for {', '.join(map(_reason, line.reasons))}" if line.reasons else ""
        lines.append(f"{noun} {named}{more} {verb} from {query} at {key}{reasons}")
    return lines


def _heads_of_edges(found: CarriedByHeads, past: float) -> str:
    strongest = [f"{layer}.{head} {percent(share)}" for layer, head, share in found.strongest]
    if strongest:
        first = strongest[0].replace(" ", " carries ")
        strongest[0] = f"{first} of the influence along them"
    carried = f"{', '.join(strongest)}, …; " if strongest else ""
    return f"heads of {found.edges:,} edges: {carried}{percent(past)} goes past all attention"


def _reason(reason: LookReason) -> str:
    if reason.node.startswith("token:"):
        return quoted(reason.text)
    text = short(" ".join(reason.text.split()), LABEL)
    return f"{reason.node} ({text})" if text else reason.node


def _reach(summary: Summary) -> list[str]:
    """How much of the computation the features cover, and how much of that has been followed."""
    checks, lines = summary.checks, list[str]()
    if checks.expanded_features is not None and checks.active_features is not None:
        lines.append(
            f"{checks.expanded_features:,} of {checks.active_features:,} active features were "
            "traced further down"
        )
        if checks.expanded_features <= summary.n_features < checks.active_features:
            lines[-1] += ", what is no node of this graph is in errors"
        if summary.n_features < checks.expanded_features:
            lines[-1] += f", {summary.n_features:,} are in this graph"
    ends: list[str] = []
    if checks.error_influence_share is not None:
        ends.append(f"{percent(checks.error_influence_share)} at errors, which no feature explains")
    if checks.influence_resolved is not None:
        ends.append(f"{percent(1 - checks.influence_resolved)} at features that were not traced")
    if ends:
        lines.append(f"influence that stops on the way: {', '.join(ends)}")
    return lines


def report_table(report: Report) -> Table:
    """Table of the tests of a graph in the model."""
    table = plain_table("in the model", "result", "", right=(), wraps=("result",))
    for line in report_lines(report):
        verdict = Text("fails", "bold red") if line.holds is False else Text("", "dim")
        if line.holds:
            verdict = Text("holds", "green")
        table.add_row(Text(line.name), Text(line.text), verdict)
    return table
