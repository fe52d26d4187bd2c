"""The account's menu, set through wechatpy, which is kept on a short leash."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from wechatpy import WeChatClient
from wechatpy.exceptions import WeChatClientException

from bot.channels.calls import authorities
from bot.errors import SendError

Seconds = tuple[float, float]  # to connect, and between two pieces of the answer
MAX_BUTTONS, MAX_BELOW = 3, 5
MAX_NAME, MAX_NAME_BELOW = 16, 60  # bytes

# At DEBUG it writes every URL, and the token is in the URL.
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Button:
    """A button that says its own name, or (with `below`) opens a list of such words."""

    name: str
    below: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """As the platform takes it: the key of a click is the word that was meant."""
        if self.below:
            return {"name": self.name, "sub_button": [Button(word).shown() for word in self.below]}
        return {"type": "click", "name": self.name, "key": self.name}


def read_menu(text: str) -> tuple[Button, ...]:
    """「登记,活动,更多=我的档案/隐私/人工」 as buttons; raises ValueError with words for people."""
    buttons = []
    for entry in filter(None, (part.strip() for part in text.replace("，", ",").split(","))):
        name, _, rest = entry.partition("=")
        below = tuple(filter(None, (word.strip() for word in rest.split("/"))))
        buttons.append(Button(name.strip(), below))
    if len(buttons) > MAX_BUTTONS or any(len(button.below) > MAX_BELOW for button in buttons):
        raise ValueError(f"菜单最多{MAX_BUTTONS}个按钮，每个下面最多{MAX_BELOW}项")
    for button in buttons:
        if len(button.name.encode()) > MAX_NAME:
            raise ValueError(f"菜单按钮「{button.name}」太长，最多5个汉字")
        for word in button.below:
            if len(word.encode()) > MAX_NAME_BELOW:
                raise ValueError(f"菜单项「{word}」太长，最多20个汉字")
    return tuple(buttons)


def create_menu(made: WeChatClient, buttons: Sequence[Button]) -> tuple[int, str]:
    """Set the menu (blocking: call it in a thread) and return errcode and errmsg;
    the client is used up.

    Raises SendError when the platform could not be asked.
    """
    try:
        with made._http:
            made.menu.create({"button": [button.shown() for button in buttons]})
    except WeChatClientException as error:
        if error.errcode is None:
            raise SendError("server_error", detail="HTTP") from None
        return int(error.errcode), str(error.errmsg)
    except requests.RequestException as error:
        raise SendError("no_connection", detail=type(error).__name__) from None
    return 0, "ok"


def client(base: str, app_id: str, token: str, timeout: Seconds) -> WeChatClient:
    """A client for one call with a token that is already known to be good.

    It is given no secret and told not to retry: left to itself, wechatpy answers a refused token
    with a request for a new one, without end, and ends the token of everybody else by it.
    """
    made = WeChatClient(app_id, "", access_token=token, timeout=timeout, auto_retry=False)
    made._http.mount("https://", _Leash(base, timeout))
    return made


class _Leash(HTTPAdapter):
    """Sends wechatpy's fixed addresses to the base that was set, and never without a timeout."""

    def __init__(self, base: str, timeout: Seconds) -> None:
        super().__init__()
        self._base = base.rstrip("/")
        self._timeout = timeout

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> Any:
        address = urlsplit(request.url or "")
        request.url = f"{self._base}{address.path}" + (f"?{address.query}" * bool(address.query))
        more["timeout"] = more.get("timeout") or self._timeout
        more["verify"] = authorities() or more.get("verify", True)
        return super().send(request, *args, **more)
