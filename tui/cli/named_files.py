"""`rename`, `delete` and `restore` of one file of a watched folder, alike for words and hypernetworks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tui.cli.output import print_json, print_text, say
from tui.cli.session import AsJson, ask, session_of

if TYPE_CHECKING:
    from daemon.client import Client, Shelf

Name = Annotated[str, typer.Argument(metavar="NAME", help="As prompts and the list have it.", show_default=False)]
NewName = Annotated[str, typer.Argument(metavar="NEW", help="The new name.", show_default=False)]


def add_file_commands(app: typer.Typer, noun: str, group: str, shelf: Callable[[Client], Shelf[Any]]) -> None:
    """Add the commands to a group of them.

    Args:
        noun: what the files are, for people.
        group: name of the group on the command line.
        shelf: the part of the client that speaks of these files.
    """

    @app.command("rename", help=f"Give the file of a {noun} another name, in its place.")
    def rename(ctx: typer.Context, name: Name, new: NewName, as_json: AsJson = False) -> None:
        _show(ask(ctx, lambda client: shelf(client).rename(name, new)), as_json=as_json)

    @app.command("delete", help=f"Move the file of a {noun} to trash/, from where `restore` takes it back.")
    def delete(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
        gone = ask(ctx, lambda client: shelf(client).delete(name))
        if as_json:
            print_json(gone)
        else:
            say(f"{gone.path} is in trash/; {session_of(ctx).command(group, 'restore', gone.name)}")

    @app.command("restore", help=f"Take the {noun} of this name that was deleted or replaced last out of trash/.")
    def restore(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
        _show(ask(ctx, lambda client: shelf(client).restore(name)), as_json=as_json)


def _show(view: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
    else:
        print_text(view.path)
