"""The HTTP protocol of the socket: uvicorn's, with the peer's user checked before a byte is read, and time limits.

Handed to uvicorn by the server. ASGI knows nothing of peers on a Unix socket, so this has to happen here.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from daemon.api.errors import encode_error
from engine.errors import VocableError

MAX_CONNECTIONS = 256
HEADER_TIMEOUT_S = 30.0
"""A request's headers must be complete so long after its connection, or its first byte, came."""

_CREDENTIALS = struct.Struct("3i")


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        fault = peer_fault(transport.get_extra_info("socket"))
        if fault is None and len(self.connections) > MAX_CONNECTIONS:
            fault = VocableError("service.busy", f"{MAX_CONNECTIONS} connections are open.", "Try again in a moment.")
        if fault:
            self._refuse(fault)
        else:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arm()

    def on_headers_complete(self) -> None:
        self._disarm()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(VocableError("request.invalid", "This is no HTTP request.", "Speak HTTP/1.1."))

    def _refuse(self, error: VocableError) -> None:
        status, body = encode_error(error)
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(HEADER_TIMEOUT_S, self._give_up)

    def _disarm(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._refuse(VocableError("request.slow", "No whole request came.", "Try again."))


def peer_fault(connection: socket.socket) -> VocableError | None:
    """The reason to refuse a client: it belongs to another user, or nobody can say to whom. Root may do everything."""
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(data)
    except (OSError, struct.error):
        uid = -1
    if uid in (0, os.getuid()):
        return None
    return VocableError("request.peer", "This service belongs to another user.", "Use a workspace of your own.")
