"""Watched folders: what files are in a folder and no longer being written, told as soon as it changes.

`FolderWatch` is all that the service uses. The truth is a look through the whole tree; notifications of the kernel
only make the next look come sooner, so that lost, late or doubled ones cost nothing but time.
"""

from __future__ import annotations

from daemon.watch.folder import FolderWatch, Timing
from daemon.watch.scan import Stamp, stamp_of

__all__ = ["FolderWatch", "Stamp", "Timing", "stamp_of"]
