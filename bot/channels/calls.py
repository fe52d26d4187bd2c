"""Calls from our own channels to their platforms, and what a failed call says about the message.

Proxies and certificates come from the environment: HTTPS_PROXY, SSL_CERT_FILE, REQUESTS_CA_BUNDLE.
"""

from __future__ import annotations

import io
import json
import os
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp

from bot.errors import SendError
from bot.messages import File

TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5, sock_connect=3, sock_read=8)
BUSY = 60.0  # seconds to wait after a 429 that names none


class Caller:
    """One platform's HTTP client. Opens its connections when first used, in the running loop."""

    def __init__(self, base: str, *, timeout: aiohttp.ClientTimeout = TIMEOUT) -> None:
        self._base = base.rstrip("/")
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, path: str, body: Mapping[str, Any], query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """POST JSON and return the JSON object that answers it.

        Raises SendError: a plain one when the request cannot have left or the platform is in
        trouble, `unknown` when it left and no answer came back. Its text never holds the URL, whose
        query may be a secret.
        """
        # Not escaped: WeChat shows `\u4f60` as it stands.
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        headers = {"Content-Type": "application/json; charset=utf-8"}
        return await self._call("POST", path, query, data=content, headers=headers)

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """GET the JSON object at `path`; raises SendError as `post` does."""
        return await self._call("GET", path, query)

    async def upload(
        self, path: str, file: File, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """POST a file as the form field `media`; raises SendError as `post` does."""
        # Unquoted: the platforms show `%E5%9B%9E` as it stands.
        form = aiohttp.FormData(quote_fields=False)
        content = io.BytesIO(file.content)  # plain bytes would be sent in one piece
        form.add_field("media", content, filename=file.name, content_type=file.mime)
        return await self._call("POST", path, query, data=form)

    async def _call(
        self, method: str, path: str, query: Mapping[str, str] | None, **more: Any
    ) -> dict[str, Any]:
        address = f"{self._base}/{path}"
        try:
            async with self._connected().request(
                method, address, params=query, allow_redirects=False, **more
            ) as response:
                status, answer = response.status, await response.read()
                patience = response.headers.get("Retry-After", "")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise SendError("no_connection", detail=type(error).__name__) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SendError("no_answer", unknown=True, detail=type(error).__name__) from None
        return _read(status, answer, patience)

    async def close(self) -> None:
        """Give the connections back."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                trust_env=True,
                timeout=self._timeout,
                connector=aiohttp.TCPConnector(
                    ssl=ssl.create_default_context(cafile=authorities())
                ),
            )
        return self._session


def authorities() -> str | None:
    """The file of certificate authorities that the operator named; None for the system's own."""
    return os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE") or None


def _read(status: int, answer: bytes, patience: str) -> dict[str, Any]:
    if status == 429:
        raise SendError("quota", retry_after=float(patience) if patience.isdigit() else BUSY)
    if status != 200:
        raise SendError("server_error", detail=f"HTTP {status}")
    try:
        found = json.loads(answer)
    except ValueError:
        raise SendError("server_error", detail="not JSON") from None
    if not isinstance(found, dict):
        raise SendError("server_error", detail="not an object")
    return found
