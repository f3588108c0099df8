"""Rewards that worker processes of the tests import."""

import os
import signal
import time

from perpixel.search.spaces.toy import ToyGenotype, ToyReward


def by_first_operation(genotype: ToyGenotype) -> float:
    """Fares well, raises, gets killed or hangs, as the first operation says."""
    fate = genotype.steps[0].operation
    if fate == "double":
        raise RuntimeError("no <b>memory</b>")
    if fate == "square":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "nothing":
        time.sleep(600)
    return ToyReward()(genotype)
