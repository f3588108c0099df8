"""A search space: the questions whose answers make a genotype."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from perpixel.config import from_dict, to_dict
from perpixel.errors import InputError
from perpixel.search.graph import Graph

G = TypeVar("G")
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Decision:
    """One question: which of the first `count` options of a kind.

    Attributes:
        kind: what is chosen, such as "operation"; a key of `Space.kinds`.
        count: how many of the kind's options are open here; at least 1.
    """

    kind: str
    count: int


Conversation = Generator[Decision, int, G]
"""Yields decisions, receives an option's number for each, returns the genotype."""


class Space(ABC, Generic[G]):
    """All genotypes of one class that a search may propose.

    A genotype is a frozen dataclass, so it is plain JSON; its tokens are the options chosen, in the order of the questions.

    Attributes:
        genotype: its class.
    """

    genotype: type[G]

    @property
    @abstractmethod
    def kinds(self) -> Mapping[str, Sequence[str]]:
        """The names of all options of each kind of decision. An option means the same wherever its kind is asked."""

    @abstractmethod
    def decisions(self) -> Conversation[G]:
        """Asks one question after another; what is asked may depend on the answers so far."""

    @abstractmethod
    def tokens(self, genotype: G) -> Tokens:
        """The answers that make this genotype."""

    @abstractmethod
    def graph(self, genotype: G) -> Graph:
        """How a genotype is drawn."""

    def build(self, tokens: Sequence[int]) -> G:
        """The genotype of these answers; `tokens` is its inverse.

        Raises:
            InputError: too few or too many answers, or one that is no option.
        """
        return converse(self, tokens)[1]

    def questions(self, tokens: Sequence[int]) -> list[Decision]:
        """What was asked for these answers.

        Raises:
            InputError: as `build`.
        """
        return converse(self, tokens)[0]

    def to_json(self, genotype: G) -> dict[str, Any]:
        """A genotype as plain values."""
        return to_dict(genotype)

    def from_json(self, values: Any) -> G:
        """The genotype of plain values.

        Raises:
            InputError: values that make no genotype.
        """
        return from_dict(self.genotype, values)


def answer(space: Space[G], choose: Callable[[Decision], int]) -> tuple[Tokens, G]:
    """Asks `choose` every question of the space: the answers and what they make."""
    talk = space.decisions()
    tokens: list[int] = []
    try:
        decision = next(talk)
        while True:
            tokens.append(choose(decision))
            decision = talk.send(tokens[-1])
    except StopIteration as end:
        return tuple(tokens), end.value


def converse(space: Space[G], tokens: Sequence[int]) -> tuple[list[Decision], G]:
    """The questions that these answers meet, and the genotype.

    Raises:
        InputError: too few or too many answers, or one that is no option.
    """
    asked: list[Decision] = []
    remaining = iter(tokens)

    def choose(decision: Decision) -> int:
        asked.append(decision)
        token = next(remaining, None)
        if token is None or not 0 <= token < decision.count:
            said = "is missing" if token is None else f"is {token}"
            raise InputError(
                f"answer {len(asked)} of {list(tokens)} {said}: a number from 0 to {decision.count - 1} chooses the "
                f"{decision.kind}"
            )
        return token

    genotype = answer(space, choose)[1]
    if len(asked) < len(tokens):
        raise InputError(f"{list(tokens)} are {len(tokens)} answers, the space asks {len(asked)} questions")
    return asked, genotype
