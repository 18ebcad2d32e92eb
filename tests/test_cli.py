from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import circuits.attribution.cost
import circuits.attribution.graph
import graphs
from circuits.model.architectures import LAYOUTS
from headwater.cli.app import app
from tests.test_viewer_numbers import layered
from tests.test_weights import per_layer
from tests.tiny import tiny_model, toy_tokenizer

PROMPT = "fjfoi"


@pytest.fixture(scope="module")
def graph(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph traced on the command line."""
    path = tmp_path_factory.mktemp("graph") / "graph.safetensors"
    assert run("trace", PROMPT, "--model", model_folder, "--out", path).exit_code == 0
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_refused(result, message: str) -> None:
    """Exit code 2, one sentence on standard error, no traceback."""
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


def test_trace_writes_a_graph_and_a_page_and_says_where(model_folder: Path, tmp_path: Path):
    out, page = tmp_path / "graph.safetensors", tmp_path / "page.html"
    result = run("trace", PROMPT, "--model", model_folder, "--out", out, "--html", page)
    assert result.exit_code == 0, result.output
    assert f"graph: {out}" in result.stdout
    assert f"page: {page}" in result.stdout
    assert graphs.read_graph(out).provenance.prompt == "bfjfoi"
    assert page.read_text().lower().startswith("<!doctype html>")


def test_trace_without_out_writes_nothing(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert run("trace", PROMPT, "--model", model_folder).exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_trace_prints_what_a_person_wants_to_know(model_folder: Path):
    text = run("trace", PROMPT, "--model", model_folder).stdout
    for part in ("bfjfoi", "probability", "traced further down", "rows sum to", "feature:2/"):
        assert part in text


def test_trace_prints_json_for_machines(model_folder: Path, tmp_path: Path):
    out = tmp_path / "graph.safetensors"
    result = run("trace", PROMPT, "--model", model_folder, "--json", "--out", out)
    data = json.loads(result.stdout)
    assert data["tokens"] == list("bfjfoi")
    assert data["files"] == {"graph": str(out)}
    assert data["checks"]["conservation_max"] < 1e-5
    assert data["failures"] == []


def test_targets_and_contrasts_are_taken_from_the_command_line(model_folder: Path):
    data = json.loads(
        run("trace", PROMPT, "--model", model_folder, "--target", "e", "--json").stdout
    )
    assert [target["node"] for target in data["targets"]] == ["logit:4@5"]
    data = json.loads(
        run(
            "trace", PROMPT, "--model", model_folder, "--target", "e", "--against", "h", "--json"
        ).stdout
    )
    assert [target["text"] for target in data["targets"]] == ["e − h"]


def test_a_position_is_taken_from_the_command_line(model_folder: Path):
    data = json.loads(
        run("trace", PROMPT, "--model", model_folder, "--position", "2", "--json").stdout
    )
    assert {target["node"].split("@")[1] for target in data["targets"]} == {"2"}


def expanded(model_folder: Path, *arguments: object) -> tuple[int, int]:
    """Features expanded, and features in the graph."""
    data = json.loads(run("trace", PROMPT, "--model", model_folder, *arguments, "--json").stdout)
    return data["checks"]["expanded_features"], data["n_features"]


def test_max_features_limits_rows_and_all_lifts_the_limit(model_folder: Path, tmp_path: Path):
    dictionary = ("--transcoders", per_layer(tmp_path))
    assert expanded(model_folder, "--max-features", 9)[0] == 9
    some, features = expanded(model_folder, *dictionary, "--max-features", 9)
    assert some == 9 < features
    assert expanded(model_folder, *dictionary, "--max-features", 9, "--all") == (features, features)


def test_a_tolerance_stops_expansion(model_folder: Path, tmp_path: Path):
    assert expanded(model_folder, "--transcoders", per_layer(tmp_path), "--tolerance", 1)[0] == 0


def test_a_smaller_kept_share_keeps_fewer_edges(model_folder: Path):
    def edges(share: float) -> int:
        arguments = ("trace", PROMPT, "--model", model_folder, "--kept-share", share, "--json")
        return json.loads(run(*arguments).stdout)["n_edges"]

    assert edges(0.5) < edges(0.999)


def test_how_many_logits_are_explained(model_folder: Path):
    def explained(*arguments: object) -> int:
        result = run("trace", PROMPT, "--model", model_folder, *arguments, "--json")
        return len(json.loads(result.stdout)["targets"])

    assert explained("--max-logits", 2, "--probability-mass", 1) == 2
    assert explained("--probability-mass", 0) == 1


def test_a_dictionary_is_read_from_a_folder(model_folder: Path, tmp_path: Path):
    folder = per_layer(tmp_path)
    data = json.loads(
        run(
            "trace", PROMPT, "--model", model_folder, "--transcoders", folder, "--all", "--json"
        ).stdout
    )
    assert data["dictionary"] == "toy"
    assert data["checks"]["expanded_features"] == data["checks"]["active_features"] > 0


def test_bfloat16_is_marked(model_folder: Path):
    data = json.loads(
        run("trace", PROMPT, "--model", model_folder, "--dtype", "bfloat16", "--json").stdout
    )
    assert data["dtype"] == "bfloat16"


def test_a_failed_check_is_said_and_exits_1(model_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(circuits.attribution.graph, "CONSERVATION_LIMITS", {torch.float32: 0.0})
    result = run("trace", PROMPT, "--model", model_folder)
    assert result.exit_code == 1
    assert "Conservation fails" in result.stdout


def test_attention_to_later_tokens_gets_one_sentence(tmp_path: Path):
    tiny_model("gemma-3", use_bidirectional_attention=True).float().save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    out = tmp_path / "graph.safetensors"
    result = run("trace", PROMPT, "--model", tmp_path, "--dtype", "bfloat16", "--out", out)
    assert_refused(result, "has use_bidirectional_attention: true")
    assert not out.exists()


@pytest.mark.parametrize(
    ("dtype", "said"), [("float64", "Recording fails"), ("bfloat16", "Conservation fails")]
)
def test_a_model_that_is_read_wrongly_exits_1(
    model_folder: Path, tmp_path: Path, dtype: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    name, out = "Gemma3ForCausalLM", tmp_path / "graph.safetensors"
    monkeypatch.setitem(LAYOUTS, name, replace(LAYOUTS[name], gain_offset=0.0))
    result = run("trace", PROMPT, "--model", model_folder, "--dtype", dtype, "--out", out)
    assert result.exit_code == 1
    for text in (result.stdout, run("show", out).stdout):
        assert said in text


def test_a_config_that_asks_for_tuples_is_read(model_folder: Path, tmp_path: Path):
    copytree(model_folder, tmp_path / "tiny")
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    (tmp_path / "tiny" / "config.json").write_text(json.dumps({**config, "return_dict": False}))
    result = run("trace", PROMPT, "--model", tmp_path / "tiny")
    assert result.exit_code == 0, result.output


def test_show_shows_a_graph(graph: Path):
    result = run("show", graph)
    assert result.exit_code == 0
    assert "bfjfoi" in result.stdout
    assert json.loads(run("show", graph, "--json").stdout)["n_nodes"] > 20


def test_prune_writes_a_smaller_graph(graph: Path, tmp_path: Path):
    out = tmp_path / "pruned.safetensors"
    result = run("prune", graph, "--node-threshold", "0.5", "--out", out)
    assert result.exit_code == 0, result.output
    assert len(graphs.read_graph(out)) < len(graphs.read_graph(graph))
    for part in ("full graph: replacement", "absorbed into errors: ", "left out: replacement"):
        assert part in result.stdout


@pytest.mark.parametrize("form", ["neuronpedia", "node-link", "graphml"])
def test_export_writes_every_format(graph: Path, tmp_path: Path, form: str):
    out = tmp_path / "graph.out"
    result = run("export", graph, "--format", form, "--out", out)
    assert result.exit_code == 0, result.output
    assert out.stat().st_size > 1000
    assert str(out) in result.stdout
    whole = tmp_path / "whole.out"
    assert run("export", graph, "--format", form, "--full", "--out", whole).exit_code == 0
    assert whole.stat().st_size > out.stat().st_size


def test_estimate_says_what_a_trace_will_cost(model_folder: Path):
    data = json.loads(run("estimate", PROMPT, "--model", model_folder, "--json").stdout)
    done = json.loads(run("trace", PROMPT, "--model", model_folder, "--json").stdout)
    assert data["active_features"] == done["checks"]["active_features"]
    assert data["rows"] == done["checks"]["expanded_features"] + len(done["targets"])
    assert data["seconds"] > 0
    assert data["peak_bytes"] > 0
    assert "GFLOP" in run("estimate", PROMPT, "--model", model_folder).stdout


def test_what_memory_will_not_hold_is_refused_unless_forced(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "graph.safetensors"
    command = ("trace", PROMPT, "--model", model_folder, "--out", out)
    monkeypatch.setattr(circuits.attribution.cost, "free_bytes", lambda *_: 10**4)
    assert_refused(run(*command), "more memory for its rows, and 0.0 GiB are free: ")
    assert list(tmp_path.iterdir()) == []
    assert run(*command, "--force").exit_code == 0
    assert out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "The prompt '' has no tokens"),
        ([PROMPT, "--target", "ef"], "The target 'ef' is 2 tokens ('e', 'f')"),
        ([PROMPT, "--target", ""], "The target '' is 0 tokens"),
        (["f" * 64], "has 65 tokens, the model's context holds 64"),
        ([PROMPT, "--position", "77"], "no position 77"),
        ([PROMPT, "--chat"], "no chat template"),
        ([PROMPT, "--device", "cuda:99"], "device 'cuda:99' is not available"),
        ([PROMPT, "--device", "abacus"], "device 'abacus' is not available"),
        ([PROMPT, "--transcoders", "nowhere"], "There is no 'nowhere': give a folder, or"),
        ([PROMPT, "--out", "/nowhere/graph.safetensors"], "There is no folder /nowhere"),
        ([PROMPT, "--html", "/"], "/ is a folder"),
        ([PROMPT, "--against", "h"], "--against needs --target"),
        ([PROMPT, "--target", "e", "--target", "e"], "A token is given twice"),
        ([PROMPT, "--target", "e", "--against", "e"], "A token is given twice"),
        ([PROMPT, "--device", "meta"], "device 'meta' is not available"),
        ([PROMPT, "--out", "x" * 300], "ile name too long"),
        ([PROMPT, "--out", "same", "--html", "same"], "Two outputs would go to same"),
        (["\udcff"], "is not valid UTF-8"),
        ([PROMPT, "--features", "neurons", "--transcoders", "x"], "exclude each other"),
    ],
)
def test_bad_input_gets_one_sentence(model_folder: Path, arguments: list[str], message: str):
    assert_refused(run("trace", *arguments, "--model", model_folder), message)


def test_an_unknown_model_gets_one_sentence(tmp_path: Path):
    assert_refused(run("trace", PROMPT, "--model", tmp_path / "none"), "none")


def test_an_unknown_architecture_gets_one_sentence(tmp_path: Path):
    from transformers import OPTConfig, OPTForCausalLM

    sizes = {"hidden_size": 8, "ffn_dim": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    OPTForCausalLM(OPTConfig(vocab_size=23, word_embed_proj_dim=8, **sizes)).save_pretrained(
        tmp_path
    )
    toy_tokenizer().save_pretrained(tmp_path)
    assert_refused(
        run("trace", PROMPT, "--model", tmp_path), "No layout is known for 'OPTForCausalLM'"
    )


def test_damaged_model_weights_get_one_sentence(model_folder: Path, tmp_path: Path):
    for path in model_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.1.self_attn.v_proj.weight"][0, 0] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_refused(run("trace", PROMPT, "--model", tmp_path), "has NaN or infinite values")


def test_a_dictionary_of_another_model_gets_one_sentence(model_folder: Path, tmp_path: Path):
    folder = per_layer(tmp_path)
    (folder / "layer_2.safetensors").unlink()
    message = "has 2 layers, the model has 3"
    assert_refused(run("trace", PROMPT, "--model", model_folder, "--transcoders", folder), message)


@pytest.mark.parametrize("command", ["show", "prune"])
def test_a_file_that_is_no_graph_gets_one_sentence(tmp_path: Path, command: str):
    path = tmp_path / "graph.safetensors"
    assert_refused(run(command, path), str(path))
    path.write_bytes(b"not a graph")
    assert_refused(run(command, path), str(path))


def test_a_failing_write_leaves_the_old_file(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "graph.safetensors"
    graphs.write_graph(layered(0), out)
    old = out.read_bytes()

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", no_space)
    assert_refused(run("trace", PROMPT, "--model", model_folder, "--out", out), "No space left")
    assert [path.name for path in tmp_path.iterdir()] == ["graph.safetensors"]
    assert out.read_bytes() == old


@pytest.mark.parametrize("memory", ["inf", "9" * 400])
def test_a_limit_on_memory_is_a_number(model_folder: Path, memory: str):
    result = run("trace", PROMPT, "--model", model_folder, "--memory", memory)
    assert_refused(result, "memory is a number of GiB")
