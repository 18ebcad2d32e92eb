"""Dictionaries are evaluated as one would by hand, with hooks of torch on the model itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.evaluation.evaluate import Evaluation, evaluate
from circuits.evaluation.evaluation_settings import Ablated, EvaluationSettings
from circuits.evaluation.replacement import Replacement
from circuits.evaluation.windows import NONE, windows_of
from circuits.features.autoencoders import Autoencoder, AutoencoderSet
from circuits.features.points import Site
from circuits.features.transcoder import BatchTopK, JointTopK, JumpReLU, ReLU, Transcoder
from circuits.features.transcoder_set import DictionaryMismatch, TranscoderSet
from circuits.model.prompt import Prompt, PromptError
from circuits.recording.record import record
from graphs import DictionaryIdentity
from tests.conftest import cached_subject
from tests.test_cli import run
from tests.tiny import tiny_prompt, toy_dictionary

IDS = (1, 5, 9, 5, 14, 8, 3, 17, 20, 6, 11)
PROMPT = tiny_prompt(IDS)
LAYER = 1
# Of each architecture the module of layer 1 whose output (heads: input) is at a site.
MODULES = {
    "gemma-3": {
        Site.RESIDUAL: "",
        Site.MLP: "post_feedforward_layernorm",
        Site.MLP_OUTPUT: "mlp",
        Site.ATTENTION: "post_attention_layernorm",
        Site.HEADS: "self_attn.o_proj",
    },
    "granite": {Site.MLP: "mlp", Site.ATTENTION: "self_attn"},  # both are multiplied
    "gpt-2": {Site.HEADS: "attn.c_proj"},
    "gpt-neox": {Site.RESIDUAL: ""},
    "mixtral": {Site.MLP: "mlp"},
}
PLACES = [(name, site) for name, sites in MODULES.items() for site in sites]


def near(value: float):
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def orthogonal(width: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.linalg.qr(torch.randn(width, width, generator=generator).double()).Q


def width_of(name: str, site: Site) -> int:
    return cached_subject(name).frozen.blocks[LAYER].output.shape[1] if site == Site.HEADS else 16


def autoencoder(site: Site, encoder: Tensor, decoder: Tensor, shift: float = 0.0) -> AutoencoderSet:
    width = encoder.shape[1]
    weights = Transcoder(
        encoder,
        encoder.new_zeros(len(encoder)),
        (decoder,),
        encoder.new_full((width,), shift),
        ReLU(),
    )
    identity = DictionaryIdentity(kind="autoencoder", name="toy")
    return AutoencoderSet((Autoencoder(LAYER, site, weights),), identity)


def exact(name: str, site: Site) -> AutoencoderSet:
    """Reconstructs every vector: relu(Qx) and relu(-Qx) with Q orthogonal."""
    both = torch.cat([orthogonal(width_of(name, site)), -orthogonal(width_of(name, site))])
    return autoencoder(site, both, both)


def random_autoencoder(name: str, site: Site) -> AutoencoderSet:
    generator = torch.Generator().manual_seed(5)
    width = width_of(name, site)
    rows = (torch.randn(30, width, generator=generator, dtype=torch.float64) for _ in range(2))
    return autoencoder(site, *rows, shift=0.25)


def loss_by_hand(
    name: str, changes: dict[nn.Module, Callable[[Tensor], Tensor | None]], ids: tuple = IDS
) -> float:
    """Mean loss of predictions behind position 0, with the outputs of modules changed there."""
    model = cached_subject(name).frozen.model
    with torch.no_grad(), ExitStack() as hooks:
        for module, change in changes.items():

            def hook(_: nn.Module, __: object, output, change=change):
                vectors = output[0] if isinstance(output, tuple) else output
                made = change(vectors[0, 1:])
                if made is None:
                    return None
                made = torch.cat([vectors[:, :1], made[None]], 1)
                return (made, *output[1:]) if isinstance(output, tuple) else made

            hooks.callback(module.register_forward_hook(hook).remove)
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    return float(torch.nn.functional.cross_entropy(logits[1:-1], torch.tensor(ids[2:])))


def patched_by_hand(name: str, site: Site, change: Callable[[Tensor], Tensor | None]) -> float:
    """Its loss with the vectors at a site of layer 1 changed."""
    frozen = cached_subject(name).frozen
    block = frozen.modules[LAYER]
    module = block.get_submodule(MODULES[name][site])
    if site != Site.HEADS:
        factor = frozen.residual_multiplier if site in (Site.MLP, Site.ATTENTION) else 1.0

        def scaled(vectors: Tensor) -> Tensor | None:
            made = change(vectors * factor)
            return None if made is None else made / factor

        return loss_by_hand(name, {module: scaled})

    def before(_: nn.Module, given: tuple[Tensor]):
        made = change(given[0][0, 1:])
        return None if made is None else (torch.cat([given[0][:, :1], made[None]], 1),)

    handle = module.register_forward_pre_hook(before)
    try:
        return loss_by_hand(name, {})
    finally:
        handle.remove()


@pytest.mark.parametrize(("name", "site"), PLACES)
def test_an_exact_dictionary_costs_nothing(name: str, site: Site):
    found = evaluate(PROMPT, cached_subject(name), exact(name, site))
    (one,) = found.sites
    assert (one.layer, one.site, found.tokens) == (LAYER, site, 10)
    assert one.unexplained == near(0.0)
    assert one.loss.delta == pytest.approx(0.0, abs=1e-6)  # norms of transformers are in float32
    assert one.loss.recovered is None or one.loss.recovered == pytest.approx(1.0, abs=1e-4)
    assert one.l0 == near(width_of(name, site))  # of each pair one is active


@pytest.mark.parametrize(("name", "site"), PLACES)
def test_losses_are_those_of_hooks_on_the_model(name: str, site: Site):
    subject, chosen = cached_subject(name), random_autoencoder(name, site)
    weights, own = chosen.autoencoders[0].weights, list[Tensor]()

    def reconstruct(vectors: Tensor) -> Tensor:
        return (vectors @ weights.encoder.T).relu() @ weights.decoders[0] + weights.decoder_bias

    found = evaluate(PROMPT, subject, chosen)
    mean = evaluate(PROMPT, subject, chosen, EvaluationSettings(ablated=Ablated.MEAN))
    (one,) = found.sites
    assert found.loss == near(patched_by_hand(name, site, own.append))
    assert one.loss.patched == near(patched_by_hand(name, site, reconstruct))
    assert one.loss.ablated == near(patched_by_hand(name, site, torch.zeros_like))
    at_mean = patched_by_hand(name, site, lambda v: v.mean(0).expand_as(v))
    assert mean.sites[0].loss.ablated == near(at_mean)
    assert abs(at_mean - one.loss.ablated) > 1e-6
    on = (own[0] @ weights.encoder.T).relu() > 0
    error = (own[0] - reconstruct(own[0])).square().sum() / (own[0] - own[0].mean(0)).square().sum()
    assert one.unexplained == near(float(error))
    assert one.l0 == near(float(on.sum()) / 10)
    assert one.dead == near(float((~on.any(0)).sum()) / 30)


def test_a_dictionary_that_writes_nothing_is_the_ablation():
    chosen = random_autoencoder("gemma-3", Site.RESIDUAL)
    weights = chosen.autoencoders[0].weights
    encoder = weights.encoder
    silent = autoencoder(Site.RESIDUAL, encoder, torch.zeros_like(encoder))
    (one,) = evaluate(PROMPT, cached_subject("gemma-3"), silent).sites
    assert one.loss.patched == one.loss.ablated
    assert one.loss.recovered in (0.0, None)
    assert replace(one.loss, own=one.loss.ablated - 1).recovered == 0.0
    assert replace(one.loss, own=one.loss.ablated).recovered is None


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("cross_layer", [False, True])
def test_transcoders_are_patched_alone_and_together(cross_layer: bool, skips: bool):
    """Cross-layer: at one layer stands all that features of it and of those below write there."""
    subject = cached_subject("gemma-3")
    chosen = toy_dictionary(cross_layer=cross_layer, skip=skips, higher_skips=skips and cross_layer)
    read: dict[int, Tensor] = {}

    def reconstruct(layer: int) -> Tensor:
        total = chosen.layers[layer].decoder_bias
        for source in range(layer + 1):
            weights, offset = chosen.layers[source], layer - source
            pre = read[source] @ weights.encoder.T + weights.encoder_bias
            assert isinstance(weights.nonlinearity, JumpReLU)
            active = torch.where(pre > weights.nonlinearity.threshold, pre, 0).relu()
            if offset < len(weights.decoders):
                total = total + active @ weights.decoders[offset]
            skip = weights.skip_to(offset)
            total = total if skip is None else total + read[source] @ skip.T
        return total

    def by_hand(layers: list[int]) -> float:
        blocks = subject.frozen.modules
        changes: dict[nn.Module, Callable[[Tensor], Tensor | None]] = {}
        for layer, block in enumerate(blocks):
            norm, post = (
                block.get_submodule(f"{name}_feedforward_layernorm") for name in ("pre", "post")
            )
            changes[norm] = lambda vectors, layer=layer: read.__setitem__(layer, vectors)
            if layer in layers:
                changes[post] = lambda _, layer=layer: reconstruct(layer)
        return loss_by_hand("gemma-3", changes)

    found = evaluate(PROMPT, subject, chosen)
    assert [one.layer for one in found.sites] == [0, 1, 2]
    assert found.loss == near(by_hand([]))
    assert [one.loss.patched for one in found.sites] == [near(by_hand([i])) for i in range(3)]
    assert found.together is not None
    assert found.together.patched == near(by_hand([0, 1, 2]))
    some = evaluate(PROMPT, subject, chosen, EvaluationSettings(layers=(2, 1)))
    assert some.sites == found.sites[1:]
    assert some.together is not None
    assert some.together.patched == near(by_hand([1, 2]))
    alone = evaluate(PROMPT, subject, chosen, EvaluationSettings(layers=(1,)))
    assert (alone.sites, alone.together) == (found.sites[1:2], None)


@pytest.mark.parametrize("length", [4, 5, 11, 40])
@pytest.mark.parametrize("n_prefix", [0, 1, 3])
def test_every_token_counts_once_in_one_window_or_in_several(length: int, n_prefix: int):
    windows = windows_of(tiny_prompt(IDS, n_prefix), cached_subject("gemma-3"), length)
    assert windows.tokens == len(IDS) - n_prefix
    assert tuple(windows.ids[windows.counted].tolist()) == IDS[n_prefix:]
    assert windows.following[windows.counted].tolist() == [*IDS[n_prefix + 1 :], NONE]
    assert set(windows.following[~windows.counted].tolist()) <= {NONE}
    front = max(1, n_prefix)  # BOS stands in front of every window
    assert {tuple(row[:front]) for row in windows.ids.tolist()} == {IDS[:front]}
    assert len(windows) == max(1, -(-(len(IDS) - front) // (length - front)))


def test_a_text_in_windows_has_the_losses_of_its_windows():
    subject, chosen = cached_subject("gemma-3"), toy_dictionary()
    found = evaluate(PROMPT, subject, chosen, EvaluationSettings(window=6))
    assert (found.windows, found.tokens) == (2, 10)
    # The first window of 5 tokens behind BOS predicts the first of the second.
    first, second = (1, *IDS[1:6], IDS[6]), (1, *IDS[6:])
    expected = (
        5 * loss_by_hand("gemma-3", {}, first) + 4 * loss_by_hand("gemma-3", {}, second)
    ) / 9
    assert found.loss == pytest.approx(expected, rel=1e-6)
    parts = [tiny_prompt(ids) for ids in ((1, *IDS[1:6]), second)]
    l0 = [len(chosen.active(subject.frozen, record(subject.frozen, p))) / 3 for p in parts]
    assert sum(one.l0 for one in found.sites) * 10 / 3 == near(sum(l0))


def joint(k: int) -> TranscoderSet:
    chosen = toy_dictionary()
    return replace(chosen, joint=JointTopK(k, tuple(torch.ones(20).double() for _ in range(3))))


@pytest.mark.parametrize("of", ["batch top-k", "joint top-k"])
def test_features_compete_as_they_do_in_a_trace(of: str):
    """Within one window, and without the prefix."""
    subject, layers = cached_subject("gemma-3"), toy_dictionary().layers
    chosen = joint(7)
    if of == "batch top-k":
        chosen = replace(
            chosen,
            joint=None,
            layers=tuple(replace(one, nonlinearity=BatchTopK(3)) for one in layers),
        )
    windows = windows_of(PROMPT, subject, 6)
    model = Replacement(subject.frozen, chosen)
    model.logits(windows.ids, None, counted=windows.counted)
    for row, counted in enumerate(windows.counted):
        text = tiny_prompt(tuple(windows.ids[row, : 1 + int(counted.sum())].tolist()))
        active = chosen.active(subject.frozen, record(subject.frozen, text))
        expected = [tuple(place) for place in active.places()]
        found = [
            (layer, pos, index)
            for layer, one in sorted(model.activations.items())
            for pos, index in (one[row] * counted[:, None]).nonzero().tolist()
        ]
        assert found == expected


def test_what_cannot_be_evaluated_is_refused_in_one_sentence():
    subject, chosen = cached_subject("gemma-3"), toy_dictionary()
    with pytest.raises(
        PromptError, match="needs 2 tokens behind the prefix positions, and this te"
    ):
        evaluate(tiny_prompt((1, 5)), subject, chosen)
    for window, sentence in (
        (65, "context holds 64: choose a shorter"),
        (1, "no room behind the 1"),
    ):
        with pytest.raises(PromptError, match=sentence):
            evaluate(PROMPT, subject, chosen, EvaluationSettings(window=window))
    with pytest.raises(DictionaryMismatch, match="'toy' has no layer 7: choose among 0, 1, 2"):
        evaluate(PROMPT, subject, chosen, EvaluationSettings(layers=(7,)))


def test_vectors_without_variance_have_no_share_unexplained():
    text = Prompt("bbbb", (1, 1, 1, 1), ("b",) * 4, 0)
    (one,) = evaluate(text, cached_subject("llama"), random_autoencoder("llama", Site.HEADS)).sites
    assert one.unexplained is None


TEXT = "The capital of the state containing Dallas is Austin"


@pytest.fixture(scope="module")
def atlas() -> Evaluation:
    subject = circuits.read_subject("atlas-small")
    reference = circuits.shipped_transcoders(subject)
    assert reference is not None
    prompt = circuits.read_prompt(TEXT, subject.tokenizer)
    return circuits.evaluate(prompt, subject, circuits.read_dictionary(reference))


def test_the_command_prints_what_the_library_finds(atlas: Evaluation, tmp_path: Path):
    (tmp_path / "text.txt").write_text(f"{TEXT}\n")
    told = run(
        *("features", "--prompt-file", tmp_path / "text.txt", "--model", "atlas-small"),
        *("--evaluate", "--json"),
    )
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == atlas.as_json()
    shown = run("features", TEXT, "--model", "atlas-small", "--evaluate").stdout
    assert max(map(len, shown.splitlines())) <= 80
    one = atlas.sites[3]
    row = next(line for line in shown.splitlines() if line.split()[:1] == ["3"])
    assert row.split() == [
        *("3", f"{one.unexplained:.3f}", f"{one.l0:.1f}", f"{one.dead:.1%}"),
        *(f"{one.loss.patched:.3f}", f"{one.loss.delta:+.3f}", f"{one.loss.ablated:.3f}"),
        f"{one.loss.recovered:.3f}",
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--evaluate", "--top", "3"), "--evaluate lists no features: leave out --top."),
        (("--window", "8"), "--window belongs to an evaluation: give --evaluate with it."),
        (("--ablated", "mean"), "--ablated belongs to an evaluation: give --evaluate with it."),
    ],
)
def test_options_of_a_list_and_of_an_evaluation_exclude_each_other(options: tuple, sentence: str):
    refused = run("features", TEXT, "--model", "atlas-small", *options)
    assert refused.exit_code == 2
    assert refused.stderr == f"headwater: {sentence}\n"
