"""Where other programs keep what a workspace keeps: an installation is used in place when its root folder is named.

Used by the service for the folders that `[paths]` adds. An installation is known by its folder of checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LAYOUTS = (
    {
        "models": "models/Stable-diffusion",
        "embeddings": "embeddings",
        "hypernetworks": "models/hypernetworks",
        "templates": "textual_inversion_templates",
    },
    {"models": "models/checkpoints", "embeddings": "models/embeddings", "hypernetworks": "models/hypernetworks"},
)
"""By kind of content, below the root: AUTOMATIC1111's webui and its forks, ComfyUI."""


def find_folder_of(kind: str, folder: Path) -> Path:
    """The folder with this kind of content: `folder` itself, or if it is the root of an installation, one inside it."""
    for layout in LAYOUTS:
        if (folder / layout["models"]).is_dir():
            return folder / layout.get(kind, ".")
    return folder


def all_folders(root: Path, own: Path, kind: str, more: Sequence[str]) -> list[Path]:
    """The workspace's own folder, then those that its settings name; relative ones begin at its `root`."""
    return [own, *(find_folder_of(kind, root / Path(text).expanduser()) for text in more)]
