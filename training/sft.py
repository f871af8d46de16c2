"""Supervised fine-tuning of a LoRA adapter: trl's SFTTrainer over rows we tokenised ourselves. Read top to bottom."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from annotation.errors import NotFound, UserError
from annotation.files import write_whole
from annotation.types import utc_now
from annotation.versions import read_rows
from training import registry
from training.callbacks import Recorder
from training.hardware import Hardware, batch_for, detect, dtype_for
from training.parity import score
from training.preflight import check
from training.processes import undisturbed
from training.rundir import RunDir
from training.tokens import Encoded, RowError, encode
from training.types import RunResult, RunState, SftConfig

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tonesmith")
BAD_SIGNS = ("may not learn to stop", "not a prefix", "not start with", "mismatch between tokenized prompt")
"""What trl only warns of, and goes on to train something that cannot be served."""


class Rows:
    """The rows of a version, tokenised, and the account of what became of each."""

    def __init__(self, tokenizer: Any, rows: Iterable[dict[str, Any]], max_length: int) -> None:
        self.encoded: list[Encoded] = []
        self.dropped: Counter[str] = Counter()
        for row in rows:
            try:
                self.encoded.append(encode(tokenizer, row["messages"], max_length))
            except RowError as error:
                self.dropped[str(error)] += 1

    @property
    def learned(self) -> int:
        """Tokens with loss, over all rows."""
        return sum(row.learned for row in self.encoded)

    @property
    def truncated(self) -> int:
        return sum(row.truncated for row in self.encoded)

    def dataset(self) -> Dataset:
        """As trl takes rows that are already prepared: `input_ids` and `labels`."""
        return Dataset.from_dict(
            {
                "input_ids": [list(row.input_ids) for row in self.encoded],
                "labels": [list(row.labels) for row in self.encoded],
            }
        )

    def require_some(self) -> None:
        """Raise UserError if a run on these rows would teach nothing."""
        if self.learned == 0:
            why = "; ".join(f"{number} × {reason}" for reason, number in self.dropped.items()) or "the version is empty"
            raise UserError(
                f"No row of this version can be learned from: {why}.",
                "At least one row whose reply fits into the longest row.",
                "Make a new version, or choose a preset with longer rows.",
            )


def run_sft(run: RunDir) -> RunState:
    """Do the run in `run`, from its last checkpoint if there is one; returns and writes the final state.

    Raises UserError for whatever a person can put right.
    """
    began = time.monotonic()
    config, hardware = run.read_config(), detect()
    recorder = Recorder(run, RunState(status="running", started_at=utc_now(), step=run.last_checkpoint_step()))
    if (result := published(run, config)) is not None:
        return finish(run, recorder, result)
    recorder.stage("checking", "Checking.")
    check(config, run.path)
    recorder.stage("tokenising", "Reading the rows.")
    given = read_rows(config.dataset_dir, "sft")
    tokenizer = load_tokenizer(config)
    rows = Rows(tokenizer, given, config.max_length)
    rows.require_some()
    recorder.stage("loading the model", "Loading the model.")
    trainer = build(config, run, load_model(config, hardware), tokenizer, rows, hardware, recorder)
    checkpoint = run.last_checkpoint()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(str(run.making))
    scored = score(trainer.model, tokenizer)
    metrics = run.read_metrics()
    result = RunResult(
        rows_in=len(given),
        rows_trained=len(rows.encoded),
        rows_truncated=rows.truncated,
        rows_dropped=dict(rows.dropped),
        tokens_with_loss=rows.learned,
        steps=trainer.state.global_step,
        seconds=round(time.monotonic() - began, 1),
        first_loss=metrics[0].loss if metrics else None,
        last_loss=metrics[-1].loss if metrics else None,
        adapter=registry.name_of(run.making, config),
    )
    with undisturbed():
        # The account before the adapter: a run killed between the two lines below is found finished, not done twice.
        write_whole(run.result, result.model_dump_json(indent=2))
        versions = {name: version(name) for name in LIBRARIES}
        registry.publish(run.making, config, run.path.name, versions, scored)
        return finish(run, recorder, result)


def published(run: RunDir, config: SftConfig) -> RunResult | None:
    """The account of this run if its adapter is out already; None if there is work to do."""
    try:
        result = RunResult.model_validate_json(run.result.read_bytes())
        registry.get(config.adapters_dir, result.adapter)
    except (FileNotFoundError, NotFound):
        return None
    return result


def finish(run: RunDir, recorder: Recorder, result: RunResult) -> RunState:
    """Say that the run succeeded, and give back the disk space of what nobody needs any more."""
    done = {"status": "succeeded", "message": "Done.", "result": result, "adapter": result.adapter}
    counts = {"step": result.steps, "of_steps": result.steps, "loss": result.last_loss}
    run.finish(recorder.state.model_copy(update=done | counts))
    shutil.rmtree(run.making, ignore_errors=True)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return run.read_state()


def load_tokenizer(config: SftConfig) -> Any:
    """The base model's tokenizer with its chat template. Raises UserError if it has none."""
    tokenizer = AutoTokenizer.from_pretrained(config.base_model, revision=config.base_revision or "main")
    if not tokenizer.chat_template:
        raise UserError(
            f"The tokenizer of {config.base_name} has no chat template.",
            "An instruction-tuned model.",
            "Choose another base model.",
        )
    return tokenizer


def load_model(config: SftConfig, hardware: Hardware) -> Any:
    """The base model, in the number format that suits the hardware whatever it was stored in."""
    if not hardware.gpus:
        torch.set_num_threads(hardware.cpu_cores)
    dtype = getattr(torch, dtype_for(hardware))
    return AutoModelForCausalLM.from_pretrained(config.base_model, revision=config.base_revision or "main", dtype=dtype)


def steps_of(config: SftConfig, rows: int) -> int:
    """Optimiser steps a run over `rows` rows takes."""
    by_epochs = max(1, round(config.epochs * -(-rows // config.rows_per_step)))
    return min(by_epochs, config.max_steps) if config.max_steps else by_epochs


def build(
    config: SftConfig, run: RunDir, model: Any, tokenizer: Any, rows: Rows, hardware: Hardware, recorder: Recorder
) -> SFTTrainer:
    """trl's trainer, set up so that nothing is cut, packed or masked behind our back."""
    batch, accumulation = batch_for(hardware, config.rows_per_step, model.num_parameters())
    dtype = dtype_for(hardware)
    steps = steps_of(config, len(rows.encoded))
    arguments = TrlConfig(
        output_dir=str(run.checkpoints),
        max_steps=steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup_ratio * steps),
        seed=config.seed,
        data_seed=config.seed,
        # Rows of a like length together: less padding to compute for nothing.
        train_sampling_strategy="group_by_length",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        use_cpu=not hardware.gpus,
        bf16=bool(hardware.gpus) and dtype == "bfloat16",
        fp16=bool(hardware.gpus) and dtype == "float16",
        gradient_checkpointing=bool(hardware.gpus),
        dataloader_num_workers=0,
        dataloader_pin_memory=bool(hardware.gpus),
        logging_steps=1,
        logging_first_step=True,
        save_strategy="steps",
        save_steps=config.checkpoint_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )
    logger, watch = logging.getLogger("trl"), Watch()
    logger.addHandler(watch)
    try:
        return SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=rows.dataset(),
            processing_class=tokenizer,
            peft_config=lora(config),
            callbacks=[recorder],
        )
    finally:
        logger.removeHandler(watch)


class Watch(logging.Handler):
    """Turns those of trl's warnings that mean a useless adapter into the end of the run."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if any(sign in text for sign in BAD_SIGNS):
            raise UserError(f"trl warns: {text}", "A chat template that trains what is served.", "Use another base.")


def lora(config: SftConfig) -> LoraConfig:
    """The adapter's shape, as peft takes it."""
    targets = config.lora.target_modules
    return LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
