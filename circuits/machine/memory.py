"""How much memory this process holds, and how much more the machine can give.

Counted is what no file holds: mapped weights and the page cache are the system's to take back.
"""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

CONTROL_GROUP = Path("/sys/fs/cgroup")  # a container's own limit, where there is one (Linux)


def held_bytes() -> int:
    """Memory of this process that no file holds."""
    memory = psutil.Process().memory_info()
    return memory.rss - getattr(memory, "shared", 0)


def free_bytes() -> int:
    """Memory that the machine can still give to this process."""
    available = psutil.virtual_memory().available
    limited = _left_in_control_group(CONTROL_GROUP)
    return available if limited is None else min(available, limited)


def free_device_bytes(device: torch.device) -> int:
    """Memory that an accelerator can still give to this process; the machine's, for the CPU."""
    if device.type != "cuda":
        return free_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + kept


def _left_in_control_group(group: Path) -> int | None:
    try:
        limit = int((group / "memory.max").read_text())  # "max" where there is none
        current = int((group / "memory.current").read_text())
        counted = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - current + int(counted["inactive_file"]) + int(counted["active_file"])
    except (OSError, ValueError, KeyError):
        return None


def gigabytes(count: int | float) -> str:
    """A number of bytes, to read."""
    return f"{count / 2**30:.1f} GiB"
