"""What CUDA launches, reads and writes for operations that are more than one pass over their data.

Of all others a card counts one launch that reads its arguments and writes its result.  Read off
PyTorch's kernels (aten/src/ATen/native/cuda: EmbeddingBag.cu, EmbeddingBackwardKernel.cu,
TensorTopK.cu, fused_adam_utils.cuh, MultiTensorApply.cuh), and not measured:

    a bag of rows        each entry's row is read from memory, no row from a cache
    its dense gradient   sorts entries by row, zeroes the table twice, sums vectors in parts of at
                         most 10 entries, and writes the parts before it adds them
    largest of a row     a digit of 8 bits per pass, each a reading of all values; of many rows one
                         launch that reads each once, and then from a cache
    sort                 a digit of 8 bits per pass, which reads and writes keys and places
    lists of tensors     320 pieces of 65,536 values per launch
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

PART = 10  # entries that one block sums
OF_ENTRY = 12  # bytes: an index and a value
PIECES = 320 * 65_536  # values per launch of an operation on a list
MANY_ROWS = 20  # whose largest are found by one launch


class Kernel(NamedTuple):
    """One operation."""

    launches: int
    moved: float  # bytes between memory and cores
    flops: float = 0.0


Kernels = Callable[[str, Any, dict[str, Any], list[Tensor]], Kernel | None]


def kernel(name: str, args: Any, kwargs: dict[str, Any], made: list[Tensor]) -> Kernel | None:
    """What an operation is to CUDA; None if it is one launch over what it is given and makes."""
    if name in ("_embedding_bag", "_embedding_bag_forward_only"):
        table, entries = args[0], len(args[1])
        read = entries * (_row(table) + OF_ENTRY)
        flops = 2 * entries * table.shape[1]
        return Kernel(1, read + sum(one.nbytes for one in made), flops)
    if name == "_embedding_bag_per_sample_weights_backward":
        vectors, table, entries = args[0], args[1], len(args[2])
        flops = 2 * entries * table.shape[1]
        return Kernel(1, entries * (_row(table) + 2 * OF_ENTRY) + vectors.nbytes, flops)
    if name == "_embedding_bag_dense_backward":
        return _dense_gradient(args[0], len(args[1]), args[5])
    if name in ("topk", "sort"):
        return _ordered(name, args[0])
    if name.strip("_") in ("index_put", "index_put_impl") and (True in args[3:4] or kwargs):
        entries, digits = args[2].numel(), _digits(args[0].shape[0])  # as if one index was given
        return Kernel(8 + digits, args[2].nbytes * 3 + entries * 32 * (digits + 1))
    if name.startswith(("_foreach", "_fused")):
        return _on_list(name, args, kwargs)
    return None


def _dense_gradient(vectors: Tensor, entries: int, n_rows: int) -> Kernel:
    row, touched = _row(vectors), min(entries, n_rows)
    parts = touched + entries // PART
    passes = _digits(n_rows) * 2 * 16  # bytes per entry: keys and places, read and written
    zeroed = 2 * n_rows * row
    summed = entries * (row + OF_ENTRY) + parts * row  # read, and written as parts
    scattered = (parts + touched) * row
    launches = 2 + (4 + _digits(n_rows)) + 10  # zeroes; sort; segments, parts and sums
    flops = 2 * entries * vectors.shape[1]
    return Kernel(launches, zeroed + entries * passes + summed + scattered, flops)


def _ordered(name: str, values: Tensor) -> Kernel:
    bits = 8 * values.element_size()
    rows, size = values.numel() // values.shape[-1], values.nbytes
    if name == "sort":
        moved = bits // 8 * 2 * (size + 8 * values.numel())
        return Kernel(4 + bits // 8, moved)
    if rows > MANY_ROWS:
        return Kernel(1, size)
    return Kernel(3 * (bits // 8) + 5, (bits // 8 + 2) * size)


def _on_list(name: str, args: Any, kwargs: dict[str, Any]) -> Kernel:
    values = sum(one.numel() for one in args[0])
    size = sum(one.nbytes for one in args[0])
    launches = -(-values // PIECES)
    if name == "_foreach_norm":
        return Kernel(launches + 1, size)
    if name.startswith("_fused_adam"):  # reads values, gradients, moments; writes all but gradients
        return Kernel(launches, (7 + (kwargs.get("grad_scale") is not None)) * size)
    return Kernel(launches, 2 * size)


def _row(table: Tensor) -> int:
    return table.shape[1] * table.element_size()


def _digits(count: int) -> int:
    """Digits of 8 bits of the numbers below this."""
    return -(-(count - 1).bit_length() // 8)
