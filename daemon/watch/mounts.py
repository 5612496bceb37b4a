"""Which file systems tell the kernel about changes: those of other machines do not.

Read from /proc/self/mountinfo by FolderWatch; see proc_pid_mountinfo(5) for the format.
"""

from __future__ import annotations

import re
from pathlib import Path

_REMOTE = re.compile(
    r"nfs4?|cifs|smb3|smbfs|9p|virtiofs|vboxsf|vmhgfs|prl_fs|ceph|glusterfs|lustre|gpfs|beegfs|afs|ncpfs|davfs"
    r"|fuse|fuse\..+"
)
_MOUNTINFO = Path("/proc/self/mountinfo")


def remote_file_system(root: Path, mountinfo: str | None = None) -> str:
    """Return the type of the file system of `root`, or of one mounted below it, when other machines can change it
    unnoticed; an empty string when changes are told.

    Args:
        root: absolute path of a folder.
        mountinfo: content of mountinfo; read afresh when None.
    """
    if mountinfo is None:
        try:
            mountinfo = _MOUNTINFO.read_text(errors="surrogateescape")
        except OSError:
            return ""
    real = root.resolve()
    holder, below = (Path("/"), ""), []
    for point, kind in _parse(mountinfo):
        if real.is_relative_to(point) and len(point.parts) >= len(holder[0].parts):
            holder = (point, kind)  # later lines lie over earlier ones
        elif point.is_relative_to(real):
            below.append(kind)
    return next((kind for kind in (holder[1], *below) if _REMOTE.fullmatch(kind)), "")


def _parse(mountinfo: str) -> list[tuple[Path, str]]:
    mounts = []
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if separator and len(fields) > 4:
            mounts.append((Path(_unescape(fields[4])), right.split(" ")[0]))
    return mounts


def _unescape(text: str) -> str:
    """Blanks and the like stand as three octal digits behind a backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
