"""Report on attention: what makes heads look, removed from queries and keys.

Part of the report on a graph (`graphs.core.report`).
"""

from __future__ import annotations

from pydantic import Field

from graphs.core.records import Record


class AttentionReport(Record):
    """What removing features takes from log odds of attention, by pairs and one at a time."""

    entries: int = Field(ge=1)  # of patterns: those that carry most into the strongest target
    pairs: int = Field(ge=1)  # named by scores: one feature leaves the query, the other the key
    drop: float  # mean, of log(attention to the key / attention to its competitors)
    random_pairs: int = Field(ge=1)  # of features that are active at the same query and key
    random_drop: float  # mean
    random_sd: float = Field(ge=0.0)
    null_probability: float = Field(  # share of random pairs that take away at least as much
        ge=0.0, le=1.0, validation_alias="chance", serialization_alias="chance"
    )
    singles: int = Field(ge=0)  # features that are removed alone, from query or keys
    rank_correlation: float | None  # Spearman's, of their predicted and measured changes
