"""The engine's figures: out of what a real vLLM 0.32 said while it answered, and out of what nobody should say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.metrics import Figures, Rates, figures, rates, samples

BUSY = (Path(__file__).parent / "vllm_metrics.txt").read_text()
"""Three requests under way, two of them to the adapter `one-0`; the histograms' buckets are left out."""


def test_the_figures_of_a_busy_vllm() -> None:
    found = figures(BUSY, at=5.0)
    assert found == Figures(
        running=3,
        waiting=0,
        kv_cache=0.016574585635359074,
        prompt_tokens=108,
        generation_tokens=7,
        adapters_running=("one-0",),
        adapters_waiting=("one-0",),
        at=5.0,
    )


def test_the_newest_of_the_adapters_series_counts() -> None:
    series = 'vllm:lora_requests_info{{max_lora="4",running_lora_adapters="{}",waiting_lora_adapters=""}} {}\n'
    text = "vllm:num_requests_running 0\n" + series.format("b-1,a-1", 1e9) + series.format("", 2e9)
    found = figures(text, 0)
    assert found is not None
    assert found.adapters_running == ()
    found = figures(text + series.format("c-1,a-1", 3e9), 0)
    assert found is not None
    assert found.adapters_running == ("a-1", "c-1")


def test_several_engines_add_up() -> None:
    found = figures('vllm:num_requests_running{engine="0"} 2\nvllm:num_requests_running{engine="1"} 3.0\n', 0)
    assert found is not None
    assert found.running == 5


@pytest.mark.parametrize("text", ["", "<html>404</html>", "up 1\n", "# HELP vllm:num_requests_running Number"])
def test_what_is_not_vllms_gives_no_figures(text: str) -> None:
    assert figures(text, 0) is None


def test_labels_may_hold_anything() -> None:
    (found,) = samples(r'a:b_c{name="say \"hi\" } = \\ \n",other="x"} 1.5e3 1700000000')
    assert found.labels == {"name": 'say "hi" } = \\ \n', "other": "x"}
    assert found.value == 1500


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    figures(text, 0)


def at(seconds: float, prompt: float, generation: float) -> Figures:
    return Figures(running=0, waiting=0, kv_cache=0, prompt_tokens=prompt, generation_tokens=generation, at=seconds)


def test_rates_are_tokens_over_time() -> None:
    assert rates(at(10, 100, 50), at(12, 160, 90)) == Rates(prompt=30, generation=20)


@pytest.mark.parametrize("before", [None, at(12, 0, 0), at(10, 500, 0), at(10, 0, 500)])
def test_there_is_no_rate_at_first_at_once_or_over_a_restart(before: Figures | None) -> None:
    assert rates(before, at(12, 160, 90)) is None
