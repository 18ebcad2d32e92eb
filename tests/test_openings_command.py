"""--bos and --prefix, in every command that reads prompts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import yaml

import circuits.evaluation.misfit
import graphs
import headwater as hw
from circuits.attribution.trace_settings import TraceSettings
from circuits.features.files.reading import read_transcoders
from circuits.features.neurons import Neurons
from circuits.model.prompt_rule import PromptRule
from circuits.progress import ignore_progress
from graphs import Bos
from graphs.core.opening import DocumentOpening
from headwater.server.requests import TraceRequest
from headwater.server.workspace import ModelWorkspace
from tests.conftest import cached_subject
from tests.test_cli import PROMPT, assert_refused, run
from tests.test_schema_1 import FILES
from tests.test_train_command import SHORT
from tests.test_weights import per_layer
from tests.tiny import tiny_model, toy_tokenizer

SMALL = ("--max-features", 30)
SENTENCE = "The dictionary was trained on documents that begin with BOS, the prompt does not"


@pytest.fixture(autouse=True)
def no_misfits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dictionaries here are random and fit no model, which is told in `test_misfit.py`."""
    monkeypatch.setattr(circuits.evaluation.misfit, "MOST_UNEXPLAINED", np.inf)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer has BOS and adds none by itself, as SmolLM2's."""
    folder = tmp_path_factory.mktemp("model") / "plain"
    tiny_model("gemma-3").float().save_pretrained(folder)
    toy_tokenizer(adds_bos=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def without_bos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer has no BOS, as Qwen's."""
    folder = tmp_path_factory.mktemp("model") / "without"
    tiny_model("gemma-3").float().save_pretrained(folder)
    toy_tokenizer(bos=None, eos=2).save_pretrained(folder)
    return folder


@pytest.fixture
def asked(tmp_path: Path):
    """Commands on prompts, with a model and options, and the tokens that each has read."""
    dictionary = tmp_path / "dictionary"
    dictionary.mkdir()
    per_layer(dictionary)
    (tmp_path / "prompts.txt").write_text(PROMPT)
    (tmp_path / "pairs.jsonl").write_text('{"first": "fjfoi", "second": "fkfoi", "name": "one"}')
    letters = random.Random(1)
    texts = ("".join(letters.choices("fjoidgh", k=17)) for _ in range(300))
    (tmp_path / "corpus.txt").write_text("\n".join(texts))

    def ask(command: str, model: Path, *options: object):
        out = tmp_path / f"{command}{len(list(tmp_path.iterdir()))}"
        given = {
            "trace": ("trace", PROMPT, "--out", out, *SMALL),
            "estimate": ("estimate", PROMPT, *SMALL),
            "features": ("features", PROMPT, "--dictionary", dictionary),
            "profile": ("profile", model, tmp_path / "prompts.txt", "--out", out, *SMALL),
            "audit": (
                *("audit", tmp_path / "pairs.jsonl", "--out", out, *SMALL),
                *("--mediators", 2, "--random-sets", 1),
            ),
            "train": ("train", tmp_path / "corpus.txt", "--out", out, *SHORT),
            "serve": ("serve", tmp_path, "--port", 0),
        }[command]
        named = () if command == "profile" else ("--model", model)
        return run(*given, *named, *options, *(() if command == "serve" else ("--json",))), out

    return ask


def tokens_of(command: str, result, out: Path) -> str:
    assert result.exit_code == 0, result.output
    if command == "profile":
        return "".join(graphs.read_profile(out).prompts[0].tokens)
    if command == "audit":
        return "".join(graphs.read_graph(out / "one" / "first.safetensors").provenance.tokens)
    return "".join(json.loads(result.stdout)["tokens"])


@pytest.mark.parametrize("command", ["trace", "features", "profile", "audit"])
def test_bos_is_the_tokenizers_own_unless_it_is_asked_for(
    model_folder: Path, plain: Path, asked, command: str
):
    for model, options, tokens in (
        (model_folder, (), f"b{PROMPT}"),
        (model_folder, ("--bos", "never"), PROMPT),
        (plain, (), PROMPT),
        (plain, ("--bos", "always"), f"b{PROMPT}"),
    ):
        assert tokens_of(command, *asked(command, model, *options)) == tokens


@pytest.mark.parametrize(
    "command", ["trace", "estimate", "features", "profile", "audit", "train", "serve"]
)
def test_bos_that_a_tokenizer_lacks_is_refused(without_bos: Path, asked, command: str):
    result, out = asked(command, without_bos, "--bos", "always")
    assert_refused(result, "This tokenizer has no BOS token: leave out --bos always.")
    assert not out.exists() or list(out.iterdir()) == []


def test_no_features_are_looked_for_where_nothing_is_to_be_read(model_folder: Path, asked):
    result, out = asked("trace", model_folder, "--prefix", 4)
    assert result.exit_code == 0, result.output
    nodes = graphs.read_graph(out).nodes
    inside = nodes.is_kind(graphs.NodeKind.FEATURE, graphs.NodeKind.ERROR)
    assert np.unique(nodes.pos[inside]).tolist() == [4, 5]
    told, _ = asked("features", model_folder, "--prefix", 4)
    assert {one["pos"] for one in json.loads(told.stdout)["features"]} == {4, 5}
    counts = [
        json.loads(asked("estimate", model_folder, *options)[0].stdout)["active_features"]
        for options in ((), ("--prefix", 4))
    ]
    active = json.loads(result.stdout)["checks"]["active_features"]
    assert counts[0] > counts[1] == active
    result, out = asked("audit", model_folder, "--prefix", 4)
    assert result.exit_code == 0, result.output
    assert graphs.read_graph(out / "one" / "first.safetensors").provenance.n_prefix == 4


def test_how_the_prompt_begins_is_said(plain: Path, model_folder: Path, tmp_path: Path):
    out = tmp_path / "graph.safetensors"
    for model, options, said in (
        (plain, (), "no BOS: the tokenizer adds none · prefix: none"),
        (plain, ("--bos", "always"), "BOS added, as requested · prefix: position 0, a special"),
        (model_folder, (), "BOS added by the tokenizer · prefix: position 0, a special"),
        (model_folder, ("--prefix", 2), "prefix: first 2 positions, as given"),
    ):
        traced = run("trace", PROMPT, "--model", model, *SMALL, *options, "--out", out)
        for text in (traced.stdout, run("show", out).stdout):
            assert said in text
            assert "attention sink" not in text


@pytest.mark.parametrize("command", ["trace", "estimate", "features", "profile", "audit"])
def test_a_prompt_that_begins_unlike_the_dictionarys_documents_is_said(
    plain: Path, model_folder: Path, asked, tmp_path: Path, command: str
):
    folder = tmp_path / "recorded"
    folder.mkdir()
    per_layer(folder, training_documents={"bos": True, "context_only": None})
    option = "--dictionary" if command == "features" else "--transcoders"
    result, out = asked(command, plain, option, folder)
    assert result.exit_code == 0, result.output
    assert result.stderr.count(SENTENCE) == 1
    assert result.stderr.count("\n") == 1
    for model, options in ((model_folder, ()), (plain, ("--bos", "always"))):
        assert asked(command, model, option, folder, *options)[0].stderr == ""
    if command == "trace":
        (said,) = graphs.read_graph(out).provenance.mismatches
        assert said.startswith(SENTENCE)
        assert SENTENCE in run("show", out).stdout
        filled = asked("trace", plain, option, folder, "--fill", "neurons")[0]
        assert SENTENCE in filled.stderr


def first_positions(command: str, result, out: Path) -> object:
    """What shows how many first positions have no features."""
    assert result.exit_code == 0, result.output
    match command:
        case "trace":
            nodes = graphs.read_graph(out).nodes
            return int(nodes.pos[nodes.is_kind(graphs.NodeKind.FEATURE)].min())
        case "estimate":
            return json.loads(result.stdout)["active_features"]
        case "features":
            return min(one["pos"] for one in json.loads(result.stdout)["features"])
        case "profile":
            return graphs.read_profile(out).activation.nnz
    return graphs.read_graph(out / "one" / "first.safetensors").provenance.n_prefix


@pytest.mark.parametrize("command", ["trace", "estimate", "features", "profile", "audit"])
def test_a_prompt_has_the_prefix_of_the_dictionarys_documents(
    plain: Path, asked, tmp_path: Path, command: str
):
    folder = tmp_path / "recorded"
    folder.mkdir()
    per_layer(folder, training_documents={"bos": False, "context_only": 2})
    chosen = ("--dictionary" if command == "features" else "--transcoders", folder)
    own, two, one = (
        asked(command, plain, *chosen, *options)
        for options in ((), ("--prefix", 2), ("--prefix", 1))
    )
    assert first_positions(command, *own) == first_positions(command, *two)
    assert first_positions(command, *own) != first_positions(command, *one)
    assert own[0].stderr == two[0].stderr == ""
    assert "with a prefix of 2 positions, the prompt has one of 1: use --prefix 2" in one[0].stderr


def test_so_has_one_of_the_front_door(plain: Path, tmp_path: Path):
    per_layer(tmp_path, training_documents={"bos": False, "context_only": 2})
    model = hw.load(plain, transcoders=tmp_path)
    assert hw.trace(PROMPT, model, max_features=30).provenance.n_prefix == 2
    with pytest.warns(UserWarning, match="the prompt has one of 0: use --prefix 2"):
        assert hw.trace(PROMPT, model, max_features=30, n_prefix=0).provenance.n_prefix == 0


def test_so_has_one_of_the_server(plain: Path, asked, tmp_path: Path, monkeypatch):
    folder = tmp_path / "recorded"
    folder.mkdir()
    per_layer(folder, training_documents={"bos": False, "context_only": 2})
    served: list[ModelWorkspace] = []
    monkeypatch.setattr("headwater.cli.serve._run", lambda _, made, *rest: served.append(made))
    for options, n_prefix in (((), 2), (("--prefix", 1), 1)):
        result, _ = asked("serve", plain, "--transcoders", folder, *options)
        assert result.exit_code == 0, result.output
        assert served[-1].rule == PromptRule(n_prefix=n_prefix)


def test_of_a_dictionary_without_a_record_nothing_is_said(plain: Path, asked, tmp_path: Path):
    result, out = asked("trace", plain, "--transcoders", tmp_path / "dictionary")
    assert (result.exit_code, result.stderr) == (0, "")
    assert graphs.read_graph(out).provenance.dictionary.documents is None


def test_a_record_that_is_none_is_refused(plain: Path, asked, tmp_path: Path):
    folder = tmp_path / "recorded"
    folder.mkdir()
    per_layer(folder, training_documents={"bos": "perhaps"})
    result, _ = asked("trace", plain, "--transcoders", folder)
    assert_refused(result, "must have `bos` and `context_only`")


@pytest.mark.usefixtures("few_graphs")
@pytest.mark.parametrize(
    ("options", "documents"),
    [
        ((), DocumentOpening(bos=True)),
        (("--bos", "never"), DocumentOpening(bos=False)),
        (("--prefix", 3), DocumentOpening(bos=True, n_prefix=3)),
    ],
)
def test_a_trained_dictionary_says_how_its_documents_began(
    model_folder: Path, asked, options: tuple[object, ...], documents: DocumentOpening
):
    result, out = asked("train", model_folder, *options)
    assert result.exit_code == 0, result.output
    assert read_transcoders(out).identity.documents == documents
    assert read_transcoders(out).n_prefix == documents.n_prefix
    written = yaml.safe_load((out / "config.yaml").read_text())["training_documents"]
    assert written == documents.model_dump()
    described = [read_transcoders(out).describe(2, index) for index in range(24)]
    starts = [example for said in described if said for example in said.examples]
    first = int(documents.bos) if documents.n_prefix is None else documents.n_prefix
    assert starts
    for example in starts:
        assert (example.tokens[0] == "b") == documents.bos
        assert not any(example.activations[:first])
    traced, _ = asked("trace", model_folder, "--transcoders", out, *options)
    assert traced.stderr == ""


def test_documents_that_are_context_only_are_refused(model_folder: Path, asked):
    result, _ = asked("train", model_folder, "--prefix", 256)
    assert_refused(result, "--prefix 256 leaves no tokens of documents of 256")


@pytest.mark.usefixtures("few_graphs")
def test_a_run_goes_on_with_its_own_rule_alone(plain: Path, asked, tmp_path: Path):
    result, out = asked("train", plain, "--bos", "always")
    assert result.exit_code == 0, result.output
    again = ("train", tmp_path / "corpus.txt", "--model", plain, "--out", out, *SHORT)
    assert_refused(run(*again, "--bos", "never"), "belongs to a run with other settings")
    assert_refused(
        run(*again, "--bos", "always", "--prefix", 1), "belongs to a run with other settings"
    )
    # Without a word on BOS it is the run that was begun, as it was before there was a choice.
    result = run(*again)
    assert result.exit_code == 0, result.output
    assert "continues with BOS in front of documents, as it was begun." in result.stderr
    assert read_transcoders(out).identity.documents == DocumentOpening(bos=True)


def test_an_audit_goes_on_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder of before there was a choice, of a model whose tokenizer adds no BOS by itself."""
    copytree(FILES, tmp_path / "files")
    monkeypatch.chdir(tmp_path / "files")
    Path("pairs.jsonl").write_text(
        Path("pairs.jsonl").read_text() + '{"first": "fjfoi", "second": "fkfoi", "name": "new"}\n'
    )
    few = ("--max-features", 30, "--mediators", 3, "--random-sets", 2)
    again = ("audit", "pairs.jsonl", "--out", "audit", "--model", "tiny", *few)
    assert_refused(run(*again, "--bos", "never"), "was begun with a different --bos: give --out")
    assert_refused(run(*again, "--prefix", 2), "was begun with a different --prefix: give --out")
    result = run(*again)
    assert result.exit_code == 0, result.output
    header = graphs.read_graph(Path("audit", "new", "first.safetensors")).provenance
    assert header.prompt == "bfjfoi"


def test_a_server_reads_prompts_by_its_rule(tmp_path: Path):
    subject = cached_subject("gemma-3")
    for rule, prompt, n_prefix in (
        (PromptRule(), "bfjfoi", 1),
        (PromptRule(Bos.NEVER, 2), "fjfoi", 2),
    ):
        workspace = ModelWorkspace(tmp_path, subject, Neurons(30), TraceSettings(), rule)
        made = workspace.trace(TraceRequest(prompt="fjfoi"), ignore_progress)
        header = graphs.read_graph(tmp_path / f"{made}.safetensors").provenance
        assert (header.prompt, header.n_prefix) == (prompt, n_prefix)
