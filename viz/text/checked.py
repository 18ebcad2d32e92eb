"""Text of checks: a trace's checks of itself, and tests of its graph in the model."""

from __future__ import annotations

from dataclasses import dataclass

from graphs.core.attended import AttentionReport
from graphs.core.provenance import Checks, Provenance
from graphs.core.regime import Regime
from graphs.core.report import (
    AdversarialReport,
    EffectReport,
    Report,
    SetReport,
    StrongestReport,
)
from viz.text.openings import opening_text, sink_text
from viz.text.words import percent, signed_percent

REPLAY, RECORDING = "replay error", "recording error"
EDGE_HEADS, SCORES = "heads of edges miss", "attention scores miss"
_NOT_IN_LINE = (REPLAY, RECORDING, EDGE_HEADS, SCORES)


@dataclass(frozen=True)
class CheckLine:
    """One check and its result."""

    name: str
    text: str
    holds: bool | None  # None if there is no limit


def check_lines(checks: Checks) -> list[CheckLine]:
    """The trace's checks of itself, one line each."""
    lines: list[CheckLine] = []
    for name, miss, limit in (
        ("conservation error", checks.conservation_max, checks.conservation_limit),
        ("heads miss", checks.heads_max, checks.conservation_limit),
        (EDGE_HEADS, checks.edge_heads_max, checks.conservation_limit),
        (SCORES, checks.scores_max, checks.conservation_limit),
        (REPLAY, checks.replay_max_difference, checks.conservation_limit),
        (RECORDING, checks.recording_max_difference, checks.recording_limit),
    ):
        if miss is not None:
            holds = None if limit is None else miss <= limit
            allowed = "" if limit is None else f" (limit {limit:.0e})"
            lines.append(CheckLine(name, f"{miss:.1e}{allowed}", holds))
    for name, share in (
        ("influence resolved", checks.influence_resolved),
        ("error share", checks.error_influence_share),
    ):
        if share is not None:
            lines.append(CheckLine(name, percent(share), None))
    return lines


def checks_line(checks: Checks) -> str:
    """The trace's checks of itself, in one line."""
    lines = [line for line in check_lines(checks) if line.name not in _NOT_IN_LINE]
    return " · ".join(f"{line.name} {line.text}" for line in lines) or "no checks recorded"


def header_lines(header: Provenance) -> list[CheckLine]:
    """All checks in a header: of the trace, of the start of the prompt, and in the model."""
    notes: list[CheckLine] = []
    if header.opening is not None:
        text = opening_text(header.opening, header.n_prefix)
        notes.append(CheckLine("prompt", text, None))
    for sink in header.sinks or ():
        notes.append(CheckLine("prompt", sink_text(sink, header.tokens[sink.pos]), None))
    if header.fit is not None:
        notes.append(CheckLine("dictionary", header.fit.sentence, None))
    notes += [CheckLine("dictionary", mismatch, None) for mismatch in header.mismatches]
    if header.stability is not None:
        notes.append(CheckLine("stability", header.stability.sentence, None))
    reported = report_lines(header.report) if header.report else []
    return check_lines(header.checks) + notes + reported


def report_lines(report: Report) -> list[CheckLine]:
    """Tests of a graph in the model, one line each."""
    problems = {name for name, _ in report.problems}
    lines: list[CheckLine] = []
    if report.rows is not None:
        rows = report.rows
        text = (
            f"{rows.rows:,} rows within {rows.difference:.1e} of their sums · "
            f"values within {rows.values:.1e}"
        )
        lines.append(CheckLine("recomputed", text, "rows" not in problems))
    if report.running is not None and report.effects:
        lines.append(CheckLine("predictions", report.running.sentence, None))
    in_full = {(one.regime, one.on): one for one in report.effects if one.order == "full"}
    for one in report.effects:
        if one.order == "full":
            continue
        # No limit for the free model: it may always compensate for an ablation.
        holds = None if one.regime == Regime.FREE else one.name not in problems
        text = _effects(one, in_full.get((one.regime, one.on)))
        lines.append(CheckLine(f"effects on {one.on}, {one.regime}", text, holds))
    for name, one in (("necessity", report.necessity), ("sufficiency", report.sufficiency)):
        if one is not None:
            lines.append(CheckLine(name, _set(one), name not in problems))
    if report.adversarial is not None:
        # No verdict: that sufficiency is weak is a remark.
        lines.append(CheckLine("adversarial", _adversarial(report.adversarial), None))
    if report.strongest is not None:
        text = _strongest(report.strongest)
        lines.append(CheckLine("strongest", text, "strongest" not in problems))
    if report.attention is not None:
        # No verdict: a head may look for reasons that are spread over many features.
        lines.append(CheckLine("attention", _attention(report.attention), None))
    if report.curve is not None:
        curve = report.curve
        text = (
            f"CPR {curve.cpr:.2f} (random {curve.random_cpr:.2f}) · "
            f"CMD {curve.cmd:.2f} (random {curve.random_cmd:.2f})"
        )
        if curve.predicted is not None:
            miss = [abs(a - b) for a, b in zip(curve.predicted, curve.faithfulness, strict=True)]
            text += f" · predicted within {sum(miss) / len(miss):.2f} of it"
        lines.append(CheckLine("faithfulness", text, None))
    if report.replacement is not None:
        top = "same top token" if report.replacement.same_top else "different top token"
        text = f"{top} · {report.replacement.divergence:.2g} nats"
        lines.append(CheckLine("replacement", text, "replacement" not in problems))
    return lines


def _effects(one: EffectReport, in_full: EffectReport | None) -> str:
    parts = [f"{one.effects:,} effects"]
    if one.rank_correlation is not None:
        others = list[str]()
        if one.null_rank_correlation is not None:
            others.append(f"permuted {one.null_rank_correlation:.2f}")
        if in_full is not None and in_full.rank_correlation is not None:
            others.append(f"thresholds {in_full.rank_correlation:.2f}")
        beside = f" ({', '.join(others)})".replace("-", "−") if others else ""
        parts.append(f"rank correlation {one.rank_correlation:.2f}{beside}")
    if one.same_sign is not None:
        null = one.null_same_sign
        beside = "" if null is None else f" (permuted {percent(null)})"
        parts.append(f"same sign {percent(one.same_sign)}{beside}")
    if one.error is not None:
        parts.append(f"error {one.error:.2g} of their size")
    return " · ".join(parts)


def _set(one: SetReport) -> str:
    random = f"{percent(one.random_mean)} ± {percent(one.random_sd)}"
    predicted = "" if one.predicted is None else f" · predicted {percent(one.predicted)}"
    return f"{percent(one.share)} by {one.features:,} features (random sets {random}){predicted}"


def _adversarial(one: AdversarialReport) -> str:
    random = f"{signed_percent(one.random_mean)} ± {percent(one.random_sd)}"
    parts = [
        f"ablating {len(one.nodes):,} of {one.outside:,} features outside the circuit: "
        f"{signed_percent(one.share)} of the effect (random {random})",
        *(["sufficiency is weak"] if one.is_weak else []),
        f"chosen to change most, up to {max(one.measured):,} measured for each",
    ]
    return " · ".join(parts)


def _strongest(one: StrongestReport) -> str:
    parts = [
        f"ablating the {one.features:,} strongest: −{one.drop:.2f} of {one.value:.2f} "
        f"(random −{one.random_drop:.2f} ± {one.random_sd:.2f})"
    ]
    if one.probability is not None:
        before, left, random = map(percent, one.probability)
        parts.append(f"probability {before} → {left} (random {random})")
    return " · ".join(parts).replace("−-", "+")


def _attention(one: AttentionReport) -> str:
    random = f"random {-one.random_drop:+.2f} ± {one.random_sd:.2f}"
    parts = [
        f"removing {one.pairs:,} pairs of features from queries and keys of {one.entries:,} "
        f"entries: log odds {-one.drop:+.2f} each ({random})"
    ]
    if one.rank_correlation is not None:
        parts.append(
            f"rank correlation {one.rank_correlation:.2f} of {one.singles:,} single features"
        )
    return " · ".join(parts).replace("-", "−")
