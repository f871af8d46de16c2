"""The real engine as a judge: it answers in the form it is asked for, in both orders, with its weights attested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from annotation.judging import ORDERS, read_answer
from annotation.store import Store
from serving.client import Client
from studio.services.judging import JudgeRunner
from tests.studio.test_experiment_service import identify, store, until
from tests.studio.test_judges import experiment_of, service

pytestmark = [pytest.mark.slow, pytest.mark.alone]
__all__ = ["store"]
QUESTIONS = 3


def test_vllm_judges_each_pair_in_both_orders_in_the_form_it_is_held_to(
    client: Client, store: Store, tmp_path: Path
) -> None:
    experiment = experiment_of(store, tmp_path, QUESTIONS)
    asked = service(store).ask(experiment.id, "base")
    runner = JudgeRunner(store, lambda judge: client, identify)
    runner.start()
    until(lambda: len(store.judging.said(asked.id)) == 2 * QUESTIONS or runner.trouble(asked.id), 240)
    assert runner.trouble(asked.id) == ""
    runner.close()
    verdicts = store.judging.verdicts(experiment.id)
    pairs = {pair.id for pair in store.experiments.pairs(experiment.id)}
    assert {(one.pair_id, one.order) for one in verdicts} == {(pair, order) for pair in pairs for order in ORDERS}
    for one in verdicts:
        assert one.opinion == read_answer(one.answer, ("voice",))
        assert one.provenance.attested is not None
        if one.provenance.finish == "stop":  # the form was filled in to its end
            assert one.opinion is not None
            assert list(json.loads(one.answer)["voice"]) == ["reason", "better"]
    assert len({one.provenance.attested for one in verdicts}) == 1
    assert len({one.asked_sha256 for one in verdicts}) == 2 * QUESTIONS
    assert any(one.opinion for one in verdicts)
