"""`perpixel completion`: the shell asks, argcomplete answers from the commands' own parsers.

Nothing here imports PyTorch: an answer must come before the finger leaves the Tab key.
"""

import argparse
import ast
import importlib.util
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("shell", choices=SHELLS, help="which shell")


def run(arguments: argparse.Namespace) -> int:
    """Prints the shell's code; its file is named in docs/start.md."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["perpixel"], shell=arguments.shell), end="")
    return 0


def answer(parser: argparse.ArgumentParser) -> None:
    """Tells the shell what may follow its line, and ends the process."""
    import argcomplete

    complete_names(parser)
    argcomplete.autocomplete(parser)


def complete_names(parser: argparse.ArgumentParser) -> None:
    """Lets every argument that is a recipe or a checkpoint, of the commands below too, complete to their names."""
    completers = {"recipe": lambda **_: recipe_names(), "checkpoint": checkpoints, "models": checkpoints}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                complete_names(command)
        elif action.dest in completers:
            action.completer = completers[action.dest]  # pyright: ignore[reportAttributeAccessIssue]


def checkpoints(prefix: str, **_: object) -> list[str]:
    """What a checkpoint may be called: files that begin so, and all published weights."""
    from argcomplete.completers import FilesCompleter

    from perpixel.engine.weights_table import PUBLISHED

    return [*FilesCompleter()(prefix), *PUBLISHED]


def recipe_names() -> list[str]:
    """The names of `perpixel.recipes.all_recipes`, read off the sources: to import them takes seconds."""
    spec = importlib.util.find_spec("perpixel.recipes")
    assert spec is not None and spec.submodule_search_locations
    return sorted(
        part.name
        for folder in spec.submodule_search_locations
        for file in Path(folder).glob("*.py")
        for part in ast.parse(file.read_text("utf-8")).body
        if isinstance(part, ast.FunctionDef) and not part.args.args and _returns_a_recipe(part)
    )


def _returns_a_recipe(function: ast.FunctionDef) -> bool:
    return isinstance(function.returns, ast.Name) and function.returns.id == "Recipe" and function.name != "_shape"
