"""Scores of attention by component (`graphs.attention.scores`): marginals of both sides, and pairs.

A marginal is one covector (`circuits.attention.meetings`), at the query or at the keys, taken apart
by one sweep (`circuits.attention.components`).  With the norms running, it is the gradient of the
score through them.  Pairs take as many rows on each side as a head has dimensions:

    pair[i, j] = scaling · (query map · component i) · (key map · component j)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from circuits.attention.components import Components
from circuits.attention.meetings import Covector, LayerMeeting
from circuits.attention.strongest_pairs import strongest_pairs
from circuits.interventions.experiment import Experiment
from circuits.machine import exactly, in_float64, moved, on_device
from circuits.recording.meeting import Meeting
from graphs.attention.scores import AttentionScore, Parts, ScorePairs, Side, is_context


def attention_score(
    experiment: Experiment,
    layer: int,
    head: int,
    query: int,
    key: int,
    rivals: Sequence[int] | None = None,
) -> AttentionScore:
    """The score of a key at a query, and its log odds among the keys that compete with it.

    `rivals` are the positions that compete, by default all behind the prefix; each weighs as much
    as it is attended to.
    """
    local, components = experiment.local, Components(experiment)
    meeting = LayerMeeting(local.frozen, local.recording, layer)
    recorded = meeting.recorded
    scores = in_float64(recorded.scores[0, head, query]).numpy()
    attention = in_float64(recorded.pattern[0, head, query]).numpy()
    if rivals is None:
        rivals = range(local.recording.prompt.n_prefix, len(attention))
    competitors = competing(attention, key, rivals)
    own = np.zeros_like(scores)
    own[key] = 1.0
    odds = own - competitors
    capped, slope = cap(recorded, scores)
    ratio = np.divide(capped, scores, out=np.ones_like(scores), where=scores != 0)
    functions = [own, own, odds * ratio, odds * slope]
    with exactly():
        sides = _sides(components, meeting, (layer, head, query), functions)
    values = float(scores[key]), float(odds @ capped)
    parts = [Parts(value, *both) for value, both in zip(values, sides, strict=True)]
    return AttentionScore(
        layer=layer,
        head=head,
        query=query,
        key=key,
        score=parts[0],
        odds=parts[1] if competitors.any() else None,
        scores=scores,
        attention=attention,
        competitors=competitors,
        nodes=components.nodes(layer),
    )


def competing(
    attention: Float[ndarray, " pos"], key: int, rivals: Sequence[int]
) -> Float[ndarray, " pos"]:
    """Shares of the keys that compete with one, as they are attended to; 0 if there are none."""
    shares = np.zeros_like(attention)
    shares[[*rivals]] = attention[[*rivals]]
    shares[key] = 0.0
    return shares / (shares.sum() or 1.0)


def cap(
    meeting: Meeting, scores: Float[ndarray, " pos"]
) -> tuple[Float[ndarray, " pos"], Float[ndarray, " pos"]]:
    """Scores as the softmax gets them, and the slopes of these."""
    if meeting.softcap is None:
        return scores, np.ones_like(scores)
    tanh = np.tanh(scores / meeting.softcap)
    return tanh * meeting.softcap, 1.0 - tanh**2


def _sides(
    components: Components,
    meeting: LayerMeeting,
    place: tuple[int, int, int],
    functions: list[Float[ndarray, " pos"]],
) -> list[list[Side]]:
    """Both sides of sums of scores: of each function, the query's and the keys'.

    `functions`: weights of the sum with norms held, and with norms running, in turn.
    """
    layer, head, query = place
    found: list[Covector] = []
    for number, weights in enumerate(functions):
        for side in (meeting.at_query, meeting.at_keys):
            found.append(side(head, query, weights, running=number % 2 == 1))
    covectors = torch.stack([one.covector for one in found])[:, : query + 1]
    rows = in_float64(components.spread(layer, covectors)).numpy()
    return [
        [
            Side(weight=rows[held], running=rows[held + 2], constant=found[held].constant)
            for held in (first, first + 1)
        ]
        for first in range(0, len(found), 4)
    ]


def score_pairs(
    experiment: Experiment, layer: int, head: int, query: int, key: int, count: int = 20
) -> ScorePairs:
    """The strongest pairs of a score; components of the prefix and biases count as one."""
    local, components = experiment.local, Components(experiment)
    meeting = LayerMeeting(local.frozen, local.recording, layer)
    context = is_context(components.nodes(layer), local.recording.prompt.n_prefix)
    own = np.flatnonzero(~context)
    with exactly():
        left = _by_component(components, meeting, (layer, head), query, "query", context)
        right = _by_component(components, meeting, (layer, head), key, "key", context)
        left = left * meeting.recorded.scaling
        found = strongest_pairs(left, right, count)
        squares = float(((left @ left.T) * (right @ right.T)).sum())
        values = _singular_values(left, right)
    number = np.append(own, -1)
    return ScorePairs(
        query=number[found.left],
        key=number[found.right],
        weight=found.product,
        value=float(left.sum(1) @ right.sum(1)),
        share=None if found.total is None else float(np.abs(found.product).sum() / found.total),
        energy=float((found.product**2).sum() / squares) if squares else 0.0,
        singular_values=values,
    )


def _by_component(
    components: Components,
    meeting: LayerMeeting,
    place: tuple[int, int],
    pos: int,
    of: Literal["query", "key"],
    context: Bool[ndarray, " component"],
) -> Float[Tensor, "d_head own_and_context"]:
    """What each component is to a query or key; the last is the context, with biases."""
    layer, head = place
    matrix, constant = meeting.projection(head, pos, of=of)
    rows = components.at(layer, pos, matrix)
    inside = on_device(context, rows.device)
    rest = rows[:, inside].sum(1) + moved(constant, rows.device)
    return torch.cat([rows[:, ~inside], rest[:, None]], 1)


def _singular_values(
    left: Float[Tensor, "d_head component"], right: Float[Tensor, "d_head component"]
) -> Float[ndarray, " rank"]:
    """Of leftᵀ · right, without forming it."""
    triangles = [torch.linalg.qr(in_float64(side).T, mode="r").R for side in (left, right)]
    return torch.linalg.svdvals(triangles[0] @ triangles[1].T).numpy()
