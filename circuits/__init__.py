"""Circuit tracing: a model and a prompt become an attribution graph."""

import circuits.elementary
from circuits.estimate import Estimate
from circuits.expand import Expansion
from circuits.frozen import FrozenModel
from circuits.neurons import Neurons
from circuits.recording import Recording, record
from circuits.subject import Subject, read_subject
from circuits.targets import Direction, TargetSettings
from circuits.tokens import Prompt, read_prompt
from circuits.trace import TraceSettings, estimate_trace, trace
from circuits.transcoder import Transcoder
from circuits.transcoders import TranscoderSet
from circuits.weights import read_transcoders

__all__ = [
    "Direction",
    "Estimate",
    "Expansion",
    "FrozenModel",
    "Neurons",
    "Prompt",
    "Recording",
    "Subject",
    "TargetSettings",
    "TraceSettings",
    "Transcoder",
    "TranscoderSet",
    "estimate_trace",
    "read_prompt",
    "read_subject",
    "read_transcoders",
    "record",
    "trace",
]

circuits.elementary.call_first()
