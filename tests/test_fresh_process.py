"""What only a process of its own shows: what the import brings, and that no choice depends on its strings' hashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tarot.selectors import SELECTORS
from tests.tarot.selectors.hash_seeds import BROKEN, choices, opposite_seed, words

ROOT = Path(__file__).parents[1]
HEAVY = "hydra omegaconf transformers peft torchvision torchmetrics matplotlib pandas jinja2 sklearn ot scipy.stats"
PROGRAM = f"""
import json, sys, tarot
brought = [name for name in {HEAVY.split()} if name in sys.modules]
from tests.tarot.selectors.hash_seeds import choices
print(json.dumps({{"brought": brought, "choices": choices(*sys.argv[1:])}}))
"""


@cache
def fresh() -> dict[str, Any]:
    """What another process says, whose strings have other hashes."""
    called = words()
    environment = {**os.environ, "PYTHONHASHSEED": opposite_seed(*called), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *called], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_import_is_light():
    assert fresh()["brought"] == []


def test_no_choice_depends_on_hashes():
    """And those that are broken so are caught."""
    here, there = choices(*words()), fresh()["choices"]
    different = {name for name in here if here[name] != there[name]}
    assert here.keys() == there.keys() == {*SELECTORS, *BROKEN}
    assert different == set(BROKEN)
