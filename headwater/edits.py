"""The edits of an intervention, with nodes by name."""

from graphs.interventions.edits import Add, Scale, SetTo, Steer, Swap

__all__ = ["Add", "Scale", "SetTo", "Steer", "Swap"]
