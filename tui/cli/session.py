"""What every command shares: which workspace it acts on, and how it reaches that workspace's service.

A `Session` stands in typer's context. All waiting happens inside one `asyncio.run` for each command.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from engine.errors import VocableError
from tui.cli.output import INTERRUPTED, say

if TYPE_CHECKING:
    from pydantic import BaseModel

    from daemon.client import Client
    from daemon.paths import Workspace

T = TypeVar("T")
Model = TypeVar("Model", bound="BaseModel")

AsJson = Annotated[bool, typer.Option("--json", help="Print the data as one line of JSON.")]
Reference = Annotated[str, typer.Argument(metavar="ID", help="Id, its first letters, or the name of the newest run.")]


@dataclass(frozen=True)
class Session:
    """The global options of one call."""

    workspace_option: Path | None = None
    host: str = ""
    """The machine whose service is spoken to, empty for this one. Paths in requests then are paths there."""

    @property
    def workspace(self) -> Workspace:
        from daemon.paths import find_workspace

        return find_workspace(self.workspace_option, os.environ, Path.cwd())

    def command(self, *words: str) -> str:
        """A command line, ready to be pasted, that acts on the same workspace."""
        option = ["--host", self.host] if self.host else []
        option += ["--workspace", str(self.workspace_option)] if self.workspace_option else []
        return shlex.join(["vocable", *option, *words])


def check_paths(session: Session, *paths: str | Path | None) -> None:
    """With --host, refuse paths that do not say on their own where they lie.

    Raises:
        VocableError: `usage.remote_path`.
    """
    for path in paths:
        if session.host and path is not None and not Path(path).is_absolute():
            raise VocableError(
                "usage.remote_path",
                f"'{path}' is not a whole path, and with --host it is one on {session.host}.",
                "Write it from the root on.",
            )


def session_of(ctx: typer.Context) -> Session:
    session = ctx.obj
    assert isinstance(session, Session)
    return session


@asynccontextmanager
async def connect(workspace: Workspace) -> AsyncIterator[Client]:
    """A client of the workspace's service, which is started when none answers."""
    from daemon.client import ensure_daemon

    async with await ensure_daemon(workspace) as client:
        yield client


def ask(ctx: typer.Context, question: Callable[[Client], Awaitable[T]]) -> T:
    """Put one question to the service and wait for the answer."""

    async def put() -> T:
        async with connect(session_of(ctx).workspace) as client:
            return await question(client)

    return asyncio.run(put())


def run_waiting(work: Callable[[], Coroutine[Any, Any, T]], *, interrupted: Callable[[], str]) -> T:
    """Run an asyncio main that may take long; Ctrl-C ends it with the sentence that `interrupted` makes.

    Raises:
        typer.Exit: 130 after Ctrl-C.
    """
    try:
        return asyncio.run(work())
    except KeyboardInterrupt:
        say(interrupted())
        raise typer.Exit(INTERRUPTED) from None


def build_request(kind: type[Model], **values: Any) -> Model:
    """Make a request body of options.

    Raises:
        VocableError: `usage.invalid` with every fault, named like the option.
    """
    from pydantic import ValidationError

    try:
        return kind.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        faults = [_describe(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]
        raise VocableError("usage.invalid", f"{'; '.join(faults)}.", "See --help for what is possible.") from None


def _describe(name: str, message: str) -> str:
    """A fault with the option it is of; one that is of several options names them itself."""
    message = message.removeprefix("Value error, ").rstrip(".")
    message = message[:1].lower() + message[1:]
    return f"{name}: {message}" if name else message
