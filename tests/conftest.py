"""The tests' models are small: one thread is as fast as several, and far faster where other programs use the cores."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

# their asserts say what they compared, as those of tests do
pytest.register_assert_rewrite("tests.tasks.conformance", "tests.tarot.selectors.conformance")
