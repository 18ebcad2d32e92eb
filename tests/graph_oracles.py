"""Plain versions of what `graphs` does cleverly, and graphs to try them on."""

from __future__ import annotations

import random
from dataclasses import replace
from zlib import crc32

import numpy as np
from hypothesis import strategies as st
from scipy.sparse import csr_array

from graphs.analysis.influence import influence
from graphs.analysis.prune import PruneSettings
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import TARGET_KINDS, NodeId, NodeKind, NodeTable
from graphs.core.provenance import (
    DictionaryIdentity,
    ModelIdentity,
    Provenance,
    Target,
)
from graphs.core.responses import FrozenNorm, NeuronForm, Responses

OUTSIDE = (NodeKind.TOKEN, NodeKind.POSITION, NodeKind.LOGIT, NodeKind.TARGET)


def make_table(names: list[str], activation=None, value=None) -> NodeTable:
    """A table of these nodes; activation and value are nan unless given."""
    nodes = [NodeId.parse(name) for name in names]

    def column(field: str) -> np.ndarray:
        values = [getattr(node, field) for node in nodes]
        return np.array([-1 if x is None else int(x) for x in values], dtype=np.int64)

    nan = np.full(len(nodes), np.nan)
    return NodeTable(
        kind=column("kind"),
        layer=column("layer"),
        pos=column("pos"),
        index=column("index"),
        activation=nan if activation is None else np.asarray(activation, dtype=np.float64),
        value=nan if value is None else np.asarray(value, dtype=np.float64),
    )


def vocabulary_entry(token: str) -> int:
    """An id for each text, the same wherever it stands."""
    return crc32(token.encode("utf-8", "surrogatepass")) % 10**6


def make_header(
    targets: int, tokens: tuple[str, ...], n_layers: int, probabilities: list[float]
) -> Provenance:
    return Provenance(
        generator="headwater 0.1.0",
        model=ModelIdentity(
            name="org/tiny model", architecture="TinyForCausalLM", n_layers=n_layers
        ),
        dictionary=DictionaryIdentity(kind="transcoder", name="org/tiny-plt", revision="a" * 40),
        dtype="float64",
        prompt="".join(tokens),
        tokens=tokens,
        token_ids=tuple(map(vocabulary_entry, tokens)),
        targets=tuple(
            Target(text=f"t{i}", token_id=i, probability=probabilities[i]) for i in range(targets)
        ),
        settings={"batch": 4, "why": None},
    )


def make_graph(
    names: list[str],
    edges: dict[tuple[str, str], float],  # (source, target) → weight
    probabilities: list[float] | None = None,
    unexpanded: tuple[str, ...] = (),
    dropped: dict[str, tuple[float, float]] | None = None,  # signed sum, sum of sizes
    dtype: type = np.float64,
    tokens: tuple[str, ...] = ("<bos>", " the", " cat"),
    output_tokens: dict[int, tuple[str, ...]] | None = None,
) -> AttributionGraph:
    """A graph drawn by hand."""
    row = {name: i for i, name in enumerate(names)}
    table = make_table(names)
    is_target = table.is_kind(NodeKind.LOGIT, NodeKind.TARGET)
    probabilities = probabilities or [1.0] * int(is_target.sum())
    seed = np.zeros(len(names))
    seed[is_target] = probabilities
    lost = np.zeros((len(names), 2))
    for name, sums in (dropped or {}).items():
        lost[row[name]] = sums
    expanded = table.is_kind(NodeKind.FEATURE, NodeKind.LOGIT, NodeKind.TARGET)
    expanded[[row[name] for name in unexpanded]] = False
    targets, sources = [row[t] for _, t in edges], [row[s] for s, _ in edges]
    data = np.array(list(edges.values()), dtype=dtype)
    layers = table.layer.max(initial=0)
    return AttributionGraph(
        nodes=table,
        weights=csr_array((data, (targets, sources)), shape=(len(names), len(names))),
        seed=seed,
        dropped=lost[:, 0],
        dropped_absolute=lost[:, 1],
        expanded=expanded,
        provenance=make_header(int(is_target.sum()), tokens, int(layers) + 1, probabilities),
        output_tokens=output_tokens or {},
    )


def responding(graph: AttributionGraph, rng: np.random.Generator) -> AttributionGraph:
    """The same graph with rows of norms and of a gate, and constants and thresholds."""
    n_layers = graph.provenance.model.n_layers
    norms = [("mlp", "norm", 0, 1), ("attention", "attention_norm", n_layers - 1, 1)]
    norms += [("unembedding", "norm", n_layers, 3)]
    names = [f"{kind}:{layer}/{i}@0" for _, kind, layer, count in norms for i in range(count)]
    names += ["gate:0/1@0"]
    sources = ~graph.nodes.is_kind(*TARGET_KINDS) & (rng.random((len(names), len(graph))) < 0.6)
    lost = rng.exponential(size=len(names))
    held = [
        FrozenNorm(before=before, layer=layer, pos=0, mean_square=2.0, width=4, dimensions=4)
        for before, _, layer, _ in norms
    ]
    nodes = make_table(names, value=rng.standard_normal(len(names)))
    weights = rng.standard_normal((len(names), len(graph))) * sources
    return replace(
        graph,
        responses=Responses(
            norms=tuple(held),
            neurons=NeuronForm(nonlinearity="silu", gated=True),
            constant=rng.standard_normal(len(graph) + len(names)),
            threshold=np.where(rng.random(len(graph)) < 0.5, rng.random(len(graph)), np.nan),
            nodes=nodes,
            weights=csr_array(weights.astype(graph.weights.dtype)),
            dropped=lost * rng.uniform(-1, 1, len(names)),
            dropped_absolute=lost,
            flows=rng.standard_normal((len(graph) + len(names), 1)),
        ),
    )


@st.composite
def random_graphs(draw: st.DrawFn, ties: bool | None = None) -> AttributionGraph:
    """Graphs with all kinds of nodes, rows that are unknown, and rows that lost something."""
    state = random.getstate()  # beartype draws from it, which hypothesis takes for a mistake
    try:
        return _random_graph(draw, ties)
    finally:
        random.setstate(state)


def _random_graph(draw: st.DrawFn, ties: bool | None) -> AttributionGraph:
    n_layers, n_pos = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    n_targets, density = draw(st.integers(1, 3)), draw(st.sampled_from([0.0, 0.3, 0.8, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = [f"token:{rng.integers(9)}@{p}" for p in range(n_pos)]
    names += [f"position:{p}" for p in range(n_pos) if rng.random() < 0.3]
    for layer in range(n_layers):
        names += [f"bias:{layer}"] if rng.random() < 0.4 else []
        for p in range(n_pos):
            chosen = np.flatnonzero(rng.random(6) < 0.35)
            names += [f"feature:{layer}/{i}@{p}" for i in chosen]
        names += [f"error:{layer}@{p}" for p in range(n_pos) if rng.random() < 0.7]
    contrast = rng.random() < 0.2
    names += [f"{'target' if contrast else 'logit'}:{i}@{n_pos - 1}" for i in range(n_targets)]
    table = make_table(names)
    features = np.flatnonzero(table.is_kind(NodeKind.FEATURE))
    activation = np.full(len(names), np.nan)
    activation[features] = rng.exponential(size=len(features))
    value = np.where(rng.random(len(names)) < 0.5, rng.standard_normal(len(names)), np.nan)
    weights = _random_weights(rng, table, n_targets, density, draw(_TIES) if ties is None else ties)
    expanded = table.is_kind(NodeKind.FEATURE, NodeKind.LOGIT, NodeKind.TARGET)
    expanded[features[rng.random(len(features)) < 0.2]] = False
    weights[~expanded] = 0.0
    lost = np.where(expanded & (rng.random(len(names)) < 0.3), rng.exponential(size=len(names)), 0)
    probabilities = rng.dirichlet(np.ones(n_targets + 1))[:n_targets]
    seed = np.zeros(len(names))
    seed[-n_targets:] = probabilities
    tokens = tuple(f"⟨{p}⟩\n\"'" for p in range(n_pos))
    graph = AttributionGraph(
        nodes=make_table(names, activation, value),
        weights=csr_array(weights.astype(draw(st.sampled_from([np.float32, np.float64])))),
        seed=seed,
        dropped=lost * rng.uniform(-1, 1, len(names)),
        dropped_absolute=lost,
        expanded=expanded,
        provenance=make_header(n_targets, tokens, n_layers, probabilities.tolist()),
        output_tokens={int(f): (" a", "é\u2028") for f in features[:2]},
    )
    return responding(graph, rng) if draw(st.booleans()) else graph


_TIES = st.booleans()


def _random_weights(rng, table: NodeTable, n_targets: int, density: float, ties: bool):
    """Every feature may be fed by what is before its layer, every target by everything."""
    count = len(table)
    sizes = (
        rng.choice([-2.0, -1.0, 1.0, 2.0], (count, count))
        if ties
        else rng.standard_normal((count, count))
    )
    sizes[rng.random((count, count)) >= density] = 0.0
    may = np.zeros((count, count), dtype=bool)
    for target in range(count):
        for source in range(target):
            earlier = table.layer[source] < table.layer[target] or table.kind[source] == 2
            last = target >= count - n_targets and source < count - n_targets
            may[target, source] = last or (table.kind[target] == NodeKind.FEATURE and earlier)
    return np.where(may, sizes, 0.0)


def dense_sizes(graph: AttributionGraph) -> np.ndarray:
    return np.abs(graph.weights.toarray().astype(np.float64))


def dense_shares(sizes: np.ndarray, dropped_absolute: np.ndarray) -> np.ndarray:
    share = np.zeros_like(sizes)
    for t in range(len(sizes)):
        total = sizes[t].sum() + dropped_absolute[t]
        if total > 0:
            share[t] = sizes[t] / total
    return share


def series_influence(share: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """seed·share + seed·share² + … until nothing arrives."""
    total, step = np.zeros(len(seed)), seed.astype(np.float64)
    for _ in range(len(seed)):
        step = step @ share
        total += step
    return total


def leading_one_by_one(scores: list[float], threshold: float) -> set[int]:
    """Take the highest score that is left until the share of the sum is reached."""
    if threshold == 1.0:
        return {i for i, score in enumerate(scores) if score > 0}
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    total = 0.0
    for i in order:
        total += scores[i]
    taken, reached = set(), 0.0
    for i in order:
        if total == 0 or scores[i] == 0 or reached / total >= threshold:
            break
        taken.add(i)
        reached += scores[i]
    return taken


def prune_by_hand(
    graph: AttributionGraph, settings: PruneSettings
) -> tuple[set[int], set[tuple[int, int]]]:
    """Rows that stay and edges (target, source) that stay."""
    kinds = [node.kind for node in graph.nodes]
    always = {i for i, kind in enumerate(kinds) if kind in OUTSIDE}
    if settings.keep_errors:
        always |= {i for i, kind in enumerate(kinds) if kind == NodeKind.ERROR}
    nodes = always | leading_one_by_one(influence(graph).tolist(), settings.node_threshold)
    weights = graph.weights.toarray()
    measured = weights.copy()
    if settings.edge_scores == "kept":
        for t in range(len(graph)):
            for s in range(len(graph)):
                if t not in nodes or s not in nodes:
                    measured[t, s] = 0.0
    share = dense_shares(np.abs(measured), graph.dropped_absolute)
    arrived = series_influence(share, graph.seed) + graph.seed
    pairs = [(t, s) for t in range(len(graph)) for s in range(t) if measured[t, s] != 0]
    best = leading_one_by_one([share[t, s] * arrived[t] for t, s in pairs], settings.edge_threshold)
    edges = {pairs[i] for i in best}
    while True:
        edges = {(t, s) for t, s in edges if t in nodes and s in nodes}
        stays = set()
        for node in nodes:
            feeds = any(s == node for _, s in edges)
            fed = any(t == node for t, _ in edges)
            starved = kinds[node] == NodeKind.FEATURE and graph.expanded[node] and not fed
            if node in always or (feeds and not starved):
                stays.add(node)
        if stays == nodes:
            return nodes, edges
        nodes = stays


def absorbed_by_hand(graph: AttributionGraph, kept: np.ndarray) -> tuple[float, float]:
    """Move what dropped nodes send, in size, into an error node; make one where there is none.

    One more error node takes what rows lost and what dropped biases send.
    """
    nodes = list(graph.nodes)
    errors = {(n.layer, n.pos): i for i, n in enumerate(nodes) if n.kind == NodeKind.ERROR}
    dropped = [i for i, n in enumerate(nodes) if n.kind in (2, 3) and not kept[i]]
    places = {(nodes[i].layer, nodes[i].pos) for i in dropped} - errors.keys()
    errors |= {place: len(nodes) + 1 + i for i, place in enumerate(sorted(places, key=str))}
    size = len(nodes) + 1 + len(places)
    sizes = np.zeros((size, size))
    sizes[: len(nodes), : len(nodes)] = dense_sizes(graph)
    sizes[: len(nodes), len(nodes)] = graph.dropped_absolute
    for i in dropped:
        sizes[:, errors[nodes[i].layer, nodes[i].pos]] += sizes[:, i]
        sizes[:, i] = 0.0
        sizes[i, :] = 0.0
    return published_scores(graph, sizes, [*errors.values(), len(nodes)])


def renormalised_by_hand(graph: AttributionGraph, kept: np.ndarray) -> tuple[float, float]:
    """Delete what is not pinned, and errors that no pinned node is linked to."""
    sizes, nodes = dense_sizes(graph), list(graph.nodes)
    gone = []
    for i, node in enumerate(nodes):
        if node.kind == NodeKind.ERROR:
            pinned = [t for t in range(len(nodes)) if kept[t] and nodes[t].kind != NodeKind.ERROR]
            if not any(sizes[t, i] > 0 for t in pinned):
                gone.append(i)
        elif node.kind not in OUTSIDE and not kept[i]:
            gone.append(i)
    for i in gone:
        sizes[i, :] = 0.0
        sizes[:, i] = 0.0
    return published_scores(
        graph, sizes, [i for i, node in enumerate(nodes) if node.kind == NodeKind.ERROR]
    )


def published_scores(
    graph: AttributionGraph, sizes: np.ndarray, errors: list[int]
) -> tuple[float, float]:
    seed = np.zeros(len(sizes))
    seed[: len(graph)] = graph.seed
    share = dense_shares(sizes, np.zeros(len(sizes)))
    reached = series_influence(share, seed)
    inputs = [i for i, node in enumerate(graph.nodes) if node.kind in OUTSIDE[:2]]
    from_inputs, from_errors = reached[inputs].sum(), reached[errors].sum()
    replacement = from_inputs / (from_inputs + from_errors) if from_inputs > 0 else 0.0
    arrived = reached + seed
    explained = sum((1 - share[t, errors].sum()) * arrived[t] for t in range(len(sizes)))
    return replacement, explained / arrived.sum()
