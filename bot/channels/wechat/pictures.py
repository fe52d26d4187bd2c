"""Pictures on their way out: uploaded once, sent by their media id while the platform keeps it."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from bot.channels.wechat.api import WeChatApi
from bot.clock import Clock
from bot.errors import SendError
from bot.messages import File

KEPT = timedelta(days=3) - timedelta(hours=1)
MOST = 64  # ids remembered; more pictures than that are uploaded again
TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/bmp"})
LARGEST = 10 * 1024 * 1024


class Pictures:
    """Sends pictures, and uploads one again when the platform has forgotten it."""

    def __init__(self, api: WeChatApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._known: dict[str, tuple[str, datetime]] = {}

    async def send(self, openid: str, picture: File) -> None:
        """Raises SendError; `no_files` for what is no picture the platform takes."""
        if picture.mime not in TYPES or len(picture.content) > LARGEST:
            raise SendError("no_files", permanent=True)
        digest = hashlib.sha256(picture.content).hexdigest()
        try:
            await self._send(openid, await self._media(digest, picture))
        except SendError as error:
            if error.reason != "media":
                raise
            self._known.pop(digest, None)
            await self._send(openid, await self._media(digest, picture))

    async def _send(self, openid: str, media_id: str) -> None:
        body = {"touser": openid, "msgtype": "image", "image": {"media_id": media_id}}
        await self._api.post("message/custom/send", body)

    async def _media(self, digest: str, picture: File) -> str:
        known = self._known.get(digest)
        if known is not None and self._clock.now() < known[1]:
            return known[0]
        media_id = await self._api.upload(picture, "image")
        while len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[digest] = (media_id, self._clock.now() + KEPT)
        return media_id
