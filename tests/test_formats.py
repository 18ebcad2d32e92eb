"""Every published format is read as what it was written from, the right way round."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from circuits.features.files.reading import read_transcoders
from circuits.features.files.tensors import WeightsFormatError, mapped
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import (
    BatchTopK,
    GroupMax,
    JointTopK,
    JumpReLU,
    ReLU,
    TopK,
    Transcoder,
)
from circuits.recording.record import record
from tests import format_writers as writers
from tests.conftest import cached_subject
from tests.tiny import tiny_prompt, toy_dictionary
from tests.tolerances import EXACT


@dataclass(frozen=True)
class Format:
    """How a format is written, and what it can say."""

    write: writers.Writer
    folder: str = ""  # what is read, inside what is written
    cross_layer: bool = False
    skip: bool = False
    higher_skips: bool = False
    nonlinearity: str = "jumprelu"  # that the files say
    points: tuple[ReadPoint, WritePoint] = (ReadPoint.MLP_INPUT, WritePoint.CONTRIBUTION)
    biases: bool = True


MLP = (ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
NORMALISED = (ReadPoint.NORMALISED, WritePoint.CONTRIBUTION)
FORMATS = {
    "circuit-tracer": Format(writers.circuit_tracer, skip=True),
    "circuit-tracer clt": Format(writers.circuit_tracer_cross_layer, cross_layer=True),
    "gemma scope 1": Format(
        writers.gemma_scope_1, folder="width_20/average_l0_40", points=NORMALISED
    ),
    "gemma scope 2": Format(writers.gemma_scope_2, folder="width_20_l0_small", skip=True),
    "gemma scope 2 clt": Format(writers.gemma_scope_2_cross_layer, cross_layer=True, skip=True),
    "saelens 6": Format(writers.saelens, skip=True),
    "saelens 5": Format(writers.saelens_5),
    "sparsify": Format(writers.sparsify, skip=True, nonlinearity="topk", points=MLP),
    "clt-training": Format(writers.clt_training, cross_layer=True, nonlinearity="topk", points=MLP),
    "clt-training with skips": Format(
        writers.clt_training,
        cross_layer=True,
        skip=True,
        higher_skips=True,
        nonlinearity="topk",
        points=MLP,
    ),
    "openmoss": Format(writers.openmoss, points=NORMALISED),
    "openmoss clt": Format(writers.openmoss_cross_layer, cross_layer=True, points=NORMALISED),
    "mntss sweep": Format(
        writers.older_sweep,
        cross_layer=True,
        nonlinearity="relu",
        points=(ReadPoint.RESIDUAL, WritePoint.CONTRIBUTION),
    ),
    "joint top-k": Format(
        writers.joint_top_k,
        cross_layer=True,
        nonlinearity="relu",
        points=(ReadPoint.RESIDUAL, WritePoint.MLP_OUTPUT),
        biases=False,
    ),
}


@pytest.mark.parametrize("d_dict", [20, 16])  # 16: every matrix is square
@pytest.mark.parametrize("name", FORMATS)
def test_a_set_is_read_as_it_was_written(name: str, d_dict: int, tmp_path: Path):
    form = FORMATS[name]
    made = toy_dictionary(
        cross_layer=form.cross_layer,
        skip=form.skip,
        higher_skips=form.higher_skips,
        d_dict=d_dict,
    )
    form.write(made, tmp_path)
    read = read_transcoders(tmp_path / form.folder)
    assert len(read.layers) == 3
    for got, expected in zip(read.layers, made.layers, strict=True):
        same(got, expected, form)
    assert (read.read, read.write) == form.points
    kind = "cross-layer transcoder" if form.cross_layer else "transcoder"
    assert read.identity.kind == kind


def same(got: Transcoder, expected: Transcoder, form: Format) -> None:
    """Matrices as matrices: what a transposed one would be is another."""
    assert torch.equal(got.encoder, expected.encoder)
    assert len(got.decoders) == len(expected.decoders)
    for rows, wanted in zip(got.decoders, expected.decoders, strict=True):
        assert torch.equal(rows, wanted)
    if form.biases:
        assert torch.equal(got.encoder_bias, expected.encoder_bias)
        torch.testing.assert_close(got.decoder_bias.double(), expected.decoder_bias, **SINGLE)
    else:
        assert not got.encoder_bias.any()
        assert not got.decoder_bias.any()
    assert (got.skip is not None) == form.skip
    if got.skip is not None:
        assert torch.equal(got.skip, expected.skip)
    assert len(got.higher_skips) == len(expected.higher_skips)
    for skip, wanted in zip(got.higher_skips, expected.higher_skips, strict=True):
        assert torch.equal(skip, wanted)
    kinds = {"jumprelu": JumpReLU, "relu": ReLU, "topk": TopK}
    assert isinstance(got.nonlinearity, kinds[form.nonlinearity])
    if isinstance(got.nonlinearity, JumpReLU):
        torch.testing.assert_close(
            got.nonlinearity.threshold.double(), writers.threshold(expected), **SINGLE
        )


SINGLE = {"rtol": 1e-6, "atol": 1e-6}  # what is added up or taken to the logarithm on the way


def test_offsets_and_scales_of_the_fork_count(tmp_path: Path):
    """What a layer of clt-training says, by its own formula, against what the sweep is given."""
    made = toy_dictionary(cross_layer=True, skip=True, higher_skips=True)
    writers.clt_training(made, tmp_path)
    generator = torch.Generator().manual_seed(3)
    for number, layer in enumerate(made.layers):
        path = tmp_path / f"layers.{number}.mlp" / "sae.safetensors"
        tensors = load_file(path)
        tensors["in_norm"], tensors["out_norm"] = torch.tensor([8.0]), torch.tensor([2.0])
        for j in range(layer.n_written):
            tensors[f"post_encs.{j}"] = torch.rand(20, generator=generator)
            tensors[f"post_enc_scales.{j}"] = torch.rand(20, generator=generator)
        writers.store(tensors, path)
        config = json.loads((path.parent / "cfg.json").read_text())
        told = {"divide_cross_layer": True, "post_encoder_scale": True}
        writers.as_json({**config, **told}, path.parent / "cfg.json")
    read = read_transcoders(tmp_path)
    x = torch.randn(5, 16, generator=generator).double()
    size, total = 16**0.5, torch.zeros(16).double()
    for source in range(3):
        tensors = load_file(tmp_path / f"layers.{source}.mlp" / "sae.safetensors")
        pre = (x * size / 8.0) @ tensors["encoder.weight"].T + tensors["encoder.bias"]
        active = TopK(5)(pre)
        got = read.layers[source].nonlinearity(read.layers[source].pre_activations(x))
        torch.testing.assert_close(got, active, **EXACT)
        added = active + tensors[f"post_encs.{2 - source}"].double() * (active > 0)
        added = added * tensors[f"post_enc_scales.{2 - source}"].double()
        # Three layers write to the last one: what comes from below is divided by 3 - 1.
        share = 1.0 if source == 2 else 0.5
        wanted = added @ tensors[f"W_decs.{2 - source}"] * share * 2.0 / size
        torch.testing.assert_close(read.layers[source].written(2 - source, got), wanted, **EXACT)
        pos, index = got.nonzero(as_tuple=True)
        rows = read.layers[source].decoder_rows(2 - source, index, got[pos, index])
        alone = torch.zeros(5, 16).double().index_add_(0, pos, rows)
        torch.testing.assert_close(alone, wanted, **EXACT)
        total += tensors[f"b_decs.{2 - source}"] * share * 2.0 / size
        skip = read.layers[source].skip_to(2 - source)
        wanted = (x * size / 8.0) @ tensors[f"W_skips.{2 - source}"].T * share * 2.0 / size
        torch.testing.assert_close(x @ skip.T, wanted, **EXACT)
    torch.testing.assert_close(read.layers[2].decoder_bias.double(), total, **SINGLE)


def test_scales_that_the_fork_left_out_are_those_it_began_with(tmp_path: Path):
    writers.clt_training(toy_dictionary(cross_layer=True), tmp_path)
    config = tmp_path / "layers.0.mlp" / "cfg.json"
    writers.as_json({**json.loads(config.read_text()), "post_encoder_scale": True}, config)
    scales = read_transcoders(tmp_path).layers[0].write_scales
    assert scales is not None
    assert [scale.unique().tolist() for scale in scales] == [[1.0], [0.0], [0.0]]


def test_offsets_of_higher_layers_alone_count(tmp_path: Path):
    writers.clt_training(toy_dictionary(cross_layer=True), tmp_path)
    path = tmp_path / "layers.0.mlp" / "sae.safetensors"
    offsets = torch.rand(20)
    writers.store({**load_file(path), "post_encs.1": offsets}, path)
    added = read_transcoders(tmp_path).layers[0].added
    assert added is not None
    assert [bool(vector.any()) for vector in added] == [False, True, False]
    torch.testing.assert_close(added[1], offsets)


@pytest.mark.parametrize("choice", ["topk_coalesced", "secondary_target_tied"])
def test_what_the_fork_chooses_per_written_layer_is_refused(choice: str, tmp_path: Path):
    writers.clt_training(toy_dictionary(cross_layer=True), tmp_path)
    config = tmp_path / "layers.1.mlp" / "cfg.json"
    writers.as_json({**json.loads(config.read_text()), choice: True}, config)
    with pytest.raises(WeightsFormatError, match=rf"{choice}\), .*is not supported"):
        read_transcoders(tmp_path)


@pytest.mark.parametrize("kind", ["concat", "per-layer", "tied"])
def test_decoders_of_the_fork_may_lie_elsewhere(kind: str, tmp_path: Path):
    """In the file of the layer that is written to, or once for all layers."""
    made = toy_dictionary(cross_layer=True)
    writers.clt_training(made, tmp_path)
    for number in range(3):
        path = tmp_path / f"layers.{number}.mlp" / "sae.safetensors"
        stored = load_file(path)
        tensors = {name: stored[name] for name in ("encoder.weight", "encoder.bias", "b_dec")}
        below = [made.layers[source].decoders[number - source] for source in range(number + 1)]
        rows = {"concat": below[-1], "per-layer": torch.cat(below), "tied": below[-1]}
        writers.store({**tensors, "W_dec": rows[kind]}, path)
        config = json.loads((path.parent / "cfg.json").read_text())
        told = {"per_source_tied": True} if kind == "tied" else {"coalesce_topk": kind}
        writers.as_json({**config, **told}, path.parent / "cfg.json")
    read = read_transcoders(tmp_path)
    for source in range(3):
        assert read.layers[source].n_written == 3 - source
        for offset, rows in enumerate(read.layers[source].decoders):
            wanted = {
                "concat": made.layers[source + offset].decoders[0],
                "per-layer": made.layers[source].decoders[offset],
                "tied": made.layers[source].decoders[0],
            }
            assert torch.equal(rows, wanted[kind])


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("groupmax", GroupMax(5)), ("batchtopk", BatchTopK(5)), ("topk", TopK(5))],
)
def test_the_fork_says_what_is_kept(activation: str, expected: object, tmp_path: Path):
    writers.sparsify(toy_dictionary(), tmp_path)
    for number in range(3):
        config = {"k": 5, "activation": activation, "transcode": True}
        writers.as_json(config, tmp_path / f"layers.{number}.mlp" / "cfg.json")
    assert [layer.nonlinearity for layer in read_transcoders(tmp_path).layers] == [expected] * 3


def test_llama_scope_is_read_as_it_was_written(tmp_path: Path):
    """What a layer says of raw inputs, by its own formula."""
    made = toy_dictionary()
    for number, layer in enumerate(made.layers):
        folder = tmp_path / f"Llama3_1-8B-Base-L{number}TC-8x"
        tensors = {
            "encoder.weight": layer.encoder,
            "encoder.bias": layer.encoder_bias,
            "decoder.weight": layer.decoders[0].T,  # (d, F)
            "decoder.bias": layer.decoder_bias,
        }
        writers.store(tensors, folder / "checkpoints" / "final.safetensors")
        config = {
            "hook_point_in": f"blocks.{number}.ln2.hook_normalized",
            "hook_point_out": f"blocks.{number}.hook_mlp_out",
            "jump_relu_threshold": 0.7,
            "dataset_average_activation_norm": {"in": 8.0, "out": 2.0},
        }
        writers.as_json(config, folder / "hyperparams.json")
    read = read_transcoders(tmp_path)
    assert (read.read, read.write) == NORMALISED
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(1)).double()
    for got, layer in zip(read.layers, made.layers, strict=True):
        pre = x * (16**0.5 / 8.0) @ layer.encoder.T + layer.encoder_bias
        active = torch.where(pre > np.float32(0.7), pre, 0)
        features = got.nonlinearity(got.pre_activations(x))
        torch.testing.assert_close(features, active, **EXACT)
        wanted = (active @ layer.decoders[0] + layer.decoder_bias) * 2.0 / 16**0.5
        torch.testing.assert_close(got.written(0, features) + got.decoder_bias, wanted, **SINGLE)


@pytest.mark.parametrize("weighted", [False, True])
def test_openmoss_may_choose_over_all_layers(weighted: bool, tmp_path: Path):
    made = toy_dictionary(cross_layer=True)
    writers.openmoss_cross_layer(made, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"act_fn": "layertopk", "top_k": 6, "sparsity_include_decoder_norm": weighted}
    writers.as_json(config, tmp_path / "config.json")
    read = read_transcoders(tmp_path)
    assert read.joint is not None
    assert read.joint.k == 6
    for layer, sizes in zip(made.layers, read.joint.norms, strict=True):
        norm = torch.stack(layer.decoders).norm(dim=(0, 2)) if weighted else torch.ones(20)
        torch.testing.assert_close(sizes.double(), norm.double(), **SINGLE)
    assert all(isinstance(layer.nonlinearity, ReLU) for layer in read.layers)


def test_openmoss_scales_and_gates_by_decoder_norms(tmp_path: Path):
    made = toy_dictionary()
    writers.openmoss(made, tmp_path)
    for number in range(3):
        folder = tmp_path / f"layer{number}_transcoder_8x_k64"
        tensors = load_file(folder / "sae_weights.safetensors")
        for way, norm in (("ln2.hook_normalized", 8.0), ("hook_mlp_out", 2.0)):
            name = f"dataset_average_activation_norm.blocks.{number}.{way}"
            tensors[name] = torch.tensor(norm)
        writers.store(tensors, folder / "sae_weights.safetensors")
        config = json.loads((folder / "config.json").read_text())
        config |= {"norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True}
        writers.as_json(config, folder / "config.json")
    read, layer = read_transcoders(tmp_path), made.layers[1]
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(1)).double()
    pre = x * (16**0.5 / 8.0) @ layer.encoder.T + layer.encoder_bias
    norm = layer.decoders[0].norm(dim=1)
    active = torch.where(pre * norm > writers.threshold(layer), pre.relu(), 0)
    got = read.layers[1].nonlinearity(read.layers[1].pre_activations(x))
    torch.testing.assert_close(got, active, **EXACT)
    wanted = (active @ layer.decoders[0] + layer.decoder_bias) * 2.0 / 16**0.5
    said = read.layers[1].written(0, got) + read.layers[1].decoder_bias
    torch.testing.assert_close(said, wanted, **SINGLE)


def test_the_joint_largest_are_chosen_over_all_layers():
    """Six features of each token, by activation times decoder norm, wherever they are."""
    generator = torch.Generator().manual_seed(2)
    activations = torch.rand(3, 7, 20, generator=generator)
    norms = torch.rand(3, 20, generator=generator) + 0.1
    joint = JointTopK(6, tuple(norms))
    parts = []
    for layer in range(3):
        kept = joint.candidates(layer, activations[layer])
        pos, index = kept.nonzero(as_tuple=True)
        parts.append([torch.full_like(pos, layer), pos, index, kept[pos, index]])
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    chosen = joint.kept(*columns, activations.shape[1])
    found = {tuple(int(c[i]) for c in columns[:3]) for i in chosen.tolist()}
    sizes = activations * norms[:, None]
    for pos in range(7):
        best = sizes[:, pos].flatten().topk(6).indices.tolist()
        assert {(b // 20, pos, b % 20) for b in best} == {key for key in found if key[1] == pos}
    assert chosen.tolist() == sorted(chosen.tolist())


@pytest.mark.parametrize("stored", [False, True])
def test_byte_dances_set_chooses_k_per_layer_over_all_layers(stored: bool, tmp_path: Path):
    made = toy_dictionary(cross_layer=True)
    writers.joint_top_k(made, tmp_path)
    for number in range(3 * stored):
        path = tmp_path / f"W_dec_{number}.safetensors"
        writers.store({**load_file(path), f"W_dec_norm_{number}": torch.arange(20.0)}, path)
    read = read_transcoders(tmp_path)
    k = json.loads((tmp_path / "config.json").read_text())["k"]
    assert read.joint is not None
    assert read.joint.k == 3 * k
    for layer, norm in zip(made.layers, read.joint.norms, strict=True):
        wanted = torch.stack(layer.decoders).norm(dim=(0, 2))
        torch.testing.assert_close(
            norm.double(), torch.arange(20.0).double() if stored else wanted, **SINGLE
        )
    subject = cached_subject("llama")
    features = read.active(subject.frozen, record(subject.frozen, tiny_prompt()))
    counts = torch.bincount(features.pos, minlength=6)
    assert counts[0] == 0
    assert bool((counts[1:] <= 3 * k).all())
    assert int(counts.max()) == 3 * k


def test_the_largest_of_a_prompt_are_not_chosen_where_there_are_no_features():
    made = toy_dictionary()
    layers = tuple(replace(layer, nonlinearity=BatchTopK(3)) for layer in made.layers)
    subject = cached_subject("llama")
    recording = record(subject.frozen, tiny_prompt())
    features = replace(made, layers=layers).active(subject.frozen, recording)
    assert torch.bincount(features.layer).tolist() == [15, 15, 15]  # of five positions, not six
    assert int(features.pos.min()) == 1


def test_groups_and_batches_keep_their_largest():
    pre = torch.tensor([[1.0, 2.0, -1.0, 0.5], [4.0, 3.0, -2.0, -3.0]])
    assert GroupMax(2)(pre).tolist() == [[0, 2, 0, 0.5], [4, 0, 0, 0]]
    assert BatchTopK(1)(pre).tolist() == [[0, 0, 0, 0], [4, 3, 0, 0]]
    weighted = TopK(1, weight=torch.tensor([1.0, 0.1, 1.0, 9.0]))
    assert weighted(pre).tolist() == [[0, 0, 0, 0.5], [4, 0, 0, 0]]


def test_what_does_not_replace_an_mlp_is_refused(tmp_path: Path):
    writers.gemma_scope_2(toy_dictionary(), tmp_path)
    config = tmp_path / "layer_0_width_20_l0_small" / "config.json"
    told = json.loads(config.read_text())
    writers.as_json({**told, "type": "sae"}, config)
    with pytest.raises(WeightsFormatError, match="of type 'sae', which does not replace an"):
        read_transcoders(tmp_path / "width_20_l0_small")
    clt = tmp_path / "clt"
    clt.mkdir()
    writers.gemma_scope_2_cross_layer(toy_dictionary(cross_layer=True), clt)
    writers.as_json({"type": "crosscoder"}, clt / "config.json")
    with pytest.raises(WeightsFormatError, match="is a crosscoder"):
        read_transcoders(clt)


def test_what_is_said_outside_overrides_what_cannot_be_read(tmp_path: Path):
    points = {"read": ReadPoint.RESIDUAL, "write": WritePoint.MLP_OUTPUT}
    writers.circuit_tracer(toy_dictionary(), tmp_path)
    config = "feature_input_hook: hook_something\nfeature_output_hook: hook_mlp_out\n"
    (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(WeightsFormatError, match="feature_input_hook 'hook_something': expected"):
        read_transcoders(tmp_path)
    read = read_transcoders(tmp_path, **points)
    assert (read.read, read.write) == tuple(points.values())


def test_layers_that_read_differently_need_a_word_from_outside(tmp_path: Path):
    writers.saelens(toy_dictionary(), tmp_path)
    path = tmp_path / "blocks.1" / "cfg.json"
    config = json.loads(path.read_text())
    config["metadata"]["hook_name"] = "blocks.1.ln2.hook_normalized"
    writers.as_json(config, path)
    with pytest.raises(WeightsFormatError, match="have different read or write points"):
        read_transcoders(tmp_path)
    points = {"read": ReadPoint.NORMALISED, "write": WritePoint.CONTRIBUTION}
    assert read_transcoders(tmp_path, **points).read == ReadPoint.NORMALISED


def test_saelens_copies_of_gemma_scope_2_read_behind_the_gain(tmp_path: Path):
    """Whatever TransformerLens name was put beside its own."""
    writers.saelens(toy_dictionary(), tmp_path)
    for number in range(3):
        path = tmp_path / f"blocks.{number}" / "cfg.json"
        config = json.loads(path.read_text())
        config["metadata"] |= {
            "hook_name": f"blocks.{number}.hook_mlp_in",
            "hf_hook_point_in": f"model.layers.{number}.pre_feedforward_layernorm.output",
            "hf_hook_point_out": f"model.layers.{number}.post_feedforward_layernorm.output",
        }
        writers.as_json(config, path)
    read = read_transcoders(tmp_path)
    assert (read.read, read.write) == (ReadPoint.MLP_INPUT, WritePoint.CONTRIBUTION)


def test_one_folder_of_sparsify_reads_where_the_run_said(tmp_path: Path):
    writers.sparsify(toy_dictionary(), tmp_path)
    run = {"hookpoints_in": ["layers.0.post_attention_layernorm"]}
    writers.as_json(run, tmp_path / "config.json")
    assert read_transcoders(tmp_path).read == ReadPoint.RESIDUAL
    assert read_transcoders(tmp_path / "layers.1.mlp").read == ReadPoint.RESIDUAL


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_cross_layer_set_must_be_whole(gone: int, tmp_path: Path):
    writers.clt_training(toy_dictionary(cross_layer=True), tmp_path)
    shutil.rmtree(tmp_path / f"layers.{gone}.mlp")
    with pytest.raises(WeightsFormatError, match=f"is a cross-layer set and lacks layers {gone}"):
        read_transcoders(tmp_path)


def rewritten(path: Path, **changes: object) -> None:
    writers.as_json({**json.loads(path.read_text()), **changes}, path)


def empty_list(folder: Path) -> None:
    writers.circuit_tracer(toy_dictionary(), folder)
    (folder / "config.yaml").write_text("transcoders: []\n")


def no_config(folder: Path) -> None:
    writers.saelens(toy_dictionary(), folder)
    (folder / "blocks.1" / "cfg.json").unlink()


def null_metadata(folder: Path) -> None:
    writers.saelens(toy_dictionary(), folder)
    rewritten(folder / "blocks.1" / "cfg.json", metadata=None)


def normalised(folder: Path) -> None:
    writers.saelens(toy_dictionary(), folder)
    path = folder / "blocks.1" / "cfg.json"
    rewritten(path, normalize_activations="expected_average_only_in")


def no_hooks(folder: Path) -> None:
    writers.openmoss_cross_layer(toy_dictionary(cross_layer=True), folder)
    rewritten(folder / "config.json", hook_points_in=None)


def strange_hooks(folder: Path) -> None:
    writers.openmoss_cross_layer(toy_dictionary(cross_layer=True), folder)
    rewritten(folder / "config.json", hook_points_in={"a": 1})


def layers_in_words(folder: Path) -> None:
    writers.clt_training(toy_dictionary(cross_layer=True), folder)
    rewritten(folder / "layers.1.mlp" / "cfg.json", n_targets="two")


def bias_of_one_number(folder: Path) -> None:
    writers.circuit_tracer(toy_dictionary(), folder)
    path = folder / "layer_1.safetensors"
    writers.store({**load_file(path), "b_enc": torch.tensor(1.0)}, path)


def k_in_words(folder: Path) -> None:
    writers.sparsify(toy_dictionary(), folder)
    rewritten(folder / "layers.1.mlp" / "cfg.json", k="five")


def uneven_groups(folder: Path) -> None:
    writers.sparsify(toy_dictionary(), folder)
    rewritten(folder / "layers.1.mlp" / "cfg.json", activation="groupmax", k=3)


def signed(folder: Path) -> None:
    writers.sparsify(toy_dictionary(), folder)
    rewritten(folder / "layers.1.mlp" / "cfg.json", signed=True)


def some_skips(folder: Path) -> None:
    made = toy_dictionary(cross_layer=True, skip=True, higher_skips=True)
    writers.clt_training(made, folder)
    path = folder / "layers.0.mlp" / "sae.safetensors"
    tensors = load_file(path)
    del tensors["W_skips.2"]
    writers.store(tensors, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (empty_list, "`transcoders` in .* must be a list of files"),
        (no_config, r"lacks blocks.1/cfg.json or blocks.1/config.json, the config of"),
        (null_metadata, "hook_name in .* does not specify a layer"),
        (normalised, "normalises its inputs by 'expected_average_only_in'"),
        (no_hooks, "lacks hook_points_in or hook_points_out"),
        (strange_hooks, r"have unexpected content \(KeyError: 0\)"),
        (layers_in_words, r"have unexpected content \(ValueError: invalid literal"),
        (bias_of_one_number, r"The encoder bias in .* has shape \(\), expected one number per"),
        (k_in_words, "has k 'five' in its cfg.json: expected a positive integer"),
        (uneven_groups, "has 20 features, which is not divisible into 3 groups"),
        (signed, "keeps signed features, which is not supported"),
        (some_skips, "lacks some of its W_skips"),
    ],
)
def test_files_that_make_no_sense_are_refused(
    write: Callable[[Path], None], message: str, tmp_path: Path
):
    write(tmp_path)
    with pytest.raises(WeightsFormatError, match=message) as refused:
        read_transcoders(tmp_path)
    assert "\n" not in str(refused.value)


def test_pickled_arrays_are_refused(tmp_path: Path):
    path = tmp_path / "layer_0" / "params.npz"
    path.parent.mkdir()
    np.savez(path, W_enc=np.array([{}], dtype=object))
    with pytest.raises(WeightsFormatError, match="is damaged or incomplete"):
        read_transcoders(tmp_path)


def test_arrays_stay_in_their_file(tmp_path: Path):
    """Uncompressed ones are mapped; compressed ones are read, and say the same."""
    for name, save in (("plain", np.savez), ("packed", np.savez_compressed)):
        save(tmp_path / f"{name}.npz", a=np.arange(6.0).reshape(2, 3).T, b=np.array(2.0))
    plain, packed = (mapped(tmp_path / f"{name}.npz") for name in ("plain", "packed"))
    assert {key: value.tolist() for key, value in plain.items()} == {
        key: value.tolist() for key, value in packed.items()
    }
    assert plain["a"].shape == (3, 2)
