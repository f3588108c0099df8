"""A space without images, whose best genotype is known: to see a search at work in seconds, and to test one."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perpixel.search.graph import Graph, Node
from perpixel.search.policy import PolicyConfig
from perpixel.search.ppo import PPO
from perpixel.search.settings import Search
from perpixel.search.space import Conversation, Decision, Space, Tokens
from perpixel.search.trial import report, worth_going_on

OPERATIONS = ("add", "double", "square", "nothing")

LEARNER = PPO(hidden=32, first_steps=1, learning_rate=0.02, buffer=16, batches=1)
"""Learns a few decisions in as many seconds as the paper's settings take days for many."""


@dataclass(frozen=True)
class ToyStep:
    """One step: an earlier value and what is done with it.

    Attributes:
        source: place of the value; 0 is the one given, i that of step i.
        operation: one of `OPERATIONS`.
    """

    source: int
    operation: str


@dataclass(frozen=True)
class ToyGenotype:
    """A chain of steps.

    Attributes:
        steps: in order.
    """

    steps: tuple[ToyStep, ...]


class ToySpace(Space[ToyGenotype]):
    """Steps whose choice of sources grows."""

    genotype = ToyGenotype

    def __init__(self, steps: int) -> None:
        self._steps = steps

    @property
    def kinds(self) -> Mapping[str, Sequence[str]]:
        """Sources and operations."""
        return {"source": ["given", *(f"step {i + 1}" for i in range(self._steps - 1))], "operation": OPERATIONS}

    def decisions(self) -> Conversation[ToyGenotype]:
        """A source and an operation a step."""
        steps = []
        for step in range(self._steps):
            source = yield Decision("source", step + 1)
            operation = yield Decision("operation", len(OPERATIONS))
            steps.append(ToyStep(source, OPERATIONS[operation]))
        return ToyGenotype(tuple(steps))

    def tokens(self, genotype: ToyGenotype) -> Tokens:
        """The answers that make this genotype."""
        return tuple(token for step in genotype.steps for token in (step.source, OPERATIONS.index(step.operation)))

    def graph(self, genotype: ToyGenotype) -> Graph:
        """A node a step."""
        nodes = {"0": Node("given", "input")}
        edges = []
        for place, step in enumerate(genotype.steps, start=1):
            nodes[str(place)] = Node(step.operation, "operation")
            edges.append((str(step.source), str(place)))
        return Graph(nodes, edges)


@dataclass(frozen=True)
class ToyReward:
    """The share of decisions that are as in the best genotype: each step doubles what the step before gave.

    Attributes:
        seconds: a trial waits so long in all, to be watched.
    """

    seconds: float = 0.0

    def __call__(self, genotype: ToyGenotype) -> float:
        """The reward, 0..1."""
        chained = [step.source == place for place, step in enumerate(genotype.steps)]
        doubled = [step.operation == "double" for step in genotype.steps]
        time.sleep(self.seconds / 2)
        value = (sum(chained) + sum(doubled)) / (2 * len(genotype.steps))
        report(chained=sum(chained) / len(chained), doubled=sum(doubled) / len(doubled))
        if worth_going_on(value):
            time.sleep(self.seconds / 2)
        return value


@dataclass(frozen=True, kw_only=True)
class ToySearch(Search):
    """A few decisions and a reward that takes no time.

    Attributes:
        steps: of a genotype.
        seconds: that a trial waits.
    """

    trials: int = 150
    policy: PolicyConfig = field(default_factory=lambda: LEARNER)
    steps: int = 4
    seconds: float = 0.0

    def space(self) -> ToySpace:
        """Steps whose choice of sources grows."""
        return ToySpace(self.steps)

    def reward(self) -> ToyReward:
        """The share of right decisions."""
        return ToyReward(self.seconds)
