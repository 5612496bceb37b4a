"""Who is at the other end of the socket, and may that user use the service?

Called by `daemon.connections` for each connection, before a byte of it is read. Whom nobody can name is refused.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct

from engine.errors import VocableError

UNKNOWN = -1

_CREDENTIALS = struct.Struct("3i")


def peer_uid(connection: socket.socket) -> int:
    """The user who made the connection, as the kernel says (SO_PEERCRED); UNKNOWN when it does not."""
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(data)
    except (OSError, struct.error):
        return UNKNOWN
    return int(uid)


def is_own(uid: int) -> bool:
    """Whether the user may do everything: the one whom the service belongs to, and root."""
    return uid in (0, os.getuid())


def is_member(uid: int, group: int) -> bool:
    """Whether the user database counts `uid` to the group, as its first or as a further one.

    What groups the connecting process has does not count, since programs can be given more than their user has. May
    ask a directory server, so it belongs into a thread.
    """
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return False
    return group in os.getgrouplist(user.pw_name, user.pw_gid)


def refusal() -> VocableError:
    return VocableError("request.peer", "This service belongs to another user.", "Use a workspace of your own.")


def find_group(name: str) -> int:
    """The number of a group.

    Raises:
        VocableError: `socket.group` when there is none of this name.
    """
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise VocableError(
            "socket.group",
            f"There is no group '{name}' on this machine.",
            "Correct service.group in vocable.toml, or make the group.",
        ) from None
