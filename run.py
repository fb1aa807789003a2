"""The one entry point: Hydra composes a config, an experiment runs it.

python run.py task=digits selector=tarot_otm
HYDRA_FULL_ERROR=1 python run.py ...            # the traceback of an error, not only its message
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.command.errors import JobFailed, is_interrupt, message_of, message_of_hydra
from experiments.command.resolvers import register_resolvers

TRACEBACK = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
INTERRUPTED = "interrupted: what is finished is in the cache, and the same command goes on from there"
log = logging.getLogger("tarot")
failures = logging.getLogger("tarot.failures")  # to the run's own run.log alone


@hydra.main(version_base=None, config_path=str(Path(__file__).parent / "conf"), config_name="config")
def run(config: DictConfig) -> None:
    from experiments.frame.run import Run

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: log.warning("warning: %s", message)
        try:
            Run.of(config).start()
        except Exception as error:
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            message = message_of(error)
            if message is None or TRACEBACK:
                raise
            failures.error(message)
            if HydraConfig.get().mode == RunMode.RUN:
                sys.exit(f"error: {message}")
            print(f"job {HydraConfig.get().job.num} failed: {message}", file=sys.stderr)
            raise JobFailed(message) from None  # the sweep goes on with its other jobs and fails at its end


def main() -> None:
    # Before torch is loaded: threads that wait for one another give way early. By default they do so late, which takes
    # several times as long beside other programs; at once would be slower on cores of one's own.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun, accelerate launch
        work_together()
    else:
        work()


def work_together() -> None:
    """Several processes: the first one does what a run does, the others what it asks of them."""
    from tarot.workers import team

    if team().rank:
        os.environ["TAROT_PROGRESS"] = "0"  # the leader says how far all are, and what it warns of
        log.setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        team().follow()
        return
    try:
        work()
    finally:
        team().dismiss()


def work() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands over every error, instead of printing it its own way
    register_resolvers()
    try:
        run()
    except (Exception, KeyboardInterrupt) as error:
        if is_interrupt(error):
            print(f"\n{INTERRUPTED}", file=sys.stderr)
            sys.exit(130)
        message = message_of(error) or message_of_hydra(error, run)
        if message is None or TRACEBACK:
            raise
        sys.exit(f"error: {message}")


if __name__ == "__main__":
    main()
