"""Our own Argilla server: it starts, is found again, outlives the loss of any part, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from platformdirs import user_cache_path

from annotation import argilla_server
from annotation.argilla_server import PARTS, ArgillaServer, Part
from annotation.errors import UserError
from annotation.people import Person
from annotation.ports import any_free_port
from tests.fixtures.argilla import ok

pytestmark = pytest.mark.slow
CACHE = user_cache_path("tonesmith")


def pids(server: ArgillaServer) -> dict[Part, int]:
    return {part: pid for part, pid in server.status().parts.items() if pid is not None}


def test_its_keys_are_random_and_for_its_owner_only(argilla: ArgillaServer) -> None:
    file = argilla.home / "keys.json"
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((argilla.home / "store.conf").stat().st_mode) == 0o600
    assert argilla.status().state == "ready"
    for key in ("argilla.apikey", "owner.apikey"):  # those of Argilla's documentation
        answer = httpx.get(f"{argilla.url}/api/v1/me", headers={"X-Argilla-Api-Key": key})
        assert answer.status_code == 401
    secrets = [argilla.keys.api_key, argilla.keys.password, argilla.keys.store_password, argilla.keys.session_secret]
    commands = " ".join(" ".join(psutil.Process(pid).cmdline()) for pid in pids(argilla).values())
    assert not any(secret in commands for secret in secrets)


def test_starting_twice_and_finding_it_from_another_process_change_nothing(argilla: ArgillaServer) -> None:
    before = pids(argilla)
    argilla.start()
    script = (
        "from pathlib import Path; from annotation.argilla_server import ArgillaServer;"
        f"ArgillaServer(Path({str(argilla.home.parent)!r}), Path({str(CACHE)!r})).start()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert pids(argilla) == before


def test_people_get_an_account_with_their_role(argilla: ArgillaServer, owner: httpx.Client) -> None:
    made = argilla.add_people([Person(name="eva", role="curator"), Person(name="vic", role="viewer")])
    assert list(made) == ["eva"]
    assert argilla.add_people([Person(name="eva", role="reviewer")]) == {}
    users = {user["username"]: user["role"] for user in ok(owner.get("/users"))["items"]}
    assert users.items() >= {argilla.keys.owner: "owner", "ana": "annotator", "eva": "annotator"}.items()
    assert "vic" not in users
    form = {"username": "eva", "password": made["eva"]}
    assert ok(httpx.post(f"{argilla.url}/api/v1/token", data=form))["access_token"]
    assert argilla.keys.people["eva"] == made["eva"]


def test_two_who_make_the_same_account_at_once_make_it_once(argilla: ArgillaServer) -> None:
    """As somebody who starts Argilla on the page does while the studio looks after the accounts."""
    with ThreadPoolExecutor(4) as several:
        made = list(several.map(lambda _: argilla.add_people([Person(name="leo")]), range(4)))
    (password,) = [one["leo"] for one in made if one]
    assert argilla.keys.people["leo"] == password
    assert ok(httpx.post(f"{argilla.url}/api/v1/token", data={"username": "leo", "password": password}))


def test_who_may_not_judge_any_more_is_shut_out_and_comes_back(argilla: ArgillaServer, owner: httpx.Client) -> None:
    made = argilla.add_people([Person(name="ada", role="admin")])
    form = {"username": "ada", "password": made["ada"]}
    token = ok(httpx.post(f"{argilla.url}/api/v1/token", data=form))["access_token"]
    with httpx.Client(base_url=f"{argilla.url}/api/v1", headers={"Authorization": f"Bearer {token}"}) as ada:
        assert ok(ada.get("/me/workspaces"))["items"]
        for gone in (Person(name="ada", role="admin", active=False), Person(name="ada", role="viewer")):
            assert argilla.add_people([gone]) == {}
            assert ok(ada.get("/me"))["role"] == "annotator"
            assert ok(ada.get("/me/workspaces"))["items"] == []
        assert argilla.add_people([Person(name="ada", role="curator")]) == {}
        assert ok(ada.get("/me"))["role"] == "admin"
        assert ok(ada.get("/me/workspaces"))["items"]
    ada_id = next(one["id"] for one in ok(owner.get("/users"))["items"] if one["username"] == "ada")
    ok(owner.delete(f"/users/{ada_id}"))


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_is_replaced_and_the_rest_goes_on(
    argilla: ArgillaServer, owner: httpx.Client, part: Part
) -> None:
    before, url = pids(argilla), argilla.url
    process = psutil.Process(before[part])
    process.kill()
    process.wait(timeout=5)
    status = argilla.status()
    assert (status.state, status.parts[part]) == ("broken", None)
    assert part in status.message
    assert part in argilla.ensure()
    after = pids(argilla)
    assert after[part] != before[part]
    if part == "server":
        assert (after["store"], after["worker"]) == (before["store"], before["worker"])
    assert argilla.url == url
    assert {one["username"] for one in ok(owner.get("/users"))["items"]} >= {"ana", "ben"}
    orphans = [one.pid for one in psutil.process_iter() if _session(one.pid) == before[part]]
    assert orphans == []


def test_a_server_that_hangs_is_replaced(argilla: ArgillaServer) -> None:
    before = pids(argilla)
    os.kill(before["server"], signal.SIGSTOP)
    try:
        assert argilla.ensure() == ("server",)
    finally:
        if psutil.pid_exists(before["server"]):
            os.kill(before["server"], signal.SIGKILL)
    assert argilla.status().state == "ready"


def test_a_clock_that_is_set_makes_no_stranger_of_a_part(
    argilla: ArgillaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a virtual machine slept: every time of day that was kept is wrong."""
    before = pids(argilla)
    shifted = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: shifted(self) + 90)
    assert argilla.ensure() == ()
    assert pids(argilla) == before


def test_it_moves_to_another_port_and_nothing_else_stops(argilla: ArgillaServer) -> None:
    before, port = pids(argilla), any_free_port()
    assert ArgillaServer(argilla.home.parent, CACHE, port=port).ensure() == ("server",)
    assert argilla.url == f"http://127.0.0.1:{port}"
    assert argilla.ensure() == ()  # it keeps to it
    after = pids(argilla)
    assert (after["store"], after["worker"]) == (before["store"], before["worker"])


def test_stopping_leaves_no_process_and_a_new_start_finds_everything(
    argilla: ArgillaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = [psutil.Process(pid) for pid in pids(argilla).values()]
    family += [child for one in list(family) for child in one.children(recursive=True)]
    with monkeypatch.context() as context:
        shifted = psutil.Process.create_time
        context.setattr(psutil.Process, "create_time", lambda self: shifted(self) - 90)
        argilla.stop()
    assert [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
    assert argilla.status().state == "off"
    argilla.stop()
    argilla.start()
    with argilla.client() as client:
        assert {one["username"] for one in ok(client.get("/users"))["items"]} >= {"ana", "ben"}


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = ArgillaServer(tmp_path, CACHE, port=other.getsockname()[1])
        with pytest.raises(UserError, match="is taken"):
            server.start()
    server.stop()
    assert pids(server) == {}


def test_a_failed_installation_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argilla_server, "REQUIREMENTS", ("there-is-no-such-package-for-argilla",))
    with pytest.raises(UserError, match="could not be installed"):
        ArgillaServer(tmp_path, tmp_path / "cache").start()


def test_a_server_that_fails_at_its_start_is_said_with_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "argilla_search"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('the engine is broken')")
    monkeypatch.setattr(argilla_server, "ENGINE", broken)
    server = ArgillaServer(tmp_path / "home", CACHE)
    try:
        with pytest.raises(UserError, match="the engine is broken"):
            server.start()
    finally:
        server.stop()


def test_without_a_server_there_are_no_keys(tmp_path: Path) -> None:
    server = ArgillaServer(tmp_path, CACHE)
    assert server.status().state == "off"
    with pytest.raises(UserError, match="no Argilla server here"):
        server.client()
    (tmp_path / "argilla").mkdir()
    (tmp_path / "argilla" / "keys.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        server.client()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None
