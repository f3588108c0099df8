"""A search as a page: reward curve, what trials reported, which options were sampled, the best genotypes as graphs."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perpixel.engine.files import write_atomically
from perpixel.search.charts import line_chart
from perpixel.search.curves import averages, best_so_far, best_trials, rewards, shares, values_by_name, window_of
from perpixel.search.folder import SearchFolder
from perpixel.search.graph import draw
from perpixel.search.settings import Search
from perpixel.search.space import Space
from perpixel.search.state import SearchState

SHOWN = 5
FAILURES = 10

STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2em;color:#222;background:#fff}svg{margin:0 1.5em 1em 0}"
    "svg text{font-family:system-ui,sans-serif;font-size:12px}pre{white-space:pre-wrap;font-size:85%}"
    "h2{margin-top:1.5em}summary{cursor:pointer}.graph{overflow-x:auto}"
)


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
    _write(folder.best, json.dumps(best, indent=1) + "\n")
    _write(folder.page, page(f"Search: {folder.path.name}", search, space, state, baseline))
    return folder.page


def page(title: str, search: Search, space: Space[Any], state: SearchState, baseline: SearchState | None = None) -> str:
    """The page, in one piece; nothing is fetched, all text is escaped."""
    window = window_of(len(state.finished))
    parts = [f"<p>{html.escape(line)}</p>" for line in summary(search, state)]
    parts.append(_reward_curve(state, baseline, window))
    reported = {name: averages(values, window) for name, values in values_by_name(state).items()}
    if reported:
        parts.append(line_chart(f"what trials reported, mean of {window}", reported))
    parts.append("<h2>Sampled options</h2>")
    for kind, curves in shares(space, state, window).items():
        parts.append(line_chart(f"{kind}: share of the last {window} proposals", curves))
    parts.append("<h2>Best genotypes</h2>" + _best(space, state))
    parts.append(_failures(state))
    name = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style>'
        f"<h1>{name}</h1>{''.join(parts)}</html>\n"
    )


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


def _reward_curve(state: SearchState, baseline: SearchState | None, window: int) -> str:
    mine = rewards(state)
    lines = {f"reward, mean of {window}": averages(mine, window), "best so far": best_so_far(mine)}
    if baseline is not None:
        theirs = rewards(baseline)
        lines |= {"baseline, mean": averages(theirs, window), "baseline, best so far": best_so_far(theirs)}
    return line_chart("reward", lines, [(number + 1.0, value) for number, value in mine])


def _best(space: Space[Any], state: SearchState) -> str:
    parts = []
    for number in best_trials(state, SHOWN):
        trial = state.trials[number]
        genotype = space.build(trial.proposal.tokens)
        assert trial.outcome is not None
        figures = ", ".join(f"{name} {value:.4f}" for name, value in trial.outcome.values.items())
        heading = f"trial {number + 1}: reward {trial.outcome.reward:.4f}" + (f" ({figures})" if figures else "")
        plain = html.escape(json.dumps(space.to_json(genotype)))
        parts.append(
            f'<h3>{html.escape(heading)}</h3><div class="graph">{draw(space.graph(genotype), heading)}</div>'
            f"<details><summary>as JSON</summary><pre>{plain}</pre></details>"
        )
    return "".join(parts)


def _failures(state: SearchState) -> str:
    failed = [(number, outcome.error) for number, _, outcome in state.finished if outcome.error is not None]
    if not failed:
        return ""
    parts = [f"<h2>Failures: {len(failed)}</h2>"]
    for number, error in failed[-FAILURES:]:
        first, _, rest = error.partition("\n")
        parts.append(
            f"<details><summary>trial {number + 1}: {html.escape(first)}</summary><pre>{html.escape(rest)}</pre></details>"
        )
    return "".join(parts)


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as a row of small bars for the terminal, at most `width` of them, from the lowest to the highest."""
    bars = "▁▂▃▄▅▆▇█"
    if not values:
        return ""
    step = max(1.0, len(values) / width)
    shown = [values[int(place * step)] for place in range(min(width, len(values)))]
    low, high = min(shown), max(shown)
    return "".join(bars[round((value - low) / ((high - low) or 1) * (len(bars) - 1))] for value in shown)


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: _write_text(file, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
