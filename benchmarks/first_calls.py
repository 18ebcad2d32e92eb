"""How often the first cosines of a process are wrong, with and without the calls before a model.

    python benchmarks/first_calls.py --processes 20000

MKL may give a thread code of low accuracy while another thread calls a function for the first time
(circuits/machine.py).  Processes are forked before any thread is there, and each takes
the cosines of one tensor on more threads than there are cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import torch

from circuits.machine import warm_up_mkl

AT_ONCE = 8
THREADS = 4
ANGLES = 16384
CALLS = {"nothing": lambda: None, "warm_up_mkl": warm_up_mkl}
WRONG = 1e-6  # float32 cosines are right to 6e-8


def is_wrong(angles: torch.Tensor) -> bool:
    """Take cosines on several threads, as the first step of a forward pass does."""
    torch.set_num_threads(THREADS)
    found = angles.cos()
    return bool((found.double() - angles.double().cos()).abs().max() > WRONG)


def count(processes: int) -> int:
    """In how many forked processes the first cosines are wrong."""
    angles, wrong = torch.linspace(0, 128, ANGLES), 0
    for _ in range(0, processes, AT_ONCE):
        children = []
        for _ in range(AT_ONCE):
            child = os.fork()
            if child == 0:
                os._exit(int(is_wrong(angles)))
            children.append(child)
        wrong += sum(os.waitpid(child, 0)[1] != 0 for child in children)
    return wrong


def main() -> None:
    """Count in a process without these calls, and in one with them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=20000)
    parser.add_argument("--after", choices=CALLS, help="count here, after these calls")
    arguments = parser.parse_args()
    if arguments.after:
        CALLS[arguments.after]()
        print(f"{arguments.after}: {count(arguments.processes)} of {arguments.processes} wrong")
        return
    for name in CALLS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--after", name], check=True)


if __name__ == "__main__":
    main()
