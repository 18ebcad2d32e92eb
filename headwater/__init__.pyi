from .attending import attention_scores, heads
from .comparing import Comparison, compare
from .edits import Add, Scale, SetTo, Steer, Swap
from .errors import ArgumentError, HeadwaterError
from .graph import Graph, read
from .intervening import Effects, intervene
from .model import Model, load
from .outputs.formats import FormatError
from .printed import printed
from .tracing import trace

__all__ = [
    "Add",
    "ArgumentError",
    "Comparison",
    "Effects",
    "FormatError",
    "Graph",
    "HeadwaterError",
    "Model",
    "Scale",
    "SetTo",
    "Steer",
    "Swap",
    "attention_scores",
    "compare",
    "heads",
    "intervene",
    "load",
    "printed",
    "read",
    "trace",
]
