"""One call from a prompt to its graph."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from circuits.atlas.shipped import DEFAULT_MODEL
from circuits.attribution.trace_settings import Expansion, TargetSettings, TraceSettings
from circuits.evaluation.misfit import misfits
from circuits.model.prompt import Prompt, PromptError, prompt_from_ids, read_prompt
from circuits.model.prompt_rule import PromptRule
from circuits.model.subject import Subject
from circuits.pipe import trace as trace_prompt
from circuits.progress import progress_bar
from circuits.recording.precision import Precision
from graphs.core.opening import Bos
from headwater.attended import with_attention
from headwater.choosing import AttentionKept, in_bytes, one_of
from headwater.explaining import Input, directions, explained
from headwater.graph import Graph
from headwater.model import ArgumentError, Model, load
from headwater.openings import rule_beside

TARGETS, EXPANSION, TRACE = TargetSettings(), Expansion(), TraceSettings()
Target = str | int  # a token's text, or its id


def trace(
    prompt: str | Sequence[int] | Prompt,
    model: str | Path | PreTrainedModel | Subject | Model = DEFAULT_MODEL,
    *,
    target: Target | Sequence[Target] | None = None,
    against: Target | None = None,
    sequence: str | None = None,
    direction: object = None,
    layer: int | Sequence[int] | None = None,
    before: str = Input.MLP,
    position: int = TARGETS.position,
    transcoders: str | Path | None = None,
    features: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    chat: bool = False,
    bos: str = "auto",
    n_prefix: int | None = None,
    max_features: int = EXPANSION.max_features,
    everything: bool = False,
    inner_rows: int = TRACE.inner_rows,
    attention: str = AttentionKept.TOTALS,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    precision: str = "ieee",
    memory: float | None = None,
    force: bool = False,
) -> Graph:
    """Which features, at which layers and tokens, carried the computation to the next token.

        import headwater as hw
        graph = hw.trace("The capital of the state containing Dallas is")
        model = hw.load("gemma-3-270m")
        graph = hw.trace("The Eiffel Tower is in the city of", model, target=" Paris")

    prompt: a text, token ids, or a prompt that has been read.
    model, transcoders, features, tokenizer, revision, device, dtype: as `load` takes them; a loaded
        model is not loaded again.
    target: what to explain, or several: a token as a text or an id, or by name as in
        "feature:12/345@7" (`graphs.core.readings`); by default the most probable tokens.
    against: explain how far the target's logit is above this token's.
    sequence: explain each token of a text that follows the prompt.
    direction, layer, before: explain what is read along a vector, its .npy file or a
        circuits.Direction, or several, at the input of a layer's "mlp" or "attention"; without a
        layer of the normalised final residual.
    position: of the token whose prediction is explained; -1 is the last.
    chat: apply the model's chat template to the text.
    bos, n_prefix: "auto", "always" or "never"; the number of positions without features, by default
        that of the dictionary's documents, or by their tokens.
    max_features: that get a row at most, the most influential ones; everything: all.
    inner_rows: rows of norms and gates inside the model, at most, for better predictions.
    attention: what is kept of it: "none", "totals" (what heads write into nodes), "edges" (also the
        heads of edges, and why they look where they look), "heads" (heads as nodes) or "scores"
        (also what makes these look where they look).
    precision: of products on a CUDA GPU, "ieee", "3xtf32" or "tf32".
    memory: GiB to hold at most.
    force: trace even if memory will probably not suffice.

    Warns of what was assumed, and where the prompt begins unlike the dictionary's documents.
    Raises subclasses of HeadwaterError, each with one sentence that says what to pass.
    """
    kept = one_of(AttentionKept, "attention", attention)
    vectors = directions(_several(direction), _several(layer), one_of(Input, "before", before))
    with progress_bar(Console(file=sys.stderr, force_jupyter=False)) as progress:
        progress("load", 0, 1)
        loaded = load(
            model,
            transcoders=transcoders,
            features=features,
            tokenizer=tokenizer,
            revision=revision,
            device=device,
            dtype=dtype,
        )
        rule = rule_beside(loaded.source, one_of(Bos, "bos", bos), n_prefix)
        text = _prompt(prompt, loaded, rule, chat)
        text, settings, remarks = explained(
            loaded.subject,
            text,
            TargetSettings(directions=vectors, position=position),
            [_named(one) for one in _several(target)],
            None if against is None else _named(against),
            sequence,
        )
        source = loaded.choosing(max_features)
        graph = trace_prompt(
            text,
            loaded.subject,
            source,
            TraceSettings(
                settings,
                Expansion(max_features, everything=everything),
                inner_rows=inner_rows,
                heads=kept.has_totals,
                precision=one_of(Precision, "precision", precision),
                memory=in_bytes(memory),
            ),
            progress,
            force=force,
        )
        graph = with_attention(graph, loaded.subject, source, kept, progress)
        signs = misfits(graph, loaded.subject, loaded.source)
    for sentence in dict.fromkeys((*remarks, *graph.provenance.mismatches, *signs)):
        warnings.warn(sentence, stacklevel=2)
    return Graph.of(graph)


def _prompt(given: object, model: Model, rule: PromptRule, chat: bool) -> Prompt:
    """A text, token ids or a prompt, as a prompt.  Raises PromptError for anything else."""
    tokenizer = model.subject.tokenizer
    match given:
        case Prompt():
            return given
        case str():
            return read_prompt(given, tokenizer, rule, chat=chat)
        case Sequence() if given and all(type(token) is int for token in given):
            return prompt_from_ids(list(given), tokenizer, rule.n_prefix)
    raise PromptError(
        f"The prompt is a text or a list of token ids, got {_described(given)}: join tokens to one "
        "text, or encode them with the model's tokenizer."
    )


def _described(value: object) -> str:
    of = f" of {type(value[0]).__name__}" if isinstance(value, list | tuple) and value else ""
    return f"{type(value).__name__}{of}"


def _several(target: object) -> tuple[object, ...]:
    if target is None:
        return ()
    return tuple(target) if isinstance(target, list | tuple) else (target,)


def _named(target: object) -> str:
    """A target as `named_targets` takes it."""
    if isinstance(target, bool) or not isinstance(target, str | int):
        raise ArgumentError(f"A target is a token's text or its id, got {_described(target)}.")
    return target if isinstance(target, str) else f"id:{target}"
