"""Options of the command line that several commands share, with their help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.atlas.shipped import ATLAS
from circuits.features.hook_points import ReadPoint, WritePoint
from circuits.model.packaged import PACKAGED
from graphs import Bos

MOST = 10**9  # of anything: beyond it no library counts
MOST_DRAWN = 100_000  # random sets and orders, each of which is as much work as what it is beside


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
        "dictionaries`), or a YAML list of files; without it the shipped ones or neurons."
    ),
]
ReadAt = Annotated[
    ReadPoint | None, typer.Option(help="Where the transcoders read, if not where they say.")
]
WriteAt = Annotated[
    WritePoint | None, typer.Option(help="Where they write, if not where they say.")
]
Fill = Annotated[
    Features | None, typer.Option(help="What stands in layers without transcoders; else errors.")
]
FeatureKind = Annotated[
    Features | None, typer.Option("--features", help="Trace the model's own MLP neurons.")
]
TargetTokens = Annotated[
    list[str] | None,
    typer.Option("--target", help="Token to explain, a text or id:NUMBER; may be repeated."),
]
Against = Annotated[
    str | None, typer.Option(help="Explain why --target and not this token: logit difference.")
]
Position = Annotated[
    int,
    typer.Option(
        min=-MOST, max=MOST, help="Token position whose prediction is explained; -1 is the last."
    ),
]
MaxLogits = Annotated[
    int, typer.Option(min=1, max=MOST, help="Most probable tokens to explain at most.")
]
Mass = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Probability that the explained tokens hold.")
]
MaxFeatures = Annotated[int, typer.Option(min=0, max=MOST, help="Features to expand at most.")]
Tolerance = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Stop when this share of influence waits.")
]
KeptShare = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of each row's absolute sum kept as edges.")
]
Everything = Annotated[
    bool, typer.Option("--all", help="Expand every feature (of neurons: all chosen).")
]
Force = Annotated[bool, typer.Option("--force", help="Try what memory is not likely to hold.")]
Chat = Annotated[bool, typer.Option("--chat", help="Put the text into the chat template.")]
BosRule = Annotated[
    Bos, typer.Option("--bos", help="BOS in front: auto is what the tokenizer does by itself.")
]
ContextOnly = Annotated[
    int | None,
    typer.Option(min=0, help="First positions without features, whatever their tokens."),
]
Type = Annotated[DType, typer.Option("--dtype", help="Number type of model and sweep.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]
TracedModel = Annotated[str | None, typer.Option("--model", help="If not by the graph's name.")]
TracedTranscoders = Annotated[
    str | None, typer.Option("--transcoders", help="If not found by the graph's name.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
NodeThreshold = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of influence that kept nodes hold.")
]
EdgeThreshold = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of edge scores that kept edges hold.")
]
KeepErrors = Annotated[bool, typer.Option("--keep-errors", help="Never prune error nodes.")]
