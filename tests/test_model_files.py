"""A folder of a model is looked at before transformers believes what stands in it."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
import transformers

from circuits.model.loading import load_model, load_tokenizer
from circuits.model.model_files import require_sound_files
from circuits.model.packaged import ModelNotFound
from tests.conftest import cached_subject
from tests.test_cli import assert_refused, run
from tests.tiny import ARCHITECTURES, tiny_model, toy_tokenizer


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be changed."""
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "other"])
def test_a_pipe_among_the_files_is_refused_at_once(folder: Path, name: str):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    for load in (load_model, load_tokenizer):
        with pytest.raises(ModelNotFound, match=f"{name} is not a regular file"):
            load(str(folder))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"num_hidden_layers": 10**9}, "1,000,000,000 layers: at most 10,000 are supported"),
        ({"text_config": {"n_layer": 10**9}}, "1,000,000,000 layers"),
        ({"hidden_size": 10**7}, "declares a model of at least"),
        ({"vocab_size": 10**9}, "declares a model of at least"),
        ({"intermediate_size": 10**9}, "declares a model of at least"),
        ({"head_dim": 10**8}, "declares a model of at least"),
        ({"num_hidden_layers": 10**4, "layer_types": None}, "declares a model of at least"),
        ({"name": "x" * 2**24}, "expected at most 16,777,216 bytes"),
    ],
)
def test_a_config_larger_than_the_weights_is_refused(
    folder: Path, fields: dict[str, object], sentence: str
):
    change_config(folder, **fields)
    start = time.perf_counter()
    with pytest.raises(ModelNotFound, match=sentence):
        load_model(str(folder))
    assert time.perf_counter() - start < 5  # initialising so many parameters would take minutes


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_is_as_large_as_its_config_says(tmp_path: Path, name: str):
    tiny_model(name).bfloat16().save_pretrained(tmp_path)
    require_sound_files(tmp_path)


def test_experts_run_in_float64(tmp_path: Path):
    tiny_model("gpt-oss").save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), dtype=torch.float64)
    ids = torch.tensor([[1, 5, 9]])
    expected = cached_subject("gpt-oss").frozen.model(input_ids=ids).logits
    torch.testing.assert_close(loaded.model(input_ids=ids).logits, expected, rtol=1e-9, atol=1e-12)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder: Path, tmp_path: Path):
    """The model embeds tokens 0 to 11, and `o` is 14."""
    small = ARCHITECTURES["gemma-3"][2] | {"vocab_size": 12}
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**small))
    model.save_pretrained(folder)
    assert run("trace", "fjf", "--model", folder).exit_code == 0
    sentence = "The tokenizer gives token id 14, the model embeds ids up to 11"
    assert_refused(run("trace", "fjfo", "--model", folder), sentence)
    corpus = tmp_path / "corpus.txt"
    generator = random.Random(1)
    corpus.write_text("\n".join("".join(generator.choices("fjo", k=30)) for _ in range(200)))
    few = ("--steps", 1, "--width", 4, "--l0", 1, "--batch", 8, "--shuffle", 8)
    trained = run("train", corpus, "--model", folder, "--out", tmp_path / "out", *few)
    assert_refused(trained, "the model embeds ids up to 11")
    assert_refused(run("trace", "fjf", "--model", folder, "--target", "o"), "vocabulary of 12")
