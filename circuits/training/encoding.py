"""Encoding a batch: which features may be active at its tokens, and how much each is.

Which ones is chosen by products that may be in bfloat16; how much is computed in full precision for
the chosen ones alone.

How many entries a layer has, and which features are dead, is decided every `settings.refresh` steps
(`Plan`), so that a step's shapes are known without waiting for a device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.largest import largest
from circuits.training.code import Code
from circuits.training.dictionary import TrainedDictionary
from circuits.training.processes import ALONE, Group, Processes
from circuits.training.settings import Sparsity
from circuits.training.sparsity import active, jump_relu


@dataclass(frozen=True)
class Plan:
    """What holds until the next refresh."""

    budget: Float[Tensor, " layer"]  # entries per token of batch-topk
    dead: Bool[Tensor, "layer feat"]
    budgets: tuple[float, ...]  # the same on the host
    dead_ones: tuple[Tensor, ...]  # of each layer
    n_dead: tuple[int, ...]  # of all processes

    @classmethod
    def of(
        cls,
        budget: Float[Tensor, " layer"],
        dead: Bool[Tensor, "layer feat"],
        features: Group = ALONE.features,
    ) -> Plan:
        """Read off the device once."""
        ones = tuple(row.nonzero()[:, 0] for row in dead)
        counts = features.sum(dead.sum(1)).tolist() if features.size > 1 else map(len, ones)
        return cls(budget, dead, tuple(budget.tolist()), ones, tuple(counts))


@dataclass(frozen=True)
class Encoded:
    """The entries of all layers."""

    codes: tuple[Code, ...]
    activations: list[Tensor]  # of each code's entries
    # Of the process: mean over layers and tokens, with a gradient for learned thresholds.
    l0: Float[Tensor, ""]

    def detached(self) -> Encoded:
        """The same without gradients."""
        return Encoded(self.codes, [one.detach() for one in self.activations], self.l0.detach())

    def shares(self, n_features: int, tokens: Group = ALONE.tokens) -> Float[Tensor, "layer feat"]:
        """Share of tokens at which each feature is active."""
        rows: list[Tensor] = []
        for code, values in zip(self.codes, self.activations, strict=True):
            counts = values.new_zeros(n_features)
            on = (values.detach() > 0).to(values.dtype)
            rows.append(counts.index_add_(0, code.feature, on) / len(code.start))
        return tokens.mean(torch.stack(rows))


@dataclass(frozen=True)
class Revived:
    """The largest dead features, k per token, beside the entries of the batch."""

    codes: tuple[Code, ...]  # of both: tables then have one gradient, written once
    activations: list[Tensor]  # of the dead features alone


def encoded(
    dictionary: TrainedDictionary, inputs: Float[Tensor, "layer token d_model"], plan: Plan
) -> tuple[Encoded, Revived | None]:
    """A batch's activations, and those of dead features if there are any to be revived."""
    settings = dictionary.settings
    codes, both, activations, dead = list[Code](), list[Code](), list[Tensor](), list[Tensor]()
    revives = settings.revival > 0 and any(plan.n_dead)
    twice = torch.cat([inputs, inputs], 1) if revives else inputs
    active_entries = inputs.new_zeros(())
    for layer, read in enumerate(inputs):
        pre = dictionary.pre_activations(layer, read)
        code = chosen(dictionary, layer, pre, plan)
        if revives:
            both.append(code.beside(_revived(dictionary, layer, pre, plan)))
            values, of_dead = _parted(dictionary.values(layer, twice[layer], both[-1]), code)
            dead.append(of_dead.relu())
        else:
            values = dictionary.values(layer, read, code)
        values, count = activated(dictionary, layer, values, code)
        codes.append(code)
        activations.append(values)
        active_entries = active_entries + count
    l0 = active_entries / (inputs.shape[0] * inputs.shape[1])
    return Encoded(tuple(codes), activations, l0), Revived(tuple(both), dead) if revives else None


def activated(
    dictionary: TrainedDictionary, layer: int, values: Float[Tensor, " entry"], code: Code
) -> tuple[Float[Tensor, " entry"], Float[Tensor, ""]]:
    """Activations of a layer's entries with these pre-activations, and how many are active.

    Where thresholds are learned, the number has a gradient for them.
    """
    settings = dictionary.settings
    if settings.sparsity not in (Sparsity.JUMP_RELU, Sparsity.TANH):
        values = values.relu()
        return values, (values.detach() > 0).sum().to(values)
    threshold = dictionary.log_threshold[layer].exp()[code.feature]
    count = active(values, threshold, settings.bandwidth).sum()
    return jump_relu(values, threshold, settings.bandwidth), count


def chosen(
    dictionary: TrainedDictionary, layer: int, pre: Float[Tensor, "token feat"], plan: Plan
) -> Code:
    """The entries of one layer: the largest, or those above or close to their thresholds."""
    settings, n_tokens = dictionary.settings, len(pre)
    if settings.sparsity == Sparsity.TOP_K:
        return _by_token(pre, settings.k, dictionary.processes.features)
    if settings.sparsity == Sparsity.BATCH_TOP_K:
        count = round(plan.budgets[layer] * n_tokens * dictionary.processes.tokens.size)
        place = _largest_of_all(pre.flatten(), count, dictionary.processes).sort().values
        return Code.of(place // pre.shape[1], place % pre.shape[1], n_tokens)
    least = dictionary.log_threshold[layer].detach().exp() - settings.bandwidth / 2
    token, feature = (pre > least).nonzero(as_tuple=True)
    return Code.of(token, feature, n_tokens)


def made_plan(
    dictionary: TrainedDictionary,
    inputs: Float[Tensor, "layer token d_model"],
    dead: Bool[Tensor, "layer feat"] | None = None,
) -> Plan:
    """The plan that this batch gives, with these dead features, or none."""
    settings, n_layers = dictionary.settings, len(inputs)
    budget = torch.full((n_layers,), settings.l0, device=inputs.device)
    if settings.sparsity == Sparsity.BATCH_TOP_K and settings.one_budget:
        budget = _shared_budgets(dictionary, inputs)
    if dead is None:
        dead = torch.zeros(n_layers, dictionary.width, dtype=torch.bool, device=inputs.device)
    return Plan.of(budget, dead, dictionary.processes.features)


def _shared_budgets(
    dictionary: TrainedDictionary, inputs: Float[Tensor, "layer token d_model"]
) -> Float[Tensor, " layer"]:
    """Entries per token and layer where the largest of a batch are taken of all layers together.

    Each layer uses what it needs (BatchTopK, arXiv 2412.06410).
    """
    settings, processes = dictionary.settings, dictionary.processes
    pre = torch.stack([dictionary.pre_activations(*one).relu() for one in enumerate(inputs)])
    n_tokens = pre.shape[1] * processes.tokens.size
    count = int(settings.l0 * pre.shape[0] * n_tokens)
    place = _largest_of_all(pre.flatten(), count, processes) // pre[0].numel()
    return processes.everyone.sum(torch.bincount(place, minlength=len(pre))) / n_tokens


def _revived(dictionary: TrainedDictionary, layer: int, pre: Tensor, plan: Plan) -> Code:
    """Entries of the largest dead features of one layer, k per token."""
    some = plan.dead_ones[layer]
    if plan.n_dead[layer] == 0:
        return Code.of(some, some, len(pre))
    code = _by_token(pre[:, some], dictionary.settings.k, dictionary.processes.features)
    return Code(some[code.feature], code.token, code.start)


def _largest_of_all(
    values: Float[Tensor, " value"], count: int, processes: Processes
) -> Int[Tensor, " place"]:
    """Places of those values that are among the largest of all processes.

    Of several processes a device is waited for: each would otherwise take on as many entries as
    all have together.
    """
    place = largest(values[None], min(count, len(values)))[0]
    if processes.everyone.size == 1:
        return place
    return place[processes.everyone.among_largest(values[place][None], count)[0]]


def _by_token(pre: Float[Tensor, "token feat"], k: int, features: Group) -> Code:
    """The k largest of each token, of all processes."""
    n_tokens, k_own = len(pre), min(k, pre.shape[1])
    device = pre.device
    found = largest(pre, k_own)
    if features.size > 1:
        kept = features.among_largest(pre.gather(1, found), k)
        token, place = kept.nonzero(as_tuple=True)
        return Code.of(token, found[token, place], n_tokens)
    start = torch.arange(0, n_tokens * k_own, k_own, device=device)
    token = torch.arange(n_tokens, device=device).repeat_interleave(k_own)
    return Code(found.flatten(), token, start)


def _parted(values: Float[Tensor, " entry"], code: Code) -> tuple[Tensor, Tensor]:
    """Those of a code's entries, and of the entries beside it."""
    n_own = len(code.feature)
    own, others = values.split([n_own, len(values) - n_own])
    return own, others
