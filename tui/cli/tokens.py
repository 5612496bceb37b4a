"""`tokens`: what a prompt takes of the text encoder's chunks, and which words are found in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tui.cli.output import print_json, print_text, say
from tui.cli.session import AsJson, ask, build_request

if TYPE_CHECKING:
    from daemon.protocol.words import TokensReply


def count_tokens(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt to count.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="Base model whose tokenizer counts; the loaded one, else the starter, when absent.")
    ] = "",
    steps: Annotated[int, typer.Option(help="Sampling steps, on which prompts that switch depend.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Count a prompt's tokens in chunks of 75, a word with its vectors, and name the words and hypernetworks in it."""
    from daemon.protocol.words import TokensRequest

    request = build_request(TokensRequest, prompt=prompt, model=model, steps=steps)
    reply = ask(ctx, lambda client: client.tokens(request))
    if as_json:
        print_json(reply)
        return
    print_text(_describe(reply))
    for note in reply.notes:
        say(f"note: {note}")


def _describe(reply: TokensReply) -> str:
    lines = [f"{reply.count} / {reply.limit}"]
    if len(reply.chunks) > 1:
        lines += [f"chunk {number}  {taken} / 75" for number, taken in enumerate(reply.chunks, 1)]
    named = {"words": ", ".join(reply.words) or "none", "hypernetworks": ", ".join(reply.hypernetworks)}
    width = max(len(label) for label, names in named.items() if names) + 2
    return "\n".join(lines + [f"{label:<{width}}{names}" for label, names in named.items() if names])
