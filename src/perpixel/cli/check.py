"""`perpixel check`."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("data", help="a data file (my.yaml), COCO json, VOC folder, YOLO data.yaml or shapes:N")
    parser.add_argument("--images", help="folder of the images, where it cannot be found from the annotations")
    parser.add_argument(
        "--sheet", type=Path, default=Path("check.png"), help="picture sheet to write (default: check.png)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Validates every image and annotation and prints what there is; status 1 if something is wrong."""
    from rich.console import Console

    from perpixel.data.check import check_dataset, print_report
    from perpixel.data.settings import load_data_yaml

    console = Console(width=None if Console().is_terminal else 140)
    if arguments.data.endswith((".yaml", ".yml")):
        settings = load_data_yaml(arguments.data)
    else:
        settings = {"train": arguments.data, "images": arguments.images}
    good, classes = True, None
    for split, images, segments in (("train", "images", "segments"), ("val", "val_images", "val_segments")):
        if not settings.get(split):
            continue
        sheet = arguments.sheet.with_stem(f"{arguments.sheet.stem}_{split}") if settings.get("val") else arguments.sheet
        report = check_dataset(
            settings[split],
            settings.get(images),
            classes=classes,
            segments=settings.get(segments),
            sheet=sheet,
            console=console,
        )
        print_report(report, console)
        console.print(f"look at {sheet}", markup=False, emoji=False, highlight=False, soft_wrap=True)
        good, classes = good and report.good, classes or tuple(report.classes)
    return 0 if good else 1
