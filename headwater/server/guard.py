"""Guard: access control of `headwater serve`, before anything is computed, opened or listed.

Any page in a browser can send requests to a local port, and so can any account of this machine.  A
request is answered if

    Host             is ours, so that DNS rebinding fails
    Origin           is ours or absent
    Sec-Fetch-Site   is absent or says that the request comes from our page or the address bar
    token            is in the cookie, or in `Authorization: token …`

The address that the command prints contains the token.  Opening it sets the cookie and redirects to
the same address without the token.
"""

from __future__ import annotations

from hmac import compare_digest
from http import HTTPStatus
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from viz.html.document import SERVED_POLICY

HEADERS = {
    "Content-Security-Policy": f"{SERVED_POLICY}; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",  # as frame-ancestors, for older browsers
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NEEDS_TOKEN = (
    "This server needs its token: open the address that `headwater serve` printed, which ends in "
    "?token=…, or send the header `Authorization: token …`."
)


class Guard:
    """An application behind the token, with security headers on all its responses."""

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self.app, self.token = app, token
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self.cookie = f"headwater-{port}"  # browsers send cookies to all ports of a host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._answer(Request(scope)) if scope["type"] == "http" else None
        await (answer or self.app)(scope, receive, send_with_headers)

    def _answer(self, request: Request) -> Response | None:
        """A refusal, or the redirect that sets the cookie; None if the request may pass."""
        refusal = self._foreign(request)
        if refusal is None:
            if request.method == "GET" and self._is_token(request.query_params.get("token")):
                return self._redirect(request)
            if self._has_token(request):
                return None
        return refuse(request, HTTPStatus.FORBIDDEN, refusal or NEEDS_TOKEN)

    def _foreign(self, request: Request) -> str | None:
        """Why a request is not from our pages or the address bar; None if it is."""
        hosts, origins = (request.headers.getlist(name) for name in ("host", "origin"))
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return f"This server answers to {' and '.join(sorted(self.hosts))} only."
        ours = {f"http://{host}" for host in self.hosts}
        by_us = {"same-origin", "none"}  # other ports of this machine are "same-site"
        if any(origin.lower() not in ours for origin in origins) or any(
            site not in by_us for site in request.headers.getlist("sec-fetch-site")
        ):
            return (
                "This server answers to its own pages only: open the address that `headwater "
                "serve` printed by typing or pasting it into the browser."
            )
        return None

    def _has_token(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return self._is_token(request.cookies.get(self.cookie)) or (
            scheme.lower() == "token" and self._is_token(token.strip())
        )

    def _is_token(self, given: str | None) -> bool:
        # As bytes: compare_digest takes only ASCII strings.
        return given is not None and compare_digest(given.encode(), self.token.encode())

    def _redirect(self, request: Request) -> Response:
        # One slash: two would name another host.
        address = f"/{quote(request.scope['path'].lstrip('/'))}"
        answer = RedirectResponse(address, HTTPStatus.SEE_OTHER)
        answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
        return answer


def refuse(request: Request, status: HTTPStatus, sentence: str) -> Response:
    """A response with one sentence: plain text for a browser's address bar, else JSON."""
    if "text/html" in request.headers.get("accept", ""):
        return PlainTextResponse(sentence, status)
    return JSONResponse({"error": sentence}, status)
