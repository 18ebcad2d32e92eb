"""circuit-tracer's side of the comparison; runs in its own environment, on one JSON job.

    python circuit_tracer_run.py JOB.json

The job names backend, model folder, dictionary folder, its kind, token ids, batch size, repeats
and the file for the graph, or none; a device other than the CPU, and the number of features to
expand if not all.  Seconds and memory are printed as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from circuit_tracer.attribution.attribute import (  # pyright: ignore[reportMissingImports]
    attribute,
)
from circuit_tracer.graph import prune_graph  # pyright: ignore[reportMissingImports]
from circuit_tracer.replacement_model import (  # pyright: ignore[reportMissingImports]
    ReplacementModel,
)
from circuit_tracer.transcoder.cross_layer_transcoder import (  # pyright: ignore[reportMissingImports]
    load_clt,
)
from circuit_tracer.transcoder.single_layer_transcoder import (  # pyright: ignore[reportMissingImports]
    load_transcoder_set,
)
from transformers import AutoModelForCausalLM, AutoTokenizer
from watch import Watch, anonymous


def transcoders(job: dict):
    """The dictionary, loaded as circuit-tracer loads one from the Hub."""
    folder = job["dictionary"]
    common = {
        "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "hook_mlp_out",
        "scan": "random",
        "lazy_encoder": False,
        "lazy_decoder": True,
        "dtype": torch.float32,
        "device": torch.device(job.get("device", "cpu")),
    }
    if job["kind"] == "cross-layer":
        return load_clt(folder, **common)
    files = {i: f"{folder}/layer_{i}.safetensors" for i in range(job["n_layers"])}
    return load_transcoder_set(files, **common)


def model(job: dict):
    """The model; for TransformerLens, wrapped around the one of transformers.

    TransformerLens refuses a Llama whose name it does not list, and ignores the base of its RoPE:
    both are corrected here.
    """
    device = torch.device(job.get("device", "cpu"))
    options = {"backend": job["backend"], "device": device, "dtype": torch.float32}
    if job["backend"] == "transformerlens":
        from transformer_lens import (  # pyright: ignore[reportMissingImports]
            loading_from_pretrained as loading,
        )

        convert, official = loading.convert_hf_model_config, loading.get_official_model_name

        def with_base(name: str, **settings: object) -> dict:
            return {"rotary_base": job["rotary_base"], **convert(name, **settings)}

        def by_folder(name: str) -> str:
            return name if Path(name).exists() else official(name)

        loading.convert_hf_model_config = with_base
        loading.get_official_model_name = by_folder
        options["hf_model"] = AutoModelForCausalLM.from_pretrained(
            job["model"], dtype=torch.float32, attn_implementation="eager"
        )
        options["tokenizer"] = AutoTokenizer.from_pretrained(job["model"])
    return ReplacementModel.from_pretrained_and_transcoders(
        job["model"], transcoders(job), **options
    )


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with Watch() as watch:
        loaded = model(job)
        before, seconds = anonymous(), []
        for _ in range(job["repeats"]):
            start = time.perf_counter()
            graph = attribute(
                torch.tensor(job["ids"]),
                loaded,
                batch_size=job["batch_size"],
                max_feature_nodes=job.get("max_feature_nodes"),
            )
            seconds.append(time.perf_counter() - start)
    # It puts a token in front of ids that do not begin with a special one: then graphs differ.
    ids = graph.input_tokens.flatten().tolist()
    if ids != job["ids"]:
        raise SystemExit(f"circuit-tracer attributed {ids}, not {job['ids']}")
    peak = watch.peak
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    if job["out"] is None:
        print(json.dumps({"seconds": min(seconds), "loaded": before, "peak": peak}))
        return
    first_token = len(graph.adjacency_matrix) - len(graph.logit_targets) - len(job["ids"])
    tokens = slice(first_token, first_token + len(job["ids"]))
    graph.adjacency_matrix[:, tokens] *= job["token_factor"]
    nodes, edges, _ = prune_graph(graph)
    found = {
        "weights": graph.adjacency_matrix,  # [target, source], token edges corrected
        "features": graph.active_features,  # layer, pos, index
        "ids": ids,
        "tokens": [target.vocab_idx for target in graph.logit_targets],
        "pruned": (nodes, edges),
    }
    torch.save(found, job["out"])
    print(json.dumps({"seconds": min(seconds), "loaded": before, "peak": watch.peak}))


if __name__ == "__main__":
    main()
