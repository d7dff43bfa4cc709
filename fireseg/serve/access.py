"""Decides who may use the server, and forbids the page everything but the server itself."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fireseg.serve.options import ServeOptions

COOKIE = "fireseg"

_MAX_FORM = 4096

_LOGIN_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>fireseg</title>
<link rel="stylesheet" href="/static/app.css"><main class="login"><h1>fireseg</h1>
<form method="post" action="/login"><label>Token of this server
<input name="token" type="password" autocomplete="current-password" required autofocus></label>
<button>Open</button></form></main></html>"""

_PUBLIC = ("/health", "/static/app.css", "/favicon.ico")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AccessControl:
    """ASGI middleware that refuses requests without the token, and those that other web pages make.

    Without a token, the name of the host must be one of this machine: a page of another site whose name is made to
    lead to 127.0.0.1 (DNS rebinding) is refused. Requests that change something must not come from another site.

    Args:
        app: Application.
        options: Token, host and base map.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], options: ServeOptions) -> None:
        self._app, self._token = app, options.secret
        self._hosts = {"127.0.0.1", "localhost", "::1", options.host}
        self._headers = [
            (b"content-security-policy", _make_policy(options.basemap).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers a request, or passes it to the application."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path, host = scope["path"], headers.get("host", "")
        if self._token is None and urlsplit(f"//{host}").hostname not in self._hosts:
            await _answer(send_with_headers, 403, f'{{"faults": ["Host: this server is not {_ascii(host)}"]}}'.encode())
        elif scope["method"] not in ("GET", "HEAD") and _is_foreign(headers, host):
            await _answer(send_with_headers, 403, b'{"faults": ["Origin: requests of other sites are refused"]}')
        elif self._token is not None and path == "/login" and scope["method"] == "POST":
            await self._log_in(receive, send_with_headers)
        elif self._token is None or path in _PUBLIC or self._has_token(headers):
            await self._app(scope, receive, send_with_headers)
        elif path == "/" and scope["method"] == "GET":
            await _answer(send_with_headers, 401, _LOGIN_PAGE, kind=b"text/html; charset=utf-8")
        else:
            fault = b'{"faults": ["Authorization: the token is missing or wrong; send Authorization: Bearer TOKEN"]}'
            await _answer(send_with_headers, 401, fault, extra=((b"www-authenticate", b"Bearer"),))

    def _has_token(self, headers: dict[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._make_cookie().encode())

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), str(self._token).encode())

    def _make_cookie(self) -> str:
        return sha256(f"fireseg cookie {self._token}".encode()).hexdigest()

    async def _log_in(self, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more and len(body) <= _MAX_FORM:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        (token,) = parse_qs(body[:_MAX_FORM].decode(errors="replace")).get("token", [""])[:1]
        if not self._is_token(token):
            await _answer(send, 401, _LOGIN_PAGE, kind=b"text/html; charset=utf-8")
            return
        cookie = f"{COOKIE}={self._make_cookie()}; Path=/; HttpOnly; SameSite=Strict"
        await _answer(send, 303, b"", extra=((b"location", b"/"), (b"set-cookie", cookie.encode())))


def _make_policy(basemap: str | None) -> str:
    images = "'self' data:"
    if basemap:
        address = urlsplit(basemap)
        images += f" {address.scheme}://{address.netloc.replace('{s}', '*')}"
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {images}; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _is_foreign(headers: dict[str, str], host: str) -> bool:
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != host


def _ascii(text: str) -> str:
    return "".join(
        character for character in text[:100] if (character.isalnum() and character.isascii()) or character in ".:-"
    )


async def _answer(
    send: Send,
    status: int,
    body: bytes,
    *,
    kind: bytes = b"application/json",
    extra: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
