"""References: paths, names on the Hub, sets that lie in a folder per layer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as hub
import pytest
import torch

import circuits.features.files.locations
from circuits.features.files.locations import (
    LocationError,
    Reference,
    chosen,
    find_location,
    parse_reference,
)
from circuits.features.files.reading import read_transcoders
from circuits.features.files.tensors import WeightsFormatError
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder_set import DictionaryMismatch
from circuits.model.hub import HubError, open_repository
from tests import format_writers as writers
from tests.conftest import cached_subject
from tests.hub_server import COMMIT, Hub, running_hub
from tests.tiny import toy_dictionary

pytestmark = pytest.mark.usefixtures("either_system")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub(tmp_path / "cache", monkeypatch) as running:
        yield running


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b", Reference("a/b")),
        ("a/b/c/d@v2", Reference("a/b", "c/d", "v2")),
        ("hf://a/b/c.npz", Reference("a/b", "c.npz")),
        ("hf://a/b/c%20d?revision=x%2Fy", Reference("a/b", "c d", "x/y")),
        ("a", None),
        ("./a/b", None),
        ("/a/b", None),
        ("a//b", None),
        ("hf://[x", None),
        ("hf://[::1]/b", None),
        ("hf://", None),
        ("hf://a/b?revision=[", Reference("a/b", "", "[")),
    ],
)
def test_references_are_taken_apart(text: str, expected: Reference | None):
    assert parse_reference(text) == expected


def test_a_set_of_folders_per_layer_is_named_without_the_layer():
    files = (
        "clt/width_9/params_layer_0.safetensors",
        "all/layer_0_width_9_l0_small/params.safetensors",
        "all/layer_10_width_9_l0_small/params.safetensors",
        "all/layer_10_width_9_l0_small_affine/params.safetensors",
    )
    assert chosen(files, "all/width_9_l0_small") == {
        "layer_0/params.safetensors": files[1],
        "layer_10/params.safetensors": files[2],
    }
    assert chosen(files, "clt/width_9") == {"params_layer_0.safetensors": files[0]}
    assert chosen(files, "all/width_9") == {}


def test_every_layer_gives_the_nearest_l0():
    files = tuple(
        f"layer_{layer}/{width}/average_l0_{l0}/params.npz"
        for layer, width, l0 in [
            (0, "width_16k", 5),
            (0, "width_16k", 76),
            (1, "width_16k", 65),
            (1, "width_65k", 70),
        ]
    )
    assert chosen(files, "width_16k/average_l0_70") == {
        "layer_0/params.npz": files[1],
        "layer_1/params.npz": files[2],
    }
    assert chosen(files, "width_16k/average_l0_6")["layer_0/params.npz"] == files[0]


def test_a_set_on_the_hub_is_read_at_its_commit(server: Hub, tmp_path: Path):
    made = toy_dictionary(skip=True)
    (tmp_path / "made" / "transcoder_all").mkdir(parents=True)
    writers.gemma_scope_2(made, tmp_path / "made" / "transcoder_all")
    (tmp_path / "made" / "README.md").write_text("-")
    server.publish("org/scope", tmp_path / "made")
    read = read_transcoders("org/scope/transcoder_all/width_20_l0_small")
    assert all(
        torch.equal(got.encoder, expected.encoder)
        for got, expected in zip(read.layers, made.layers, strict=True)
    )
    assert read.identity.name == "org/scope/transcoder_all/width_20_l0_small"
    assert read.identity.revision == COMMIT
    assert "README.md" not in server.fetched
    assert len(server.fetched) == 6


def test_one_layer_alone_is_a_set_of_one(server: Hub, tmp_path: Path):
    made = toy_dictionary()
    folder = tmp_path / "made"
    folder.mkdir()
    writers.gemma_scope_2(made, folder)
    server.publish("org/scope", folder)
    for reference in ("org/scope/layer_2_width_20_l0_small", folder / "layer_2_width_20_l0_small"):
        read = read_transcoders(reference)
        assert read.partial
        assert [layer.d_dict for layer in read.layers] == [0, 0, 20]
        assert torch.equal(read.layers[2].encoder, made.layers[2].encoder)


def test_a_list_of_references_may_repeat_its_last_file(server: Hub, tmp_path: Path):
    made = toy_dictionary(cross_layer=True, skip=True)
    files, folder = tmp_path / "files", tmp_path / "list"
    (files / "clt").mkdir(parents=True)
    folder.mkdir()
    writers.gemma_scope_2_cross_layer(made, files / "clt")
    server.publish("google/scope", files)
    listed = [f"hf://google/scope/clt/params_layer_{n}.safetensors" for n in (0, 1, 2, 2)]
    (folder / "config.yaml").write_text(
        "model_kind: cross_layer_transcoder\nfeature_input_hook: mlp.hook_in\n"
        "feature_output_hook: hook_mlp_out\ntranscoders:\n"
        + "".join(f"- {entry}\n" for entry in listed)
    )
    read = read_transcoders(folder)
    assert [layer.n_written for layer in read.layers] == [3, 2, 1]
    for got, expected in zip(read.layers, made.layers, strict=True):
        assert torch.equal(got.decoders[0], expected.decoders[0])
        assert got.skip is not None
        assert torch.equal(got.skip, expected.skip)


def test_what_was_fetched_is_there_without_the_hub(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "made"
    folder.mkdir()
    writers.circuit_tracer(toy_dictionary(), folder)
    server.publish("org/set", folder)
    before = read_transcoders("org/set")
    fetched = len(server.fetched)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    again = read_transcoders("org/set")
    assert again.identity == before.identity
    assert len(server.fetched) == fetched
    with pytest.raises(
        HubError, match=r"'org/other' could not be opened: .* the local cache has no copy"
    ):
        open_repository("org/other")


@pytest.mark.parametrize("revision", ["", "@main", "@v1", f"@{COMMIT}"])
def test_a_named_revision_is_there_without_the_hub(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str
):
    folder = tmp_path / "made"
    folder.mkdir()
    writers.circuit_tracer(toy_dictionary(), folder)
    server.publish("org/set", folder)
    server.publish("org/set", folder, branch="v1")
    before = read_transcoders(f"org/set{revision}")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert read_transcoders(f"org/set{revision}").identity == before.identity
    assert read_transcoders(f"org/set@{COMMIT}").identity == before.identity


def test_a_part_of_a_set_is_not_taken_for_the_whole(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Offline, with one layer in the cache."""
    folder = tmp_path / "made"
    folder.mkdir()
    writers.gemma_scope_2(toy_dictionary(), folder)
    server.publish("org/scope", folder)
    read_transcoders("org/scope/layer_1_width_20_l0_small")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert len(read_transcoders("org/scope/layer_1_width_20_l0_small").layers) == 2
    with pytest.raises(HubError, match=r"layer_0_width_20_l0_small/.* of 'org/scope' could not be"):
        read_transcoders("org/scope/width_20_l0_small")
    # Fetched by another tool, it is not known what else there is.
    shutil.rmtree(tmp_path / "cache" / "headwater")
    frozen = cached_subject("llama").frozen
    with pytest.raises(DictionaryMismatch, match="for 1 of 3 layers, which may not be all"):
        read_transcoders("org/scope/width_20_l0_small").fitted(frozen)
    read = read_transcoders("org/scope/layer_1_width_20_l0_small")
    assert [layer.d_dict for layer in read.fitted(frozen).layers] == [0, 20, 0]


def test_a_list_names_the_commits_of_its_files(server: Hub, tmp_path: Path):
    files, folder = tmp_path / "files", tmp_path / "list"
    for made in (files, folder):
        made.mkdir()
    writers.circuit_tracer(toy_dictionary(), files)
    server.publish("org/set", files)
    listed = "".join(f"- hf://org/set/layer_{n}.safetensors\n" for n in range(3))
    hooks = "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    (folder / "config.yaml").write_text(f"{hooks}transcoders:\n{listed}")
    revision = read_transcoders(folder).identity.revision
    assert revision is not None
    assert revision.startswith("sha256:")
    assert revision.endswith(f", org/set@{COMMIT}")


HOOKS = "feature_input_hook: ln2.hook_normalized\nfeature_output_hook: hook_mlp_out\n"


def first_list(files: list[str], order: tuple[int, ...] = (2, 0, 1)) -> str:
    """A list as circuit-tracer 0.1 had them (circuit_tracer/configs), layers in any order."""
    entries = "".join(
        f'  - id: "toy-{layer}"\n    layer: {layer}\n    filepath: "{files[layer]}"\n\n'
        for layer in order
    )
    return f'model_name: "toy/model"\n{HOOKS}\ntranscoders:\n{entries}'


def test_a_list_of_circuit_tracer_0_1_is_read_from_wherever_its_files_are(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One beside the list, one by its whole path, one on the Hub at a revision of its own."""
    made, other = tmp_path / "made", tmp_path / "other"
    for folder in (made, other):
        folder.mkdir()
    writers.circuit_tracer(toy_dictionary(skip=True), made)
    writers.circuit_tracer(toy_dictionary(), other)  # without skips
    (other / "layer_2.safetensors").unlink()
    server.publish("org/set", other)
    server.publish("org/set", made, branch="new-training")
    lists = tmp_path / "lists"
    (lists / "near").mkdir(parents=True)
    shutil.copy(made / "layer_0.safetensors", lists / "near")
    files = [
        "near/layer_0.safetensors",
        str(made / "layer_1.safetensors"),
        "hf://org/set/layer_2.safetensors?revision=new-training",
    ]
    path = lists / "toy-relu.yaml"
    path.write_text(first_list(files))
    read = read_transcoders(path)
    assert (read.read, read.write) == (ReadPoint.NORMALISED, WritePoint.CONTRIBUTION)
    assert read.identity.kind == "transcoder"
    for got, expected in zip(read.layers, toy_dictionary(skip=True).layers, strict=True):
        assert torch.equal(got.encoder, expected.encoder)
        assert torch.equal(got.decoders[0], expected.decoders[0])
        assert got.skip is not None
        assert expected.skip is not None
        assert torch.equal(got.skip, expected.skip)
    assert str(read.identity.revision).count("sha256:") == 2  # the list and its files here
    shutil.copy(other / "layer_0.safetensors", lists / "near")
    assert read_transcoders(path).identity.revision != read.identity.revision
    # circuit-tracer looks from where it is run.
    path.write_text(first_list(["made/layer_0.safetensors", *files[1:]]))
    with pytest.raises(WeightsFormatError, match=r"lists 'made/layer_0.safetensors', which is no"):
        read_transcoders(path)
    monkeypatch.chdir(tmp_path)
    expected = toy_dictionary(skip=True).layers[0].encoder
    assert torch.equal(read_transcoders(path).layers[0].encoder, expected)


def test_gemma_scope_1_is_read_by_a_list_of_circuit_tracer_0_1(server: Hub, tmp_path: Path):
    writers.gemma_scope_1(toy_dictionary(), tmp_path / "made")
    server.publish("google/scope", tmp_path / "made")
    inside = "hf://google/scope/layer_{0}/width_20/average_l0_3{0}/params.npz"
    path = tmp_path / "gemmascope-l0-0.yml"
    path.write_text(first_list([inside.format(layer) for layer in range(3)]))
    read = read_transcoders(path)
    for got, expected in zip(read.layers, toy_dictionary().layers, strict=True):
        assert torch.equal(got.encoder, expected.encoder)
    assert read.identity.name == "gemmascope-l0-0.yml"
    path.write_text(first_list([inside.format(layer) for layer in (0, 2, 1)]))
    assert read_transcoders(path).identity.revision != read.identity.revision


@pytest.mark.parametrize(
    ("order", "change", "message"),
    [
        ((0, 2), ("", ""), "lists layers 0, 2: expected every layer from 0 on"),
        ((1, 2), ("", ""), "lists layers 1, 2: expected every layer from 0 on"),
        ((0, 1, 2, 1), ("", ""), "lists layer 1 twice: keep one of them"),
        ((0, 1, 2), ("layer: 1", "layer: one"), "a number as `layer` and a file as `filepath`"),
        ((0, 1, 2), ("filepath", "file"), "a number as `layer` and a file as `filepath`"),
        ((0, 1, 2), ("  - id", "  - a.safetensors\n  - id"), "a number as `layer` and a file as"),
    ],
)
def test_a_list_that_does_not_say_which_layer_is_which_is_refused(
    order: tuple[int, ...], change: tuple[str, str], message: str, tmp_path: Path
):
    writers.circuit_tracer(toy_dictionary(), tmp_path)
    path = tmp_path / "list.yaml"
    files = [f"layer_{layer}.safetensors" for layer in range(3)]
    path.write_text(first_list(files, order).replace(*change, 1))
    with pytest.raises(WeightsFormatError, match=message):
        read_transcoders(path)


def test_a_name_on_the_hub_is_not_looked_for_among_files_here(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, here = tmp_path / "made", tmp_path / "here"
    for made in (folder, here / "layer_0"):
        made.mkdir(parents=True)
    (here / "layer_0.safetensors").touch()
    (here / "layer_0" / "other").touch()
    monkeypatch.chdir(here)
    writers.circuit_tracer(toy_dictionary(), folder)
    server.publish("org/set", folder)
    for reference in ("org/set", "hf://org/set"):
        assert len(read_transcoders(reference).layers) == 3


def test_a_broken_download_goes_on_or_says_so(server: Hub, tmp_path: Path):
    folder = tmp_path / "made"
    folder.mkdir()
    writers.circuit_tracer(toy_dictionary(), folder)
    server.publish("org/set", folder)
    server.broken = 1
    assert len(read_transcoders("org/set").layers) == 3


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("org/none", "'org/none' could not be opened: the Hugging Face Hub has no such repository"),
        ("org/set@v9", "its repository has no such revision"),
        ("org/secret", "its repository is gated, request access there and run `hf auth login`"),
        ("org/set/clt/width_1", "There is no 'clt/width_1' in 'org/set' on the Hub: it has clt/wi"),
        ("no such folder", "There is no 'no such folder': give a folder, or a name on the"),
    ],
)
def test_what_is_not_available_is_refused_in_one_sentence(
    server: Hub, tmp_path: Path, reference: str, message: str
):
    folder = tmp_path / "made" / "clt" / "width_20"
    folder.mkdir(parents=True)
    writers.circuit_tracer(toy_dictionary(), folder)
    server.publish("org/set", tmp_path / "made")
    server.publish("org/secret", folder)
    server.gated.add("org/secret")
    with pytest.raises((HubError, LocationError)) as raised:
        read_transcoders(reference)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_of_everything_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(4):
        (tmp_path / str(number)).touch()
    assert len(find_location(tmp_path).files) == 4
    monkeypatch.setattr(circuits.features.files.locations, "MOST_FILES", 3)
    with pytest.raises(LocationError, match="has more than 3 files: give the folder"):
        find_location(tmp_path)


def test_a_place_of_a_folder_lists_its_files(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.json").write_text("{}")
    location = find_location(tmp_path)
    assert location.files == ("sub/a.json",)
    assert location.path("sub/a.json").read_text() == "{}"
    assert location.revision is None
