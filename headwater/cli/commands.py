"""The commands, in the order of the work."""

from __future__ import annotations

from typing import NamedTuple


class Listed(NamedTuple):
    """A command as the list of commands shows it."""

    module: str  # in this folder
    summary: str  # the first paragraph of its help


PANELS = {
    "From a prompt to a graph": {
        "trace": Listed(
            "trace",
            "Trace a prompt: which features, at which layers and tokens, led to the prediction.",
        ),
        "estimate": Listed(
            "trace", "Estimate what a trace will cost: features, rows, seconds and peak memory."
        ),
        "words": Listed(
            "dictionaries",
            "List the words that an included model knows; other models know any text.",
        ),
    },
    "Reading graphs": {
        "show": Listed(
            "show", "Show a graph: prompt, predictions, strongest nodes per layer, scores, checks."
        ),
        "prune": Listed("show", "Keep the nodes and edges with most influence."),
        "paths": Listed(
            "reading",
            "List the strongest paths from tokens to predictions, with a description of each.",
        ),
        "group": Listed(
            "reading", "Group features that play the same role; groups made by hand are kept."
        ),
        "attention": Listed(
            "attention",
            "Take attention apart: which heads carry each edge, and why they look where they look.",
        ),
        "view": Listed(
            "view",
            "Make a page of a graph, or of several to compare: one HTML file without dependencies.",
        ),
        "figure": Listed(
            "view",
            "Draw a figure for a paper: the prompt, groups above it, the answer, arrows by "
            "influence.",
        ),
    },
    "Comparing graphs": {
        "compare": Listed(
            "compare",
            "Compare two graphs, of two prompts or of two models, and test their overlap against a "
            "null.",
        ),
        "hops": Listed(
            "hops",
            "Find two-step paths of one graph that are a single edge in another of the same "
            "prompt.",
        ),
        "consensus": Listed(
            "reading",
            "Find what graphs of several prompts have in common, with intervals over the prompts.",
        ),
        "stability": Listed(
            "stability",
            "Find which nodes and edges stay over thresholds, paraphrases and other dictionaries.",
        ),
        "profile": Listed(
            "profile",
            "Record feature activations over prompts, by which `headwater compare` matches two "
            "models.",
        ),
    },
    "Testing graphs in the model": {
        "intervene": Listed(
            "intervene",
            "Edit features in the model itself, and compare the effects with the graph's "
            "predictions.",
        ),
        "check": Listed(
            "check",
            "Test in the model whether a graph holds, and store the report in the graph's file.",
        ),
        "audit": Listed(
            "audit",
            "Find the features that mediate the difference between prompts that differ in one "
            "respect.",
        ),
    },
    "Dictionaries": {
        "dictionaries": Listed(
            "dictionaries",
            "List published dictionaries: the name for --transcoders, model, kind and size.",
        ),
        "features": Listed(
            "features",
            "List the features of a dictionary that are active on a prompt, or evaluate it on a "
            "text.",
        ),
        "train": Listed(
            "train",
            "Train transcoders for a model; the same command continues after an interruption.",
        ),
    },
    "Files and the browser": {
        "export": Listed(
            "exchange", "Write a graph, pruned unless --full, in a format that other tools read."
        ),
        "import": Listed(
            "exchange",
            "Convert another program's graph to ours, with its annotations in a file beside it.",
        ),
        "serve": Listed(
            "serve",
            "Trace prompts and edit features in the browser: a server for this machine alone.",
        ),
    },
}
