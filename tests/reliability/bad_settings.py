"""Wrong settings: data files, overrides on the command line, whole recipes."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import yaml
from mutations import VALUES, damage, damage_bytes, damage_text

from perpixel.cli.settings import with_settings
from perpixel.config import from_dict, override, to_dict
from perpixel.data.settings import load_data_yaml
from perpixel.engine.recipe import Recipe, load_model_configs, recipe_from_json, recipe_to_json
from perpixel.recipes import all_recipes, get_recipe

Target = Callable[[Random, Path], str | None]


def data_yaml(base: Path) -> Target:
    document = {
        "train": "train.json",
        "val": "shapes:20:1",
        "images": "photos",
        "skip_bad": True,
        "masks": "some",
        "masks_of": ["cat"],
        "sigmas": [0.1, 0.2],
        "augment": {"short_sides": [64, 96], "max_side": 128, "scale_jitter": [0.5, 2.0], "color": {"hue": 0.1}},
        "test": {"short_side": 64},
    }

    def case(random: Random, folder: Path) -> str | None:
        changed = damage(document, random) if random.random() < 0.7 else document
        text = yaml.safe_dump(changed, allow_unicode=True)
        content = (damage_text(text, random) if random.random() < 0.3 else text).encode("utf-8", "surrogatepass")
        (folder / "data.yaml").write_bytes(damage_bytes(content, random) if random.random() < 0.3 else content)
        with_settings(get_recipe("fcos_shapes"), [f"data={folder / 'data.yaml'}"])
        load_data_yaml(folder / "data.yaml")
        return None

    return case


def _paths(values: object, before: str = "") -> list[str]:
    if not isinstance(values, dict):
        return [before]
    return [path for name, value in values.items() for path in _paths(value, f"{before}.{name}" if before else name)]


def overrides(base: Path) -> Target:
    """Any setting of any recipe set to anything; what is accepted comes back unchanged from a recipe's JSON."""
    load_model_configs()
    recipes = [get_recipe(name) for name in all_recipes()]
    paths = [_paths(to_dict(recipe)) for recipe in recipes]

    def text_of(random: Random) -> str:
        value = random.choice(VALUES)
        try:
            text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()
        except ValueError:
            text = "9" * 5000
        return damage_text(text, random) if random.random() < 0.2 else text

    def case(random: Random, folder: Path) -> str | None:
        which = random.randrange(len(recipes))
        settings = []
        for _ in range(random.choice((1, 1, 2))):
            path = random.choice(paths[which])
            if random.random() < 0.2:
                path = damage_text(path, random)
            if random.random() < 0.1:
                path = path.rpartition(".")[0] or path
            settings.append(f"{path}={text_of(random)}")
        recipe = override(recipes[which], settings)
        again = recipe_from_json(recipe_to_json(recipe))
        return None if repr(again) == repr(recipe) else f"{settings} does not survive its JSON"

    return case


def recipe(base: Path) -> Target:
    """A recipe as plain values, damaged anywhere."""
    load_model_configs()
    recipes = [to_dict(get_recipe(name)) for name in all_recipes()]

    def case(random: Random, folder: Path) -> str | None:
        built = from_dict(Recipe, damage(random.choice(recipes), random))
        return None if isinstance(built, Recipe) else "no recipe"

    return case


SETTINGS: dict[str, Callable[[Path], Target]] = {"data-yaml": data_yaml, "overrides": overrides, "recipe": recipe}
