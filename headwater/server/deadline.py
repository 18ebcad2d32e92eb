"""Deadline: a request that is not complete in time is refused and its connection closed.

uvicorn waits for the rest of a request for as long as the client keeps the connection open.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from headwater.server.guard import HEADERS


class Deadline(H11Protocol):
    """A connection with a time limit for each request, headers and body."""

    seconds: ClassVar[float] = 30.0
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as uvicorn's own
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; uvicorn's own answer fails during another response."""
        del msg
        self._refuse(HTTPStatus.BAD_REQUEST, "Not a valid HTTP/1.1 request.")

    def _watch(self) -> None:
        """Start the clock with the first byte of a request, stop it with the last."""
        begun = self.cycle is None or bool(self.conn.trailing_data[0])  # first: from connecting
        state = self.conn.their_state
        if state is h11.SEND_BODY or (state is h11.IDLE and begun):
            if self._clock is None:
                self._clock = self.loop.call_later(self.seconds, self._too_late)
        else:
            self._stop()

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_late(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT,
            f"The request was not complete within {self.seconds:g} seconds.",
        )

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no response has begun
            body = json.dumps({"error": sentence}).encode()
            headers = [
                *HEADERS.items(),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            start = h11.Response(status_code=status, headers=headers, reason=status.phrase)
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
