"""Circuit tracing: a model and a prompt become an attribution graph."""

from .atlas.known import KnownCircuit, flow_through_middle, known_circuits
from .attention.attend import attend
from .attention.component_labels import component_labels
from .attention.entries import attention_entries
from .attention.head_nodes import with_head_nodes
from .attention.head_paths import head_paths
from .attention.heads import heads
from .attention.pattern_effects import pattern_effects
from .attention.scores import attention_score, score_pairs
from .attribution.cost import DoesNotFit
from .attribution.estimate import Estimate
from .attribution.target_names import continued, named_targets
from .attribution.trace_settings import Direction, Expansion, TargetSettings, TraceSettings
from .corpora.choice import chosen_corpus
from .errors import HeadwaterError
from .evaluation.ablation import Ablation
from .evaluation.audit import audit
from .evaluation.check import check
from .evaluation.evaluate import Evaluation, PatchedLoss, SiteEvaluation, evaluate
from .evaluation.evaluation_settings import (
    Ablated,
    AuditSettings,
    CheckSettings,
    EvaluationSettings,
)
from .evaluation.mediation import mediations
from .evaluation.misfit import misfits
from .evaluation.paraphrases import trace_paraphrases
from .evaluation.profiling import profile, read_texts, texts_in
from .features.active import FeatureSource
from .features.autoencoders import AutoencoderSet
from .features.files.locations import LocationError
from .features.files.reading import read_dictionary, read_transcoders
from .features.files.source import SourceChoice, SourceError, read_source, shipped_transcoders
from .features.files.tensors import WeightsFormatError
from .features.firing import Firing, strongest
from .features.hybrid import Filled
from .features.kept_in import KeptIn
from .features.labels import FeatureFileError
from .features.neurons import Neurons
from .features.placed import NoRoom
from .features.transcoder import Transcoder
from .features.transcoder_set import DictionaryMismatch, TranscoderSet
from .interventions.effects import effects
from .interventions.experiment import Experiment, prepare
from .interventions.from_graph import experiment_on, traced_with
from .interventions.intervene import Continuations, Outcomes, at_targets, generate, intervene
from .interventions.origin import ExperimentError
from .machine import gigabytes
from .model.architectures import UnsupportedArchitecture
from .model.frozen import DamagedWeights, FrozenModel
from .model.gguf import GgufError
from .model.hub import HubError
from .model.loading import load_tokenizer
from .model.packaged import ModelNotFound
from .model.placement import DeviceError
from .model.prompt import (
    Prompt,
    PromptError,
    TargetError,
    opening_ids,
    own_bos,
    prompt_from_ids,
    read_prompt,
)
from .model.prompt_rule import PromptRule
from .model.spelling import spell
from .model.subject import DataTypeError, Subject, read_subject, subject_of
from .pipe import SettingsError, estimate_trace, trace
from .recording.attention import PrecisionError
from .recording.precision import Precision
from .recording.record import Recording, record
from .training.finished.complete import train_and_measure
from .training.finished.report import TrainingReport
from .training.run import chosen_run
from .training.settings import TrainingError, TrainSettings

__all__ = [
    "Ablated",
    "Ablation",
    "AuditSettings",
    "AutoencoderSet",
    "CheckSettings",
    "Continuations",
    "DamagedWeights",
    "DataTypeError",
    "DeviceError",
    "DictionaryMismatch",
    "Direction",
    "DoesNotFit",
    "Estimate",
    "Evaluation",
    "EvaluationSettings",
    "Expansion",
    "Experiment",
    "ExperimentError",
    "FeatureFileError",
    "FeatureSource",
    "Filled",
    "Firing",
    "FrozenModel",
    "GgufError",
    "HeadwaterError",
    "HubError",
    "KeptIn",
    "KnownCircuit",
    "LocationError",
    "ModelNotFound",
    "Neurons",
    "NoRoom",
    "Outcomes",
    "PatchedLoss",
    "Precision",
    "PrecisionError",
    "Prompt",
    "PromptError",
    "PromptRule",
    "Recording",
    "SettingsError",
    "SiteEvaluation",
    "SourceChoice",
    "SourceError",
    "Subject",
    "TargetError",
    "TargetSettings",
    "TraceSettings",
    "TrainSettings",
    "TrainingError",
    "TrainingReport",
    "Transcoder",
    "TranscoderSet",
    "UnsupportedArchitecture",
    "WeightsFormatError",
    "at_targets",
    "attend",
    "attention_entries",
    "attention_score",
    "audit",
    "check",
    "chosen_corpus",
    "chosen_run",
    "component_labels",
    "continued",
    "effects",
    "estimate_trace",
    "evaluate",
    "experiment_on",
    "flow_through_middle",
    "generate",
    "gigabytes",
    "head_paths",
    "heads",
    "intervene",
    "known_circuits",
    "load_tokenizer",
    "mediations",
    "misfits",
    "named_targets",
    "opening_ids",
    "own_bos",
    "pattern_effects",
    "prepare",
    "profile",
    "prompt_from_ids",
    "read_dictionary",
    "read_prompt",
    "read_source",
    "read_subject",
    "read_texts",
    "read_transcoders",
    "record",
    "score_pairs",
    "shipped_transcoders",
    "spell",
    "strongest",
    "subject_of",
    "texts_in",
    "trace",
    "trace_paraphrases",
    "traced_with",
    "train_and_measure",
    "with_head_nodes",
]
