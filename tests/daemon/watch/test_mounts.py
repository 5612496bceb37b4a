from __future__ import annotations

from pathlib import Path

import pytest

from daemon.watch.mounts import remote_file_system

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv/nas rw - nfs4 server:/export rw
31 22 0:41 / /srv/with\\040blank rw - fuse.sshfs host: rw
32 22 0:42 / /home rw - btrfs /dev/sdb rw
33 32 0:43 / /home/me/work/embeddings/remote rw master:3 - cifs //pc/share rw
34 22 8:3 / /srv/nas/local rw - xfs /dev/sdc rw
35 22 8:4 / /media/stick rw - fuseblk /dev/sdd rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/data/embeddings", ""),
        ("/srv/nas/embeddings", "nfs4"),
        ("/srv/nas2/embeddings", ""),
        ("/srv/nas/local/embeddings", ""),
        ("/srv/with blank/embeddings", "fuse.sshfs"),
        ("/home/me/work/embeddings", "cifs"),
        ("/home/me/other", ""),
        ("/media/stick/embeddings", ""),
    ],
)
def test_folders_that_other_machines_change_are_told_apart(folder: str, kind: str) -> None:
    assert remote_file_system(Path(folder), MOUNTS) == kind


def test_the_mounts_of_this_machine_can_be_read(tmp_path: Path) -> None:
    assert remote_file_system(tmp_path) == ""
