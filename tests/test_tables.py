"""Tables for terminals: what is cut where there is no room, and what never is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphs.core.regime import Regime
from graphs.core.report import EffectReport, Report
from viz.text.tables import plain_table
from viz.text.terminal import report_table

NODE, LABEL = "feature:12/123456@789", "a label that is much longer than the room that is left"


def drawn(table: Table, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80])
def test_names_and_numbers_are_whole_and_texts_give_way(width: int):
    table = plain_table("node", "label", "share", right=("share",), texts=("label",))
    table.add_row(Text(NODE), Text(LABEL), Text("99.99%"))
    heading, row = drawn(table, width)
    assert row.startswith(NODE)
    assert row.endswith("99.99%")
    assert heading.split() == ["node", "label", "share"]
    assert ("…" in row) == (LABEL not in row)


def test_what_wraps_is_said_in_full():
    table = plain_table("name", "result", "", right=(), wraps=("result",))
    table.add_row(Text("a test"), Text(LABEL), Text("holds"))
    lines = drawn(table, 40)
    assert "holds" in lines[1]
    said = " ".join(" ".join(line[8:33].split()) for line in lines[1:])
    assert said == LABEL


def test_verdicts_of_a_check_are_seen_at_80_columns():
    numbers = {"effects": 1542, "dropped": 0.0, "rank_correlation": 0.68, "same_sign": 0.9}
    effects = tuple(
        EffectReport(regime=regime, on="features", error=1.3, **numbers)
        for regime in (Regime.FROZEN, Regime.CONSTRAINED)
    )
    lines = drawn(report_table(Report(generator="a test", effects=effects)), 80)
    text = "\n".join(lines)
    assert "effects on features, constrained" in text
    assert text.count("holds") + text.count("fails") == 2
    assert "…" not in text
