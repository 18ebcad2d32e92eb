"""A trace runs through few files, so that it can be followed."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType

from circuits import read_prompt, read_subject, read_transcoders, trace
from circuits.atlas.shipped import atlas_transcoders

ROOT = Path(__file__).parents[1]
MOST_FILES = 24


def test_a_trace_runs_through_fewer_than_25_files():
    subject = read_subject("atlas-small")
    source = read_transcoders(str(atlas_transcoders("atlas-small")))
    prompt = read_prompt("The capital of the state containing Dallas is", subject.tokenizer)
    found: set[str] = set()

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            found.add(frame.f_code.co_filename)

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        trace(prompt, subject, source)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    packages = [ROOT / name for name in ("headwater", "circuits", "graphs", "viz")]
    ours = sorted(
        Path(name).relative_to(ROOT).as_posix()
        for name in found
        if any(Path(name).is_relative_to(package) for package in packages)
    )
    assert {"circuits/pipe.py", "circuits/attribution/sweep.py", "graphs/core/graph.py"} <= {*ours}
    assert len(ours) <= MOST_FILES, ours
