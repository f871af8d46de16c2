"""Chat logs: good lines go in once, bad ones are refused by number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.errors import UserError
from annotation.importers.chat_logs import import_file
from annotation.store import Store, open_store
from annotation.store.search import Filter

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path / 'store.db'}")


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records))
    return path


def test_openai_and_sharegpt_lines_go_in_and_a_second_time_adds_nothing(store: Store, tmp_path: Path) -> None:
    sharegpt = {"id": "x", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}
    file = lines(tmp_path / "log.jsonl", GOOD, sharegpt)
    assert import_file(store, file).added == 2
    again = import_file(store, file)
    assert (again.added, again.already_there) == (0, 2)
    assert store.tasks.counts()["waiting"] == 2


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("{oops", "not JSON"),
        ([1], "not an object"),
        ({"messages": []}, "no 'messages'"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "role 'wizard'"),
        ({"messages": [{"role": "user", "content": " "}]}, "message 1 has no text"),
        ({"messages": [{"role": "user", "content": 5}]}, "message 1 has no text"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "no message from a user"),
        ({"messages": [{"role": "user", "content": "x"}] * 2}, "in a row"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}, "system message after"),
        ({"messages": [{"role": "user", "content": "x\x00"}]}, "NUL"),
        ({"messages": [{"role": "user", "content": "x" * 200_001}]}, "200,001 characters"),
    ],
)
def test_a_bad_line_is_refused_by_number_and_the_rest_goes_in(
    store: Store, tmp_path: Path, record: object, reason: str
) -> None:
    report = import_file(store, lines(tmp_path / "log.jsonl", GOOD, "", record))
    assert report.added == 1
    assert [(refused.line, reason in refused.reason) for refused in report.refused] == [(3, True)], report.refused


def test_csv_by_its_column_names_with_quoted_line_breaks(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text('Question,Answer\n"Two\nlines",Fine\n,No question\n')
    report = import_file(store, file)
    assert report.added == 1
    assert report.refused[0].line == 4
    (hit,) = store.search.find(Filter())
    assert store.conversations.of_reply(hit.reply_id).turns[0].text == "Two\nlines"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("log.xlsx", b"PK", "not a kind of file"),
        ("log.jsonl", b"\xff\xfe", "not UTF-8"),
        ("log.jsonl", b"\n", "is empty"),
        ("log.csv", b"a,b\n1,2\n", "names these columns: a, b"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_in_words(
    store: Store, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        import_file(store, tmp_path / name)
    with pytest.raises(UserError, match="no file"):
        import_file(store, tmp_path / f"missing-{name.split('.')[0]}.jsonl")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1).filter(lambda text: text.strip() and "\x00" not in text), min_size=1, max_size=5))
def test_any_text_survives_the_way_in(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("any")
    opened = open_store(f"sqlite:///{folder / 'store.db'}")
    roles = ["user", "assistant"] * 3
    record = {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]}
    assert import_file(opened, lines(folder / "log.jsonl", record)).added == 1
    with opened.engine.connect() as db:
        kept = db.exec_driver_sql("SELECT text FROM turns ORDER BY seq").scalars().all()
    assert kept == texts
