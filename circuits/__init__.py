"""Circuit tracing: a model and a prompt become an attribution graph."""

import circuits.machine
from circuits.attribution.estimate import Estimate
from circuits.attribution.rows import Expansion
from circuits.attribution.targets import Direction, TargetSettings
from circuits.features.files.reading import read_transcoders
from circuits.features.neurons import Neurons
from circuits.features.transcoder import Transcoder
from circuits.features.transcoder_set import TranscoderSet
from circuits.interventions.effects import effects
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.intervene import Outcomes, at_targets, generate, intervene
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt, PromptRule, read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import TraceSettings, estimate_trace, trace
from circuits.recording.record import Recording, record
from graphs.errors import HeadwaterError

__all__ = [
    "Direction",
    "Estimate",
    "Expansion",
    "Experiment",
    "FrozenModel",
    "HeadwaterError",
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

circuits.machine.warm_up_mkl()
