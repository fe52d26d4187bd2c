"""Files over the long connection: in pieces, going on where a broken connection left off."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bot.channels.wecom.bot.wire import Wire
from bot.clock import Clock
from bot.errors import SendError
from bot.messages import File

CHUNK = 512 * 1024  # the platform's limit for a piece before Base64
PICTURES = frozenset({"image/png", "image/jpeg", "image/gif"})
LARGEST = {"image": 10 * 1024 * 1024, "file": 20 * 1024 * 1024}
SESSION = timedelta(minutes=29)  # the platform says 30
MEDIA_LIFE = timedelta(days=2)  # the platform says 3
REMEMBERED = 200


@dataclass(slots=True)
class Upload:
    """How far a file has come: its session, the pieces that have arrived, its id at the end."""

    id: str
    until: datetime
    pieces: int = 0
    media: str = ""


class Files:
    """Uploads by the key of the bubble they belong to."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, Upload] = {}

    async def upload(self, wire: Wire, file: File, key: str) -> tuple[str, str]:
        """The kind of message that shows a file, and the platform's id of it.

        Raises SendError, never `unknown`: nobody has been told anything yet.
        """
        kind = "image" if file.mime in PICTURES else "file"
        if len(file.content) > LARGEST[kind]:
            raise SendError("too_large", permanent=True)
        upload = self._known.get(key)
        if upload is None or self._clock.now() >= upload.until:
            upload = await self._begin(wire, kind, file)
            self._known[key] = upload
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        while upload.pieces * CHUNK < len(file.content) and not upload.media:
            await self._piece(wire, upload, file)
        if not upload.media:
            done = await _ask(wire, "aibot_upload_media_finish", {"upload_id": upload.id})
            upload.media = str(done.get("media_id", ""))
            upload.until = self._clock.now() + MEDIA_LIFE
        return kind, upload.media

    async def _begin(self, wire: Wire, kind: str, file: File) -> Upload:
        body = {
            "type": kind,
            "filename": file.name,
            "total_size": len(file.content),
            "total_chunks": -(-len(file.content) // CHUNK),
            "md5": hashlib.md5(file.content, usedforsecurity=False).hexdigest(),
        }
        begun = await _ask(wire, "aibot_upload_media_init", body)
        return Upload(str(begun.get("upload_id", "")), self._clock.now() + SESSION)

    async def _piece(self, wire: Wire, upload: Upload, file: File) -> None:
        piece = file.content[upload.pieces * CHUNK : (upload.pieces + 1) * CHUNK]
        body = {
            "upload_id": upload.id,
            "chunk_index": upload.pieces,
            "base64_data": base64.b64encode(piece).decode(),
        }
        await _ask(wire, "aibot_upload_media_chunk", body)
        upload.pieces += 1


async def _ask(wire: Wire, command: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body of a command's ack."""
    try:
        answer = await wire.ask(command, body)
    except SendError as error:
        raise SendError("upload", detail=error.detail) from None
    code = answer.get("errcode")
    if code:
        raise SendError("upload", permanent=code == 40009, detail=f"errcode {code}")
    found = answer.get("body")
    return found if isinstance(found, dict) else {}
