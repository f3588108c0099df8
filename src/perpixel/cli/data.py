"""`perpixel data`: convert, split, stats, view."""

import argparse
from pathlib import Path

FORMS = ("coco", "voc", "yolo", "labelme", "cvat")
"""What `perpixel.data.write` writes."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)

    convert = tasks.add_parser("convert", help="write a data set in another form")
    _add_source(convert)
    convert.add_argument("--to", required=True, choices=FORMS, help="the form")
    _add_out(convert)

    split = tasks.add_parser("split", help="write a data set in parts, near duplicates in one, each class in each")
    _add_source(split)
    split.add_argument(
        "--parts", nargs="+", default=["train=0.8", "val=0.2"], help="names and shares (default: train=0.8 val=0.2)"
    )
    split.add_argument("--seed", type=int, default=0, help="of the order in which images are dealt out (default: 0)")
    split.add_argument("--to", default="coco", choices=FORMS, help="the form (default: coco)")
    _add_out(split)

    stats = tasks.add_parser("stats", help="count classes, sizes, shapes, objects an image, fields")
    _add_source(stats)
    stats.add_argument("--page", type=Path, help="write the tables as a page too (an html file)")

    view = tasks.add_parser("view", help="pages of all images with boxes, masks, keypoints; duplicates and odd objects")
    _add_source(view, skip_bad=False)
    view.add_argument("--out", type=Path, default=Path("view"), help="folder to write to (default: view)")
    view.add_argument("--on-page", type=int, default=100, help="images on a page (default: 100)")
    view.add_argument("--most", type=int, help="show so many images, spread over the data set; all are examined")


def _add_source(parser: argparse.ArgumentParser, skip_bad: bool = True) -> None:
    parser.add_argument("source", help="any data set that training takes (docs/data.md)")
    parser.add_argument("--images", help="folder of the images, where it cannot be found from the annotations")
    parser.add_argument(
        "--skip-bad", action="store_true", help="go on without bad images and annotations, and list them"
    )


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it must be new or empty")
    parser.add_argument("--link", action="store_true", help="make hard links to the images in place of copies")
    parser.add_argument("--boxes", action="store_true", help="leave masks out")


def run(arguments: argparse.Namespace) -> int:
    """Does the task; status 1 where bad data were left out."""
    tasks = {"convert": _convert, "split": _split, "stats": _stats, "view": _view}
    return tasks[arguments.task](arguments)


def _convert(arguments: argparse.Namespace) -> int:
    from perpixel.engine.convert_data import convert

    done = convert(
        arguments.source,
        arguments.out,
        arguments.to,
        arguments.images,
        link=arguments.link,
        boxes=arguments.boxes,
        skip_bad=arguments.skip_bad,
    )
    print("\n".join(done.lines()))
    return 1 if done.skipped else 0


def _split(arguments: argparse.Namespace) -> int:
    from perpixel.engine.convert_data import split

    done = split(
        arguments.source,
        arguments.out,
        arguments.to,
        _shares(arguments.parts),
        arguments.images,
        seed=arguments.seed,
        link=arguments.link,
        boxes=arguments.boxes,
        skip_bad=arguments.skip_bad,
    )
    print("\n".join([*done.table(), *done.lines()]))
    if done.together:
        print(f"{done.together} images have near duplicates, which stayed in one part")
    return 1 if done.skipped else 0


def _shares(words: list[str]) -> dict[str, float]:
    from perpixel.errors import InputError

    shares: dict[str, float] = {}
    for word in words:
        name, _, share = word.partition("=")
        try:
            number = float(share)
        except ValueError:
            number = 0.0
        if not name.replace("_", "").replace("-", "").isalnum() or number <= 0 or name in shares:
            raise InputError(
                f"--parts {word}: write a name and a share above 0, each name once, as in train=0.8 val=0.2"
            )
        shares[name] = number
    return shares


def _stats(arguments: argparse.Namespace) -> int:
    from perpixel.engine.data_stats import measure, write_page

    stats = measure(arguments.source, arguments.images, skip_bad=arguments.skip_bad)
    print(stats.text())
    if arguments.page is not None:
        print(f"look at {write_page(stats, arguments.page)}")
    return 1 if stats.skipped else 0


def _view(arguments: argparse.Namespace) -> int:
    from perpixel.engine.data_view import write_view

    done = write_view(
        arguments.source,
        arguments.out,
        arguments.images,
        on_page=arguments.on_page,
        most=arguments.most,
    )
    print("\n".join(done.lines()))
    print(f"look at {done.index}")
    return 1 if done.problems else 0
