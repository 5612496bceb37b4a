"""`train`: makes a recipe, queues a run, and follows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.errors import VocableError
from engine.recipe import iter_fields
from tui.cli.output import print_fields, print_json, print_text, say
from tui.cli.runs import follow_to_end
from tui.cli.session import AsJson, Session, ask, session_of


def train(
    ctx: typer.Context,
    recipe_file: Annotated[
        Path | None, typer.Argument(metavar="RECIPE.toml", help="A recipe; flags and --set go before what it says.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="What is trained: embedding (a word) or hypernetwork.", show_default="embedding")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", "-n", help="The word, or the hypernetwork; the folder's name when absent.", show_default=False
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option("--images", "-i", metavar="DIR", help="Folder of pictures, or a name in datasets/."),
    ] = None,
    init_text: Annotated[
        str | None, typer.Option("--init", metavar="TEXT", help="Text that the word starts from, e.g. girl.")
    ] = None,
    vectors: Annotated[int | None, typer.Option(help="Vectors of the word.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates in all.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model: a name in models/, a path, or a hash.")] = None,
    template: Annotated[str | None, typer.Option(help="Prompt template: a name in templates/, or a path.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="GROUP.KEY=VALUE",
            help="Any field of the recipe, as --options lists them; may be repeated.",
        ),
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--options", help="List every field of a recipe with its default, and end.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Queue the run and return at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Teach a model a new word, or train a hypernetwork, from a folder of pictures: queue a run and follow it.

    Either a recipe file, or --images DIR with --name and any other flags. Ctrl-C leaves the run going on.
    """
    from tui.cli.recipes import make_recipe

    if list_all:
        return print_fields(iter_fields(), as_json=as_json)
    if recipe_file is None and images is None and not assignments:
        raise VocableError(
            "usage.nothing", "There is nothing to train on.", "Give a recipe file, or --images DIR and --name NAME."
        )
    if name is None and images is not None and recipe_file is None:
        name = Path(images).expanduser().absolute().name
    flags = {
        "kind": kind,
        "name": name,
        "model": model,
        "data.folder": images,
        "data.template": template,
        "start.init_text": init_text,
        "start.vectors": vectors,
        "train.steps": steps,
    }
    session = session_of(ctx)
    recipe = make_recipe(
        recipe_file,
        flags,
        assignments or [],
        cwd=None if session.host else Path.cwd(),
        datasets=session.workspace.datasets,
    )
    raise typer.Exit(_queue(ctx, session, recipe.model_dump(mode="json"), detach=detach, as_json=as_json))


def _queue(ctx: typer.Context, session: Session, recipe: dict[str, object], *, detach: bool, as_json: bool) -> int:
    run = ask(ctx, lambda client: client.create_run(recipe))
    if not detach:
        return follow_to_end(session, run, as_json=as_json)
    if as_json:
        print_json(run)
    else:
        print_text(run.id)
        say(f"{run.name} is queued; {session.command('follow', run.id)}")
    return 0
