"""Checkpoints in repositories of the Hugging Face hub, ``hf:OWNER/NAME[@REVISION]``: fetched from there, pushed to there.

A repository holds ``model.safetensors`` (a checkpoint of this library), ``recipe.json`` and a model card. No other file is
ever read as weights, and nothing in a safetensors file can be executed.
"""

import re
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    ModelCard,
    constants,
    get_token,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage] httpx's or httpx2's, as the client's version has it
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from perpixel import __version__
from perpixel.config import from_dict, to_dict
from perpixel.engine.checkpoint import Checkpoint, build_model, load_checkpoint, save_checkpoint
from perpixel.engine.recipe import Recipe, recipe_to_json
from perpixel.engine.weights_card import model_card
from perpixel.errors import InputError
from perpixel.nn.pretrained import hub_answers

FILE, RECIPE, CARD = "model.safetensors", "recipe.json", "README.md"
NAME = re.compile(r"hf:([^/@]+/[^/@]+)(?:@(\w(?:\.?[\w/-])*))?")


def hub_file(name: str) -> Path:
    """The weights of a repository of the hub, from the hub client's own cache or downloaded into it.

    Args:
        name: ``hf:OWNER/NAME``, with ``@REVISION`` for a branch, a tag or a commit; without it the newest of ``main``.

    Raises:
        InputError: no such name, repository, revision or file, or no way to it.
    """
    found = NAME.fullmatch(name)
    if found is None:
        raise InputError(f"{name} is no name of the Hugging Face hub: write hf:OWNER/NAME, or hf:OWNER/NAME@REVISION")
    repository, revision = _checked(found[1]), found[2] or constants.DEFAULT_REVISION
    new = not isinstance(try_to_load_from_cache(repository, FILE, revision=revision), str)
    path = Path(_fetch(repository, revision, FILE))
    if new:
        print(f"perpixel: {name}: {_licence(repository, revision)}", file=sys.stderr, flush=True)
    return path


def _checked(repository: str) -> str:
    """The name of a repository, if it is one.

    Raises:
        InputError: it is none, by the hub's own rules.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{repository} is no name that the hub allows: {_first_line(error)}") from error
    if "/" not in repository:
        raise InputError(f"{repository} has no owner: write OWNER/NAME")
    return repository


def _fetch(repository: str, revision: str, file: str) -> str:
    """A file of a repository; without a network what the cache has.

    Raises:
        InputError: it cannot be had; names what to do.
    """
    address = f"{constants.ENDPOINT}/{repository}/resolve/{revision}/{file}"
    offline = not hub_answers()
    try:
        return hf_hub_download(
            repository,
            file,
            revision=revision,
            library_name="perpixel",
            library_version=__version__,
            local_files_only=offline,
        )
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"hf:{repository} cannot be downloaded, for there is no way to {constants.ENDPOINT}: get {address} in another way "
            "and give that file in place of the name"
        ) from error
    except GatedRepoError as error:
        raise InputError(
            f"{constants.ENDPOINT}/{repository} asks for consent: give it there, then log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"hf:{repository} has no revision {revision}: name a branch, a tag or a commit of it"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{constants.ENDPOINT} has no repository {repository}, or it is private: check the name, or log in with "
            "`hf auth login`"
        ) from error
    except EntryNotFoundError as error:
        raise InputError(
            f"hf:{repository} has no {file} in revision {revision}: it is no repository that `perpixel push` filled"
        ) from error
    except (HTTPError, OSError) as error:
        raise InputError(f"{address} cannot be read: {_first_line(error)}") from error


def _licence(repository: str, revision: str) -> str:
    """A sentence about the licence that a repository's card names."""
    try:
        card = ModelCard(Path(_fetch(repository, revision, CARD)).read_text("utf-8"), ignore_metadata_errors=True)
    except InputError:
        return "it has no card, so nothing is known of its licence"
    licence = card.data.to_dict().get("license")
    return f"its card names the licence {licence}" if licence else "its card names no licence"


def push(path: str | Path, repository: str, licence: str, private: bool = False, revision: str | None = None) -> str:
    """Puts a checkpoint with its recipe and a model card into a repository of the hub, made if there is none.

    Of absolute paths in the recipe, such as those of its data, only the names of the files are published.

    Args:
        path: a checkpoint that `perpixel train` wrote.
        repository: OWNER/NAME.
        licence: of the weights, as the hub abbreviates it (apache-2.0, cc-by-4.0 ...); only their owner knows it.
        private: of a new repository: only its owner sees it.
        revision: an existing branch; None: main.

    Returns:
        The commit, by which others can pin the weights.

    Raises:
        InputError: no checkpoint, weights of others, or the hub refuses.
    """
    checkpoint = load_checkpoint(path)
    _checked(repository)
    if checkpoint.origin is not None:
        raise InputError(
            f"{path} holds weights that {checkpoint.origin.publisher} published ({checkpoint.origin.licence}): they are not "
            f"handed on; others get them as you did, by the name {checkpoint.recipe.name}"
        )
    if get_token() is None:
        raise InputError(
            "the hub takes weights only from whoever is known: log in with `hf auth login`, or set HF_TOKEN"
        )
    if not hub_answers():
        raise InputError(f"there is no way to {constants.ENDPOINT}: nothing was pushed")
    with TemporaryDirectory() as folder:
        recipe = from_dict(Recipe, _without_folders(to_dict(checkpoint.recipe)))
        published = replace(checkpoint, recipe=recipe)
        _save(Path(folder) / FILE, published)
        texts = {RECIPE: recipe_to_json(published.recipe) + "\n", CARD: model_card(published, repository, licence)}
        operations = [CommitOperationAdd(FILE, Path(folder) / FILE)]
        operations += [CommitOperationAdd(name, text.encode()) for name, text in texts.items()]
        api = HfApi(library_name="perpixel", library_version=__version__)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.create_commit(
                repository,
                operations,
                commit_message=f"{published.recipe.name}, step {published.step}",
                revision=revision,
            )
        except (
            HTTPError,  # pyright: ignore[reportPrivateImportUsage] httpx's or httpx2's, as the client's version has it
            OSError,
            ValueError,
        ) as error:  # ValueError: the hub does not like the card, such as its licence
            raise InputError(f"{constants.ENDPOINT} did not take {repository}: {_first_line(error)}") from error
    return commit.oid


def _without_folders(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values in which paths from the root or the home of a machine are names of files alone."""
    out = {}
    for name, value in values.items():
        if isinstance(value, dict):
            value = _without_folders(value)
        elif isinstance(value, str) and re.match(r"[/\\~]|[A-Za-z]:[/\\]|(.*[/\\])?\.\.[/\\]", value):
            value = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
        out[name] = value
    return out


def _save(path: Path, checkpoint: Checkpoint) -> None:
    save_checkpoint(
        path,
        build_model(checkpoint),
        checkpoint.recipe,
        checkpoint.class_names,
        category_ids=checkpoint.category_ids,
        step=checkpoint.step,
        metrics=checkpoint.metrics,
        stuff=checkpoint.stuff,
        skeleton=checkpoint.skeleton,
    )


def _first_line(error: Exception) -> str:
    """What the client says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
