"""The folder of a run: its files, and when it may be written to."""

from dataclasses import dataclass
from pathlib import Path

from perpixel.config import to_dict
from perpixel.data.text import read_text
from perpixel.engine.files import halves, write_text
from perpixel.engine.recipe import Recipe, recipe_from_json, recipe_to_json
from perpixel.errors import InputError

CHANGEABLE = (
    "name",
    "data.workers",
    "training.steps",
    "training.evaluate_every",
    "training.save_every",
    "training.log_every",
    "training.tensorboard",
)
"""Settings that a resumed run may change; with another number of steps the schedule is that of the new number."""


def new_run_folder(name: str, root: Path | str = "runs") -> Path:
    """``root/name``, or ``root/name-2`` and so on: the first that does not exist yet. Creates nothing."""
    root = Path(root)
    folder, number = root / name, 1
    while folder.exists():
        number += 1
        folder = root / f"{name}-{number}"
    return folder


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its files.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """What is being run."""
        return self.path / "recipe.json"

    @property
    def log(self) -> Path:
        """Losses and metrics, a JSON object a line."""
        return self.path / "log.jsonl"

    @property
    def last(self) -> Path:
        """The newest weights, to use."""
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights with the best metric on the validation split, to use."""
        return self.path / "best.safetensors"

    @property
    def state(self) -> Path:
        """All that resuming needs, in one file, so that no kill can leave two files of different steps."""
        return self.path / "last.state.safetensors"

    def load_recipe(self) -> Recipe:
        """The recipe of the run in this folder.

        Raises:
            InputError: there is no run.
        """
        if not self.recipe.is_file():
            raise InputError(f"{self.path} holds no run: there is no {self.recipe.name} to resume from")
        return recipe_from_json(read_text(self.recipe), str(self.recipe))

    def check(self, recipe: Recipe, resume: bool) -> None:
        """Refuses to overwrite a run, and to resume one with other settings.

        Raises:
            InputError: a new run in a folder that has files, or a resumed run that differs in more than `CHANGEABLE`.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; the output of a run is a folder")
        if not resume:
            if self.path.is_dir() and set(self.path.iterdir()) - set(halves(self.path)):
                raise InputError(f"{self.path} is not empty: resume the run there, or choose another output folder")
            return
        if different := _differences(self.load_recipe(), recipe):
            raise InputError(
                f"{self.path} was trained with other settings ({'; '.join(different[:3])}): "
                "resume with the same ones, or start a new run"
            )

    def open(self, recipe: Recipe) -> None:
        """Creates the folder and writes the recipe into it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path} cannot be created: {error}") from error
        for half in halves(self.path):
            half.unlink(missing_ok=True)
        write_text(self.recipe, recipe_to_json(recipe) + "\n")


def _differences(before: Recipe, now: Recipe) -> list[str]:
    """``path: old -> new`` of each setting that changed and may not."""
    old, new = flat(to_dict(before)), flat(to_dict(now))
    return [
        f"{path}: {old.get(path, 'unset')} -> {new.get(path, 'unset')}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path, ...) != new.get(path, ...) and path not in CHANGEABLE
    ]


def flat(values: dict, prefix: str = "") -> dict[str, object]:
    """Settings by their dotted paths."""
    out: dict[str, object] = {}
    for name, value in values.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return out
