"""Circuit tracing: a model and a prompt become an attribution graph."""

import circuits.elementary
from circuits.effects import effects
from circuits.estimate import Estimate
from circuits.expand import Expansion
from circuits.experiment import Experiment, prepare
from circuits.frozen import FrozenModel
from circuits.intervene import Outcomes, at_targets, generate, intervene
from circuits.neurons import Neurons
from circuits.recording import Recording, record
from circuits.subject import Subject, read_subject
from circuits.targets import Direction, TargetSettings
from circuits.tokens import Prompt, PromptRule, read_prompt
from circuits.trace import TraceSettings, estimate_trace, trace
from circuits.transcoder import Transcoder
from circuits.transcoders import TranscoderSet
from circuits.weights import read_transcoders

__all__ = [
    "Direction",
    "Estimate",
    "Expansion",
    "Experiment",
    "FrozenModel",
    "Neurons",
    "Outcomes",
    "Prompt",
    "PromptRule",
    "Recording",
    "Subject",
    "TargetSettings",
    "TraceSettings",
    "Transcoder",
    "TranscoderSet",
    "at_targets",
    "effects",
    "estimate_trace",
    "generate",
    "intervene",
    "prepare",
    "read_prompt",
    "read_subject",
    "read_transcoders",
    "record",
    "trace",
]

circuits.elementary.call_first()
