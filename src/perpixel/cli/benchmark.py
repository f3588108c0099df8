"""`perpixel benchmark`."""

import argparse
from pathlib import Path

from perpixel.cli.settings import FAST, add_device, add_settings, chosen_device, with_settings
from perpixel.errors import InputError

TORCHVISION = "torchvision"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("subject", help="a recipe (with random weights), or a file that `perpixel predict` takes")
    add_settings(parser)
    parser.add_argument("--fast", nargs="+", choices=FAST, help="levels of speed to compare (default: off exact)")
    parser.add_argument(
        "--vs",
        nargs="+",
        default=[],
        metavar="PEER",
        help="what to measure in the same run: torchvision (its FCOS R-50), other recipes or files",
    )
    parser.add_argument(
        "--size", nargs=2, type=int, default=(480, 640), metavar=("HEIGHT", "WIDTH"), help="of the picture"
    )
    parser.add_argument("--threads", type=int, help="of the processor (default: PyTorch's own choice)")
    parser.add_argument("--rounds", type=int, default=10, help="repetitions of each (default: 10)")
    parser.add_argument("--score", type=float, default=0.05, help="smallest score kept (default: 0.05)")
    parser.add_argument(
        "--weights",
        choices=("published", "fresh"),
        default="fresh",
        help="of recipes (default: fresh, since time hardly depends on them); published ones are downloaded",
    )
    parser.add_argument("--json", type=Path, help="file for the numbers")
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints a table of times, each against the first peer, and writes it as JSON where asked."""
    if min(*arguments.size, arguments.rounds) < 1:
        raise InputError(
            f"--size {arguments.size[0]} {arguments.size[1]} --rounds {arguments.rounds}: say numbers above 0"
        )
    import json

    import torch

    from perpixel.engine.allocator import keep_freed_memory
    from perpixel.engine.benchmark import Ours, Subject, Torchvision, measure, random_picture
    from perpixel.engine.files import write_atomically

    keep_freed_memory()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    device = chosen_device(arguments.device)
    picture = random_picture(tuple(arguments.size))
    subjects: list[Subject] = []
    for peer in (*arguments.vs, arguments.subject):
        if peer == TORCHVISION:
            subjects.append(Torchvision(picture, device))
            continue
        asked = (
            (arguments.settings, arguments.fast) if peer == arguments.subject else ([], _levels(peer, arguments.fast))
        )
        fresh = arguments.weights == "fresh"
        for name, predictor in _predictors(peer, *asked, device, arguments.device is not None, fresh):
            print(f"{name}: {predictor.speed}")
            subjects.append(Ours(name, predictor, picture, arguments.score))
    report = measure(subjects, tuple(arguments.size), arguments.rounds)
    print(report)
    if arguments.json is not None:
        text = json.dumps(report.to_json(), indent=2)

        def write(path: Path) -> None:
            path.write_text(text, "utf-8")

        write_atomically(arguments.json, write)
    return 0


def _names(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))


def _levels(peer: str, levels: list[str] | None) -> list[str] | None:
    """The levels asked for, of a peer that has any."""
    from perpixel.engine.exported import is_exported

    return None if is_exported(peer) else levels


def _predictors(subject: str, settings: list[str], levels: list[str] | None, device, chosen: bool, fresh: bool):
    """Name and predictor of each level of a subject; `chosen`: the user named the device; `fresh`: recipes have fresh weights."""
    import torch

    from perpixel.engine.benchmark import spread_logits
    from perpixel.engine.exported import is_exported
    from perpixel.engine.load import load
    from perpixel.engine.predict import Predictor
    from perpixel.engine.weights import is_named
    from perpixel.models.heads import BoxHead
    from perpixel.nn.backbones import without_pretrained
    from perpixel.recipes import get_recipe
    from perpixel.structures import Stuff

    if is_exported(subject):
        if settings or levels:
            raise InputError(f"{subject} is as it was exported: leave --fast and settings out")
        yield Path(subject).name, load(subject, device if chosen else None)
        return
    if Path(subject).suffix == ".json":
        raise InputError(
            f"--vs {subject}: only what runs in the same process can be compared; give a recipe or a model's file"
        )
    if Path(subject).suffix == ".safetensors" or subject.startswith("hf:") or (is_named(subject) and not fresh):
        if settings:
            raise InputError(f"{subject} holds its own settings: leave {settings[0]} out")
        plain = load(subject, device, optimize="off")
    else:
        recipe = with_settings(get_recipe(subject), settings)
        torch.manual_seed(0)
        model = without_pretrained(recipe.model).build(80, stuff=53)
        for part in model.modules():
            if isinstance(part, BoxHead):
                spread_logits(part.class_logits, getattr(part, "distances", None))  # pyright: ignore
        plain = Predictor(model, _names(80), device=device, stuff=Stuff(_names(53), tuple(range(53))))
    assert isinstance(plain, Predictor)
    for level in levels or ("off", "exact"):
        yield f"{Path(subject).stem} {level}", plain.optimize(level)
