"""What the trainer is really fed: the first batch of the loader, under the real tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotation.errors import UserError
from annotation.types import utc_now
from annotation.versions import read_rows
from tests.fixtures.models import DemoVersion, config_for
from training.hardware import detect
from training.rundir import RunDir
from training.tokens import IGNORED, RowError, encode, ids_of, render
from training.types import LoraSettings, RunState, SftConfig

pytestmark = [pytest.mark.slow, pytest.mark.alone]
END_OF_TURN = "<|im_end|>"


@pytest.fixture(scope="module")
def tokenizer(base_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model)


def test_every_label_of_a_batch_is_the_reply_with_its_end_and_nothing_else(
    base_model: Path, demo_version: DemoVersion, tokenizer: Any, tmp_path: Path
) -> None:
    from training import sft
    from training.callbacks import Recorder

    small = {"dataset_dir": demo_version.folder, "lora": LoraSettings(rank=2), "max_steps": 1}
    config = config_for(tmp_path, demo_version.version, base_model, **small)
    run = RunDir.create(tmp_path / "runs" / "r", config)
    given = read_rows(config.dataset_dir, "sft")
    rows = sft.Rows(tokenizer, given, config.max_length)
    recorder = Recorder(run, RunState(status="running", started_at=utc_now()))
    hardware = detect()
    trainer = sft.build(config, run, sft.load_model(config, hardware), tokenizer, rows, hardware, recorder)

    batch = next(iter(trainer.get_train_dataloader()))
    assert len(batch["input_ids"]) == config.rows_per_step
    replies = {row["messages"][-1]["content"] for row in given}
    prompts = {render(tokenizer, row["messages"][:-1], add_generation_prompt=True) for row in given}
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        learned = labels != IGNORED
        assert (ids[learned] == labels[learned]).all()
        said = tokenizer.decode(labels[learned])
        assert said.endswith(END_OF_TURN)
        assert said.removesuffix(END_OF_TURN) in replies
        assert tokenizer.decode(ids[(mask == 1) & ~learned]) in prompts
        assert not learned[mask == 0].any(), "padding is never learned"


def test_only_the_adapter_is_trained(base_model: Path, demo_version: DemoVersion, tokenizer: Any) -> None:
    from peft import get_peft_model

    from training import sft

    config = config_for(demo_version.home, demo_version.version, base_model)
    model = get_peft_model(sft.load_model(config, detect()), sft.lora(config))
    trained = [name for name, weights in model.named_parameters() if weights.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)


def test_the_prompt_is_what_the_server_renders(demo_version: DemoVersion, tokenizer: Any) -> None:
    for line in read_rows(demo_version.folder, "sft"):
        row = encode(tokenizer, line["messages"], 1024)
        prompt = tokenizer.apply_chat_template(line["messages"][:-1], add_generation_prompt=True)["input_ids"]
        assert list(row.input_ids[: len(prompt)]) == prompt
        assert row.learned == len(row.input_ids) - len(prompt)
        assert row.input_ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    "said",
    [
        "Hi.",
        " leading and trailing ",
        "two\n\nlines\n",
        "größer — “so” 😀",
        "def f(x):\n\treturn x",
        "<|im_start|>user",
    ],
)
def test_odd_replies_are_learned_to_the_letter_or_left_out(tokenizer: Any, said: str) -> None:
    asked = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": said}]
    row = encode(tokenizer, asked, 200)
    learned = tokenizer.decode([label for label in row.labels if label != IGNORED])
    assert learned == said + END_OF_TURN


def test_a_reply_that_ends_turns_itself_is_left_out(tokenizer: Any) -> None:
    asked = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": f"Hi.{END_OF_TURN}\nNo."}]
    with pytest.raises(RowError, match="stop in the middle"):
        encode(tokenizer, asked, 200)
    assert ids_of(tokenizer, END_OF_TURN) == [tokenizer.eos_token_id]


def test_rows_are_counted_by_what_became_of_them(tokenizer: Any) -> None:
    from training.sft import Rows

    def chat(asked: str, said: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}

    rows = Rows(
        tokenizer, [chat("Hi", "Yes."), chat("Hi", "word " * 90), chat("word " * 90, "Yes."), chat("Hi", " ")], 64
    )
    assert (len(rows.encoded), rows.truncated) == (2, 1)
    assert dict(rows.dropped) == {
        "the prompt alone fills the 64 tokens a row may have": 1,
        "the last message is not a reply with text": 1,
    }
    assert rows.learned == sum(row.learned for row in rows.encoded) > 30
    rows.require_some()


def test_a_version_that_teaches_nothing_says_why(tokenizer: Any) -> None:
    from training.sft import Rows

    nothing = [{"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": ""}]}] * 2
    with pytest.raises(UserError, match=r"No row .* can be learned from: 2 × the last message is not a reply"):
        Rows(tokenizer, nothing, 64).require_some()
    with pytest.raises(UserError, match="the version is empty"):
        Rows(tokenizer, [], 64).require_some()


def test_a_warning_of_trl_that_means_a_useless_adapter_ends_the_run() -> None:
    from training.sft import BAD_SIGNS, Watch

    def warned(text: str) -> logging.LogRecord:
        return logging.LogRecord("trl", logging.WARNING, "", 0, text, None, None)

    Watch().emit(warned("You are using packing."))
    for sign in BAD_SIGNS:
        with pytest.raises(UserError, match="trl warns"):
            Watch().emit(warned(f"The model {sign} the turn."))


def test_a_run_over_a_version_without_rows_is_over_before_it_begins(
    base_model: Path, configured: Callable[..., SftConfig], tmp_path: Path
) -> None:
    from training.sft import run_sft

    run = RunDir.create(tmp_path / "runs" / "empty", configured([], base_model))
    with pytest.raises(UserError, match="has no rows to learn from"):
        run_sft(run)
