"""CPU seconds from the start of a command to its end, and of the imports that it needs.

    python benchmarks/startup.py --out benchmarks/results/startup.md

Each row is a process of its own, run several times; the least user and system time counts.  Graphs
are of the Dallas prompt on atlas-large.  Beside them: an empty Python, and `import torch` with the
class of the model, which every trace needs.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from speed import conditions

PROMPT = "The capital of the state containing Dallas is"
TRACE = ("trace", PROMPT, "--out", "dallas.safetensors")
PRUNE = ("prune", "dallas.safetensors", "--out", "part.safetensors")
IMPORTS = {
    "an empty Python": "pass",
    "import torch": "import torch",
    "import torch and the model's class": (
        "import torch\nfrom transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedModel"
    ),
    "import headwater as hw": "import headwater as hw",
}
COMMANDS = (
    TRACE,
    PRUNE,
    ("--help",),
    ("--version",),
    ("trace", "--help"),
    ("shwo",),
    ("show", "part.safetensors"),
    ("paths", "part.safetensors"),
    ("group", "part.safetensors"),
    ("compare", "part.safetensors", "part.safetensors"),
    ("view", "part.safetensors"),
    ("export", "part.safetensors", "--out", "part.json"),
    ("import", "part.json", "--out", "imported.safetensors"),
    ("dictionaries",),
)


def cpu_seconds(command: list[str], folder: Path, runs: int) -> float:
    """The least CPU time of a few runs in a folder."""
    found: list[float] = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            command,
            cwd=folder,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # waiting threads would count too
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(found)


def table(runs: int) -> str:
    """The results as Markdown."""
    lines = [f"# Starting\n\n{conditions()}\n", "| process | CPU s |", "|---|--:|"]

    def row(name: str, command: list[str], folder: Path) -> None:
        lines.append(f"| {name} | {cpu_seconds(command, folder, runs):.2f} |")
        print(lines[-1], flush=True)

    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, code in IMPORTS.items():
            row(name, [sys.executable, "-c", code], folder)
        for arguments in COMMANDS:
            shown = " ".join(f'"{one}"' if " " in one else one for one in arguments)
            row(f"`headwater {shown}`", [sys.executable, "-m", "headwater", *arguments], folder)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the table here")
    options = parser.parse_args()
    found = table(options.runs)
    if options.out is not None:
        options.out.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
