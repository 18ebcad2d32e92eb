"""What all commands share: the app, how it prints, and how bad input is answered.

Bad input is answered with one sentence on standard error and exit code 2 (`circuits.cli.ending`
has them all); nothing is written without --out or --html.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import typer

from circuits.architectures import UnsupportedArchitecture
from circuits.cli.ending import Commands, complain
from circuits.cli.printing import errors, output, print_json, remark, say
from circuits.cli.usage import UsageError
from circuits.descriptions import FeatureFileError
from circuits.formats.stored import WeightsFormatError
from circuits.frozen import DamagedWeights
from circuits.hub import HubError
from circuits.origin import ExperimentError
from circuits.packaged import ModelNotFound
from circuits.places import PlaceError
from circuits.room import DoesNotFit
from circuits.subject import DeviceError
from circuits.tokens import PromptError, TargetError
from circuits.training.settings import TrainingError
from circuits.transcoders import DictionaryMismatch
from graphs import CyclicGroups, EditError, GraphFileError, SelectionError, TooManyFeatures

__all__ = (
    "INPUT_ERRORS",
    "app",
    "errors",
    "output",
    "plain_errors",
    "print_json",
    "remark",
    "say",
)

app = typer.Typer(
    cls=Commands,
    help="Circuit tracing and attribution graphs for language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
P = ParamSpec("P")
R = TypeVar("R")
INPUT_ERRORS = (
    CyclicGroups,
    DamagedWeights,
    DeviceError,
    DictionaryMismatch,
    DoesNotFit,
    EditError,
    ExperimentError,
    FeatureFileError,
    GraphFileError,
    HubError,
    ModelNotFound,
    PlaceError,
    PromptError,
    SelectionError,
    TargetError,
    TooManyFeatures,
    TrainingError,
    UnsupportedArchitecture,
    UsageError,
    WeightsFormatError,
)


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Answer bad input with one sentence and exit code 2."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except INPUT_ERRORS as error:
            complain(str(error))
            raise typer.Exit(2) from error

    return run
