"""Circuit tracing: a model and a prompt become an attribution graph."""

from .attribution.estimate import Estimate
from .attribution.target_names import named_targets
from .attribution.trace_settings import Direction, Expansion, TargetSettings, TraceSettings
from .errors import HeadwaterError
from .evaluation.audit import audit
from .evaluation.check import check
from .evaluation.evaluation_settings import AuditSettings, CheckSettings
from .evaluation.profiling import profile, read_texts
from .features.active import FeatureSource
from .features.autoencoders import AutoencoderSet
from .features.files.reading import read_dictionary, read_transcoders
from .features.files.source import SourceChoice, read_source, shipped_transcoders
from .features.firing import Firing, strongest
from .features.hybrid import Filled
from .features.neurons import Neurons
from .features.transcoder import Transcoder
from .features.transcoder_set import TranscoderSet
from .interventions.effects import effects
from .interventions.experiment import Experiment, prepare
from .interventions.from_graph import experiment_on
from .interventions.intervene import Outcomes, at_targets, generate, intervene
from .machine import gigabytes
from .model.frozen import FrozenModel
from .model.loading import load_tokenizer
from .model.prompt import Prompt, opening_ids, own_bos, prompt_from_ids, read_prompt
from .model.prompt_rule import DEFAULT_RULE, PromptRule
from .model.spelling import spell
from .model.subject import Subject, read_subject, subject_of
from .pipe import estimate_trace, trace
from .recording.precision import Precision
from .recording.record import Recording, record
from .training.complete import train_and_measure
from .training.corpus_choice import chosen_corpus
from .training.report import TrainingReport
from .training.run import chosen_run
from .training.settings import TrainSettings

__all__ = [
    "DEFAULT_RULE",
    "AuditSettings",
    "AutoencoderSet",
    "CheckSettings",
    "Direction",
    "Estimate",
    "Expansion",
    "Experiment",
    "FeatureSource",
    "Filled",
    "Firing",
    "FrozenModel",
    "HeadwaterError",
    "Neurons",
    "Outcomes",
    "Precision",
    "Prompt",
    "PromptRule",
    "Recording",
    "SourceChoice",
    "Subject",
    "TargetSettings",
    "TraceSettings",
    "TrainSettings",
    "TrainingReport",
    "Transcoder",
    "TranscoderSet",
    "at_targets",
    "audit",
    "check",
    "chosen_corpus",
    "chosen_run",
    "effects",
    "estimate_trace",
    "experiment_on",
    "generate",
    "gigabytes",
    "intervene",
    "load_tokenizer",
    "named_targets",
    "opening_ids",
    "own_bos",
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
    "shipped_transcoders",
    "spell",
    "strongest",
    "subject_of",
    "trace",
    "train_and_measure",
]
