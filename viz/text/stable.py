"""Text of a graph's stability: its classes, each kind of variation, and its nodes."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphs.core.graph import AttributionGraph
from graphs.core.stability import ClassShare, Stability, StabilityNull, varied_as
from graphs.naming.names import Names
from viz.text.tables import plain_table
from viz.text.words import one_line, percent

_WORDS = {"thresholds": "thresholds", "paraphrases": "phrasings", "dictionaries": "dictionaries"}


def stability_text(graph: AttributionGraph, found: Stability, count: int = 15) -> RenderableType:
    """Classes, core nodes by each kind of variation, and the nodes with most influence."""
    judged = sum(share is not None for share in found.node_shares)
    head = Text(
        f"pruned at nodes {found.node_threshold:g}, edges {found.edge_threshold:g}: "
        f"{judged:,} features, errors and biases, {len(found.sources):,} edges"
    )
    limits = Text(
        f"core stays in at least {found.core_limit:.0%} of the variants of each kind, "
        f"noise in less than {found.noise_limit:.0%} of one kind"
    )
    return Group(
        head, "", _classes(found), limits, "", _kinds(found), "", _nodes(graph, found, count)
    )


def _classes(found: Stability) -> Table:
    headings = ("nodes", "influence", "edges", "influence ")
    table = plain_table("class", *headings, right=headings)
    for one in found.classes():
        cells = (f"{one.nodes:,}", percent(one.node_influence))
        cells += (f"{one.edges:,}", percent(one.edge_influence))
        table.add_row(*map(Text, (one.name, *cells)))
    return table


def _kinds(found: Stability) -> Table:
    headings = ("core nodes", "influence", "null", "unaligned")
    table = plain_table("over", *headings, right=headings)

    def add(name: str, core: ClassShare, null: StabilityNull, unaligned: str) -> None:
        by_null = f"{percent(null.mean)} ± {percent(null.sd)}"
        cells = (f"{core.nodes:,}", percent(core.node_influence), by_null, unaligned)
        table.add_row(*map(Text, (name, *cells)))

    for one in found.variations:
        unaligned = percent(one.unaligned) if one.kind == "paraphrases" else ""
        name = f"{len(one.variants):,} {varied_as(one)}"
        add(name, found.classes(one.kind)[0], one.null, unaligned)
    if len(found.variations) > 1:
        add("all kinds", found.classes()[0], found.null, "")
    return table


def _nodes(graph: AttributionGraph, found: Stability, count: int) -> Table:
    kinds = [_WORDS[one.kind] for one in found.variations]
    headings = (*kinds, "influence")
    table = plain_table("node", "class", *headings, "label", right=headings, texts=("label",))
    rows = {str(node): row for row, node in enumerate(graph.nodes)}
    names = Names(graph)
    shares = found.node_shares
    order = sorted(range(len(shares)), key=lambda place: -found.node_influence[place])
    for place in [place for place in order if shares[place] is not None][:count]:
        share, name = shares[place], found.nodes[place]
        stays = [_stays(one.nodes[place], len(one.variants)) for one in found.variations]
        label = one_line(names.label(rows[name])) if name in rows else ""
        own = "" if share is None else found.class_of(share)
        cells = (name, own, *stays, percent(found.node_influence[place]), label)
        table.add_row(*map(Text, cells))
    return table


def _stays(count: int | None, of: int) -> str:
    return "" if count is None else f"{count:,}/{of:,}"
