"""The plain sweep: what `circuits.attribution.sweep` computes, without its optimisations.

With attention patterns, norm denominators and MLP outputs held at their values on one prompt
(`circuits.recording`), a model is linear between what enters the residual stream and what is read
from it.  A target is a covector c on the residual at its layer and position; a source is a vector v
that is added at some layer and position.  The weight of the edge between them is

    weight = c · J · v        J: the frozen model from where v enters to where c reads

so all weights of a target come from carrying c down through the transposed model once, and reading
off every source where it enters.  Per layer from the top, a covector c[position] goes

    through the MLP         read features, errors, constants;  c += its linear paths, transposed
    through attention       read biases;  c[k] += Σ_head Σ_q pattern[q, k] · (c[q] · W_O) · W_V

and what arrives at the bottom reads the embeddings.  The fast paths are tested against this module,
which needs memory for targets × positions × d_model.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.local_replacement import LocalReplacement, written_at
from circuits.model.frozen import Covectors
from circuits.recording.attention import attended_transposed, attention_constant


def plain_rows(local: LocalReplacement, targets: Covectors) -> Float[Tensor, "row column"]:
    """Direct effects of every source on each target, in the columns of `build_sources`.

    These are tokens, positions, biases of each layer, then layer by layer features and errors.
    """
    frozen, recording, features = local.frozen, local.recording, local.features
    n_prefix, n_rows = recording.prompt.n_prefix, len(targets.pos)
    covector = recording.tokens.new_zeros(n_rows, len(recording.prompt), frozen.d_model)
    biases = covector.new_zeros(n_rows, frozen.n_layers + 1)
    effects = covector.new_zeros(n_rows, len(features))
    errors: list[Tensor] = []
    linear = [torch.zeros_like(covector) for _ in range(frozen.n_layers)]  # by the layer read

    def add_targets(layer: int, *, entering: bool = False) -> None:
        """Add the covectors of targets that read the residual there."""
        here = np.flatnonzero(targets.level == 2 * layer - entering)
        covector[here, targets.pos[here]] += targets.covector[here]

    add_targets(frozen.n_layers)
    for layer in reversed(range(frozen.n_layers)):
        block, recorded = frozen.blocks[layer], recording.blocks[layer]
        written = written_at(local, layer)
        constant = written.constant.clone()
        constant[:n_prefix] = recorded.contribution[:n_prefix]  # at prefix positions all of it
        at_features = covector[:, features.on_host.pos[written.features]]
        effects[:, written.features] += (at_features * written.vectors).sum(2)
        errors.insert(0, (covector * written.error).sum(2)[:, n_prefix:])
        biases[:, layer] += (covector * constant).sum((1, 2))
        for read, path in written.linear.items():
            linear[read] += path.transpose(covector, 0)
        if not frozen.parallel:  # the MLP reads what attention has written
            covector += linear[layer]
            add_targets(layer)
        added = attention_constant(block, recorded)
        biases[:, layer] += (covector * added).sum((1, 2))
        covector += attended_transposed(block, recorded, covector)
        if frozen.parallel:
            covector += linear[layer]
            add_targets(layer)
        add_targets(layer, entering=True)
    inputs = [(covector * vectors).sum(2) for vectors in recording.inputs]
    columns = [*inputs, biases]
    for layer, error in enumerate(errors):
        columns += [effects[:, features.layer == layer], error]
    return torch.cat(columns, 1)
