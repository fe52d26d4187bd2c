"""The guard refuses what leaves the machine and lets pass what stays."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.network import AddressRefused


def test_an_address_off_this_machine_is_refused(refused_addresses: list[str]) -> None:
    with pytest.raises(AddressRefused):
        socket.create_connection(("192.0.2.1", 80))
    assert refused_addresses == ["192.0.2.1"]
    refused_addresses.clear()


def test_a_name_is_refused_before_it_is_looked_up(refused_addresses: list[str]) -> None:
    with pytest.raises(AddressRefused):
        socket.create_connection(("example.org", 80))
    assert refused_addresses == ["example.org"]
    refused_addresses.clear()


def test_a_server_on_this_machine_is_reached(refused_addresses: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    assert refused_addresses == []


def test_a_socket_file_is_reached(tmp_path: Path, refused_addresses: list[str]) -> None:
    path = str(tmp_path / "s")
    with (
        socket.socket(socket.AF_UNIX) as server,
        socket.socket(socket.AF_UNIX) as client,
    ):
        server.bind(path)
        server.listen()
        client.connect(path)
    assert refused_addresses == []
