"""`headwater train` from the command line: what it writes, and how bad input is answered."""

from __future__ import annotations

import json
import random
import re
from itertools import islice
from pathlib import Path

import pytest
import torch
from click.testing import Result

import circuits.corpora.choice
import graphs
from circuits.features.files.reading import read_transcoders
from circuits.features.labels import feature_files
from circuits.training.log import LOG
from circuits.training.settings import CHECKPOINT, TrainingError
from graphs.disk.leftovers import temporary_path
from tests.test_audit_command import contents
from tests.test_cli import assert_refused, run
from tests.test_files import little_space
from tests.test_leftovers import left_by_the_dead
from tests.tiny import tiny_model, toy_tokenizer

pytestmark = pytest.mark.usefixtures("few_graphs")

SHORT = ("--width", 24, "--l0", 3, "--steps", 60, "--batch", 64, "--checkpoint-every", 20)
SHORT += ("--shuffle", 2048)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    generator = random.Random(1)
    path.write_text("\n".join("".join(generator.choices("fjoidgh", k=30)) for _ in range(400)))
    return path


def assert_stopped(result: Result, message: str) -> None:
    """As a refusal, once the run has said what it will take."""
    first, *rest = result.stderr.splitlines()
    assert re.fullmatch(r"About \S+ GiB and .* in all: [\d,]+ tokens in [\d,]+ steps\.", first)
    assert result.exit_code == 2, result.output
    assert len(rest) == 1
    assert message in rest[0]


@pytest.mark.parametrize("kind", ["per-layer", "skip", "cross-layer"])
def test_a_trained_dictionary_is_reported_described_and_can_be_traced(
    model_folder: Path, corpus: Path, tmp_path: Path, kind: str
):
    out = tmp_path / "dictionary"
    asked = ("train", corpus, "--model", model_folder, "--out", out, "--kind", kind, *SHORT)
    result = run(*asked, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told == json.loads((out / "report.json").read_text())
    measured = told["fidelity"]
    assert all(len(measured[name]) == 3 for name in ("unexplained", "l0", "dead"))
    assert 0 <= measured["agreement"] <= 1
    assert measured["divergence"] > 0
    assert 0 < told["replacement"] <= 1
    assert 0 < told["completeness"] <= 1
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 60]
    assert {"loss", "l0", "explained", "dead"} <= lines[0].keys()
    files = feature_files(out)
    assert files is not None
    assert any(files.read(2, index) for index in range(24))
    assert (read_transcoders(out).layers[0].skip is not None) == (kind == "skip")
    assert read_transcoders(out).layers[0].n_written == (3 if kind == "cross-layer" else 1)
    graph = tmp_path / "graph.safetensors"
    traced = run("trace", "fjfoi", "--model", model_folder, "--transcoders", out, "--out", graph)
    assert traced.exit_code == 0, traced.output
    assert "label" in traced.stdout
    assert graphs.read_graph(graph).descriptions
    again = run(*asked)
    assert again.exit_code == 0
    assert "same next token" in again.stdout


def test_a_model_can_be_trained_on_its_own_samples(model_folder: Path, tmp_path: Path):
    result = run(
        *("train", "--sample-from-model", "--model", model_folder, "--out", tmp_path / "out"),
        *("--length", 12, *SHORT),
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "config.yaml").exists()


def test_a_model_without_bos_in_half_precision_is_trained(tmp_path: Path):
    folder = tmp_path / "model"
    tiny_model("qwen-3").bfloat16().save_pretrained(folder)
    toy_tokenizer(bos=None, eos=2).save_pretrained(folder)
    out = tmp_path / "out"
    asked = ("train", "--sample-from-model", "--model", folder, "--out", out, *SHORT)
    result = run(*asked, "--length", 12, "--dtype", "bfloat16", "--json")
    assert result.exit_code == 0, result.output
    assert 0 <= json.loads(result.stdout)["fidelity"]["agreement"] <= 1


def test_documents_are_cut_to_the_models_context(tmp_path: Path):
    """GPT-2 has no position beyond it."""
    folder, corpus = tmp_path / "model", tmp_path / "corpus.txt"
    tiny_model("gpt-2").float().save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    generator = random.Random(1)
    corpus.write_text("\n".join("".join(generator.choices("fjoidgh", k=200)) for _ in range(60)))
    asked = ("train", corpus, "--model", folder, "--out", tmp_path / "out", *SHORT)
    result = run(*asked)
    assert result.exit_code == 0, result.output


def test_other_documents_are_another_run(model_folder: Path, corpus: Path, tmp_path: Path):
    changed = tmp_path / "corpus.txt"
    changed.write_text(corpus.read_text())
    asked = ("train", changed, "--model", model_folder, "--out", tmp_path / "out", *SHORT)
    assert run(*asked).exit_code == 0
    changed.write_text(corpus.read_text() + "\nfjfj")
    assert_refused(run(*asked), "another model or another corpus")


def test_a_mistyped_file_is_no_dataset(model_folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    for text in ("../corpus", "data/corpus.txt", "x" * 300 + "/y"):
        result = run("train", text, "--model", model_folder, "--out", out, *SHORT)
        assert_refused(result, f"Cannot read {text}: ")


def test_a_name_with_one_slash_is_a_dataset(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[object] = []

    def dataset(*arguments: object):
        asked.extend(arguments)
        raise TrainingError("asked.")

    monkeypatch.setattr(circuits.corpora.choice, "dataset_corpus", dataset)
    named = ("train", "org/set", "--column", "body", "--model", model_folder)
    assert_refused(run(*named, "--out", tmp_path / "out"), "asked.")
    assert (asked[0], *asked[2:]) == ("org/set", 64, "body", "auto")  # cut to the model's context


def test_bad_input_is_refused_in_one_sentence(model_folder: Path, corpus: Path, tmp_path: Path):
    out = tmp_path / "out"

    def refused(text: object, message: str, *options: object) -> None:
        settings = (*SHORT, *options)
        result = run("train", text, "--model", model_folder, "--out", out, *settings)
        assert_refused(result, message)
        assert not out.exists()

    (tmp_path / "short.txt").write_text("fj")
    (tmp_path / "none.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "file").touch()
    refused(tmp_path / "short.txt", "has 3 tokens and one batch takes 64: give more text")
    refused(tmp_path / "missing.txt", "missing.txt: No such file or directory.")
    refused(tmp_path / "none.txt", "is not UTF-8 text: convert it to UTF-8.")
    refused(corpus, "An L0 of 30 cannot be reached with 24 features per layer", "--l0", 30)
    refused(corpus, "Give a corpus or --sample-from-model, and not both", "--sample-from-model")
    refused(corpus, "Matryoshka prefixes must be shares between 0 and 1", "--matryoshka", 2)
    place = tmp_path / "file" / "out"
    result = run("train", corpus, "--model", model_folder, "--out", place, *SHORT)
    assert_refused(result, f"Cannot write to the folder {place}: {tmp_path / 'file'} is a file.")
    assert_refused(
        run("train", "--model", model_folder, "--out", out), "Give a corpus or --sample-from-model"
    )


def test_a_folder_holds_one_run_and_nothing_else_is_written_into(
    model_folder: Path, corpus: Path, tmp_path: Path
):
    out = tmp_path / "out"
    asked = ("train", corpus, "--model", model_folder, "--out", out, *SHORT)
    assert run(*asked).exit_code == 0
    before = contents(out)
    assert_refused(run(*asked, "--kind", "skip"), "belongs to a run with other settings")
    assert contents(out) == before
    (out / CHECKPOINT).unlink()  # as a dictionary that somebody else has trained
    before = contents(out)
    for options in ((), ("--kind", "skip")):
        result = run(*asked, *options)
        assert_refused(result, f"{out} has other files in it, such as W_dec_0.safetensors: give")
        assert contents(out) == before
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert_refused(
        run(*asked[: -len(SHORT) - 1], tmp_path / "model"), "has other files in it, such as"
    )
    assert contents(tmp_path / "model") == {"config.json": b"{}"}


def test_what_others_are_writing_into_a_folder_stays_and_what_the_dead_were_goes(
    model_folder: Path, corpus: Path, tmp_path: Path
):
    out = tmp_path / "out"
    asked = ("train", corpus, "--model", model_folder, "--out", out, *SHORT)
    assert run(*asked).exit_code == 0
    running = temporary_path(out / "features")
    running.write_text("half")
    left_by_the_dead(out).write_text("half")
    left_by_the_dead(out / "features").write_text("half")
    before = set(contents(out))
    assert run(*asked).exit_code == 0
    name = left_by_the_dead(out).name
    assert before - set(contents(out)) == {name, f"features/{name}"}
    assert running.read_text() == "half"


def test_a_run_that_fails_before_its_first_checkpoint_leaves_nothing(
    model_folder: Path, corpus: Path, tmp_path: Path
):
    out = tmp_path / "new" / "out"
    asked = ("train", corpus, "--model", model_folder, "--out", out, *SHORT)
    result = run(*asked, "--rate", "1e30", "--checkpoint-every", "1000", "--steps", "300")
    assert_stopped(result, "the loss or its gradient is no longer finite")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_other_settings_is_refused_and_stays(
    model_folder: Path, corpus: Path, tmp_path: Path
):
    asked = ("train", corpus, "--model", model_folder, "--out", tmp_path / "out", *SHORT)
    assert run(*asked).exit_code == 0
    files = list(islice(sorted((tmp_path / "out").rglob("*.*")), 50))
    before = [file.read_bytes() for file in files]
    assert_refused(run(*asked, "--l0", 4), "belongs to a run with other settings, another model")
    assert [file.read_bytes() for file in files] == before


def test_without_space_a_run_says_so_and_keeps_its_checkpoint(
    model_folder: Path, corpus: Path, tmp_path: Path
):
    out = tmp_path / "out"
    asked = ("train", corpus, "--model", model_folder, "--out", out, *SHORT)
    with little_space():
        result = run(*asked)
    assert_stopped(result, "The checkpoint was not written: ")
    assert not out.exists()
    assert run(*asked).exit_code == 0
    before = (out / CHECKPOINT).read_bytes()
    with little_space():
        result = run(*asked)
    assert_stopped(result, "Cannot write ")
    assert (out / CHECKPOINT).read_bytes() == before
    assert read_transcoders(out).layers


@pytest.mark.usefixtures("few_graphs")
@pytest.mark.parametrize(("kind", "layers"), [("per-layer", "0,2"), ("cross-layer", "1-2")])
def test_some_layers_are_trained_reported_and_traced(
    kind: str, layers: str, model_folder: Path, corpus: Path, tmp_path: Path
):
    out = tmp_path / "some"
    trained = run(
        *("train", corpus, "--model", model_folder, "--out", out, "--kind", kind, *SHORT),
        *("--layers", layers),
    )
    assert trained.exit_code == 0, trained.output
    numbers = {"0,2": [0, 2], "1-2": [1, 2]}[layers]
    rows = [line.split() for line in trained.output.splitlines()[1:]]
    assert [int(row[0]) for row in rows if len(row) == 4] == numbers
    assert json.loads((out / "report.json").read_text())["fidelity"]["layers"] == numbers
    read = read_transcoders(out)
    assert [layer for layer, one in enumerate(read.layers) if one.d_dict] == numbers
    assert read.features is not None
    assert read.features.read(numbers[-1], 0) or read.features.read(numbers[-1], 1)
    graph = tmp_path / "graph.safetensors"
    traced = run("trace", "fj", "--model", model_folder, "--transcoders", out, "--out", graph)
    assert traced.exit_code == 0, traced.output
    found = graphs.read_graph(graph)
    features = {node.layer for node in found.nodes if node.kind == graphs.NodeKind.FEATURE}
    assert features
    assert features <= set(numbers)
    refused = run(
        *("train", corpus, "--model", model_folder, "--out", tmp_path / "x", "--layers", "0-9")
    )
    assert refused.exit_code == 2
    assert "layer 9 cannot be trained" in refused.output.replace("\n", " ")


@pytest.mark.parametrize("layers", ["4-", "-4", "3-1", "0,2-1", "a", "", "1-2-3", "9" * 10])
def test_what_is_no_list_of_layers_is_refused(
    layers: str, model_folder: Path, corpus: Path, tmp_path: Path
):
    asked = ("train", corpus, "--model", model_folder, "--out", tmp_path / "x")
    found = run(*asked, f"--layers={layers}")
    assert_refused(found, f"--layers takes numbers and ranges such as 0,1 or 4-7, got {layers!r}")


def test_a_model_that_gives_no_numbers_is_refused(corpus: Path, tmp_path: Path):
    folder = tmp_path / "model"
    model = tiny_model("gemma-3").float()
    model.model.layers[1].pre_feedforward_layernorm.weight.data[3] = torch.inf
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    found = run("train", corpus, "--model", folder, "--out", tmp_path / "out", *SHORT)
    assert found.exit_code == 2, found.output
    assert "is not finite" in found.stderr
    assert "Internal error" not in found.output
    assert not (tmp_path / "out").exists()
