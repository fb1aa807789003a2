"""The one entry point: Hydra composes a config, an experiment runs it.

python run.py task=digits selector=tarot_otm
HYDRA_FULL_ERROR=1 python run.py ...            # the traceback of an error, not only its message
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.errors import message_of
from experiments.resolvers import register_resolvers

DEBUG = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
log = logging.getLogger("tarot")


@hydra.main(version_base=None, config_path=str(Path(__file__).parent / "conf"), config_name="config")
def run(config: DictConfig) -> None:
    from experiments.run import Run  # imports torch, which takes seconds that `--help` should not

    try:
        Run.of(config).start()
    except Exception as error:
        message = message_of(error)
        if DEBUG or message is None:
            raise
        log.error("error: %s", message)
        if HydraConfig.get().mode == RunMode.RUN:
            sys.exit(1)
        raise  # the sweep goes on with its other jobs and fails at its end


def main() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands over every error, instead of printing it its own way
    register_resolvers()
    try:
        run()
    except Exception as error:
        message = message_of(error)
        if DEBUG or message is None:
            raise
        sys.exit(f"error: {message}")


if __name__ == "__main__":
    main()
