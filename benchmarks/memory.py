"""Peak memory of a trace with a cross-layer set of many gigabytes.

    python benchmarks/memory.py --gigabytes 8

Writes a Gemma Scope 2 cross-layer set for Gemma 3 270M with random matrices of that size (sparse
by its thresholds, so that about as many features fire as in published ones), traces a prompt with
it and reports the largest anonymous memory of the process: the system can reclaim the page
cache.  Random features mean nothing; their memory is that of real ones.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from speed import conditions
from watch import Watch, anonymous

from circuits.features.files.reading import read_transcoders
from circuits.model.prompt import read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from circuits.recording.record import record

RESULTS = Path(__file__).with_name("results")
MODEL, PROMPT = "gemma-3-270m", "The Eiffel Tower is in the city of"
ACTIVE = 50  # features per token over all layers, as Gemma Scope 2 aims at


def write_set(subject: Subject, folder: Path, size: float) -> int:
    """Files of about this many bytes; the number of features per layer."""
    frozen = subject.frozen
    n_layers, d_model = frozen.n_layers, frozen.d_model
    d_dict = int(size / 4 / (n_layers * d_model * (n_layers + 1)))
    recording = record(frozen, read_prompt(PROMPT, subject.tokenizer))
    share = ACTIVE / n_layers / d_dict
    for layer in range(n_layers):
        generator = torch.Generator().manual_seed(layer)
        encoder = torch.randn(d_model, d_dict, generator=generator) / d_model**0.5
        pre = (recording.blocks[layer].mlp_input[1:] @ encoder).flatten()
        least = pre.kthvalue(int(len(pre) * (1 - share))).values.clamp(min=1e-3)
        tensors = {
            "w_enc": encoder,
            "b_enc": torch.zeros(d_dict),
            "threshold": least.expand(d_dict).contiguous(),
            "w_dec": torch.randn(d_dict, n_layers, d_model, generator=generator) / 100,
            "b_dec": torch.zeros(d_model),
        }
        save_file(tensors, folder / f"params_layer_{layer}.safetensors")
    (folder / "config.json").write_text(json.dumps({"type": "clt"}), encoding="utf-8")
    return d_dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=8.0)
    arguments = parser.parse_args()
    subject = read_subject(MODEL)
    with TemporaryDirectory() as folder:
        d_dict = write_set(subject, Path(folder), arguments.gigabytes * 1e9)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        prompt = read_prompt(PROMPT, subject.tokenizer)
        torch.mm(torch.ones(1, 1), torch.ones(1, 1))  # threads start now
        before, start = anonymous(), time.perf_counter()
        with Watch() as watch:
            graph = trace(prompt, subject, read_transcoders(folder))
        seconds = time.perf_counter() - start
    checks = graph.provenance.checks
    text = (
        f"# Memory\n\n{conditions()}\n\n"
        "| | |\n|---|--:|\n"
        f"| model | {MODEL}, float32 |\n"
        f"| dictionary on disk | {size / 1e9:.2f} GB, {subject.frozen.n_layers} × {d_dict:,} |\n"
        f"| tokens, active features | {len(prompt)}, {checks.active_features:,} |\n"
        f"| anonymous memory with the model, before the trace | {before / 1e9:.2f} GB |\n"
        f"| at its peak | {watch.peak / 1e9:.2f} GB |\n"
        f"| the trace alone | {(watch.peak - before) / 1e9:.2f} GB |\n"
        f"| seconds, files read for the first time since they were written | {seconds:.1f} |\n"
        f"| worst conservation of a row | {checks.conservation_max:.1e} |\n"
    )
    print(text)
    (RESULTS / "memory.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
