"""Small file systems for tests of full and read-only disks; they need root, and are left out elsewhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1024 * 1024


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes at `folder` while the block runs; skips the test where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, *, leave: int) -> Path:
    """Fill a disk up to `leave` bytes, also while others write to it; removing the returned file makes room."""
    filler, size = folder / "filler", 0
    with filler.open("wb") as file:
        for chunk in (16 * MIB, MIB, MIB // 16, 4096):
            with contextlib.suppress(OSError):
                while shutil.disk_usage(folder).free >= leave + chunk:
                    os.posix_fallocate(file.fileno(), size, chunk)
                    size += chunk
    return filler


def remount(folder: Path, *, writable: bool) -> None:
    subprocess.run(["mount", "-o", "remount," + ("rw" if writable else "ro"), str(folder)], check=True)
