"""Published sparse autoencoders: read as what they are, and never taken for transcoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from circuits.features.autoencoders import Autoencoder, AutoencoderSet, autoencoder_activations
from circuits.features.files.reading import read_dictionary, read_transcoders
from circuits.features.files.tensors import WeightsFormatError
from circuits.features.points import Site
from circuits.features.transcoder import (
    BatchTopK,
    GroupMax,
    JumpReLU,
    Nonlinearity,
    ReLU,
    TopK,
    Transcoder,
)
from circuits.features.transcoder_set import DictionaryMismatch, TranscoderSet
from circuits.recording.record import record
from graphs import DictionaryIdentity
from tests import format_writers as writers
from tests.conftest import cached_subject
from tests.tiny import tiny_prompt, toy_dictionary
from tests.tolerances import EXACT


def autoencoders(folder: Path, **options: Site) -> tuple[Autoencoder, ...]:
    read = read_dictionary(folder, **options)
    assert isinstance(read, AutoencoderSet)
    return read.autoencoders


def weights(encoder: torch.Tensor, scale: float = 1.0) -> Transcoder:
    """Features without biases that write what they read."""
    none, width = encoder.new_zeros(len(encoder)), encoder.shape[1]
    return Transcoder(encoder, none, (encoder,), encoder.new_zeros(width), ReLU(), read_scale=scale)


def saelens(folder: Path, *, threshold: bool = True, **config: object) -> Path:
    """One SAELens autoencoder, with what its cfg.json says."""
    layer = toy_dictionary().layers[1]
    tensors = {
        "W_enc": layer.encoder.T,
        "W_dec": layer.decoders[0],
        "b_enc": layer.encoder_bias,
        "b_dec": layer.decoder_bias,
    }
    if threshold:
        tensors["threshold"] = writers.threshold(layer)
    writers.store(tensors, folder / "sae_weights.safetensors")
    told = {"architecture": "standard", "hook_name": "blocks.1.hook_resid_post", **config}
    writers.as_json(told, folder / "cfg.json")
    return folder


def sparsify(folder: Path, name: str = "layers.1", **config: object) -> Path:
    """One autoencoder of sparsify's old layout, whose cfg.json says neither kind."""
    layer = toy_dictionary().layers[1]
    tensors = {
        "encoder.weight": layer.encoder,
        "encoder.bias": layer.encoder_bias,
        "W_dec": layer.decoders[0],
        "b_dec": layer.decoder_bias,
    }
    writers.store(tensors, folder / name / "sae.safetensors")
    writers.as_json({"k": 5, "d_in": 16, "num_latents": 0, **config}, folder / name / "cfg.json")
    return folder


@pytest.mark.parametrize("site", [site for site in Site if site != Site.TRANSCODER])
@pytest.mark.parametrize("name", ["gemma-3", "granite", "llama"])
def test_autoencoders_read_what_their_site_says(name: str, site: Site):
    """Identity encoders give the vectors themselves, against what the modules give."""
    subject = cached_subject(name)
    width = subject.frozen.blocks[1].output.shape[1] if site == Site.HEADS else 16
    eye = torch.eye(width).double()
    both = torch.cat([eye, -eye])
    chosen = AutoencoderSet(
        (Autoencoder(1, site, weights(both)),), DictionaryIdentity(kind="autoencoder", name="eye")
    )
    ((_, activations),) = autoencoder_activations(subject.frozen, tiny_prompt(), chosen)
    vectors = activations[:, :width] - activations[:, width:]
    frozen = subject.frozen
    model, layer = frozen.model, frozen.modules[1]
    names = {
        Site.RESIDUAL: "",
        Site.MLP: "post_feedforward_layernorm" if name == "gemma-3" else "mlp",
        Site.MLP_OUTPUT: "mlp",
        Site.ATTENTION: "post_attention_layernorm" if name == "gemma-3" else "self_attn",
        Site.HEADS: "self_attn.o_proj",
    }
    seen: list[torch.Tensor] = []
    module = layer.get_submodule(names[site])

    def keep(_, given, made):
        kept = given if site == Site.HEADS else made
        seen.append((kept[0] if isinstance(kept, tuple) else kept)[0])

    handle = module.register_forward_hook(keep)
    with torch.no_grad():
        model(input_ids=torch.tensor([tiny_prompt().ids]))
    handle.remove()
    if name == "granite" and site in (Site.MLP, Site.ATTENTION):  # what is added to the stream
        seen[0] = seen[0] * frozen.config.residual_multiplier
    torch.testing.assert_close(vectors[1:], seen[0][1:], **EXACT)
    assert not activations[0].any()
    block = record(frozen, tiny_prompt()).blocks[1]
    if site == Site.MLP:
        # A recording in float64 computes norms exactly, transformers in float32.
        torch.testing.assert_close(seen[0], block.contribution, rtol=1e-4, atol=1e-6)


def test_a_crosscoder_reads_several_residual_streams(tmp_path: Path):
    """Gemma Scope 2's folder crosscoder/layer_{a}_{b}_…: one file per layer that is read."""
    folder = tmp_path / "layer_0_2_width_20_l0_medium"
    layers = toy_dictionary(cross_layer=True, n_layers=2).layers
    writers.gemma_scope_2_cross_layer(toy_dictionary(cross_layer=True, n_layers=2), folder)
    told = {"type": "crosscoder", "hf_hook_point_in": "model.layers.{0,2}.output"}
    writers.as_json(told, folder / "config.json")
    read = autoencoders(folder)
    assert [one.layer for one in read] == [0, 2]
    subject = cached_subject("gemma-3")
    seen = record(subject.frozen, tiny_prompt())
    dictionary = AutoencoderSet(read, DictionaryIdentity(kind="autoencoder", name="crosscoder"))
    for (one, activations), layer in zip(
        autoencoder_activations(subject.frozen, tiny_prompt(), dictionary), layers, strict=True
    ):
        block = seen.blocks[one.layer]
        after = block.mlp_residual + block.contribution
        threshold = writers.threshold(layer)
        pre = after @ layer.encoder.T + layer.encoder_bias
        expected = torch.where(pre > threshold, pre, 0).relu()
        torch.testing.assert_close(activations[1:], expected[1:], rtol=1e-4, atol=1e-5)
        assert activations.any()
    writers.as_json({**told, "hf_hook_point_in": "model.layers.0.output"}, folder / "config.json")
    with pytest.raises(WeightsFormatError, match=r"expected the layers that the crosscoder reads"):
        read_dictionary(folder)


def test_a_subtracted_bias_is_subtracted_from_what_was_scaled():
    shift = torch.arange(16.0)
    one = Autoencoder(0, Site.MLP, weights(torch.eye(16), scale=2.0), subtracted=shift)
    assert one.activations(torch.zeros(1, 16) + 3).tolist() == [(6 - shift).relu().tolist()]
    with pytest.raises(DictionaryMismatch, match="reads 16 dimensions, the model has 4 there"):
        one.activations(torch.zeros(1, 4))


def test_gemma_scope_autoencoders_are_read(tmp_path: Path):
    made = toy_dictionary()
    writers.gemma_scope_2(made, tmp_path / "two")
    for number in range(3):
        config = tmp_path / "two" / f"layer_{number}_width_20_l0_small" / "config.json"
        told = {"type": "sae", "hf_hook_point_in": f"model.layers.{number}.output"}
        writers.as_json(told, config)
    read = autoencoders(tmp_path / "two")
    assert [one.layer for one in read] == [0, 1, 2]
    assert {one.site for one in read} == {Site.RESIDUAL}
    assert torch.equal(read[2].weights.encoder, made.layers[2].encoder)
    # A single file is what the config beside it says.
    file = tmp_path / "two" / "layer_1_width_20_l0_small" / "params.safetensors"
    assert autoencoders(file)[0].layer == 1
    with pytest.raises(WeightsFormatError, match="of type 'sae', which does not replace an"):
        read_transcoders(file)


def test_gemma_scope_1_does_not_specify_what_it_is(tmp_path: Path):
    writers.gemma_scope_1(toy_dictionary(), tmp_path)
    folder = tmp_path / "layer_1/width_20/average_l0_31"
    with pytest.raises(
        WeightsFormatError, match=r"does not specify what it is: give --site \(resid"
    ):
        read_dictionary(folder)
    assert autoencoders(folder, site=Site.MLP)[0].site == Site.MLP
    assert isinstance(read_dictionary(folder, site=Site.TRANSCODER), TranscoderSet)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architecture": "standard"}, ReLU()),
        ({"architecture": "topk", "k": 5}, TopK(5)),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 6}}, TopK(6)),
    ],
)
def test_saelens_says_what_is_kept(config: dict, expected: Nonlinearity, tmp_path: Path):
    (one,) = autoencoders(saelens(tmp_path, threshold=False, **config))
    assert one.weights.nonlinearity == expected
    assert (one.layer, one.site, one.subtracted) == (1, Site.RESIDUAL, None)


@pytest.mark.parametrize("architecture", ["jumprelu", "batchtopk"])
def test_a_threshold_in_saelens_makes_a_jumprelu(architecture: str, tmp_path: Path):
    folder = saelens(tmp_path, architecture=architecture, k=5, apply_b_dec_to_input=True)
    (one,) = autoencoders(folder)
    assert isinstance(one.weights.nonlinearity, JumpReLU)
    assert one.subtracted is not None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "gated"}, "has architecture 'gated' and activation 'relu'"),
        ({"activation_fn_str": "tanh-relu"}, "activation 'tanh-relu'"),
        ({"architecture": "topk"}, "keeps the k largest features, but k is None"),
        ({"normalize_activations": "layer_norm"}, "normalises its inputs by 'layer_norm'"),
        ({"hook_name": "blocks.1.hook_q"}, "reads 'blocks.1.hook_q': expected one of hook_resid"),
        ({"hook_name": "blocks.0.hook_resid_pre"}, "reads the embedding"),
    ],
)
def test_saelens_that_needs_other_arithmetic_is_refused(config: dict, message: str, tmp_path: Path):
    with pytest.raises(WeightsFormatError, match=message):
        read_dictionary(saelens(tmp_path, threshold=False, **config))


@pytest.mark.parametrize("site", [None, Site.RESIDUAL])
def test_what_enters_a_block_is_what_the_one_below_wrote(site: Site | None, tmp_path: Path):
    folder = saelens(tmp_path, hook_name="blocks.2.hook_resid_pre")
    read = read_dictionary(folder, site=site)
    assert isinstance(read, AutoencoderSet)
    assert (read.autoencoders[0].layer, read.autoencoders[0].site) == (1, Site.RESIDUAL)


@pytest.mark.parametrize(
    ("name", "config", "site"),
    [
        ("layers.1", {}, Site.RESIDUAL),
        ("layers.1.mlp", {}, Site.MLP_OUTPUT),
        ("layers.1.mlp", {"transcode": False}, Site.MLP_OUTPUT),
    ],
)
def test_sparsify_autoencoders_are_read(name: str, config: dict, site: Site, tmp_path: Path):
    folder = sparsify(tmp_path, name, **config)
    (one,) = autoencoders(folder)
    assert (one.layer, one.site, one.weights.nonlinearity) == (1, site, TopK(5))
    assert one.subtracted is not None
    with pytest.raises(WeightsFormatError, match="does not replace an MLP"):
        read_transcoders(folder)


@pytest.mark.parametrize(
    ("config", "expected"),
    [({"activation": "groupmax"}, GroupMax(5)), ({"activation": "batchtopk"}, BatchTopK(5))],
)
def test_sparsify_says_what_is_kept(config: dict, expected: Nonlinearity, tmp_path: Path):
    assert autoencoders(sparsify(tmp_path, **config))[0].weights.nonlinearity == expected


def test_what_the_fork_normalised_is_scaled(tmp_path: Path):
    path = sparsify(tmp_path) / "layers.1" / "sae.safetensors"
    stored = {name: tensor.float() for name, tensor in load_file(path).items()}
    norms = {"in_norm": torch.tensor([8.0]), "out_norm": torch.tensor([6.0])}
    writers.store({**stored, **norms}, path)
    (one,) = autoencoders(tmp_path)
    assert one.weights.read_scale == 16**0.5 / 8.0
    # Outputs were divided by what their norm was; the bias is subtracted from the scaled input.
    written = one.weights.written(0, torch.eye(20)) + one.weights.decoder_bias
    torch.testing.assert_close(written, (stored["W_dec"] + stored["b_dec"]) * (6.0 / 16**0.5))
    assert one.subtracted is not None
    torch.testing.assert_close(one.subtracted, stored["b_dec"])


def test_openmoss_autoencoders_are_read(tmp_path: Path):
    layer = toy_dictionary().layers[1]
    tensors = {
        "W_E": layer.encoder.T,
        "b_E": layer.encoder_bias,
        "W_D": layer.decoders[0],
        "b_D": layer.decoder_bias,
    }
    writers.store(tensors, tmp_path / "sae_weights.safetensors")
    hook = "blocks.1.hook_resid_post"
    config = {"sae_type": "sae", "act_fn": "topk", "top_k": 4, "hook_point_in": hook}
    writers.as_json({**config, "hook_point_out": hook}, tmp_path / "config.json")
    (one,) = autoencoders(tmp_path)
    assert (one.layer, one.site, one.weights.nonlinearity) == (1, Site.RESIDUAL, TopK(4))
    assert torch.equal(one.weights.encoder, layer.encoder)
    with pytest.raises(WeightsFormatError, match="is an autoencoder of blocks"):
        read_transcoders(tmp_path)
