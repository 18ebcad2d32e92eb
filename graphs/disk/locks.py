"""Locks: one process at a time changes an existing file.

The lock is a file in the same folder, removed on release; the lock file of a killed process is
taken over and removed by the next process that locks.
"""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from graphs.disk.files import GraphFileError, real_path, reason

PATIENCE = 60.0  # seconds; a change takes as long as reading and writing the file
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def locked(path: Path | str) -> Generator[None]:
    """Hold the lock of a file, against other threads and processes.

    On a mount without locks the block runs unlocked.  Raises GraphFileError if the lock cannot be
    made, or is held by another for longer than PATIENCE.
    """
    lock = _acquired(path)
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):  # Windows removes it on release
                Path(lock.lock_file).unlink()  # before release: a waiter then makes a new one
            lock.release()


def _acquired(path: Path | str) -> BaseFileLock | None:
    try:
        final = real_path(path)
        if not final.parent.is_dir():  # FileLock would create it
            raise GraphFileError(f"Cannot write {path}: the folder {final.parent} does not exist.")
        name = sha256(final.name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        lock = FileLock(final.with_name(f".headwater-{name}.lock"))
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise GraphFileError(
            f"{path} is locked by another process that changes it: try again when that is done."
        ) from error
    except GraphFileError:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _NO_LOCKS:
            return None
        raise GraphFileError(f"Cannot write {path}: {reason(error)}.") from error
    return lock
