"""`perpixel COMMAND`: every command is a module with `configure(parser)` and `run(arguments) -> exit status`.

Only the chosen command's module is imported, and it imports torch only when it runs: help is instant.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Collection, Sequence

from perpixel import __version__
from perpixel.errors import InputError

COMMANDS = {
    "demo": "train a small detector on synthetic shapes and show what it finds",
    "train": "train a recipe on your data",
    "predict": "find objects in pictures, folders, videos",
    "serve": "answer requests, and show a page to look at what models find in photos",
    "label": "turn box annotations into masks",
    "export": "write an ONNX, OpenVINO or compiled file that ends in boxes, scores, classes and masks",
    "evaluate": "measure a checkpoint on annotated images",
    "compare": "put runs side by side: what they reached, how, and the settings that differ",
    "ablate": "train the rows of a paper's table and print them beside the paper's",
    "search": "find an architecture on your data: a pyramid and head for boxes, a dynamic cell for video, a compact decoder",
    "list": "all recipes",
    "show": "one recipe with every setting",
    "check": "validate a data set before training on it",
    "data": "convert, split, count and look through data sets",
    "analyze": "what an assignment or a mask code can reach, or whether BoxInst suits your images, on a data set",
    "fit-codes": "fit the codes of masks that MEInst predicts to a data set",
    "benchmark": "time a model, its faster forms and a peer in one run",
    "convert": "turn a checkpoint of another library into one of this library",
    "push": "put a checkpoint on the Hugging Face hub, with a model card",
    "doctor": "look whether everything here works, and what is missing",
    "completion": "print what makes a shell complete commands, options, recipes and weights",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 is success, 2 is bad input said in one sentence, 130 an interruption."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may follow (`perpixel completion`)
        from perpixel.cli.completion import answer

        answer(parser_of(COMMANDS))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of names that the terminal's encoding cannot say
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = parser_of([next((a for a in arguments if not a.startswith("-")), "")])
    parsed, rest = parser.parse_known_args(arguments)
    # argparse takes the list of settings in one piece; those that stand after an option come back as the rest.
    if not hasattr(parsed, "settings") or any(r.startswith("-") or "=" not in r for r in rest):
        parser.parse_args(arguments)  # ends with argparse's own message, unless nothing is left over
    else:
        parsed.settings = [*parsed.settings, *rest]
    try:
        return parsed.run(parsed)
    except InputError as error:
        if parsed.debug:
            raise
        print(f"perpixel: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError, MemoryError) as error:
        from perpixel.engine.accidents import sentence_of

        sentence = sentence_of(error)
        if sentence is None or parsed.debug:
            raise
        print(f"perpixel: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("perpixel: interrupted", file=sys.stderr)
        return 130


def parser_of(configured: Collection[str]) -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of those named in `configured`."""
    parser = argparse.ArgumentParser(prog="perpixel", description="Instance-level perception by per-pixel prediction.")
    parser.add_argument("--version", action="version", version=f"perpixel {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error in your input")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, about in COMMANDS.items():
        sub = commands.add_parser(command, help=about, description=about[0].upper() + about[1:] + ".")
        if command in configured:
            module = importlib.import_module(f"perpixel.cli.{command.replace('-', '_')}")
            module.configure(sub)
            sub.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
