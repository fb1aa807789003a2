"""The tests' models are small: one thread is as fast as several, and far faster where other programs use the cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
