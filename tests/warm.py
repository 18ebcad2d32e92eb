"""A `headwater` whose imports are done: each command is a fork of one process.

Imports of torch and transformers take five seconds, which is more than most commands of a page.
The program that a page finds hands its folder, arguments and streams to that process, and ends as
the fork ends.
"""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

IMPORTED = (
    "circuits.pipe",
    "transformers.conversion_mapping",
    "transformers.core_model_loading",
    "transformers.models.gemma3.modeling_gemma3",
    "transformers.models.llama.modeling_llama",
)
PROGRAM = """#!{python} -IS
import os, socket, sys
warm = socket.socket(socket.AF_UNIX)
warm.connect({address!r})
socket.send_fds(warm, [repr((os.getcwd(), sys.argv[1:])).encode()], [0, 1, 2])
sys.exit(int(warm.recv(8)))
"""
LONGEST = 65_536  # bytes of a command


@contextmanager
def warm_program(folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A folder for PATH, with a `headwater` that runs in this environment."""
    address = str(folder / "socket")
    program = folder / "headwater"
    program.write_text(PROGRAM.format(python=sys.executable, address=address))
    program.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        number = listening.fileno()
        command = [sys.executable, "-m", "tests.warm", str(number)]
        root = Path(__file__).parents[1]
        with subprocess.Popen(command, cwd=root, env=environment, pass_fds=[number]) as process:
            try:
                yield folder
            finally:
                process.terminate()


def serve(listening: socket.socket) -> None:
    """Import, then fork for each command that comes in."""
    from headwater.cli.app import command
    from headwater.cli.commands import PANELS

    for name in IMPORTED:
        import_module(name)
    for commands in PANELS.values():
        for name in commands:
            command(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that have ended are gone at once
    while True:
        asked, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            _run(asked)
        asked.close()


def _run(asked: socket.socket) -> None:
    from headwater.__main__ import main

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, streams, _, _ = socket.recv_fds(asked, LONGEST, 3)
    folder, arguments = ast.literal_eval(text.decode())
    os.chdir(folder)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0)
    sys.stdout = os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    sys.argv = ["headwater", *arguments]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # the fork ends here, so nothing else would say it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        asked.send(str(code).encode())
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
