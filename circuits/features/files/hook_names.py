"""Read and write points by the hook names of other libraries, each with its source.

Names are given without their block (`blocks.3.` in TransformerLens, `model.layers.3.` in paths).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from circuits.features.files.tensors import Unknown
from circuits.features.points import ReadPoint, WritePoint

P = TypeVar("P")
# TransformerLens: a norm's hook_normalized is before its gain, mlp.hook_in after it; hook_mlp_out
# is what is added to the residual stream, after Gemma's post-norm.  hook_mlp_in is a copy of the
# residual stream before the norm.
READ_POINTS = {
    "hook_resid_mid": ReadPoint.RESIDUAL,
    "hook_mlp_in": ReadPoint.RESIDUAL,
    "ln2.hook_normalized": ReadPoint.NORMALISED,
    "mlp.hook_in": ReadPoint.MLP_INPUT,
}
WRITE_POINTS = {
    "mlp.hook_out": WritePoint.MLP_OUTPUT,
    "hook_mlp_out": WritePoint.CONTRIBUTION,
}
# Module paths with `.output`, as in Gemma Scope 2's config.json (its technical paper: inputs are
# taken after the norm's gain, targets after the post-norm).
OUTPUT_READ = {"pre_feedforward_layernorm": ReadPoint.MLP_INPUT}
OUTPUT_WRITTEN = {
    "post_feedforward_layernorm": WritePoint.CONTRIBUTION,
    "mlp": WritePoint.MLP_OUTPUT,
}
# Modules whose input is read, as in EleutherAI's sparsify and clt-training: the norm before the
# MLP reads the raw residual stream.
INPUT_READ = {
    "mlp": ReadPoint.MLP_INPUT,
    "ln_2": ReadPoint.RESIDUAL,
    "post_attention_layernorm": ReadPoint.RESIDUAL,
    "pre_feedforward_layernorm": ReadPoint.RESIDUAL,
}


def point(path: Path, key: str, hook: object, known: dict[str, P]) -> P | Unknown:
    """The read or write point of a configured hook."""
    name = without_block(hook) if isinstance(hook, str) else None
    if name in known:
        return known[name]
    return Unknown(
        f"{path} has {key} {hook!r}: expected one of {', '.join(known)}, or give --read-at and "
        "--write-at."
    )


def without_block(hook: str) -> str:
    """A hook's name inside its block.

    >>> without_block("blocks.5.mlp.hook_in"), without_block("model.layers.{all}.mlp.output")
    ('mlp.hook_in', 'mlp')
    """
    inside = re.sub(r"^(?:.*\.)?(?:blocks|layers|h)\.(?:\d+|\{[^}]*\})\.", "", hook)
    return inside.removesuffix(".output")


def layer_of(name: str) -> int | None:
    """The layer in the name of a hook, module or folder, if there is one.

    >>> layer_of("blocks.5.hook_mlp_out"), layer_of("layers.11.mlp"), layer_of("layer_7_width_16k")
    (5, 11, 7)
    """
    found = re.findall(r"(?:^|[._/])(?:blocks|layers?|h)[._]?(\d+)(?=[._/]|$)", name)
    return int(found[-1]) if found else None
