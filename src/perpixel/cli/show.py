"""`perpixel show`."""

import argparse

from perpixel.cli.settings import add_settings, with_settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("recipe", help="a name from `perpixel list`")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints a recipe, overrides applied, as YAML under its description."""
    import inspect

    import yaml

    from perpixel.config import to_dict
    from perpixel.recipes import all_recipes, get_recipe

    recipe = with_settings(get_recipe(arguments.recipe), arguments.settings)
    about = inspect.getdoc(all_recipes()[arguments.recipe]) or ""
    print("\n".join(f"# {line}".rstrip() for line in about.splitlines()))
    print(yaml.safe_dump(to_dict(recipe), sort_keys=False, default_flow_style=None, width=110), end="")
    return 0
