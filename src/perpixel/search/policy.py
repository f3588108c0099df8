"""What proposes genotypes and learns from their rewards; random search, the least of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perpixel.search.space import Decision, Space, Tokens, answer


@dataclass(frozen=True)
class Proposal:
    """Answers to a space's questions.

    Attributes:
        tokens: one a question.
        log_probabilities: of each answer when it was given.
    """

    tokens: Tokens
    log_probabilities: tuple[float, ...]


class Policy(ABC):
    """Proposes and learns; all it knows goes into tensors and a plain document, so that it goes on exactly."""

    @abstractmethod
    def propose(self) -> Proposal:
        """The next genotype to try, as answers."""

    @abstractmethod
    def learn(self, proposal: Proposal, reward: float) -> None:
        """Takes note of what a proposal was worth."""

    @abstractmethod
    def save(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All it knows: tensors by name, and plain values."""

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Goes back to what `save` gave."""


@dataclass(frozen=True)
class PolicyConfig(ABC):
    """Settings of a policy."""

    @abstractmethod
    def build(self, space: Space[Any], seed: int) -> Policy:
        """The policy for a space."""


@dataclass(frozen=True)
class RandomSearch(PolicyConfig):
    """Every option of every decision alike, whatever the rewards: what a controller must beat."""

    def build(self, space: Space[Any], seed: int) -> "RandomPolicy":
        """The policy for a space."""
        return RandomPolicy(space, seed)


class RandomPolicy(Policy):
    """Uniform answers."""

    def __init__(self, space: Space[Any], seed: int) -> None:
        self._space = space
        self._generator = torch.Generator().manual_seed(seed)

    def propose(self) -> Proposal:
        """The next genotype to try, as answers."""

        def choose(decision: Decision) -> int:
            chances.append(1 / decision.count)
            return int(torch.randint(decision.count, (), generator=self._generator))

        chances: list[float] = []
        tokens, _ = answer(self._space, choose)
        return Proposal(tokens, tuple(torch.tensor(chances, dtype=torch.float64).log().tolist()))

    def learn(self, proposal: Proposal, reward: float) -> None:
        """Learns nothing."""

    def save(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The random state."""
        return {"generator": self._generator.get_state()}, {}

    def load(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Goes back to that random state."""
        self._generator.set_state(tensors["generator"])
