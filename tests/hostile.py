"""Hostile commands: any command with any values, drawn anew for every number, and what must hold.

Commands, arguments and options are those that the app has, so a new one is covered by itself: by
what its parameter is called, or else by the type that it takes.
"""

from __future__ import annotations

import inspect
import os
import re
import resource
import shutil
import signal
import socket
import time
import typing
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
import torch
import typer
import typer.core
import typer.testing
from huggingface_hub import constants as hub

import circuits.model.subject
import circuits.training.finished.complete
import headwater.cli.serve
from circuits.model.loading import LoadedModel, load_model
from graphs.core.annotations import annotations_path
from headwater.cli.app import app, command
from tests.hostile_files import HOSTILE, World, damaged
from tests.test_files import little_space
from tests.test_readable import obeyed

SEED = 20261128
LEFTOVERS = ".headwater*"  # names of temporary files and folders
ROOM = 2**31  # bytes beyond what the process has when it begins
PATIENCE = 60  # seconds that no command may take on so small a model
GROUP: Any = typer.main.get_command(app)  # made once, which takes longer than most commands
COMMANDS: Any = {  # those of groups by both words
    " ".join(words): one
    for name in GROUP.commands
    for *words, one in (
        [(name, part, one) for part, one in command(name).commands.items()]
        if isinstance(command(name), typer.core.TyperGroup)
        else [(name, command(name))]
    )
}
WRITE_BACK = ("check", "intervene", "group", "view")  # beside or into the graph that they read
NUMBERS = (
    *("-1", "0", "-0", "1", "2", "99", "1e3", "2.5", "nan", "inf", "-inf", "1e999", "1e-320"),
    *("0x10", "1_0", "٣", " 2", "", "true", "--", "9" * 30, "9" * 5000, "1e9"),
    *(str(2**power) for power in (31, 32, 63, 64)),
)
TEXTS = (
    *("", " ", "\n", HOSTILE, "a\nb", "\udcff", "\u202eabc", "\ufeff", "é" * 300, "a" * 5000),
    *("x" * 255, "x" * 256, "../../../../etc/passwd", "/", ".", "..", "~", "~nobody", "*", "-"),
    *("[bold]x[/bold]", "{}", "{0}", "%s%n", "$(id)", "null", "None", "NaN", "'", '"', "\\"),
    *("hf://[x", "hf://", "hf://a/b", "hf://a/b?revision=[", "a/b@c", "owner/name", "a/b/../c"),
    *("feature:0/1@0", f"feature:{'9' * 30}/1@0", "feature:0/1@99", "token:", "token:\n"),
    *("group:", "supernode:x", "concept:", "concept:x", "layer:-1", "layer:٣", f"layer:{10**30}"),
    *("0/1", "9/9", "/", "1/", "-1/0", f"{10**30}/0", "0/1=", "=", "=1", "feature:0/1@1=nan"),
    *("feature:0/1@1=1e308", "token: =0", "error:0@1=1", "a>b", ">", "f>", "f>j>i"),
    *("head:=0", "head:-1.2=0", f"head:1.{'9' * 30}=0", "head:1.99999=0", "head:4.5.6=0"),
    *("head:1.2@<=0", "head:1.2@1<4=0", "head:1.2@9999=0", "head:1.2\n=0", "head:1.2@f<=0"),
    *("head:1.2>head:1.3", "head:1.2>f", "head:1.2@4<1>head:1.2", "1.2,", ",", "1.2@4<1"),
)
_FIRST = ("model", "tokenizer", "transcoders", "dictionary")  # whose first value fits others
DEVICES = ("cpu", "cuda", "cuda:99", "meta", "abacus", "cpu:-1", "mps", HOSTILE, "", "cpu:0")
NODES = ("feature:0/1@1", "error:1@2", "concept:a", "layer:1", "token:f", "feature", "logit:e")


@dataclass(frozen=True)
class Drawn:
    """One command with all its values."""

    number: int
    command: str
    arguments: list[str]
    scratch: Path
    full: bool  # no file may grow


@dataclass(frozen=True)
class Ended:
    """How it ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float


def draw(number: int, world: World, scratch: Path) -> Drawn:
    """The command of a number: most values are sound, some are not."""
    random = Random(f"{SEED}:{number}")
    scratch = scratch / str(number)
    scratch.mkdir()
    for kind in ("pipe", "folder", "loop", "file"):
        _make(scratch / kind, kind)
    command = random.choice(sorted(COMMANDS))
    values = Values(world, scratch, random, command)
    hints = typing.get_type_hints(inspect.unwrap(COMMANDS[command].callback), include_extras=True)
    needed = {*_ALWAYS, *(random.choice(names) for names in _ONE_OF.get(command, ()))}
    given = [
        param
        for param in COMMANDS[command].params
        if param.required
        or param.name in needed
        or (param.name != "help" and random.random() < 0.1)
    ]
    worst = set(random.sample(range(len(given)), min(len(given), random.choice((0, 0, 1, 1, 2)))))
    options: list[str] = []
    positional: list[str] = []
    for place, param in enumerate(given):
        parts = values.of(param, _inner(hints[param.name]), place in worst)
        (positional if param.param_type_name == "argument" else options).extend(parts)
    if any(value.startswith("-") for value in positional) and random.random() < 0.7:
        positional.insert(0, "--")
    arguments = [*command.split(), *options, *positional]
    if random.random() < 0.02:
        arguments.insert(random.randrange(len(arguments) + 1), random.choice(TEXTS))
    return Drawn(number, command, arguments, scratch, full=random.random() < 0.05)


# Without these a command would load a larger model or work longer than a test may.
_ALWAYS = ("model", "max_features", "width", "l0", "steps", "batch", "length", "shuffled")
_ALWAYS += ("permutations", "random_sets", "carriers", "html")
# And without one of each of these most commands would end before they begin.
_EDITS = ("set_to", "set_to", "set_to", "scale", "add", "steer", "swap")
_PROMPT = ("prompt", "prompt", "prompt", "prompt_file")
_ONE_OF = {
    "check": (("transcoders", "model"), ("features",)),
    "estimate": (_PROMPT,),
    "features": (("dictionary",), _PROMPT),
    "intervene": (("transcoders", "transcoders", "model"), _EDITS),
    "trace": (_PROMPT,),
    "train": (("corpus", "sample"),),
}


def _inner(hint: Any) -> Any:
    """The type of one value."""
    while typing.get_args(hint):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


class Values:
    """Values of parameters, sound or not."""

    def __init__(self, world: World, scratch: Path, random: Random, command: str) -> None:
        self.world, self.scratch, self.random = world, scratch, random
        self.copies = command in WRITE_BACK  # of graphs
        some = random.choice
        pool = {
            "model": (world.models, world.odd_models),
            "tokenizer": (world.models, world.odd_models),
            "transcoders": (world.dictionaries, world.odd_dictionaries),
            "dictionary": (world.dictionaries, world.odd_dictionaries),
            "prompts": (
                world.pairs if command == "audit" else world.texts[:1],
                [*world.texts, *world.pairs, *world.graphs],
            ),
            "prompt_file": ([world.prompt], world.texts + world.graphs),
            "corpus": (world.texts[1:], [str(world.root), world.pairs[0]]),
            "profile": (world.profiles, world.graphs),
            "prompt": (["fjfoi", "f", "jjjjjj"], ["f" * 64, "f" * 63, "wwww", "F", "f\x1b"]),
            "device": (["cpu"], DEVICES),
            "target": (list("eh"), ["ef", "", "w", HOSTILE]),
            "steer": ([f"1@1:{some(world.vectors)}=2"], [f"{v}={some(NUMBERS)}" for v in _PLACES]),
        }
        self.sound: dict[str, Any] = {name: sound for name, (sound, _) in pool.items()}
        self.odd: dict[str, Any] = {name: tuple(odd) for name, (_, odd) in pool.items()}
        places = [f"feature:{random.randrange(3)}/{i}@{1 + i % 5}={i - 4}" for i in range(20)]
        edits = (*places, *(f"{node}=0" for node in NODES))
        self.sound |= dict.fromkeys(("set_to", "scale", "add"), edits)
        heads = ("head:1.2=0", "head:0.1@4=0.5", "head:2.3@j<2=0", "head:1.0@2+=-1")
        self.sound["scale"] += heads
        named = ("only_queries", "only_keys", "only_values", "run_patterns")
        self.sound |= dict.fromkeys(named, ("0.1", "1.2,2.3", "head:1.0"))
        self.sound |= {"attention": ["1.2", "2.0@4", "0.3@j"]}
        self.sound |= dict.fromkeys(("sources", "targets"), NODES)
        self.sound |= dict.fromkeys(("why", "rival", "against"), ("e", "h"))
        self.sound |= {
            "swap": ["f>j", "feature:0/1@1>feature:0/2@1", "head:1.2>head:1.2"],
            "feature": ["0/1"],
        }
        self.sound |= {"edge": ["token>feature", "feature>logit", "token:f>logit"]}
        self.sound |= {"head": ["0.0", "1.3", "2.1"], "key": list("fj"), "query": ["j", "@4"]}
        self.sound |= {"max_features": ["2", "8"], "carriers": ["1"], "random_sets": ["1", "2"]}
        self.sound |= {"width": ["4"], "l0": ["1"], "steps": ["1", "2"], "length": ["8"]}
        self.sound |= {"batch": ["16"], "shuffled": ["16"], "permutations": ["0", "2"]}
        self.sound |= {"probability_mass": ["0.5"], "position": ["-1"], "nodes": ["10", "3000"]}

    def of(self, param: Any, kind: Any, is_odd: bool) -> list[str]:
        """Parts of the command line that give a parameter a value."""
        name = max(param.opts, key=len)
        if kind is bool:
            return [name]
        many = param.multiple or param.nargs == -1
        count = self.random.choice((1, 1, 2, 3)) if many else 1
        if many and param.param_type_name == "argument":
            count = self.random.choice((1, 2, 2, 3))
        values = [self._value(param, kind, is_odd) for _ in range(count)]
        if param.param_type_name == "argument":
            return values
        return [part for value in values for part in (name, value)]

    def _value(self, param: Any, kind: Any, is_odd: bool) -> str:
        name, some = param.name, self.random.choice
        if is_odd and issubclass(kind, Path):
            return self._odd_path(name)
        if is_odd:
            odd = NUMBERS if issubclass(kind, (int, float)) else TEXTS
            own = self.odd.get(name) or odd
            return some(some((odd, own, own)))
        if name in _FIRST and self.random.random() < 0.8:
            return self.sound[name][0]
        if name in self.sound:
            return some(self.sound[name])
        if name == "through":  # of paths nodes, of interventions a block
            return "1" if kind is int else some(NODES)
        if issubclass(kind, Enum):
            return some(list(kind)).value
        if issubclass(kind, Path):
            return self._sound_path(name)
        return some(("1", "0.5")) if kind is float else "1" if kind is int else "f"

    def _sound_path(self, name: str) -> str:
        if name in ("out", "html"):
            return str(self.scratch / f"{name}.{'html' if name == 'html' else 'safetensors'}")
        if name == "folder":
            return str(self.scratch)
        if self.random.random() < 0.6:  # what goes with the first dictionary
            return self._graph(self.random.choice(self.world.graphs[:2]))
        return self._graph(self.random.choice(self.world.graphs))

    def _graph(self, path: str) -> str:
        if not self.copies:
            return path
        for beside in (Path(path), annotations_path(path)):
            if beside.exists():
                shutil.copy(beside, self.scratch)
        return str(self.scratch / Path(path).name)

    def _odd_path(self, name: str) -> str:
        world, some = self.world, self.random.choice
        if name in ("out", "html"):
            return some((*_places(self.scratch), *_names(self.scratch)))
        files = (
            *map(self._graph, world.graphs),
            *world.texts,
            *world.pairs,
            *world.vectors,
            *world.profiles,
        )
        match self.random.randrange(3):
            case 0:
                known = [path for path in self.sound.get(name, ()) if Path(path).exists()]
                return damaged(some(known or world.graphs), self.scratch, self.random)
            case 1:
                return some(world.odd)
            case _:
                return some((*files, *TEXTS, *world.models, str(world.root)))


_PLACES = ("1@1:nowhere", "1@1:/dev/zero", "99@1:x", f"{'9' * 5000}@1:x", "@:", "1@1", "٣@٣:x")


def _make(path: Path, kind: str) -> None:
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case _:
            path.write_text("old")


def _places(scratch: Path) -> list[str]:
    """Where no file can be."""
    inside = ("pipe", "loop", "folder", "file/inside", "none/inside", "loop/inside", "x" * 256)
    return ["/dev/full", "/dev/null", "/", "", "/proc/out", *(str(scratch / n) for n in inside)]


def _names(scratch: Path) -> list[str]:
    """Names that a file may have all the same."""
    names = (HOSTILE.replace("\x7f", ""), "-out", "out.json", "out.pt", "x" * 250, "a\nb", "file")
    return [str(scratch / name) for name in names]


def _close(*given: Any) -> None:
    """In the place of a server that runs: let the port go."""
    for one in given:
        if isinstance(one, socket.socket):
            one.close()


@contextmanager
def tamed(world: World) -> Iterator[None]:
    """No server, browser or network, memory for small work, and sound models are read once."""
    sound: dict[tuple[str, torch.dtype], LoadedModel] = {}

    def load(name: str, **settings: Any) -> LoadedModel:
        if name not in world.models or settings["revision"] is not None:
            return load_model(name, **settings)
        key = name, settings["dtype"]
        if key not in sound:
            sound[key] = load_model(name, **settings)
        return sound[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headwater.cli.serve, "_run", _close)
        patch.setattr(typer.testing, "_get_command", lambda _: GROUP)
        patch.setattr(webbrowser, "open", lambda _: True)
        patch.setattr(circuits.training.finished.complete, "DESCRIBED", 20)
        patch.setattr(circuits.training.finished.complete, "DOCUMENTS", 2)
        patch.setattr(hub, "HF_HUB_OFFLINE", True)
        patch.setattr(circuits.model.subject, "load_model", load)
        with little_memory():
            yield


@contextmanager
def little_memory() -> Iterator[None]:
    """Whatever asks for more than ROOM fails."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


class TooSlow(BaseException):
    """A command hangs."""


@contextmanager
def patience() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ended(drawn: Drawn, world: World) -> Ended:
    """Run a command and see that all holds that must hold."""
    before = seen(world.root)
    start = time.perf_counter()
    with little_space() if drawn.full else nullcontext(), patience():
        result = typer.testing.CliRunner().invoke(app, drawn.arguments)
    found = Ended(result.exit_code, result.stdout, result.stderr, time.perf_counter() - start)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    require_sound(drawn, found)
    assert before.items() ^ seen(world.root).items() == set()
    for folder in (world.root, drawn.scratch):
        assert not list(folder.rglob(LEFTOVERS)), "a temporary file is left"
    return found


def require_sound(drawn: Drawn, found: Ended) -> None:
    """An exit code that says how, one sentence where it failed, and nothing that is obeyed."""
    assert found.code in (0, 1, 2), found.stderr
    said = found.stdout + found.stderr
    assert "Traceback" not in said
    assert not re.search("not enough memory|allocate|MemoryError", said), said
    assert not obeyed(said), obeyed(said)
    if found.code == 2 and not drawn.arguments.count("--help"):
        *remarks, sentence = found.stderr.splitlines()
        assert sentence.startswith("headwater: "), found.stderr
        assert sentence.endswith((".", "`")), sentence
        assert not any(line.startswith("headwater: ") for line in remarks)


def seen(folder: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of all files; whatever is written has another time."""
    found: dict[str, tuple[int, int]] = {}
    for path, _, names in os.walk(folder):
        for name in names:
            told = os.lstat(os.path.join(path, name))  # noqa: PTH118  # names may be no text
            found[os.path.join(path, name)] = told.st_size, told.st_mtime_ns  # noqa: PTH118
    return found


def forget(drawn: Drawn) -> None:
    """Remove what a command wrote."""
    shutil.rmtree(drawn.scratch, ignore_errors=True)
