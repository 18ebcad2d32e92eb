"""A dictionary that does not fit its model is noticed on the prompt itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headwater as hw
from circuits import misfits, read_prompt, read_subject, read_transcoders, trace
from circuits.atlas.shipped import atlas_transcoders
from circuits.attribution.local_replacement import local_replacement, written_at
from circuits.features.hybrid import Filled
from circuits.features.neurons import Neurons
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.subject import Subject
from graphs import AttributionGraph
from tests.format_writers import gemma_scope_1, gemma_scope_2
from tests.test_cli import run
from tests.test_intervene import SETTINGS
from tests.test_partial import partial
from tests.tiny import tiny_prompt, toy_dictionary

PROMPT = "The capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def atlas() -> tuple[Subject, TranscoderSet]:
    return read_subject("atlas-small"), read_transcoders(str(atlas_transcoders("atlas-small")))


def traced(subject: Subject, source: TranscoderSet) -> AttributionGraph:
    return trace(read_prompt(PROMPT, subject.tokenizer), subject, source)


def test_what_is_unexplained_is_the_error_of_each_layer(gemma: Subject):
    source, prompt = toy_dictionary(cross_layer=True, skip=True), tiny_prompt()
    graph = trace(prompt, gemma, source, SETTINGS)
    local = local_replacement(prompt, gemma, source, SETTINGS.targets)
    fit = graph.provenance.fit
    assert fit is not None
    for layer, block in enumerate(local.recording.blocks):
        written = block.contribution[prompt.n_prefix :].numpy()
        error = written_at(local, layer).error[prompt.n_prefix :].numpy()
        variance = written.var(axis=0).sum() * len(written)
        assert fit.unexplained[layer] == pytest.approx(np.square(error).sum() / variance)
        active = int((local.features.on_host.layer == layer).sum())
        assert fit.l0[layer] == active / len(written)


def test_layers_that_a_dictionary_leaves_out_do_not_count(gemma: Subject):
    """All that their MLPs write is error, whatever dictionary the others have."""
    whole = trace(tiny_prompt(), gemma, toy_dictionary(), SETTINGS).provenance.fit
    assert whole is not None
    for source in (partial(), Filled(partial(), Neurons(20))):
        fit = trace(tiny_prompt(), gemma, source, SETTINGS).provenance.fit
        assert fit is not None
        assert fit.unexplained == (None, whole.unexplained[1], None)
        assert fit.l0 == (None, whole.l0[1], None)
        assert fit.overall == whole.unexplained[1]


def test_neurons_and_prompts_of_few_tokens_have_no_fit():
    assert hw.trace(PROMPT, "atlas-small", features="neurons").provenance.fit is None
    assert hw.trace("The capital", "atlas-small").provenance.fit is None


def test_a_dictionary_that_fits_is_not_remarked_on(atlas: tuple[Subject, TranscoderSet]):
    graph = traced(*atlas)
    assert graph.provenance.fit is not None
    assert graph.provenance.fit.overall < 0.1
    assert misfits(graph, *atlas) == ()


@pytest.mark.parametrize("read", [ReadPoint.RESIDUAL, ReadPoint.NORMALISED])
def test_a_wrong_read_point_is_named_with_the_right_one(
    atlas: tuple[Subject, TranscoderSet], read: ReadPoint
):
    subject, source = atlas
    wrong = replace(source, read=read)
    graph = traced(subject, wrong)
    (sentence,) = misfits(graph, subject, wrong)
    assert graph.provenance.fit is not None
    assert f"leaves {graph.provenance.fit.overall:.2g} times the variance" in sentence
    assert sentence.endswith("use --read-at mlp-input --write-at mlp-output.")  # no norm behind


def test_a_dictionary_of_another_model_fits_at_no_point(atlas: tuple[Subject, TranscoderSet]):
    subject, source = atlas
    shuffled = tuple(
        replace(one, encoder=one.encoder.flip(0)) for one in source.layers
    )  # features write what others read
    wrong = replace(source, layers=shuffled)
    (sentence,) = misfits(traced(subject, wrong), subject, wrong)
    assert sentence.endswith(
        "no other read or write point fits, so it may be of another revision, or of another model, "
        "as a base model's is for its chat model."
    )


@pytest.mark.parametrize(("factor", "remarked"), [(0.4, False), (2.5, False), (4.0, True)])
def test_another_number_of_active_features_than_stated_is_remarked_on(
    atlas: tuple[Subject, TranscoderSet], factor: float, remarked: bool
):
    subject, source = atlas
    own = traced(subject, source).provenance.fit
    assert own is not None
    identity = source.identity.model_copy(update={"l0": tuple(factor * l0 for l0 in own.l0)})
    stating = replace(source, identity=identity)
    found = misfits(traced(subject, stating), subject, stating)
    assert bool(found) == remarked
    assert all("its files state" in sentence for sentence in found)


def test_the_command_and_the_library_warn():
    folder = str(atlas_transcoders("atlas-small"))
    given = ("--model", "atlas-small", "--transcoders", folder, "--read-at", "residual")
    assert "does not fit the model" in run("trace", PROMPT, *given).stderr
    model = hw.load("atlas-small")
    wrong = hw.Model(model.subject, replace(model.source, read=ReadPoint.RESIDUAL))
    with pytest.warns(UserWarning, match="use --read-at mlp-input"):
        hw.trace(PROMPT, wrong)


def test_gemma_scope_states_its_number_of_active_features(tmp_path: Path):
    gemma_scope_2(toy_dictionary(write=WritePoint.MLP_OUTPUT), tmp_path / "two")
    assert read_transcoders(tmp_path / "two").identity.l0 == (10.0, 10.0, 10.0)
    for config in (tmp_path / "two").glob("layer_1_*/config.json"):
        content = json.loads(config.read_text())
        del content["l0"]
        config.write_text(json.dumps(content))
    assert read_transcoders(tmp_path / "two").identity.l0 is None  # not of every layer


def test_an_older_set_states_it_in_the_names_of_its_folders(tmp_path: Path):
    gemma_scope_1(toy_dictionary(), tmp_path / "one")
    read = read_transcoders(tmp_path / "one" / "width_20" / "average_l0_40")
    assert read.identity.l0 == (30.0, 31.0, 32.0)
