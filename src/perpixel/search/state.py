"""All that a stopped search needs to go on exactly, in one safetensors file."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from perpixel.config import from_dict
from perpixel.engine.files import load_tensors, save_tensors
from perpixel.errors import InputError
from perpixel.search.policy import Policy, Proposal
from perpixel.search.trial import Hope, Outcome


@dataclass
class Trial:
    """A genotype that was proposed.

    Attributes:
        proposal: the answers that make it.
        hope: when it is to be given up; None never.
        outcome: what became of it; None while nothing has.
    """

    proposal: Proposal
    hope: Hope | None
    outcome: Outcome | None = None


@dataclass
class SearchState:
    """How far a search is.

    Attributes:
        policy: what proposes.
        trials: all that were proposed, in order.
        learned: how many of them, from the first, the policy has learned from.
        running: averages for the early stop.
        seconds: spent searching so far.
    """

    policy: Policy
    trials: list[Trial] = field(default_factory=list)
    learned: int = 0
    running: tuple[float, ...] = ()
    seconds: float = 0.0

    @property
    def finished(self) -> list[tuple[int, Trial, Outcome]]:
        """The trials with an outcome, with their numbers."""
        return [(number, t, t.outcome) for number, t in enumerate(self.trials) if t.outcome is not None]

    def save(self, path: Path) -> None:
        """Writes everything to one file, atomically."""
        tensors, policy = self.policy.save()
        document = {
            "policy": policy,
            "trials": [asdict(trial) for trial in self.trials],
            "learned": self.learned,
            "running": self.running,
            "seconds": self.seconds,
        }
        save_tensors(path, tensors, {"search": document})

    def load(self, path: Path) -> None:
        """Goes back to where `save` left it.

        Raises:
            InputError: the file is missing, corrupt or no search's state.
        """
        tensors, document = load_tensors(path)
        if "search" not in document:
            raise InputError(f"{path} is not the state of a search: give the folder that `perpixel search` wrote")
        values = document["search"]
        self.policy.load(tensors, values["policy"])
        self.trials = [from_dict(Trial, trial) for trial in values["trials"]]
        self.learned, self.running, self.seconds = values["learned"], tuple(values["running"]), values["seconds"]
