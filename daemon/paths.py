"""Where everything of a workspace lies, and which socket its service listens on.

Service and clients call this and so always agree. Folders are created on demand; `state/` and the folder of the
socket belong to one user alone.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from engine.errors import VocableError

ENVIRONMENT = "VOCABLE_WORKSPACE"
SOCKET_ENVIRONMENT = "VOCABLE_SOCKET"
"""Clients connect to the socket that this variable names, wherever it leads, and start no service themselves."""
SETTINGS = "vocable.toml"

SOCKET_NAME = "vocable.sock"
SOCKET_PATH_BYTES = 107
"""A Unix socket's path holds 108 bytes, the last of which is zero."""


@dataclass(frozen=True)
class Workspace:
    """One folder with everything in it."""

    root: Path
    """Absolute and resolved."""
    moved_runs: str = ""
    """Where runs are kept instead of `runs/`, as the settings say it; the service alone needs to know."""

    @property
    def settings(self) -> Path:
        return self.root / SETTINGS

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def embeddings(self) -> Path:
        return self.root / "embeddings"

    @property
    def hypernetworks(self) -> Path:
        return self.root / "hypernetworks"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def templates(self) -> Path:
        return self.root / "templates"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def runs(self) -> Path:
        return self.root / (Path(self.moved_runs).expanduser() if self.moved_runs else "runs")

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def latents(self) -> Path:
        return self.cache / "latents"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    def results(self, kind: str) -> Path:
        """The watched folder that runs of a kind write to."""
        return self.hypernetworks if kind == "hypernetwork" else self.embeddings

    def trash_for(self, file: Path) -> Path:
        """Where a file of a watched folder is kept that is replaced or deleted."""
        return self.trash / "hypernetworks" if file.is_relative_to(self.hypernetworks) else self.trash

    @property
    def shared_socket(self) -> Path:
        """The socket of a service that a group may use, in a folder that the group can enter; `state/` is private."""
        return self.root / "socket" / SOCKET_NAME

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def database(self) -> Path:
        return self.state / "vocable.db"

    @property
    def daemon_log(self) -> Path:
        """Where a detached service writes; one in the foreground writes to stderr."""
        return self.state / "daemon.log"

    @property
    def worker_log(self) -> Path:
        return self.state / "worker.log"

    def create(self) -> None:
        """Make every folder that is missing.

        Raises:
            VocableError: `workspace.unusable` with the folder and the system's reason.
        """
        folders = (
            self.models,
            self.embeddings,
            self.hypernetworks,
            self.datasets,
            self.templates,
            self.inbox,
            self.runs,
        )
        try:
            for folder in (*folders, self.cache, self.trash):
                folder.mkdir(parents=True, exist_ok=True)
            self.state.mkdir(mode=0o700, exist_ok=True)
            self.state.chmod(0o700)
        except OSError as error:
            raise VocableError(
                "workspace.unusable",
                f"The workspace {self.root} cannot be used: {error.filename or self.root}: {error.strerror}.",
                f"Choose another folder with --workspace or ${ENVIRONMENT}, or correct its permissions.",
            ) from None


def find_workspace(option: str | Path | None, environ: Mapping[str, str], cwd: Path) -> Workspace:
    """The workspace of a program: `option`, else $VOCABLE_WORKSPACE, else `cwd` or the one it is a dataset of, else the
    user's."""
    chosen = option or environ.get(ENVIRONMENT)
    if chosen:
        root = cwd / Path(chosen).expanduser()
    elif _is_workspace(cwd):
        root = cwd
    elif cwd.parent.name == "datasets" and _is_workspace(cwd.parent.parent):
        root = cwd.parent.parent
    else:
        root = platformdirs.user_data_path("vocable")
    return Workspace(root.resolve())


def _is_workspace(folder: Path) -> bool:
    """A dataset's own `vocable.toml` is a recipe, not settings."""
    is_dataset = folder.parent.name == "datasets"
    return (folder / "embeddings").is_dir() or ((folder / SETTINGS).is_file() and not is_dataset)


def socket_path(workspace: Workspace, environ: Mapping[str, str]) -> Path:
    """Where the service of a workspace binds its socket: in `state/`, or in a short folder when that is too long."""
    path = workspace.state / SOCKET_NAME
    if _fits(path):
        return path
    return next(candidate for candidate in _short_paths(workspace, environ) if _fits(candidate))


def shared_socket_path(workspace: Workspace) -> Path:
    """Where the service of a workspace binds the socket that a group may use.

    Raises:
        VocableError: `socket.too_long`; the short folders that others use instead are closed to groups.
    """
    path = workspace.shared_socket
    if not _fits(path):
        raise VocableError(
            "socket.too_long",
            f"The socket's path {path} has {len(os.fsencode(path))} bytes; {SOCKET_PATH_BYTES} are possible.",
            "Move the workspace to a shorter path, or take service.group out of vocable.toml.",
        )
    return path


def find_socket(workspace: Workspace, environ: Mapping[str, str]) -> Path:
    """The socket a client connects to; it need not exist.

    A session without $XDG_RUNTIME_DIR still finds a service that was started in one with it, and the reverse.
    """
    if environ.get(SOCKET_ENVIRONMENT):
        return Path(environ[SOCKET_ENVIRONMENT])
    path = socket_path(workspace, environ)
    if not os.path.lexists(path) and os.path.lexists(workspace.shared_socket):
        return workspace.shared_socket
    if path.parent == workspace.state:
        return path
    for candidate in _short_paths(workspace, {**environ, "XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}):
        if _fits(candidate) and not path.exists() and candidate.exists() and folder_fault(candidate.parent) == "":
            return candidate
    return path


def make_private_folder(folder: Path) -> None:
    """Make a folder that only this user can enter, or make sure that the existing one is such a folder.

    Raises:
        VocableError: `socket.unsafe`, since somebody else could put a socket of his own there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fault = folder_fault(folder)
    except OSError as error:
        fault = f"cannot be made ({error.strerror})"
    if fault:
        raise VocableError(
            "socket.unsafe", f"The socket's folder {folder} {fault}.", "Remove it, or move the workspace."
        )


def make_group_folder(folder: Path, group: int) -> None:
    """Make a folder that this user owns and the members of `group` can enter, or make the existing one such a folder.

    Raises:
        VocableError: `socket.unsafe` when it belongs to somebody else, `socket.group` when the system refuses.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise VocableError(
            "socket.unsafe", f"The socket's folder {folder} cannot be made ({error.strerror}).", "Remove what is there."
        ) from None
    try:
        owner = os.fstat(handle).st_uid
        if owner != os.getuid():
            raise VocableError(
                "socket.unsafe", f"The socket's folder {folder} belongs to another user (uid {owner}).", "Remove it."
            )
        os.fchown(handle, -1, group)
        os.fchmod(handle, 0o750)
    except OSError as error:
        raise group_refused(folder, error) from None
    finally:
        os.close(handle)


def group_refused(path: Path, error: OSError) -> VocableError:
    return VocableError(
        "socket.group",
        f"{path} cannot be given to the group that service.group names ({error.strerror}).",
        "The user whom the service runs as must be a member of that group.",
    )


def folder_fault(folder: Path) -> str:
    """Say why `folder` is not private to this user; empty when it is."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.getuid():
        return f"belongs to another user (uid {status.st_uid})"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"can be entered by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _short_paths(workspace: Workspace, environ: Mapping[str, str]) -> list[Path]:
    name = hashlib.sha256(os.fsencode(workspace.root)).hexdigest()[:16] + ".sock"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    folders = [Path(runtime) / "vocable"] if runtime and os.path.isdir(runtime) else []
    return [folder / name for folder in (*folders, Path("/tmp") / f"vocable-{os.getuid()}")]


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES
