"""The codes of masks (MEInst): fitted to a data set in one pass, kept in a file, given to a model that is about to be trained."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from perpixel import __version__
from perpixel.config import from_dict, to_dict
from perpixel.data.dataset import Dataset
from perpixel.data.mask_crops import mask_crops
from perpixel.data.settings import DataConfig
from perpixel.engine.bar import counting_bar
from perpixel.engine.distributed import World
from perpixel.engine.files import load_tensors, save_tensors
from perpixel.errors import InputError
from perpixel.nn.mask_autoencoder import AutoEncoderCode
from perpixel.nn.mask_codes import PCA, CodeConfig, LinearCode, MaskCode
from perpixel.nn.mask_moments import MaskMoments
from perpixel.nn.sparse_codes import SparseCode
from perpixel.nn.tensor_files import read_tensors

AT_ONCE = 2048
"""Masks whose products are taken together."""

SAMPLE = 20_000
"""Masks that codes without a closed solution are fitted to, drawn evenly from all."""

FREE = ("file", "margin", "steps", "learning_rate")
"""Settings in which a file of codes may differ from the recipe that takes it."""

NO_MASKS = "{}: no object has a mask that codes could be fitted to"


@dataclass(frozen=True)
class Fitted:
    """What a pass over a data set gave.

    Attributes:
        masks: how many were seen.
        images: of how many images.
        shared: classes with too few masks for a dictionary of their own, which took that of all classes.
    """

    masks: int
    images: int
    shared: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What to tell the user."""
        said = [f"mask codes fitted to {self.masks} masks of {self.images} images"]
        if self.shared:
            said.append(f"too few masks for a dictionary of their own, they share one: {', '.join(self.shared)}")
        return said


def fit_code(
    code: MaskCode,
    dataset: Dataset,
    *,
    classes: Collection[str] | None = None,
    skip_bad: bool = False,
    workers: int = 0,
) -> Fitted:
    """Fits a code to the masks of a data set: one pass, in memory that does not grow with the data.

    Args:
        code: is changed in place.
        dataset: with masks.
        classes: names of the classes whose masks are used; None uses all.
        skip_bad: go on without images whose masks cannot be drawn.
        workers: processes that draw masks.

    Raises:
        InputError: no object has a mask, or a mask cannot be drawn.
    """
    portions = _portions(dataset, code.size, classes, skip_bad, workers)
    if isinstance(code, LinearCode):
        return _fit_components(code, dataset, portions)
    assert isinstance(code, AutoEncoderCode | SparseCode)
    masks, seen = sample(portions, SAMPLE, code.size)
    if not seen:
        raise InputError(NO_MASKS.format(dataset.name))
    with counting_bar("fit", code.config.steps) as bar:
        code.fit(masks, bar.advance)
    return Fitted(seen, len(dataset))


def _fit_components(code: LinearCode, dataset: Dataset, portions: Iterator[tuple[Tensor, Tensor]]) -> Fitted:
    """Principal components need moments only: of all masks, or of each class."""
    rows = len(code.counts)
    moments = [MaskMoments(code.size) for _ in range(rows)]
    for masks, labels in portions:
        if rows == 1:
            moments[0].add(masks)
            continue
        for label in labels.unique().tolist():
            moments[label].add(masks[labels == label])
    every = moments[0]
    if rows > 1:
        every = MaskMoments(code.size)
        for seen in moments:
            every.include(seen)
    if not every.count:
        raise InputError(NO_MASKS.format(dataset.name))
    # The covariance of n masks has n - 1 directions.
    few = [row for row, seen in enumerate(moments) if rows > 1 and seen.count <= code.dim]
    code.fit([every if row in few else seen for row, seen in enumerate(moments)])
    return Fitted(every.count, len(dataset), tuple(dataset.classes[row] for row in few))


def sample(portions: Iterable[tuple[Tensor, Tensor]], limit: int, size: int) -> tuple[Bool[Tensor, "n s s"], int]:
    """At most `limit` masks, every one of them as likely as any other, and how many there were (Vitter 1985, algorithm R)."""
    kept = torch.zeros(0, size, size, dtype=torch.bool)
    random, seen = torch.Generator().manual_seed(0), 0
    for masks, _ in portions:
        room = masks[: limit - len(kept)]
        kept, rest = torch.cat([kept, room]), masks[len(room) :]
        seen += len(room)
        for mask in rest:
            seen += 1
            place = int(torch.randint(seen, (1,), generator=random))
            if place < limit:
                kept[place] = mask
    return kept, seen


def _portions(
    dataset: Dataset, size: int, classes: Collection[str] | None, skip_bad: bool, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Masks and labels of many images together."""
    masks, labels, held = [], [], 0
    with counting_bar("mask codes", len(dataset)) as bar:
        for crops in mask_crops(dataset, size, classes=classes, skip_bad=skip_bad, workers=workers):
            masks.append(torch.from_numpy(crops.masks))
            labels.append(torch.from_numpy(crops.labels))
            held += len(crops.labels)
            bar.advance()
            if held >= AT_ONCE:
                yield torch.cat(masks), torch.cat(labels)
                masks, labels, held = [], [], 0
        if masks:
            yield torch.cat(masks), torch.cat(labels)


def save_code(path: Path, code: MaskCode, source: str, classes: tuple[str, ...]) -> None:
    """Writes a fitted code with its settings to a safetensors file.

    Raises:
        InputError: the file cannot be written.
    """
    document = {
        "version": __version__,
        "code": _settings(code.config),
        "source": source,
        "class_names": list(classes),
    }
    save_tensors(path, code.state_dict(), document)


def load_code(path: Path, code: MaskCode, classes: tuple[str, ...]) -> None:
    """Fills a code from a file of `save_code`, or from AdelaiDet's .npz of components.

    Args:
        path: the file.
        code: is changed in place.
        classes: the model's; a file with a dictionary for each class must have the same.

    Raises:
        InputError: no such file, or a code with other settings; names the first setting that differs.
    """
    stored, settings, names = _read(path)
    # What a fit was made with does not change what the numbers mean, nor does where the file lies.
    for name, wanted in _settings(code.config).items():
        found = _settings(settings).get(name)
        if found != wanted and name not in FREE:
            value = json.dumps(found)
            raise InputError(
                f"{path} holds codes with {name}={value}, the recipe wants {json.dumps(wanted)}: "
                f"set model.instance.code.{name}={value}"
            )
    if len(code.counts) > 1 and names is not None and names != classes:
        raise InputError(f"{path} holds dictionaries for other classes: {', '.join(names)}; fit codes to these data")
    if stored["counts"].shape != code.counts.shape:
        raise InputError(f"{path} holds {len(stored['counts'])} dictionaries, the data have {len(code.counts)} classes")
    code.load_state_dict(stored)


def _settings(config: CodeConfig) -> dict[str, Any]:
    return {"kind": type(config).__name__} | to_dict(config)


def _read(path: Path) -> tuple[dict[str, Tensor], CodeConfig, tuple[str, ...] | None]:
    """Tensors, settings and class names of a file of codes; AdelaiDet's does not name classes."""
    if path.suffix.lower() == ".npz":
        return *components_of_npz(path), None
    tensors, document = load_tensors(path)
    if "code" not in document:
        raise InputError(f"{path} holds no mask codes: `perpixel fit-codes` writes such a file")
    return tensors, from_dict(CodeConfig, document["code"]), tuple(document["class_names"]) or None


def is_components(source: Path | str) -> bool:
    """Whether a file is one of AdelaiDet's components of masks."""
    return Path(source).suffix.lower() == ".npz" and "components_c" in read_tensors(source)


def components_of_npz(path: Path) -> tuple[dict[str, Tensor], PCA]:
    """A file of components as AdelaiDet's MEInst reads it, as a code of ours: whitened logits, unless the means say otherwise.

    Raises:
        InputError: the file has other contents.
    """
    arrays = read_tensors(path)
    missing = [name for name in ("components_c", "mean_c", "explained_variance_c") if name not in arrays]
    if missing:
        raise InputError(f"{path} has no {missing[0]}: it is no file of MEInst's components")
    components = arrays["components_c"].float()
    components = components.reshape(-1, *components.shape[-2:])
    rows, dim, pixels = components.shape
    size = round(pixels**0.5)
    means = arrays["mean_c"].float().reshape(rows, pixels)
    # Means of masks lie between 0 and 1; those of logits do not.
    config = PCA(dim, size, logit=bool((means < 0).any() or (means > 1).any()), class_specific=rows > 1)
    tensors = {
        "counts": torch.ones(rows, dtype=torch.int64),
        "components": components,
        "means": means,
        "variances": arrays["explained_variance_c"].float().reshape(rows, dim),
    }
    return tensors, config


def convert_components(source: Path, target: Path) -> Iterator[str]:
    """Writes AdelaiDet's .npz of components as a file of codes, and says what it holds.

    Raises:
        InputError: the file has other contents, or `target` cannot be written.
    """
    tensors, config = components_of_npz(source)
    rows = len(tensors["counts"])
    code = config.build(rows)
    code.load_state_dict(tensors)
    save_code(target, code, str(source), ())
    yield f"{source}: codes of {config.dim} numbers for masks of {config.size} x {config.size} cells -> {target}"
    yield "taken as usual: whitened" + (", of logits" if config.logit else ", of masks as 0 and 1")


def give_codes(model: nn.Module, dataset: Dataset, data: DataConfig, world: World) -> list[str]:
    """Fills the codes that a fresh model does not have yet, from their file or from the training data; says what it did.

    Args:
        model: of any kind; what has no mask code stays as it is.
        dataset: to train on.
        data: its settings.
        world: its first process does the work and gives the others the result.

    Raises:
        InputError: the file does not fit, or the data have no masks.
    """
    notes = []
    for code in [part for part in model.modules() if isinstance(part, MaskCode)]:
        if code.fitted:  # by the checkpoint that the run starts from
            if code.config.file is not None:
                notes.append(f"the checkpoint's mask codes are kept, {code.config.file} is not read")
            continue
        if world.first and code.config.file is not None:
            load_code(Path(code.config.file).expanduser(), code, dataset.classes)
            notes.append(f"mask codes from {code.config.file}")
        elif world.first:
            fitted = fit_code(code, dataset, classes=data.masks_of, skip_bad=data.skip_bad, workers=data.workers)
            notes += fitted.lines()
        world.share([*code.parameters(), *code.buffers()])
    return notes
