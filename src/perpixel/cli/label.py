"""`perpixel label`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from perpixel.cli.settings import add_device, add_settings, chosen_device, with_settings

if TYPE_CHECKING:
    from perpixel.engine.label_masks import Masker


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("boxes", type=Path, help="COCO json with boxes")
    parser.add_argument("images", type=Path, help="folder of its images")
    add_settings(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, help="COCO json to write: the same with masks")
    parser.add_argument(
        "--method",
        choices=("boxinst", "grabcut"),
        default="boxinst",
        help="a trained model, or OpenCV's GrabCut, which needs no training (default: boxinst)",
    )
    parser.add_argument("--train", action="store_true", help="train a model on these boxes first")
    parser.add_argument(
        "--checkpoint", help="a trained model with masks, instead of --train; published weights by their name too"
    )
    parser.add_argument(
        "--recipe", default="boxinst_mobilenetv2", help="what --train trains (default: boxinst_mobilenetv2)"
    )
    parser.add_argument("--run", dest="run_folder", type=Path, help="folder of the training; runs/RECIPE by default")
    parser.add_argument("--resume", action="store_true", help="go on with the training in that folder where it stopped")
    parser.add_argument("--replace", action="store_true", help="draw masks anew where the file has some")
    parser.add_argument("--report", type=Path, help="folder of sheet.html; OUT_report by default")
    parser.add_argument(
        "--pictures", type=int, default=400, help="most doubtful masks on the sheet; 0: no sheet (default: 400)"
    )
    parser.add_argument("--against", type=Path, help="COCO json with the true masks: compare by annotation id")
    parser.add_argument(
        "--beside", nargs="+", type=Path, default=[], help="other outputs of this command, in the same comparison"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes the file and the sheet; status 1 where images could not be read."""
    from perpixel.engine.label import label, make_folders
    from perpixel.engine.label_compare import compare, print_agreements
    from perpixel.engine.label_file import BoxFile
    from perpixel.errors import InputError

    if arguments.beside and arguments.against is None:
        raise InputError("--beside compares outputs with true masks: name those with --against")
    file = BoxFile.read(arguments.boxes, arguments.images, arguments.replace)
    report = arguments.report or arguments.out.with_name(f"{arguments.out.stem}_report")
    make_folders(file, arguments.out, report)
    masker = _masker(arguments)
    if masker is None:
        return 130
    done = label(file, masker, arguments.out, report, arguments.pictures)
    print("\n".join(done.lines()))
    if done.sheet is not None:
        print(f"look at {done.sheet}")
    if arguments.against is not None:
        others = {path.stem: path for path in arguments.beside}
        print_agreements(compare(arguments.against, {arguments.out.stem: arguments.out} | others))
    return 1 if file.unreadable else 0


def _masker(arguments: argparse.Namespace) -> "Masker | None":
    """The chosen method; None where its training was interrupted."""
    from dataclasses import replace

    from perpixel.engine.label_masks import GrabCut, ModelMasker
    from perpixel.engine.weights import open_checkpoint
    from perpixel.errors import InputError

    if arguments.method == "grabcut":
        if arguments.train or arguments.checkpoint or arguments.settings:
            raise InputError("--method grabcut learns nothing: leave --train, --checkpoint and settings out")
        return GrabCut()
    if arguments.train == (arguments.checkpoint is not None):
        raise InputError(
            "say where the model comes from: --train trains one on these boxes, --checkpoint FILE takes a trained one"
        )
    device = chosen_device(arguments.device)
    path = arguments.checkpoint
    if arguments.train:
        path = _trained(arguments, device)
        if path is None:
            return None
    checkpoint = open_checkpoint(path)
    if not arguments.train:
        checkpoint = replace(checkpoint, recipe=with_settings(checkpoint.recipe, arguments.settings))
    return ModelMasker(checkpoint, device)


def _trained(arguments: argparse.Namespace, device) -> Path | None:
    """The weights of a training on the boxes, or None where it was interrupted."""
    from perpixel.engine.runs import new_run_folder
    from perpixel.engine.train import train
    from perpixel.recipes import get_recipe

    # Bad entries stay in the file and are named; they must not stop the training.
    source = [f"data.train={arguments.boxes}", f"data.images={arguments.images}", "data.skip_bad=true"]
    recipe = with_settings(get_recipe(arguments.recipe), [*source, *arguments.settings])
    folder = arguments.run_folder or (Path("runs") / recipe.name if arguments.resume else new_run_folder(recipe.name))
    print(f"training in {folder}; if it stops, the same command with --run {folder} --resume goes on")
    result = train(recipe, folder, resume=arguments.resume, device=device)
    return None if result.interrupted else result.best or result.last
