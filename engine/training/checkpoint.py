"""Checkpoints on disk: folders that take their name only when whole, and are believed only when every hash verifies.

Called by the training loop. A checkpoint is `checkpoints/000123/` with `state.safetensors` (tensors), `state.json`
(plain facts) and `manifest.json` (size and SHA-256 of both, written last). No pickle, and nothing is ever deleted that
is not first replaced by a checkpoint that was read back.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from engine.errors import VocableError
from engine.files import make_folder, sync_folder, write_atomically, write_error

KEPT = 3
"""Newest checkpoints of the regular interval that rotation leaves, with all that lie between them."""

KEPT_EVERY = 10
"""Of the older ones, rotation leaves one in so many: a way back to long before a run went wrong."""

_STATE, _FACTS, _MANIFEST = "state.safetensors", "state.json", "manifest.json"
_RESERVE_BYTES = 16 * 1024 * 1024
"""Left free on the disk, for logs and for other programs."""


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    step: int
    tensors: dict[str, Tensor]
    """On the CPU."""
    facts: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, every: int, good: int
) -> Path:
    """Write the checkpoint of `step`, read it back, and only then let go of the oldest ones.

    A whole checkpoint of the same step stays as it is: a run is a function of its seed, so both hold the same.

    Args:
        every: the regular interval in steps; checkpoints off it come from pauses.
        good: newest step known to be good; rotation leaves the regular checkpoint at or before it.

    Raises:
        VocableError: `disk.full`, `disk.write`, or `disk.verify` when the disk gave back something else; the
            checkpoints there are stay untouched.
    """
    path = folder / f"{step:06d}"
    if path.exists():
        if _verifies(path):
            return path
        _quarantine(path)
    make_folder(folder)
    temporary = folder / f"{step:06d}.tmp-{secrets.token_hex(4)}"
    files = {_STATE: save(dict(tensors)), _FACTS: json.dumps(facts, indent=1, sort_keys=True).encode()}
    try:
        temporary.mkdir()
        _check_room(temporary, sum(map(len, files.values())))
        for name, data in files.items():
            write_atomically(temporary / name, data)
        write_atomically(temporary / _MANIFEST, _manifest(files))
        _check_written(temporary)
        os.rename(temporary, path)
        sync_folder(folder)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _rotate(folder, every, good)
    return path


def load_newest(
    folder: Path, *, before: int | None = None, every: int = 1
) -> tuple[Checkpoint | None, tuple[Path, ...]]:
    """The newest checkpoint that verifies, and where those were moved that did not.

    Remains of a writer that was killed are removed; they never were checkpoints.

    Args:
        before: newest step that counts; all of them when None.
        every: only steps that are a multiple of this count.
    """
    moved: list[Path] = []
    try:
        for remains in folder.glob("*.tmp-*"):
            shutil.rmtree(remains, ignore_errors=True)
        paths = _list(folder)
    except OSError as error:
        title = f"The checkpoints in {folder} cannot be read ({error.strerror})."
        raise VocableError("disk.read", title, "Check the disk and the folder's permissions.") from error
    for path in reversed(paths):
        step = int(path.name)
        if step % every or (before is not None and step > before):
            continue
        try:
            return _read(path), tuple(moved)
        except VocableError:
            moved.append(path)
            with suppress(VocableError):  # where it cannot be moved it is passed over just the same
                moved[-1] = _quarantine(path)
    return None, tuple(moved)


def set_aside(folder: Path, *, after: int) -> None:
    """Move the checkpoints beyond step `after` to `quarantine/`: the run went back and will come by here anew."""
    for path in _list(folder):
        if int(path.name) > after:
            _quarantine(path)


def _read(path: Path) -> Checkpoint:
    """Raises VocableError `checkpoint.damaged` when anything is not as the manifest says."""
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        contents = {name: (path / name).read_bytes() for name in (_STATE, _FACTS)}
        if any(manifest[name] != _fingerprint(data) for name, data in contents.items()):
            raise ValueError("a file is not what the manifest says")
        step = int(path.name.partition(".")[0])
        return Checkpoint(path, step, load(contents[_STATE]), json.loads(contents[_FACTS]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise VocableError("checkpoint.damaged", f"The checkpoint {path} is damaged ({error}).") from error


def _check_written(path: Path) -> None:
    """Raises VocableError `disk.verify` unless the folder reads back as its manifest says."""
    try:
        _read(path)
    except VocableError as error:
        title = f"A checkpoint did not read back as it was written. {error.title}"
        raise VocableError("disk.verify", title, "Check the disk; the older checkpoints are untouched.") from error


def _verifies(path: Path) -> bool:
    try:
        _read(path)
    except VocableError:
        return False
    return True


def _list(folder: Path) -> list[Path]:
    """Checkpoints, whole or not, oldest first."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if path.name.isdecimal()), key=lambda path: int(path.name))


def _rotate(folder: Path, every: int, good: int) -> None:
    """Called when the newest checkpoint has been read back. What cannot be removed stays until the next time."""
    with suppress(OSError):
        paths = _list(folder)
        regular = [int(path.name) for path in paths if int(path.name) % every == 0]
        first = min([*regular[-KEPT:], *[step for step in regular if step <= good][-1:]], default=0)
        for path in paths:
            if int(path.name) < first and int(path.name) % (every * KEPT_EVERY):
                _remove(path)


def _remove(path: Path) -> None:
    """Take the name away first: a removal that is broken off leaves nothing that looks like a checkpoint."""
    doomed = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _quarantine(path: Path) -> Path:
    target = path.parent / "quarantine" / f"{path.name}-{secrets.token_hex(4)}"
    make_folder(target.parent)
    try:
        os.rename(path, target)
        sync_folder(target.parent)
    except OSError as error:
        raise write_error(target, error) from error
    return target


def _manifest(files: Mapping[str, bytes]) -> bytes:
    return json.dumps({name: _fingerprint(data) for name, data in files.items()}, indent=1).encode()


def _fingerprint(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 2 * size + _RESERVE_BYTES:
        raise VocableError(
            "disk.full",
            f"There is no room for a checkpoint in {folder.parent}: {free / 1024**2:.0f} MiB are free.",
            "Free some space and resume the run; it goes on from its newest checkpoint.",
        )
