"""What a prompt takes of the text encoder, asked of the service while it is written. Used by forms with a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import VocableError

if TYPE_CHECKING:
    from daemon.client import Client


async def count_prompt(client: Client, prompt: str, *, name: str, vectors: str, model: str) -> str:
    """Say how many tokens a prompt takes and which words stand in it; empty when the service cannot tell.

    Args:
        prompt: may hold [name] for what is to be trained.
        name, vectors, model: of that, as they stand in the form; faults in them are shown elsewhere. Without vectors
            the name is plain text, as that of a hypernetwork is.
    """
    from daemon.protocol.words import TokensRequest

    is_counted = vectors.isdigit() and 1 <= int(vectors) <= 75
    new_words = {name: int(vectors)} if name and is_counted else {}
    request = TokensRequest(prompt=prompt.replace("[name]", name), model=model, new_words=new_words)
    try:
        reply = await client.tokens(request)
    except VocableError:
        return ""
    words = f", words: {', '.join(reply.words)}" if reply.words else ", no word in it"
    return "; ".join([f"{reply.count} / {reply.limit} tokens{words}", *reply.notes])
