"""What all commands share: the app, its two consoles, and how bad input is answered.

Exit codes: 0 done, 1 done but a check failed, 2 bad usage or bad input.  Bad input is answered
with one sentence on standard error; nothing is written without --out or --html.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console

from circuits.architectures import UnsupportedArchitecture
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

app = typer.Typer(
    help="Circuit tracing and attribution graphs for language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
# Where there is no terminal there is no width either: wide enough for a whole line.
output = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

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
            errors.print(f"headwater: {error}", markup=False)
            raise typer.Exit(2) from error

    return run


def print_json(data: dict[str, object]) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(data, allow_nan=False) + "\n")  # JSON knows no nan
