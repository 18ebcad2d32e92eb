from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from circuits.features.files.reading import WeightsFormatError, read_dictionary, read_transcoders
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import JumpReLU, ReLU, TopK
from tests import format_writers as writers
from tests.tiny import toy_dictionary

F, D, L = 20, 16, 3


def config(folder: Path, **values: object) -> None:
    hooks = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"}
    (folder / "config.yaml").write_text(yaml.safe_dump({**hooks, "scan": "toy", **values}))


def per_layer(folder: Path, change=None, skip: bool = False, **values: object) -> Path:
    """Write the toy dictionary as a per-layer set; `change` edits a layer's tensors."""
    config(folder, model_kind="transcoder_set", **values)
    for number, layer in enumerate(toy_dictionary(skip=skip).layers):
        tensors = {
            "W_enc": layer.encoder,
            "W_dec": layer.decoders[0].contiguous(),
            "b_enc": layer.encoder_bias,
            "b_dec": layer.decoder_bias,
            "activation_function.threshold": layer.nonlinearity.threshold,
        }
        if layer.skip is not None:
            tensors["W_skip"] = layer.skip
        if change is not None:
            change(tensors)
        save_file(tensors, folder / f"layer_{number}.safetensors")
    return folder


def cross_layer(folder: Path, threshold: bool = True) -> Path:
    config(folder, model_kind="cross_layer_transcoder")
    for n, layer in enumerate(toy_dictionary(cross_layer=True).layers):
        encoder = {
            f"W_enc_{n}": layer.encoder,
            f"b_enc_{n}": layer.encoder_bias,
            f"b_dec_{n}": layer.decoder_bias,
        }
        if threshold:
            encoder[f"threshold_{n}"] = layer.nonlinearity.threshold
        save_file(encoder, folder / f"W_enc_{n}.safetensors")
        save_file({f"W_dec_{n}": torch.stack(layer.decoders, 1)}, folder / f"W_dec_{n}.safetensors")
    return folder


@pytest.mark.parametrize("skip", [False, True])
def test_a_per_layer_set_is_read_as_written(tmp_path: Path, skip: bool):
    read = read_transcoders(per_layer(tmp_path, skip=skip))
    for got, expected in zip(read.layers, toy_dictionary(skip=skip).layers, strict=True):
        assert torch.equal(got.encoder, expected.encoder)
        assert torch.equal(got.decoders[0], expected.decoders[0])
        assert torch.equal(got.encoder_bias, expected.encoder_bias)
        assert torch.equal(got.decoder_bias, expected.decoder_bias)
        assert torch.equal(got.nonlinearity.threshold, expected.nonlinearity.threshold)
        assert (got.skip is None) == (not skip)
        assert not skip or torch.equal(got.skip, expected.skip)
    assert (read.identity.kind, read.identity.name) == ("transcoder", "toy")


def test_a_cross_layer_set_is_read_as_written(tmp_path: Path):
    read = read_transcoders(cross_layer(tmp_path))
    expected = toy_dictionary(cross_layer=True)
    assert [layer.n_written for layer in read.layers] == [3 - n for n in range(L)]
    for got, want in zip(read.layers, expected.layers, strict=True):
        assert all(map(torch.equal, got.decoders, want.decoders))
        assert isinstance(got.nonlinearity, JumpReLU)
    assert read.identity.kind == "cross-layer transcoder"


def test_without_a_threshold_it_is_a_relu(tmp_path: Path):
    read = read_transcoders(cross_layer(tmp_path, threshold=False))
    assert isinstance(read.layers[0].nonlinearity, ReLU)


def test_topk_takes_k_from_the_config(tmp_path: Path):
    folder = per_layer(tmp_path, activation="topk", k=7)
    assert read_transcoders(folder).layers[0].nonlinearity == TopK(7, signed=True)


def test_a_list_of_files_takes_topk_from_the_config(tmp_path: Path):
    files = [f"layer_{layer}.safetensors" for layer in range(L)]
    folder = per_layer(tmp_path, activation="topk", k=7, transcoders=files)
    assert read_transcoders(folder).layers[0].nonlinearity == TopK(7, signed=True)


def test_topk_takes_k_from_the_tensors(tmp_path: Path):
    folder = per_layer(tmp_path, change=lambda tensors: tensors.update(k=torch.tensor(6)))
    assert read_transcoders(folder).layers[0].nonlinearity == TopK(6, signed=True)


@pytest.mark.parametrize(
    ("hook", "point"),
    [
        ("hook_resid_mid", ReadPoint.RESIDUAL),
        ("ln2.hook_normalized", ReadPoint.NORMALISED),
        ("mlp.hook_in", ReadPoint.MLP_INPUT),
    ],
)
def test_hooks_name_the_read_points(tmp_path: Path, hook: str, point: ReadPoint):
    assert read_transcoders(per_layer(tmp_path, feature_input_hook=hook)).read == point


@pytest.mark.parametrize(
    ("hook", "point"),
    [("mlp.hook_out", WritePoint.MLP_OUTPUT), ("hook_mlp_out", WritePoint.CONTRIBUTION)],
)
def test_hooks_name_the_write_points(tmp_path: Path, hook: str, point: WritePoint):
    assert read_transcoders(per_layer(tmp_path, feature_output_hook=hook)).write == point


def damage(folder: Path, name: str) -> None:
    path = folder / "layer_1.safetensors"
    if name == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "missing":
        path.unlink()
    elif name == "no config":
        (folder / "config.yaml").unlink()
    elif name == "bad yaml":
        (folder / "config.yaml").write_text("{a: [")
    elif name == "list":
        (folder / "config.yaml").write_text("- 1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated", "layer_1.safetensors is damaged or incomplete"),
        ("empty", "layer_1.safetensors is damaged or incomplete"),
        ("missing", "layer_1.safetensors is missing"),
        ("no config", "do not specify where they read and write: give --read-at"),
        ("bad yaml", "cannot be read as YAML"),
        ("list", "must contain keys and values, got list"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, name: str, message: str):
    damage(per_layer(tmp_path), name)
    with pytest.raises(WeightsFormatError, match=message) as caught:
        read_transcoders(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("b_enc"), "lacks b_enc; it has"),
        (lambda t: t["b_enc"].__setitem__(3, float("nan")), "encoder bias in .* has NaN"),
        (lambda t: t.update(W_dec=torch.tensor(1.0)), r"decoder .* shape"),
        (lambda t: t.update(W_enc=torch.zeros(5)), r"encoder .* shape \(5,\)"),
        (lambda t: t.update(b_dec=torch.zeros(5)), r"encoder .* shape \(20, 16\)"),
        (lambda t: t.update(W_skip=torch.zeros(16, 5)), r"skip .* shape \(16, 5\)"),
    ],
)
def test_damaged_tensors_are_refused(tmp_path: Path, change, message: str):
    with pytest.raises(WeightsFormatError, match=message):
        read_transcoders(per_layer(tmp_path, change=change))


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_numbers_that_are_no_weights_are_refused(tmp_path: Path, dtype: torch.dtype):
    folder = per_layer(tmp_path)
    path = folder / "layer_1.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "W_dec": tensors["W_dec"].to(dtype)}, path)
    with pytest.raises(WeightsFormatError, match=rf"decoder in .* is stored as {dtype}, expected"):
        read_transcoders(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_kind": "sae"}, "model_kind 'sae': expected one of transcoder_set"),
        ({"feature_input_hook": "hook_embed"}, "feature_input_hook 'hook_embed': expected one"),
        ({"feature_output_hook": None}, "feature_output_hook None: expected one"),
        ({"activation": "topk"}, "k is None"),
        ({"activation": "topk", "k": True}, "k is True"),
        ({"model_kind": ["a"]}, "model_kind"),
        ({"feature_input_hook": ["a"]}, "feature_input_hook"),
    ],
)
def test_unknown_settings_are_refused(tmp_path: Path, values: dict[str, object], message: str):
    folder = per_layer(tmp_path)
    config(folder, **{"model_kind": "transcoder_set", **values})
    with pytest.raises(WeightsFormatError, match=message):
        read_transcoders(folder)


def test_the_revision_names_the_content(tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        per_layer(folder)
    first = read_transcoders(one).identity.revision
    assert first == read_transcoders(other).identity.revision
    (other / "report.json").write_text("{}")
    assert first == read_transcoders(other).identity.revision
    per_layer(other, change=lambda tensors: tensors["b_dec"].add_(1))
    assert first != read_transcoders(other).identity.revision


def test_without_a_config_the_points_must_be_given(tmp_path: Path):
    per_layer(tmp_path)
    (tmp_path / "config.yaml").unlink()
    points = {"read": ReadPoint.NORMALISED, "write": WritePoint.MLP_OUTPUT}
    read = read_transcoders(tmp_path, **points)
    assert (read.read, read.write) == tuple(points.values())
    assert torch.equal(read.layers[1].encoder, toy_dictionary().layers[1].encoder)


def test_points_that_are_given_win_over_the_files(tmp_path: Path):
    read = read_transcoders(per_layer(tmp_path), read=ReadPoint.RESIDUAL)
    assert (read.read, read.write) == (ReadPoint.RESIDUAL, WritePoint.CONTRIBUTION)


def test_matrices_that_can_only_be_turned_are(tmp_path: Path):
    def turn(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("W_enc", "W_dec"):
            tensors[name] = tensors[name].T.contiguous()

    read = read_transcoders(per_layer(tmp_path, change=turn))
    for got, expected in zip(read.layers, toy_dictionary().layers, strict=True):
        assert torch.equal(got.encoder, expected.encoder)
        assert torch.equal(got.decoders[0], expected.decoders[0])


def test_an_unknown_folder_is_refused_and_named(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        WeightsFormatError, match=r"not a dictionary in a known format \(it has notes"
    ):
        read_transcoders(tmp_path)


@pytest.mark.parametrize(
    ("write", "made", "gone", "sentence"),
    [
        (
            writers.saelens,
            {},
            "blocks.1/cfg.json",
            "lacks blocks.1/cfg.json or blocks.1/config.json, the config of "
            "blocks.1/sae_weights.safetensors",
        ),
        (
            writers.sparsify,
            {"nonlinearity": "topk"},
            "layers.1.mlp/cfg.json",
            "lacks layers.1.mlp/cfg.json, the config of layers.1.mlp/sae.safetensors",
        ),
        (
            writers.openmoss,
            {},
            "layer1_transcoder_8x_k64/config.json",
            "lacks layer1_transcoder_8x_k64/cfg.json or layer1_transcoder_8x_k64/config.json, "
            "the config of layer1_transcoder_8x_k64/sae_weights.safetensors",
        ),
        (
            writers.gemma_scope_2,
            {},
            "layer_1_width_20_l0_small/config.json",
            "layer_1_width_20_l0_small/params.safetensors has no config.json beside it",
        ),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_a_config_that_is_missing_is_named_and_nothing_is_guessed_without_it(
    write: writers.Writer, made: dict, gone: str, sentence: str, alone: bool, tmp_path: Path
):
    """One of three layers, or the folder of this layer by itself."""
    write(toy_dictionary(**made), tmp_path)
    (tmp_path / gone).unlink()
    folder = gone.partition("/")[0]
    place, said = tmp_path, sentence
    if alone:
        place, said = tmp_path / folder, sentence.replace(f"{folder}/", "")
    for read in (read_transcoders, read_dictionary):
        with pytest.raises(WeightsFormatError) as caught:
            read(place)
        assert said in str(caught.value)
        assert "autoencoder" not in str(caught.value)
        assert "download it with the weights" in str(caught.value)


def test_llama_scope_weights_without_their_config_are_refused(tmp_path: Path):
    (tmp_path / "layer_3" / "checkpoints").mkdir(parents=True)
    save_file(
        {"encoder.weight": torch.zeros(2, 3)}, tmp_path / "layer_3/checkpoints/final.safetensors"
    )
    message = "lacks layer_3/hyperparams.json, the config of layer_3/checkpoints/final.safe"
    for read in (read_transcoders, read_dictionary):
        with pytest.raises(WeightsFormatError, match=message):
            read(tmp_path)


def test_layers_that_write_differently_need_one_word_only(tmp_path: Path):
    writers.gemma_scope_2(toy_dictionary(), tmp_path)
    path = tmp_path / "layer_1_width_20_l0_small/config.json"
    config = json.loads(path.read_text())
    config["hf_hook_point_out"] = "model.layers.1.mlp.output"
    path.write_text(json.dumps(config))
    with pytest.raises(WeightsFormatError, match="have different read or write points"):
        read_transcoders(tmp_path)
    read = read_transcoders(tmp_path, write=WritePoint.CONTRIBUTION)
    assert (read.read, read.write) == (ReadPoint.MLP_INPUT, WritePoint.CONTRIBUTION)
