"""`perpixel show`."""

import argparse

from perpixel.cli.settings import add_settings, with_settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("recipe", help="a name from `perpixel list`")
    parser.add_argument("--cost", action="store_true", help="multiply-adds and parameters in place of the settings")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        default=(800, 1088),
        metavar=("HEIGHT", "WIDTH"),
        help="of the network's input, with --cost (default: 800 1088, COCO's median at short side 800)",
    )
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints a recipe, overrides applied, as YAML under its description; or what its model costs."""
    import inspect

    import yaml

    from perpixel.config import to_dict
    from perpixel.errors import InputError
    from perpixel.recipes import all_recipes, get_recipe

    recipe = with_settings(get_recipe(arguments.recipe), arguments.settings)
    if arguments.cost:
        from perpixel.engine.cost import cost_of, table

        if min(arguments.size) < 1:
            raise InputError(f"--size {arguments.size[0]} {arguments.size[1]}: height and width are at least 1 pixel")
        height, width = arguments.size
        print(f"# {arguments.recipe}, one image of {height}x{width}, COCO's classes")
        print(table(cost_of(recipe.model, (height, width))))
        return 0
    about = inspect.getdoc(all_recipes()[arguments.recipe]) or ""
    print("\n".join(f"# {line}".rstrip() for line in about.splitlines()))
    print(yaml.safe_dump(to_dict(recipe), sort_keys=False, default_flow_style=None, width=110), end="")
    return 0
