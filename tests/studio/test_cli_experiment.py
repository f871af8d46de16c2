"""An experiment from the command line: set up, voted on blind, judged by a model, ended, read and taken along."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.fixtures.studio import wait_until
from tests.serving.conftest import make_adapter
from tests.studio.conftest import Call

TELLING = ("SmolLM2", "a-0", "Base model", "with the guide", "control", "repeat")


@pytest.fixture
def project(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a charter, an adapter and six questions, on scripted replies."""
    monkeypatch.setenv("TONESMITH_ENGINE", "scripted")
    monkeypatch.setattr("studio.cli.experiment.POLL_SECONDS", 0.05)
    make_adapter(tmp_path / "home" / "adapters", "a-0")
    charter = tmp_path / "charter.toml"
    charter.write_text('name = "Shop"\n[[voice]]\nid = "warm"\ntext = "Greets warmly."\n')
    call("charter", str(charter))
    asked = tmp_path / "questions.txt"
    many = "abcdefghijklmn"  # of some, both sides say the same by chance, and nobody is asked
    asked.write_text("\n".join(f"Where is parcel [{number}]?" for number in many))
    return tmp_path


def start(call: Call, project: Path, *more: str) -> dict[str, object]:
    sides = ("--side", "base", "--side", "a-0", "--longest", "12")
    asked = ("--questions", str(project / "questions.txt"))
    code, printed, said = call("experiment", "new", "Tone", *sides, *asked, *more, "--json")
    assert code == 0, said
    return dict(json.loads(printed))


def test_an_experiment_from_its_questions_to_its_file(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = start(call, project, "--ask", "voice")
    assert made["drawn"] == made["planned"]
    assert made["sides"] == ["Base model", "a-0"]
    assert "Tone" in call("experiment", "list")[1]

    code, shown, _ = call("experiment", "next", "Tone", "--json")
    assert [word for word in TELLING if word in shown] == []
    pair = json.loads(shown)["pair_id"]
    assert call("experiment", "vote", "Tone", "--pair", pair, "--outcome", "tie")[:2] == (0, "Saved.\n")
    assert (
        "You have judged this pair already" in call("experiment", "vote", "Tone", "--pair", pair, "--outcome", "tie")[2]
    )
    assert "go together" in call("experiment", "vote", "Tone", "--pair", pair)[2]

    monkeypatch.setattr(sys, "stdin", io.StringIO("7\n1\n\n4\n2\nq\n"))  # 7 is no answer, and is asked again
    code, blind, _ = call("experiment", "vote", "Tone")
    assert (code, blind.endswith(": 2 judged.\n")) == (0, True), blind
    assert [word for word in TELLING if word in blind] == []
    assert blind.count("Left\n") == 3
    assert "Where is parcel [" in blind

    code, judged, said = call("experiment", "judge", "Tone", "--json")
    assert code == 0, said
    progress = json.loads(judged)
    assert progress["answers"] == progress["of"] > 0
    assert progress["no_verdict"] == 0
    assert "Judge first what you want to judge" in call("experiment", "results", "Tone", "--json")[2]
    early = json.loads(call("experiment", "results", "Tone", "--judge-no-more", "--json")[1])
    assert (early["people"]["ballots"], early["models"]) == (3, [])
    late = call("experiment", "vote", "Tone", "--pair", pair, "--outcome", "tie")[2]
    assert "You have seen the figures of this experiment" in late
    assert "exported when it has ended" in call("experiment", "export", "Tone")[2]

    assert call("experiment", "end", "Tone", "--reason", "enough")[0] == 0
    assert "has ended" in call("experiment", "vote", "Tone", "--pair", pair, "--outcome", "tie")[2]
    printed = call("experiment", "results", str(made["id"])[:6])[1]
    assert "a-0 against Base model" in printed
    assert "What a model thinks: SmolLM2-135M-Instruct  (not counted above)" in printed
    assert "Always says “the first”" in printed
    both = json.loads(call("experiment", "results", "Tone", "--json")[1])
    assert both["people"]["ballots"] == 3
    assert both["models"][0]["answers"] == progress["of"]
    out = project / "all.jsonl"
    assert call("experiment", "export", "Tone", "--to", str(out))[0] == 0
    assert out.read_text() == call("experiment", "export", "Tone")[1]
    assert sum(len(json.loads(line).get("ballots", [])) for line in out.read_text().splitlines()) == 3
    status = json.loads(call("experiment", "status", "Tone", "--json")[1])
    assert (status["ballots"], status["reason"], len(status["judges"])) == (3, "enough", 1)


def test_two_prompts_and_two_varieties_of_one_model_are_compared(call: Call, project: Path) -> None:
    own = project / "our prompt.txt"
    own.write_text("Be brief.\n")
    sides = (
        "--side",
        f"base temperature=0.3 instructions={own}",
        "--side",
        "base guide",
        "--side",
        "base guide temperature=1",
    )
    asked = ("--questions", str(project / "questions.txt"))
    code, printed, said = call("experiment", "new", "Prompts", *sides, *asked, "--no-wait", "--json")
    assert code == 0, said
    assert json.loads(printed)["sides"] == [
        "Base model with our instructions",
        "Base model with the guide, variety 0.7",
        "Base model with the guide, variety 1",
    ]
    with closing(sqlite3.connect(project / "home" / "tonesmith.db")) as db:
        ((design,),) = db.execute("SELECT design FROM experiments")
    made = json.loads(design)["sides"]
    assert made[0]["system"] == "Be brief."
    assert [side["sampling"]["temperature"] for side in made] == [0.3, 0.7, 1]


def test_what_was_stopped_waits_for_resume(call: Call, project: Path) -> None:
    made = start(call, project, "--no-wait")
    assert made["drawn"] == 0
    assert call("experiment", "stop", "Tone")[1] == "Stopped. What is there stays.\n"
    assert "State     stopped, 0 of" in call("experiment", "status", "Tone")[1]
    assert "nothing left for you" in call("experiment", "next", "Tone")[1]
    resumed = json.loads(call("experiment", "resume", "Tone", "--json")[1])
    assert resumed["drawn"] == resumed["planned"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("status", "nowhere"), "There is no experiment 'nowhere'"),
        (("new", "x", "--side", "base", "--questions", "nowhere.txt"), "nowhere.txt can't be read"),
        (("new", "x", "--side", "base"), "only one side"),
        (("new", "x", "--side", "base", "--ask", "taste"), "--ask is 'taste'"),
        (("new", "x", "--side", "base", "--side", "base warm"), "Take 'warm' out"),
        (("new", "x", "--side", "base", "--side", "base temperature=3"), "A temperature from 0 to 2"),
        (("new", "x", "--side", "base instructions=nowhere.txt"), "nowhere.txt can't be read"),
        (("new", "x", "--side", "base guide instructions=a"), "'guide' or 'instructions=FILE'"),
        (("new", "x", "--side", "base", "--side", "b-0"), "There is no adapter 'b-0'"),
        (("judge", "Tone", "--model", "elsewhere"), "No other server is set"),
        (("judge", "Tone", "--model", "b-0"), "There is no adapter 'b-0'"),
        (("end", "Tone"), "Nobody has voted yet"),
        (("export", "Tone"), "exported when it has ended"),
    ],
)
def test_what_can_be_put_right_is_said(call: Call, project: Path, words: tuple[str, ...], says: str) -> None:
    if "Tone" in words:
        start(call, project, "--no-wait")
    code, _, complaint = call("experiment", *words)
    assert (code, says in complaint) == (1, True), complaint


@pytest.mark.slow
def test_a_judge_that_is_killed_goes_on_and_judges_nothing_twice(call: Call, project: Path) -> None:
    (project / "questions.txt").write_text("\n".join(f"Where is parcel {'x' * number}?" for number in range(1, 31)))
    start(call, project)
    judge = [sys.executable, "-m", "studio", "experiment", "judge", "Tone", "--json"]
    killed = subprocess.Popen(judge, stdout=subprocess.DEVNULL)

    def kept() -> list[tuple[str, str]]:
        with closing(sqlite3.connect(project / "home" / "tonesmith.db")) as db:
            return db.execute('SELECT pair_id, "order" FROM judge_verdicts ORDER BY seq').fetchall()

    wait_until(kept, 180, "a first verdict")
    killed.kill()
    killed.wait()
    before = kept()
    progress = json.loads(subprocess.run(judge, capture_output=True, text=True, check=True).stdout)
    assert 0 < len(before) < progress["of"] == progress["answers"] == len(kept())
    assert kept()[: len(before)] == before
    assert len(json.loads(call("experiment", "status", "Tone", "--json")[1])["judges"]) == 1
