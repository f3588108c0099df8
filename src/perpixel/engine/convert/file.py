"""A foreign checkpoint file into one of ours that stands alone: with recipe and class names."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

from perpixel.config import override
from perpixel.engine.checkpoint import Origin, save_checkpoint
from perpixel.engine.codes import convert_components, is_components
from perpixel.engine.convert import convert_checkpoint
from perpixel.engine.convert.coco_stuff import COCO_STUFF
from perpixel.engine.recipe import Recipe
from perpixel.errors import InputError
from perpixel.structures import Stuff


def convert_file(
    source: str | Path,
    target: Path,
    layout: str | None = None,
    classes: str | Path | None = None,
    settings: Sequence[str] = (),
    origin: Origin | None = None,
) -> Iterator[str]:
    """Writes `target` from a checkpoint of another library and says line by line what became of it.

    Args:
        source: a .pth or .safetensors file; or an .npz of AdelaiDet's mask components, which becomes a file of codes.
        target: a .safetensors file.
        layout: whose checkpoint it is; told from its names if None.
        classes: a text file with a class name a line; COCO's names for 80 or 91 classes if None.
        settings: changes to the inferred model, such as ``model.head.quality=iou``, and to its recipe.
        origin: where the file was published, noted in the checkpoint.

    Raises:
        InputError: the file cannot be read or does not fill the model, or class names do not fit.
    """
    if is_components(source):
        yield from convert_components(Path(source), target)
        return
    found = convert_checkpoint(source, layout=layout)
    recipe = override(Recipe(Path(source).stem, found.config), settings)
    if recipe.model != found.config:
        found = convert_checkpoint(source, recipe.model, layout)  # pyright: ignore[reportArgumentType]
    names, category_ids = class_names(found.classes, classes)
    stuff = stuff_names(found.stuff)
    save_checkpoint(target, found.build(), recipe, names, category_ids=category_ids, stuff=stuff, origin=origin)
    more = f" and {found.stuff} of stuff" if found.stuff else ""
    yield f"{source}: {found.layout}, {found.classes} classes{more}, {len(found.weights)} tensors -> {target}"
    for note in found.notes:
        yield f"taken as usual: {note}"
    if found.filled:
        yield f"constants that the file need not hold: {', '.join(found.filled)}"
    if found.harmless:
        yield f"nothing to carry over: {', '.join(found.harmless)}"
    yield f"not used: {', '.join(found.unused) if found.unused else 'nothing'}"


def stuff_names(count: int) -> Stuff:
    """Names and category numbers of a checkpoint's stuff: COCO's.

    Raises:
        InputError: another number of classes.
    """
    if count not in (0, len(COCO_STUFF)):
        raise InputError(
            f"the checkpoint predicts {count} kinds of stuff, and names are known for COCO's {len(COCO_STUFF)} alone"
        )
    return COCO_STUFF if count else Stuff()


def class_names(count: int, file: str | Path | None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and category numbers of a checkpoint's classes.

    Args:
        count: how many classes the checkpoint predicts.
        file: a text file with a name a line, or None for COCO: 80 classes, or 91 with the background and the gaps of COCO's
            numbers, as torchvision has them.

    Raises:
        InputError: the file does not fit, or the count is not COCO's and no file was given.
    """
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--classes {file} cannot be read as text: {error}") from error
        names = tuple(line.strip() for line in lines if line.strip())
        if len(names) != count:
            raise InputError(f"{file} names {len(names)} classes, the checkpoint predicts {count}: one name a line")
        return names, tuple(range(1, count + 1))
    coco = FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    if count == len(coco):
        return tuple(f"{name} {i}" if name == "N/A" else name for i, name in enumerate(coco)), tuple(range(count))
    known = [(name, i) for i, name in enumerate(coco) if name not in ("__background__", "N/A")]
    if count == len(known):
        return tuple(name for name, _ in known), tuple(number for _, number in known)
    raise InputError(
        f"the checkpoint predicts {count} classes, not COCO's 80: name them with --classes FILE, a name a line"
    )
