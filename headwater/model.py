"""A model, and the features that stand in for its MLPs: loaded once, for many traces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from circuits.atlas.shipped import DEFAULT_MODEL
from circuits.features.active import FeatureSource
from circuits.features.files.source import SourceChoice, read_source
from circuits.features.hybrid import Filled
from circuits.features.neurons import Neurons
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.subject import Subject, read_subject, subject_of
from headwater.errors import ArgumentError

FEATURES = ("neurons",)


@dataclass(frozen=True, repr=False)
class Model:
    """A model that is ready to be traced."""

    subject: Subject
    source: FeatureSource  # transcoders, or the model's own neurons

    def __repr__(self) -> str:
        frozen = self.subject.frozen
        dtype = str(frozen.dtype).removeprefix("torch.")
        return (
            f"<headwater.Model {self.subject.identity.name}: {frozen.n_layers} layers of "
            f"{frozen.d_model}, {dtype} on {', '.join(map(str, frozen.devices))}; "
            f"{self._features()}>"
        )

    def choosing(self, most: int) -> FeatureSource:
        """Its features; where these are neurons, the `most` strongest on a prompt."""
        match self.source:
            case Neurons():
                return Neurons(most)
            case Filled():
                return Filled(self.source.transcoders, Neurons(most))
            case _:
                return self.source

    def _features(self) -> str:
        match self.source:
            case Neurons():
                return "its own neurons"
            case Filled():
                return f"{self.source.transcoders.identity.name} and neurons"
            case TranscoderSet():
                return f"{self.source.identity.kind} {self.source.identity.name}"
            case _:
                return type(self.source).__name__


def load(
    model: str | Path | PreTrainedModel | Subject | Model = DEFAULT_MODEL,
    *,
    transcoders: str | Path | None = None,
    features: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Model:
    """Load a model and its transcoders.

    model: atlas-large, atlas-small, gemma-3-270m, smollm2-135m, a folder, a name on the Hub, or a
        transformers model, which stays as it is and where it is.
    transcoders: a folder, or a name on the Hub (`headwater dictionaries` lists them); by default
        those that ship with the model, else its own neurons.
    features: "neurons", to trace those even if transcoders ship with the model.
    tokenizer: of a transformers model, which comes without one.
    revision: commit, tag or branch on the Hub.
    device: "auto" (as many CUDA GPUs as the model needs, the CPU if there is none), "cpu", "cuda",
        "cuda:1", or several, over which its blocks are divided in order: "cuda:0,cuda:1".
    dtype: "float32", "float64" or "bfloat16"; by default the first.

    Raises ArgumentError for arguments that exclude each other, or that a loaded model has settled,
    and as `circuits.read_subject` and
    `circuits.read_source`.
    """
    settled = {"tokenizer": tokenizer, "revision": revision, "device": device, "dtype": dtype}
    _require_unsettled(model, settled)
    if isinstance(model, Model) and transcoders is None and features is None:
        return model
    if features is not None and features not in FEATURES:
        raise ArgumentError(f'features is "neurons" or None, got {features!r}.')
    if features is not None and transcoders is not None:
        raise ArgumentError("transcoders and features exclude each other: give one of them.")
    subject = _subject(model, tokenizer, revision, device or "auto", dtype or "float32")
    choice = SourceChoice(
        None if transcoders is None else str(transcoders), neurons=features is not None
    )
    return Model(subject, read_source(subject, choice))


def _require_unsettled(model: object, given: dict[str, object]) -> None:
    """Raises ArgumentError for arguments that a model which is loaded already would ignore."""
    if isinstance(model, str | Path):
        allowed = {"revision", "device", "dtype"}
    else:
        allowed = {"tokenizer"} if isinstance(model, PreTrainedModel) else set[str]()
    for name in given.keys() - allowed:
        if given[name] is not None:
            of = "a name" if isinstance(model, str | Path) else "a model that is loaded already"
            raise ArgumentError(f"{name} has no effect on {of}: leave it out.")


def _subject(
    model: object,
    tokenizer: PreTrainedTokenizerBase | None,
    revision: str | None,
    device: str,
    dtype: str,
) -> Subject:
    match model:
        case Model():
            return model.subject
        case Subject():
            return model
        case PreTrainedModel():
            if tokenizer is None:
                raise ArgumentError(
                    "A transformers model comes without its tokenizer: pass tokenizer=, as in "
                    "AutoTokenizer.from_pretrained(name)."
                )
            return subject_of(model, tokenizer)
        case str() | Path() if Path(model).suffix == ".safetensors":
            raise ArgumentError(f"{model} is no model: hw.read reads the file of a graph.")
        case str() | Path():
            return read_subject(str(model), revision=revision, device=device, dtype=dtype)
        case _:
            raise ArgumentError(
                "model is a name, a folder, a transformers model or what hw.load returned, got "
                f"{type(model).__name__}."
            )
