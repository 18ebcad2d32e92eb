from .errors import HeadwaterError
from .graph import Graph, Node, read
from .model import Model, load
from .tracing import trace

__all__ = [
    "Graph",
    "HeadwaterError",
    "Model",
    "Node",
    "load",
    "read",
    "trace",
]
