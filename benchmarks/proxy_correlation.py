"""Does a search's reward foretell what an architecture reaches when it is trained in full (figure 7.6 of the thesis)?

    uv run python benchmarks/proxy_correlation.py runs/pyramids data=my.yaml --out runs/correlation

From a search of pyramids, `--count` of them are taken at even distances from the best reward to the worst, trained alike in
a recipe (any setting may follow), and evaluated; then both orders are compared. A folder that already holds a trained
pyramid is not trained again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import correlation

from perpixel.cli.settings import with_settings
from perpixel.engine.report import evaluate_checkpoint
from perpixel.engine.train import train
from perpixel.models.detector import DetectorConfig
from perpixel.nn.cells import SearchedFPN
from perpixel.recipes import get_recipe
from perpixel.search.runner import load_run
from perpixel.search.space import converse


def spread(rewards: dict[int, float], count: int) -> list[int]:
    """`count` trials from the best reward to the worst, at even distances in rank."""
    ranked = sorted(rewards, key=lambda number: -rewards[number])
    return [ranked[round(place * (len(ranked) - 1) / (count - 1))] for place in range(count)]


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Spearman's, for numbers without ties."""
    ranks = [[sorted(values).index(value) for value in values] for values in (first, second)]
    return correlation(*ranks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", type=Path)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--recipe", default="nas_fcos_found_mobilenetv2")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    search, state = load_run(asked.search)
    space = search.space()
    rewards = {number: outcome.reward for number, _, outcome in state.finished if outcome.error is None}
    recipe = with_settings(get_recipe(asked.recipe), asked.settings)
    detector = recipe.model
    assert isinstance(detector, DetectorConfig) and isinstance(detector.neck, SearchedFPN)
    rows: list[tuple[int, float, float]] = []
    print("| trial | reward | box AP | AP50 |\n| ---: | ---: | ---: | ---: |")
    for number in spread(rewards, asked.count):
        genotype = converse(space, state.trials[number].proposal.tokens)[1]
        folder = asked.out / f"trial{number + 1}"
        if not (folder / "evaluation/metrics.json").is_file():
            neck = replace(detector.neck, genotype=genotype)
            train(replace(recipe, model=replace(detector, neck=neck)), folder)
            evaluate_checkpoint(folder / "last.safetensors", lambda r: r, out=folder / "evaluation")
        found = json.loads((folder / "evaluation/metrics.json").read_text())["summary"]
        rows.append((number + 1, rewards[number], 100 * found["bbox/AP"]))
        print(
            f"| {number + 1} | {rewards[number]:.3f} | {rows[-1][2]:.1f} | {100 * found['bbox/AP50']:.1f} |", flush=True
        )
    first, second = [row[1] for row in rows], [row[2] for row in rows]
    print(f"rank correlation {rank_correlation(first, second):.2f}, linear {correlation(first, second):.2f}")


if __name__ == "__main__":
    main()
