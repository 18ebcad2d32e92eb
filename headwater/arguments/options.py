"""Options of the command line that several commands share, with their help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.atlas.shipped import ATLAS
from circuits.features.kept_in import KeptIn
from circuits.features.points import ReadPoint, WritePoint
from circuits.model.data_type import DType
from circuits.model.packaged import PACKAGED
from circuits.recording.precision import Precision
from graphs import Bos
from headwater.arguments.files import OUTPUT, file_option
from headwater.choosing import AttentionKept
from headwater.explaining import Input

MOST_DRAWN = 100_000  # random sets or orders, each as much work as what it is compared with

# Groups of options in the help of a command.
MODEL, DICTIONARY, TARGET = "Model and prompt", "Dictionary", "What is explained"
SIZE, MACHINE = "Size", "Numbers and device"


class Features(StrEnum):
    NEURONS = "neurons"


class EdgeScores(StrEnum):
    FULL = "full"
    KEPT = "kept"


GraphPath = Annotated[
    Path, typer.Argument(help="Graph file: ours, a JSON of another program, or .pt.")
]
Model = Annotated[
    str,
    typer.Option(
        help=f"{', '.join((*ATLAS, *PACKAGED))}, a folder, or a name on the Hub.",
        rich_help_panel=MODEL,
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="Commit, tag or branch of the model.", rich_help_panel=MODEL)
]
Transcoders = Annotated[
    str | None,
    typer.Option(
        help="Transcoders: a folder, owner/name/folder on the Hub (see `headwater "
        "dictionaries`), or a YAML list of files; default: those that ship with the model, "
        "else neurons.",
        rich_help_panel=DICTIONARY,
    ),
]
ReadAt = Annotated[
    ReadPoint | None,
    typer.Option(
        help="Where the transcoders read; default: as their files say.", rich_help_panel=DICTIONARY
    ),
]
WriteAt = Annotated[
    WritePoint | None,
    typer.Option(
        help="Where the transcoders write; default: as their files say.", rich_help_panel=DICTIONARY
    ),
]
DictionaryIn = Annotated[
    KeptIn,
    typer.Option(
        "--dictionary-in",
        help="Where transcoders are while a model on GPUs is traced: beside it (device), or in "
        "their files, from which encoders are streamed (files); auto: beside it if there is room "
        "for twice as much.",
        rich_help_panel=DICTIONARY,
    ),
]
Fill = Annotated[
    Features | None,
    typer.Option(
        help="Features in layers without transcoders; default: errors only.",
        rich_help_panel=DICTIONARY,
    ),
]
FeatureKind = Annotated[
    Features | None,
    typer.Option(
        "--features", help="Trace the model's own MLP neurons.", rich_help_panel=DICTIONARY
    ),
]
TargetTokens = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="TARGET",
        help="What to explain: a token, as a text or id:NUMBER, or logit:ID@POS, "
        "feature:LAYER/INDEX@POS, neuron:LAYER/INDEX@POS, head:LAYER/HEAD@POS; may be repeated.",
        rich_help_panel=TARGET,
    ),
]
SequenceText = Annotated[
    str | None,
    typer.Option(
        "--sequence",
        metavar="TEXT",
        help="Explain each token of a text that follows the prompt.",
        rich_help_panel=TARGET,
    ),
]
DirectionFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--direction",
        metavar="FILE.npy",
        help="Explain what is read along a vector, such as a probe's; may be repeated.",
        rich_help_panel=TARGET,
    ),
]
ReadLayers = Annotated[
    list[int] | None,
    typer.Option(
        "--layer",
        help="Layer whose input --direction reads: one, or one for each; default: the normalised "
        "final residual.",
        rich_help_panel=TARGET,
    ),
]
ReadBefore = Annotated[
    Input,
    typer.Option(
        "--before",
        help="Whose input of that layer, in front of any norm.",
        rich_help_panel=TARGET,
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        help="Explain the difference of two logits: --target less this token.",
        rich_help_panel=TARGET,
    ),
]
Position = Annotated[
    int,
    typer.Option(
        help="Token position whose prediction is explained; -1 is the last.",
        rich_help_panel=TARGET,
    ),
]
MaxLogits = Annotated[
    int,
    typer.Option(
        min=1,
        help="Explain at most this many of the most probable tokens.",
        rich_help_panel=TARGET,
    ),
]
Mass = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Explain the most probable tokens up to this total probability.",
        rich_help_panel=TARGET,
    ),
]
MaxFeatures = Annotated[
    int,
    typer.Option(min=0, help="Expand at most this many features.", rich_help_panel=SIZE),
]
Tolerance = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Stop when no more than this share of influence is unresolved.",
        rich_help_panel=SIZE,
    ),
]
KeptShare = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Share of each row's absolute sum kept as edges.",
        rich_help_panel=SIZE,
    ),
]
InnerRows = Annotated[
    int,
    typer.Option(
        min=0,
        help="Rows of norms and gates inside the model, at most, for better predictions.",
        rich_help_panel=SIZE,
    ),
]
AttentionParts = Annotated[
    AttentionKept,
    typer.Option(
        "--attention",
        help="totals: what heads write into nodes; edges: also the heads of edges, and why they "
        "look where they look; heads: heads as nodes; scores: also what makes these look.",
        rich_help_panel=SIZE,
    ),
]
NoAttention = Annotated[
    bool,
    typer.Option("--no-attention", help="The same as --attention none.", rich_help_panel=SIZE),
]
Everything = Annotated[
    bool,
    typer.Option(
        "--all",
        help="Expand every feature (of neurons: all that are chosen).",
        rich_help_panel=SIZE,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Run even if memory will probably not suffice.", rich_help_panel=SIZE
    ),
]
Chat = Annotated[
    bool, typer.Option("--chat", help="Apply the chat template to the text.", rich_help_panel=MODEL)
]
BosRule = Annotated[
    Bos,
    typer.Option(
        "--bos",
        help="BOS in front of the text; auto: as the tokenizer does.",
        rich_help_panel=MODEL,
    ),
]
PrefixLength = Annotated[
    int | None,
    typer.Option(
        "--prefix",
        min=0,
        help="Number of prefix positions; default: the dictionary's, or by their tokens.",
        rich_help_panel=MODEL,
    ),
]
Type = Annotated[
    DType, typer.Option("--dtype", help="Data type of model and sweep.", rich_help_panel=MACHINE)
]
Device = Annotated[
    str,
    typer.Option(
        help="auto (as many CUDA GPUs as the model needs, the CPU if there is none), cpu, cuda, "
        "cuda:1, or several, over which blocks are divided: cuda:0,cuda:1.",
        rich_help_panel=MACHINE,
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="GiB to hold at most, on the GPU if the model is on one; default: what is free.",
        rich_help_panel=SIZE,
    ),
]
HowPrecise = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="How a CUDA GPU makes the sweep's float32 products: in float32 (ieee), in tensor "
        "cores, split so that they are as exact (3xtf32), or in tensor cores (tf32).",
        rich_help_panel=MACHINE,
    ),
]
TracedModel = Annotated[
    str | None,
    typer.Option(
        "--model", help="Model; default: the one that the graph names.", rich_help_panel=MODEL
    ),
]
TracedTranscoders = Annotated[
    str | None,
    typer.Option(
        "--transcoders",
        help="Transcoders; default: those that the graph names.",
        rich_help_panel=DICTIONARY,
    ),
]
GraphOut = Annotated[
    Path | None,
    file_option(
        "--out",
        help="Write the graph here: ours (.safetensors), a page (.html), or a format of other "
        "programs (.json, .graphml, .gexf, .dot, .parquet).",
    ),
]
PageOut = Annotated[Path | None, file_option("--html", help="Write a page here as well.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON for machines.", rich_help_panel=OUTPUT)
]
NODES_KEPT = "Share of influence that kept nodes hold."
EDGES_KEPT = "Share of edge scores that kept edges hold."
NodeThreshold = Annotated[float, typer.Option(min=0.0, max=1.0, help=NODES_KEPT)]
EdgeThreshold = Annotated[float, typer.Option(min=0.0, max=1.0, help=EDGES_KEPT)]
KeepErrors = Annotated[bool, typer.Option("--keep-errors", help="Never prune error nodes.")]


def source_choice(
    transcoders: str | None,
    features: Features | None,
    max_features: int,
    read_at: ReadPoint | None,
    write_at: WritePoint | None,
    fill: Features | None,
    dictionary_in: KeptIn = KeptIn.AUTO,
) -> circuits.SourceChoice:
    """The choice that the options of a command make."""
    return circuits.SourceChoice(
        transcoders,
        neurons=features is not None,
        max_neurons=max_features,
        read=read_at,
        write=write_at,
        filled=fill is not None,
        kept_in=dictionary_in,
    )
