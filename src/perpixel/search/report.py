"""A search as a page: reward curve, what trials reported, which options were sampled, the best genotypes as graphs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perpixel.engine.charts import Axis, Line, line_chart
from perpixel.engine.files import write_text
from perpixel.engine.gallery import write_gallery
from perpixel.engine.page import charts, code, drawing, folded, section
from perpixel.search.curves import (
    Points,
    averages,
    best_so_far,
    best_trials,
    rewards,
    shares,
    values_by_name,
    window_of,
)
from perpixel.search.folder import SearchFolder
from perpixel.search.graph import draw
from perpixel.search.settings import Search
from perpixel.search.space import Space
from perpixel.search.state import SearchState

SHOWN = 5
FAILURES = 10


def write_report(
    folder: SearchFolder,
    search: Search,
    space: Space[Any],
    state: SearchState,
    baseline: SearchState | None = None,
) -> Path:
    """Writes the page and the best genotypes as JSON.

    Args:
        folder: of the search.
        search: its settings.
        space: what was searched.
        state: how far it is.
        baseline: another search to compare with, such as random search.

    Raises:
        InputError: a file cannot be written.
    """
    best = [
        {
            "trial": number + 1,  # as on the page
            "reward": outcome.reward,
            "values": outcome.values,
            "genotype": space.to_json(space.build(state.trials[number].proposal.tokens)),
        }
        for number in best_trials(state, SHOWN)
        if (outcome := state.trials[number].outcome) is not None
    ]
    text = json.dumps(best, indent=1) + "\n"
    write_text(folder.best, text)
    title = f"Search: {folder.path.name}"
    write_gallery(folder.page, (), title, notes=summary(search, state), sections=sections(space, state, baseline))
    return folder.page


def sections(space: Space[Any], state: SearchState, baseline: SearchState | None = None) -> list[str]:
    """What the page shows, part by part; nothing is fetched, all text is escaped."""
    window = window_of(len(state.finished))
    reported = {name: averages(values, window) for name, values in values_by_name(state).items()}
    curves = [_reward_curve(state, baseline, window), _chart(f"what trials reported, mean of {window}", reported)]
    sampled = [
        _chart(f"{kind}: share of the last {window} proposals", options)
        for kind, options in shares(space, state, window).items()
    ]
    return [
        section("Rewards", charts(*curves)),
        section("Sampled options", charts(*sampled)),
        section("Best genotypes", _best(space, state)),
        _failures(state),
    ]


def summary(search: Search, state: SearchState) -> list[str]:
    """What was done, a sentence a line."""
    outcomes = [outcome for _, _, outcome in state.finished]
    failed = sum(outcome.error is not None for outcome in outcomes)
    stopped = sum(outcome.stopped for outcome in outcomes)
    lines = [
        f"{type(search).__name__}, {type(search.policy).__name__}, seed {search.seed}: {len(outcomes)} of {search.trials} "
        f"trials in {state.seconds / 3600:.2f} h, {per_hour(state):.0f} an hour with {search.workers} workers",
        f"{stopped} were given up early, {failed} failed",
    ]
    return lines


def per_hour(state: SearchState) -> float:
    """Trials an hour, over the whole search."""
    return len(state.finished) / max(state.seconds / 3600, 1e-9)


def _chart(title: str, curves: Mapping[str, Points]) -> str:
    return line_chart(title, [Line(name, points) for name, points in curves.items()], Axis("trial"), Axis(""))


def _reward_curve(state: SearchState, baseline: SearchState | None, window: int) -> str:
    mine = rewards(state)
    lines = [Line(f"mean of {window}", averages(mine, window)), Line("best so far", best_so_far(mine))]
    if baseline is not None:
        theirs = rewards(baseline)
        lines += [Line("baseline, mean", averages(theirs, window)), Line("baseline, best so far", best_so_far(theirs))]
    each = [(number + 1.0, value) for number, value in mine]
    lines.append(Line("each trial", each, color="var(--soft)", dots=True))
    return line_chart("reward", lines, Axis("trial"), Axis(""))


def _best(space: Space[Any], state: SearchState) -> str:
    parts = []
    for number in best_trials(state, SHOWN):
        trial = state.trials[number]
        genotype = space.build(trial.proposal.tokens)
        assert trial.outcome is not None
        figures = ", ".join(f"{name} {value:.4f}" for name, value in trial.outcome.values.items())
        heading = f"trial {number + 1}: reward {trial.outcome.reward:.4f}" + (f" ({figures})" if figures else "")
        parts += [
            drawing(heading, draw(space.graph(genotype), heading)),
            folded("as JSON", code(json.dumps(space.to_json(genotype)))),
        ]
    return "".join(parts)


def _failures(state: SearchState) -> str:
    failed = [(number, outcome.error) for number, _, outcome in state.finished if outcome.error is not None]
    rows = []
    for number, error in failed[-FAILURES:]:
        first, _, rest = error.partition("\n")
        rows.append(folded(f"trial {number + 1}: {first}", code(rest)))
    return section(f"Failures: {len(failed)}", *rows)


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as a row of small bars for the terminal, at most `width` of them, from the lowest to the highest."""
    bars = "▁▂▃▄▅▆▇█"
    if not values:
        return ""
    step = max(1.0, len(values) / width)
    shown = [values[int(place * step)] for place in range(min(width, len(values)))]
    low, high = min(shown), max(shown)
    return "".join(bars[round((value - low) / ((high - low) or 1) * (len(bars) - 1))] for value in shown)
