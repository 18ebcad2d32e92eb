"""Train with sparsify's own Trainer, in its own environment; run by training.py.

    FOLDER/bin/python sparsify_run.py MODEL DOCUMENTS OUT LAYERS WIDTH K SEED COUNT

DOCUMENTS is a JSON file of token ids (document, pos), COUNT of which are a step.  The first token
is left out if all documents share it, as they share a BOS.  All else is at sparsify's defaults,
among them signum with schedule-free averaging and its rate by width.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset  # pyright: ignore[reportMissingImports]
from sparsify import (  # pyright: ignore[reportMissingImports]
    SparseCoderConfig,
    TrainConfig,
    Trainer,
)
from transformers import AutoModel


def main() -> None:
    model_folder, documents, out, layers, width, k, seed = sys.argv[1:8]
    model = AutoModel.from_pretrained(model_folder, dtype=torch.float32)
    ids = np.array(json.loads(Path(documents).read_text()))
    config = TrainConfig(
        SparseCoderConfig(num_latents=int(width), k=int(k), transcode=True),
        batch_size=int(sys.argv[8]),
        hookpoints=[f"layers.{layer}.mlp" for layer in layers.split(",")],
        exclude_tokens=ids[:1, 0].tolist() if len(set(ids[:, 0])) == 1 else [],
        init_seeds=[int(seed)],
        log_to_wandb=False,
        save_every=10**9,
        save_dir=out,
        run_name="run",
    )
    trainer = Trainer(config, Dataset.from_dict({"input_ids": ids}).with_format("torch"), model)
    start = time.process_time()
    trainer.fit()
    print(f"seconds {time.process_time() - start}")


if __name__ == "__main__":
    main()
