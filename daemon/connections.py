"""The HTTP protocol of the socket: uvicorn's, with the peer's user checked before a byte is read, and time limits.

Handed to uvicorn by the server. ASGI knows nothing of peers on a Unix socket, so this has to happen here.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from daemon.api.errors import encode_error
from daemon.peers import UNKNOWN, is_member, is_own, peer_uid, refusal
from engine.errors import VocableError

MAX_CONNECTIONS = 256
HEADER_TIMEOUT_S = 30.0
"""A request's headers must be complete so long after its connection, or its first byte, came."""

STALL_TIMEOUT_S = 60.0
"""A client that takes nothing of what waits for it is cut off after so long, so that it holds no stream for ever."""
LINGER_S = 1.0
"""One that was refused is given so long to read why."""

_LOOKUPS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="groups")
"""A directory server that hangs holds up nothing but those who are looked up in it."""


class Connection(HttpToolsProtocol):
    """One client's connection.

    Args:
        group: number of the group whose members may use the service; None when only its own user may.
    """

    def __init__(self, *args: object, group: int | None = None, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._group = group
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._lookup: asyncio.Task[None] | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        uid = peer_uid(transport.get_extra_info("socket"))
        if not is_own(uid) and (self._group is None or uid == UNKNOWN):
            self._refuse(refusal())
        elif len(self.connections) > MAX_CONNECTIONS:
            title = f"{MAX_CONNECTIONS} connections are open."
            self._refuse(VocableError("service.busy", title, "Try again in a moment."))
        elif is_own(uid):
            self._arm()
        else:
            transport.pause_reading()
            self._lookup = self.loop.create_task(self._look_up(uid))

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # What a refused client still sends is read and dropped: a socket closed on unread bytes resets the connection,
        # and then the client never sees the reason.
        if not self._is_refused:
            super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self.loop.call_later(STALL_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stall:
            self._stall.cancel()
            self._stall = None
        super().resume_writing()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arm()

    def on_headers_complete(self) -> None:
        self._disarm()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(VocableError("request.invalid", "This is no HTTP request.", "Speak HTTP/1.1."))

    async def _look_up(self, uid: int) -> None:
        assert self._group is not None
        if not await self.loop.run_in_executor(_LOOKUPS, is_member, uid, self._group):
            self._refuse(refusal())
        elif not self.transport.is_closing():
            self._arm()
        self.transport.resume_reading()

    def _refuse(self, error: VocableError) -> None:
        self._disarm()
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        status, body = encode_error(error)
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.write_eof()
        self._deadline = self.loop.call_later(LINGER_S, self.transport.abort)

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(HEADER_TIMEOUT_S, self._give_up)

    def _disarm(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._refuse(VocableError("request.slow", "No whole request came.", "Try again."))
