"""What the service asks a card's driver around a worker's life: whether freed memory is back, and who else holds some.

Used by the keeper. The driver is asked through nvidia-smi, with a time limit and in a thread that nothing waits for at
the end; without the tool, or when it fails, nothing is known and nothing waits.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from daemon import gpu
from daemon.threads import run_apart
from engine.text import escape

SETTLE_S = 10.0
"""What a process held is given back at the latest by then, or somebody else took it."""
INTERVAL_S = 0.3
LOOKS = 3
"""So many looks in a row must find the same; memory comes back in pieces."""

_log = logging.getLogger(__name__)


def is_card(device: str) -> bool:
    """Whether a worker's device is one that nvidia-smi knows."""
    return device.startswith("cuda")


async def wait_for_memory() -> None:
    """Wait until the memory of a worker that ended is back: a driver frees it some time after the process is gone."""
    tool = _find_tool()
    if tool:
        await run_apart(lambda: _watch_memory(tool), "card memory")


async def name_others(own: int | None) -> str:
    """Who else holds memory of a card, in a sentence for people; empty when nobody is known to.

    Args:
        own: process id of the worker.
    """
    tool = _find_tool()
    return await run_apart(lambda: _name_others(tool, own), "card holders") if tool else ""


def _watch_memory(tool: Sequence[str]) -> None:
    deadline = time.monotonic() + SETTLE_S
    seen: list[list[int | None]] = []
    with contextlib.suppress(gpu.Silent, gpu.Refused):
        while time.monotonic() < deadline:
            seen = [*seen, [card.free_bytes for card in gpu.list_cards(tool)]][-LOOKS:]
            if len(seen) == LOOKS and all(look == seen[0] for look in seen):
                return
            time.sleep(INTERVAL_S)
    _log.warning("whether the card's memory is free again is not known")


def _name_others(tool: Sequence[str], own: int | None) -> str:
    try:
        holders = [holder for holder in gpu.list_holders(tool) if holder.pid != own and _is_here(holder)]
    except (gpu.Silent, gpu.Refused):
        return ""
    if not holders:
        return ""
    named = ", ".join(gpu.describe_holder(holder) for holder in holders[:5])
    return escape(f"Others use the card too: {named}.", 1000)


def _is_here(holder: gpu.Holder) -> bool:
    """Whether the number is that of the process: in a container the driver counts as its machine does."""
    try:
        known = Path(f"/proc/{holder.pid}/comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return False
    return bool(known) and holder.name.startswith(known)


def _find_tool() -> list[str]:
    found = shutil.which("nvidia-smi")
    return [found] if found else []
