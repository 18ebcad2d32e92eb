"""Options of the command line that several commands share, with their help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.atlas.shipped import ATLAS
from circuits.features.files.source import SourceChoice
from circuits.features.hook_points import ReadPoint, WritePoint
from circuits.model.packaged import PACKAGED
from circuits.recording.attention import Precision
from graphs import Bos

MOST = 10**9  # upper limit of integer options, below what overflows in libraries
MOST_DRAWN = 100_000  # random sets or orders, each as much work as what it is compared with


class DType(StrEnum):
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BFLOAT16 = "bfloat16"


class Features(StrEnum):
    NEURONS = "neurons"


class Format(StrEnum):
    NEURONPEDIA = "neuronpedia"
    NODE_LINK = "node-link"
    GRAPHML = "graphml"
    GEXF = "gexf"
    DOT = "dot"
    PARQUET = "parquet"


class EdgeScores(StrEnum):
    FULL = "full"
    KEPT = "kept"


GraphPath = Annotated[
    Path, typer.Argument(help="Graph file: ours, a JSON of another program, or .pt.")
]
Model = Annotated[
    str,
    typer.Option(help=f"{', '.join((*ATLAS, *PACKAGED))}, a folder, or a name on the Hub."),
]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of the model.")]
Transcoders = Annotated[
    str | None,
    typer.Option(
        help="Transcoders: a folder, owner/name/folder on the Hub (see `headwater "
        "dictionaries`), or a YAML list of files; default: those that ship with the model, "
        "else neurons."
    ),
]
ReadAt = Annotated[
    ReadPoint | None, typer.Option(help="Where the transcoders read; default: as their files say.")
]
WriteAt = Annotated[
    WritePoint | None,
    typer.Option(help="Where the transcoders write; default: as their files say."),
]
Fill = Annotated[
    Features | None,
    typer.Option(help="Features in layers without transcoders; default: errors only."),
]
FeatureKind = Annotated[
    Features | None, typer.Option("--features", help="Trace the model's own MLP neurons.")
]
TargetTokens = Annotated[
    list[str] | None,
    typer.Option("--target", help="Token to explain, a text or id:NUMBER; may be repeated."),
]
Against = Annotated[
    str | None, typer.Option(help="Explain the difference of two logits: --target less this token.")
]
Position = Annotated[
    int,
    typer.Option(
        min=-MOST, max=MOST, help="Token position whose prediction is explained; -1 is the last."
    ),
]
MaxLogits = Annotated[
    int,
    typer.Option(min=1, max=MOST, help="Explain at most this many of the most probable tokens."),
]
Mass = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Explain the most probable tokens up to this total probability."
    ),
]
MaxFeatures = Annotated[
    int, typer.Option(min=0, max=MOST, help="Expand at most this many features.")
]
Tolerance = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Stop when no more than this share of influence is unresolved."
    ),
]
KeptShare = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of each row's absolute sum kept as edges.")
]
Everything = Annotated[
    bool, typer.Option("--all", help="Expand every feature (of neurons: all that are chosen).")
]
Force = Annotated[
    bool, typer.Option("--force", help="Run even if memory will probably not suffice.")
]
Chat = Annotated[bool, typer.Option("--chat", help="Apply the chat template to the text.")]
BosRule = Annotated[
    Bos, typer.Option("--bos", help="BOS in front of the text; auto: as the tokenizer does.")
]
PrefixLength = Annotated[
    int | None,
    typer.Option("--prefix", min=0, help="Number of prefix positions; default: by their tokens."),
]
Type = Annotated[DType, typer.Option("--dtype", help="Data type of model and sweep.")]
Device = Annotated[
    str, typer.Option(help="auto (a CUDA GPU if there is one, else the CPU), cpu, cuda, cuda:1, …")
]
Memory = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=MOST,
        help="GiB to hold at most, on the GPU if the model is on one; default: what is free.",
    ),
]
HowPrecise = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="How a CUDA GPU makes the sweep's float32 products: in float32 (ieee), in tensor "
        "cores, split so that they are as exact (3xtf32), or in tensor cores (tf32).",
    ),
]
TracedModel = Annotated[
    str | None, typer.Option("--model", help="Model; default: the one that the graph names.")
]
TracedTranscoders = Annotated[
    str | None,
    typer.Option("--transcoders", help="Transcoders; default: those that the graph names."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
NodeThreshold = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of influence that kept nodes hold.")
]
EdgeThreshold = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of edge scores that kept edges hold.")
]
KeepErrors = Annotated[bool, typer.Option("--keep-errors", help="Never prune error nodes.")]


def in_bytes(gibibytes: float | None) -> int | None:
    """A limit on memory as the library takes it."""
    return None if gibibytes is None else int(gibibytes * 2**30)


def source_choice(
    transcoders: str | None,
    features: Features | None,
    max_features: int,
    read_at: ReadPoint | None,
    write_at: WritePoint | None,
    fill: Features | None,
) -> SourceChoice:
    """The choice that the options of a command make."""
    return SourceChoice(
        transcoders,
        neurons=features is not None,
        max_neurons=max_features,
        read=read_at,
        write=write_at,
        filled=fill is not None,
    )
