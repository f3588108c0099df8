"""What a search has learned, over its trials: moving averages of rewards and values, shares of sampled options."""

from collections.abc import Sequence
from typing import Any

from perpixel.search.space import Space
from perpixel.search.state import SearchState

Points = list[tuple[float, float]]

WINDOW = 20
"""Least number of trials that a point of a curve averages."""


def window_of(trials: int) -> int:
    """How many trials a point averages: a twentieth of them, at least `WINDOW`."""
    return max(WINDOW, trials // 20)


def averages(values: Sequence[tuple[int, float]], window: int) -> Points:
    """The mean of each value and those before it, at most `window` of them; (trial from 1, mean)."""
    points, total = [], 0.0
    for place, (number, value) in enumerate(values):
        total += value - (values[place - window][1] if place >= window else 0.0)
        points.append((number + 1.0, total / min(place + 1, window)))
    return points


def best_so_far(values: Sequence[tuple[int, float]]) -> Points:
    """The highest value up to each trial."""
    points: Points = []
    for number, value in values:
        points.append((number + 1.0, max(value, points[-1][1] if points else value)))
    return points


def rewards(state: SearchState) -> list[tuple[int, float]]:
    """Numbers and rewards of the ended trials, 0 where one failed."""
    return [(number, outcome.reward) for number, _, outcome in state.finished]


def values_by_name(state: SearchState) -> dict[str, list[tuple[int, float]]]:
    """What trials reported, by name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for number, _, outcome in state.finished:
        for name, value in outcome.values.items():
            found.setdefault(name, []).append((number, value))
    return found


def shares(space: Space[Any], state: SearchState, window: int) -> dict[str, dict[str, Points]]:
    """How often each option was chosen among its kind's decisions in the last `window` proposals: kind -> option -> curve."""
    names = space.kinds
    counts = []
    for trial in state.trials:
        mine = {kind: [0] * len(options) for kind, options in names.items()}
        for decision, token in zip(space.questions(trial.proposal.tokens), trial.proposal.tokens, strict=True):
            mine[decision.kind][token] += 1
        counts.append(mine)
    curves: dict[str, dict[str, Points]] = {kind: {option: [] for option in options} for kind, options in names.items()}
    for kind, options in names.items():
        running = [0] * len(options)
        for place, mine in enumerate(counts):
            leaving = counts[place - window][kind] if place >= window else [0] * len(options)
            running = [r + new - old for r, new, old in zip(running, mine[kind], leaving, strict=True)]
            for option, count in zip(options, running, strict=True):
                curves[kind][option].append((place + 1.0, count / max(sum(running), 1)))
    return curves


def best_trials(state: SearchState, count: int) -> list[int]:
    """Numbers of the trials with the highest rewards, the best first; of equal genotypes the best trial only."""
    seen, found = set(), []
    for number, trial, outcome in sorted(state.finished, key=lambda row: -row[2].reward):
        if outcome.error is None and trial.proposal.tokens not in seen and len(found) < count:
            seen.add(trial.proposal.tokens)
            found.append(number)
    return found
