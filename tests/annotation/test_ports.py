"""Ports that stay free until somebody listens on them."""

from __future__ import annotations

import secrets
import socket

import pytest

from annotation.ports import any_free_port, is_free


def test_a_port_is_none_that_a_connection_going_out_could_take() -> None:
    assert all(any_free_port() < 32_768 for _ in range(50)), "where Linux begins, unless somebody set it otherwise"


def test_a_port_that_is_listened_on_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", any_free_port())) as taken:
        port = taken.getsockname()[1]
        assert not is_free(port)
        free = any_free_port()
        proposed = iter((port, port, free))
        monkeypatch.setattr(secrets, "choice", lambda of: next(proposed))
        assert any_free_port() == free
    assert is_free(port)
