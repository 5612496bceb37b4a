"""`words` and `new`: the embeddings that prompts can use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tui.cli.named_files import add_file_commands
from tui.cli.output import print_json, print_table, print_text, say
from tui.cli.session import AsJson, ask, build_request, connect, run_waiting, session_of

if TYPE_CHECKING:
    from daemon.paths import Workspace
    from daemon.protocol.jobs import CreateEmbedding
    from daemon.protocol.service import WordView


app = typer.Typer(invoke_without_command=True)

add_file_commands(app, "word", "words", lambda client: client.word_files)


@app.callback()
def list_words(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the words of the embeddings folder, with the reason where one cannot be used; rename, delete or restore one.

    Without a command they are listed.
    """
    if ctx.invoked_subcommand:
        return
    words = ask(ctx, lambda client: client.words())
    if as_json:
        print_json(words)
        return
    if not words:
        say(f"There are no words yet in {session_of(ctx).workspace.embeddings}.")
        return
    print_table(("NAME", "VECTORS", "WIDTH", "STEP", "MODEL", "VERDICT"), [_row(word) for word in words])


def new_word(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The word, which is also the file's name.", show_default=False)
    ],
    init_text: Annotated[
        str, typer.Option("--init", metavar="TEXT", help="Text whose token vectors fill the word; empty means zeros.")
    ] = "*",
    vectors: Annotated[int, typer.Option(help="Vectors of the word, 1 to 75.")] = 1,
    model: Annotated[str, typer.Option(help="Base model: a name in models/, a path, or a hash.")] = "starter",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a word of this name; the old file goes to trash/.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an untrained word: a file in the embeddings folder that prompts can use at once."""
    from daemon.protocol.jobs import CreateEmbedding

    request = build_request(
        CreateEmbedding, name=name, model=model, init_text=init_text, vectors=vectors, overwrite=overwrite
    )
    path = run_waiting(lambda: _create(session_of(ctx).workspace, request), interrupted=lambda: "Cancelled.")
    if as_json:
        print_json({"name": name, "embedding": path})
    else:
        print_text(path)


async def _create(workspace: Workspace, request: CreateEmbedding) -> str:
    from tui.cli.jobs import finish_job
    from tui.cli.progress import open_progress

    async with connect(workspace) as client:
        with open_progress() as progress:
            result = await finish_job(
                client, await client.create_embedding(request), progress, f"making {request.name}"
            )
    return str(result["embedding"])


def _row(word: WordView) -> tuple[str, ...]:
    verdict = "; ".join(filter(None, ("usable", word.warning))) if word.usable else f"not usable: {word.reason}"
    step = "" if word.step is None else str(word.step)
    return (word.name, str(word.vectors or ""), str(word.width or ""), step, word.model, verdict)
