"""The peer of the batch benchmark is vLLM by itself, so vLLM must take what it is asked."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from annotation.types import Sampling
from benchmarks.batch import as_vllm_takes_it

pytestmark = pytest.mark.slow
ASK = "import json, sys; from vllm import SamplingParams; SamplingParams(**json.load(sys.stdin))"


def test_vllm_takes_what_its_offline_figure_is_drawn_with() -> None:
    asked = json.dumps(as_vllm_takes_it(Sampling(seed=1)))
    done = subprocess.run([sys.executable, "-c", ASK], input=asked, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
