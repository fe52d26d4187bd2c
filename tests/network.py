"""Refuses every address off this machine, from whichever library it is tried."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

LOOKED_UP_AT_HOME = {None, "", "localhost"}
GUARDED = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0}


class AddressRefused(OSError):
    """Looks like a broken network to the code under test; the guard still fails the test."""


@dataclass
class Guard:
    """An audit hook: Python tells it of each connection before it is made."""

    refused: list[str] = field(default_factory=list)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raises AddressRefused when `event` would leave the machine."""
        position = GUARDED.get(event)
        if position is None:
            return
        address = arguments[position]
        if isinstance(address, str | bytes) and event != "socket.getaddrinfo":
            return  # The path of a unix socket.
        host = address[0] if isinstance(address, tuple) else address
        if not _at_home(host):
            self.refused.append(str(host))
            raise AddressRefused(f"tests may only reach 127.0.0.1, not {host}")


def _at_home(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in LOOKED_UP_AT_HOME:
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False
