"""Similarities: cosines of sparse vectors, overlap of words of texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.sparse import csr_array

DENSE = 32  # entries per row above which a dense matrix product is faster


def cosines(first: csr_array, second: csr_array) -> Float[ndarray, "one other"]:
    """Cosine of every row of one matrix with every row of the other; 0 for empty rows.

    >>> cosines(csr_array([[3.0, 4.0], [0.0, 0.0]]), csr_array([[1.0, 0.0]])).tolist()
    [[0.6], [0.0]]
    """
    one = _unit(first)
    other = one if second is first else _unit(second)
    if max(side.nnz / max(1, len(side.indptr) - 1) for side in (one, other)) > DENSE:
        whole = one.toarray()
        return whole @ (whole if other is one else other.toarray()).T
    return (one @ other.T).toarray()


def word_overlap(
    first: Sequence[str], second: Sequence[str]
) -> tuple[Float[ndarray, "one other"], Bool[ndarray, "one other"]]:
    """Jaccard overlap of the words of every pair of texts, and whether both have words.

    >>> overlap, known = word_overlap(["say Texas", ""], ["Texas cities"])
    >>> overlap.round(2).tolist(), known.tolist()
    ([[0.33], [0.0]], [[True], [False]])
    """
    sides = [
        [dict.fromkeys(re.findall(r"\w+", text.lower()), 1.0) for text in texts]
        for texts in (first, second)
    ]
    one, other = weighted_rows(*sides)
    counts = [np.array([len(words) for words in side], dtype=np.float64) for side in sides]
    both = (one @ other.T).toarray()
    either = counts[0][:, None] + counts[1] - both
    overlap = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return overlap, (counts[0][:, None] > 0) & (counts[1] > 0)


def weighted_rows(*sides: Sequence[Mapping[str, float]]) -> list[csr_array]:
    """Named weights as rows of sparse matrices with common columns."""
    names = {name: 0 for side in sides for row in side for name in row}
    column = {name: place for place, name in enumerate(names)}
    made: list[csr_array] = []
    for side in sides:
        starts = np.cumsum([0, *map(len, side)])
        places = np.array([column[name] for row in side for name in row], dtype=np.int64)
        weights = np.array([weight for row in side for weight in row.values()], dtype=np.float64)
        made.append(csr_array((weights, places, starts), shape=(len(side), max(1, len(names)))))
    return made


def _unit(vectors: csr_array) -> csr_array:
    """Rows of length 1."""
    length = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)))
    scaled = vectors.copy()
    counts = np.diff(vectors.indptr)
    scaled.data = vectors.data / np.repeat(np.where(length > 0, length, 1.0), counts)
    return scaled
