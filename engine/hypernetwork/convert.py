"""Writes a hypernetwork in the format of another program, and says what that format cannot hold.

Called in the inspector, for `vocable convert`. No torch. The invariant: no bytes leave here that our own reader did not
give back bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from engine.embedding.convert import Converted
from engine.errors import VocableError
from engine.hypernetwork.metadata import header_entries
from engine.hypernetwork.network_file import HypernetworkFile
from engine.hypernetwork.read import read_hypernetwork
from engine.hypernetwork.write import encode_safetensors, encode_webui, is_same
from engine.text import escape

Format = Literal["safetensors", "webui-pt"]

COMFYUI_ACTIVATIONS: Final = frozenset(
    ("linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "softsign", "mish")
)
"""ComfyUI refuses files with any other."""


def convert(network: HypernetworkFile, format: Format) -> Converted:
    """Write a hypernetwork in another format.

    Raises:
        VocableError: from `check_network`; `hypernetwork.verify` when the format would not give it back.
    """
    if format == "safetensors":
        notes = ["No program but Vocable reads hypernetworks as safetensors; others take webui-pt."]
        return _check(network, ".safetensors", encode_safetensors(network), notes)
    notes = []
    if network.activation not in COMFYUI_ACTIVATIONS:
        notes.append(f"ComfyUI does not know the activation {network.activation}; webui does.")
    lost = [key for key in network.metadata if key not in header_entries(replace(network, metadata={}))]
    if lost:
        shown = ", ".join(escape(key.rpartition(".")[2], 40) for key in lost[:8])
        notes.append(f"The format has no place for: {shown}{', ...' if len(lost) > 8 else ''}.")
    return _check(network, ".pt", encode_webui(network), notes)


def _check(network: HypernetworkFile, suffix: str, data: bytes, notes: list[str]) -> Converted:
    """Read a file again as if it were a stranger's, and refuse one that holds anything else."""
    reason = "It holds something else."
    try:
        if is_same(read_hypernetwork(data, network.name), network):
            return Converted(((suffix, data),), tuple(notes))
    except VocableError as error:
        reason = error.title
    title = f"A {suffix} file of the hypernetwork '{network.name}' would not be read as it is written: {reason}"
    raise VocableError("hypernetwork.verify", title, "Choose another format; nothing was written.")
