"""Real text that every installation has: docstrings of numpy, scipy and networkx, as documents."""

from __future__ import annotations

import ast
import random
from importlib.util import find_spec
from pathlib import Path

from transformers import PreTrainedTokenizerBase

PACKAGES = ("networkx", "numpy", "scipy")
LEAST = 200  # characters of a docstring
SEED = 0  # of their order


def docstrings() -> list[str]:
    """All docstrings of some length, in a fixed random order."""
    found: dict[str, None] = {}
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for file in sorted(Path(spec.origin).parent.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    text = ast.get_docstring(node) or ""
                    if len(text) >= LEAST:
                        found.setdefault(text)
    texts = list(found)
    random.Random(SEED).shuffle(texts)
    return texts


def documents(
    tokenizer: PreTrainedTokenizerBase, count: int, length: int, front: tuple[int, ...]
) -> list[list[int]]:
    """`count` documents of `length` tokens, of which `front` are the first."""
    found, ids = list[list[int]](), list[int]()
    for text in docstrings():
        ids += tokenizer.encode(text + "\n\n", add_special_tokens=False)
        while len(ids) >= length - len(front):
            found.append([*front, *ids[: length - len(front)]])
            del ids[: length - len(front)]
            if len(found) == count:
                return found
    raise ValueError(f"{len(found)} documents of {length} tokens: ask for fewer than {count}.")
