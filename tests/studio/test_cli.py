"""The command line: what it prints, how it ends, and that it says what to do."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from annotation.store import open_store
from annotation.types import Charter
from tests.serving.conftest import make_adapter
from tests.studio.conftest import Call


def test_every_step_of_the_loop_has_a_command(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    for step in ("up", "import", "charter", "chat", "review", "curate", "train", "adapters", "compare", "status"):
        assert f" {step} " in out


def test_wrong_use_ends_with_2(call: Call) -> None:
    assert call("train", "--preset")[0] == 2
    assert call("nonsense")[0] == 2


def test_status_of_an_empty_project_names_the_next_step(call: Call) -> None:
    code, out, _ = call("status", "--json")
    assert code == 0
    assert json.loads(out)["next"]["link"] == "/chat"


def test_review_and_curate_from_the_command_line(call: Call, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    good = {"messages": [{"role": "user", "content": "Hi [there]"}, {"role": "assistant", "content": "No."}]}
    log.write_text(json.dumps(good) + "\nbad\n")
    code, out, _ = call("import", str(log))
    assert code == 1
    assert "1 conversation added, 1 line refused" in out
    assert "line 2: not JSON" in out
    item = json.loads(call("review", "next", "--json")[1])["item"]
    assert "Hi [there]" in call("review", "next")[1]

    code, _, complaint = call("review", "save", item["reply"])
    assert code == 1
    assert "There is no charter yet" in complaint
    charter = tmp_path / "charter.toml"
    charter.write_text('name = "Shop"\n')
    assert call("charter", str(charter))[1].strip() == "Shop: version 1."
    code, _, complaint = call("review", "save", item["reply"])
    assert (code, "Nothing is marked" in complaint) == (1, True)
    assert "--voice is 'great'" in call("review", "save", item["reply"], "--voice", "great")[2]
    assert call("review", "save", item["reply"], "--correct", "Yes.")[1].strip() == "Saved. 0 waiting."
    version = json.loads(call("curate", "--json")[1])
    assert version["rows"]["sft"] == version["rows"]["preference"] == 1
    assert "already holds exactly these rows" in call("curate")[2]
    assert version["id"] in call("datasets")[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("curate",), "nothing to put into a dataset"),
        (("import", "nowhere.jsonl"), "There is no file nowhere.jsonl"),
        (("charter", "nowhere.toml"), "There is no file nowhere.toml"),
        (("review", "save", "nowhere"), "There is no reply nowhere"),
        (("cancel", "nowhere"), "There is no run 'nowhere'"),
        (("resume", "nowhere"), "There is no run 'nowhere'"),
        (("load", "nowhere"), "Engine is off"),
        (("chat", "Hello"), "Engine is off"),
        (("compare", "Hello", "--adapter", "nowhere"), "Engine is off"),
    ],
)
def test_what_can_be_put_right_is_said_without_a_traceback(call: Call, words: tuple[str, ...], says: str) -> None:
    code, _, complaint = call(*words)
    assert code == 1
    assert says in complaint
    assert "Traceback" not in complaint


def test_a_taken_port_is_refused_before_anything_starts(call: Call, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, _, complaint = call("up", "--port", str(port))
    assert code == 1
    assert f"Port {port} on 127.0.0.1 can't be used" in complaint
    assert f"--port {port + 1}" in complaint
    assert not (tmp_path / "home" / "tonesmith.db").exists()


def test_a_charter_at_fault_is_named(call: Call, tmp_path: Path) -> None:
    charter = tmp_path / "charter.toml"
    for content, says in (
        ("name = ", "not readable as TOML"),
        ("nme = 'x'", "'name'"),
        ("name = 'x'\n[[voice]]\nid = 'a'\ntext = 'b'\nmarker = '('", "not a regular expression"),
        ("name = 'x'\n[[voice]]\nid = 'a'\ntext = 'b'\n[[policy]]\nid = 'a'\ntext = 'c'", "id 'a' twice"),
    ):
        charter.write_text(content)
        code, _, complaint = call("charter", str(charter))
        assert (code, says in complaint) == (1, True), complaint


def test_a_charter_file_made_from_an_older_version_does_not_write_over_what_others_kept(
    call: Call, tmp_path: Path
) -> None:
    charter = tmp_path / "charter.toml"
    for name in ("Shop", "Our shop"):  # one's own file, again and again
        charter.write_text(f'name = "{name}"\nversion = 1\n')
        assert call("charter", str(charter))[0] == 0
    store = open_store(f"sqlite:///{tmp_path / 'home' / 'tonesmith.db'}")
    store.charters.add(Charter(name="Cleo's shop"), "cleo")
    charter.write_text('name = "The shop"\nversion = 2\n')
    code, _, complaint = call("charter", str(charter))
    assert (code, "cleo kept version 3 while you were editing" in complaint) == (1, True)
    assert "write there that it is version 3" in complaint
    charter.write_text('name = "The shop"\nversion = 3\n')
    assert call("charter", str(charter))[1].strip() == "The shop: version 4."
    charter.write_text('name = "A shop"\n')  # which says nothing of where it comes from
    assert call("charter", str(charter))[1].strip() == "A shop: version 5."
    store.close()


def test_an_adapter_is_promoted_and_taken_back_by_command(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TONESMITH_ENGINE", "scripted")
    make_adapter(tmp_path / "home" / "adapters", "a-0")
    assert call("promote", "a-0", "--as", "production", "--reason", "it won")[:2] == (0, "a-0 is what customers get.\n")
    assert json.loads(call("chat", "Hello", "--model", "production", "--json")[1])["adapter"] == "a-0"
    assert "no candidate yet" in call("canary", "0.1", "--reason", "a tenth")[2]
    assert call("promote", "base", "--as", "candidate", "--reason", "to try")[1] == "the base alone is the candidate.\n"
    assert call("canary", "0.1", "--reason", "a tenth")[1] == "10% of people get the candidate.\n"
    assert call("rollback", "--as", "candidate", "--reason", "no")[1] == "There is no candidate now.\n"
    assert call("rollback", "--as", "production", "--reason", "no")[1] == "the base alone is what customers get.\n"
    shown = call("aliases")[1]
    assert "a-0 became what customers get" in shown
    assert "Candidate: none, for 0% of people" in shown
    history = json.loads(call("aliases", "--json")[1])["history"]
    assert [entry["reason"] for entry in history] == ["no", "no", "no", "a tenth", "to try", "it won"]
    code, _, said = call("promote", "nowhere-0", "--as", "production", "--reason", "it won")
    assert (code, "There is no adapter 'nowhere-0'" in said) == (1, True)


def test_keys_are_made_listed_and_revoked(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONESMITH_PERSON", "owner")
    code, _, complaint = call("keys", "add", "website")
    assert (code, "Nobody here is called 'owner'" in complaint) == (1, True)
    assert "tonesmith people add owner" in complaint
    call("people", "add", "owner", "--role", "admin")
    call("people", "add", "ana")
    mine = call("keys", "add", "web[b]site")[1].strip()
    theirs = json.loads(call("keys", "add", "shop", "--person", "ana", "--json")[1])
    assert (mine.split("-")[0], theirs["person"], theirs["key"].split("-")[1]) == ("tonesmith", "ana", theirs["id"])
    listed = call("keys", "list")[1]
    assert "web[b]site" in listed
    assert mine not in listed
    assert "opens nothing any more" in call("keys", "revoke", theirs["id"])[1]
    states = {key["name"]: key["revoked_by"] for key in json.loads(call("keys", "list", "--json")[1])}
    assert states == {"web[b]site": None, "shop": "owner"}
    assert "There is no key 'none'" in call("keys", "revoke", "none")[2]


def test_engine_status_and_sleep_where_no_engine_runs(call: Call) -> None:
    code, out, _ = call("engine", "status", "--json")
    assert code == 0
    assert (json.loads(out)["ready"], json.loads(out)["engines"]) == (False, [])
    code, _, complaint = call("engine", "sleep")
    assert code == 1
    assert "A running engine" in complaint
