"""`perpixel analyze SUBJECT`."""

import argparse
from pathlib import Path

from perpixel.cli.settings import add_settings, add_skip_bad, with_settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command: each subject has its own."""
    subjects = parser.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    about = "best possible recall and ambiguity of an assignment, from annotations alone"
    assignment = subjects.add_parser("assignment", help=about, description=about[0].upper() + about[1:] + ".")
    assignment.add_argument("recipe", help="a name from `perpixel list`; its head and test size are analysed")
    add_settings(assignment)
    add_skip_bad(assignment)
    about = "whether BoxInst suits data with masks, and with which tau: how often near pixels of like colours have one label"
    affinity = subjects.add_parser("colour-affinity", help=about, description=about[0].upper() + about[1:] + ".")
    affinity.add_argument("data", help="annotations with masks: a COCO json, or shapes:N")
    add_settings(affinity)
    add_skip_bad(affinity)
    affinity.add_argument("--images", help="folder of the images, where it cannot be found from the annotations")
    affinity.add_argument(
        "--recipe", default="boxinst_mobilenetv2", help="a BoxInst recipe (default: boxinst_mobilenetv2)"
    )
    affinity.add_argument("--limit", type=int, help="look at so many images only, evenly spread")
    affinity.add_argument(
        "--page", type=Path, default=Path("colour_affinity.html"), help="page to write (default: colour_affinity.html)"
    )
    about = "how much of the masks MEInst's codes keep: reconstruction error and upper bound by the number of numbers"
    codes = subjects.add_parser("codes", help=about, description=about[0].upper() + about[1:] + ".")
    codes.add_argument("data", help="annotations with masks: a COCO json, shapes:N ...")
    codes.add_argument("--images", help="folder of the images, where it cannot be found from the annotations")
    codes.add_argument("--fit-to", metavar="DATA", help="fit the code to these annotations (default: the same)")
    codes.add_argument("--size", type=int, default=28, help="cells a side of the masks (default: 28)")
    codes.add_argument("--dims", type=int, nargs="+", help="numbers a mask, a row each (default: 5 10 20 ... 200)")
    codes.add_argument("--limit", type=int, help="measure so many images only, evenly spread; the fit sees all")
    codes.add_argument("--class-specific", action="store_true", help="a dictionary for each class")
    codes.add_argument("--skip-bad", action="store_true", help="go on without bad annotations")
    codes.add_argument("--workers", type=int, default=2, help="processes that draw masks (default: 2)")
    codes.add_argument("--page", type=Path, default=Path("codes.html"), help="page to write (default: codes.html)")
    codes.add_argument("--picture", type=Path, help="write the page's picture as a .png too")


def run(arguments: argparse.Namespace) -> int:
    """Prints and draws what the subject's analysis finds."""
    subjects = {"assignment": _assignment, "colour-affinity": _color_affinity, "codes": _codes}
    return subjects[arguments.subject](arguments)


def _assignment(arguments: argparse.Namespace) -> int:
    """Tables 3.1 and 3.2 of thesis 002 for the annotations of data.train."""
    from perpixel.engine.analyze import analyze
    from perpixel.recipes import get_recipe

    recipe = with_settings(get_recipe(arguments.recipe), arguments.settings)
    rows = []
    for row in analyze(recipe):
        shares = [f"{100 * share:.2f} %" for share in row.ambiguity] if row.ambiguity else ["-"] * 4
        rows.append([row.name, str(row.objects), f"{100 * row.best_possible_recall:.2f} %", *shares])
    _print(["assignment", "objects", "best possible recall", "one object", "two", "three", "more"], rows)
    print("one object, two, three, more: shares of the positive locations by how many objects they could be trained on")
    return 0


def _color_affinity(arguments: argparse.Namespace) -> int:
    """Figure 6.3 and the "prop." of tables 6.2 and 6.3 of thesis 002."""
    from perpixel.data.open import open_dataset
    from perpixel.engine.color_affinity import advice, study_affinity
    from perpixel.engine.color_affinity_page import table_rows, write_page
    from perpixel.errors import InputError
    from perpixel.recipes import get_recipe

    if arguments.limit is not None and arguments.limit < 1:
        raise InputError(f"--limit {arguments.limit} is not at least 1")
    recipe = with_settings(get_recipe(arguments.recipe), arguments.settings)
    dataset = open_dataset(arguments.data, arguments.images, skip_bad=recipe.data.skip_bad)
    study = study_affinity(dataset, recipe, arguments.limit)
    headings, rows = table_rows(study)
    _print(headings, rows)
    test = recipe.data.test
    notes = [
        f"{arguments.data}: {study.objects} objects with masks in {study.images} images",
        f"recipe {recipe.name}: short side {test.short_side}, long side at most {test.max_side}",
    ]
    if study.without_mask:
        notes.append(f"{study.without_mask} objects have no mask and are left out")
    page = write_page(arguments.page, study, "Colour affinity", notes)
    print("\n".join([*notes, f"look at {page}", advice(study.affinities[0])]))
    return 0


def _codes(arguments: argparse.Namespace) -> int:
    """Figure 5 of MEInst and the upper bound of mask IoU."""
    from perpixel.data.open import open_dataset
    from perpixel.engine.codes_page import sheet_of, table_rows, write_page
    from perpixel.engine.codes_study import study_codes
    from perpixel.engine.files import write_atomically
    from perpixel.errors import InputError

    if arguments.limit is not None and arguments.limit < 1:
        raise InputError(f"--limit {arguments.limit} is not at least 1")
    if arguments.picture is not None and arguments.picture.suffix.lower() != ".png":
        raise InputError(f"--picture {arguments.picture}: the picture is written as a .png")
    dataset = open_dataset(arguments.data, arguments.images, skip_bad=arguments.skip_bad)
    fit_to = None
    if arguments.fit_to is not None:
        fit_to = open_dataset(arguments.fit_to, classes=dataset.classes, skip_bad=arguments.skip_bad)
    study = study_codes(
        dataset,
        fit_to=fit_to,
        size=arguments.size,
        dims=arguments.dims,
        limit=arguments.limit,
        class_specific=arguments.class_specific,
        skip_bad=arguments.skip_bad,
        workers=arguments.workers,
    )
    headings, rows = table_rows(study)
    _print(headings, rows)
    kind = "a dictionary for each class" if arguments.class_specific else "one dictionary"
    notes = [
        f"{arguments.data}: {study.objects} masks of {study.images} images, in {arguments.size} x {arguments.size} cells",
        f"{kind}, fitted to {study.fitted_to} masks of {arguments.fit_to or arguments.data}",
    ]
    if study.shared:
        notes.append(f"too few masks for a dictionary of their own: {len(study.shared)} classes share one")
    page = write_page(arguments.page, study, "Mask codes", notes)
    print("\n".join([*notes, f"look at {page}"]))
    if arguments.picture is not None:
        write_atomically(arguments.picture, lambda file: sheet_of(study).save(file, "PNG", optimize=True))
        print(f"picture {arguments.picture}")
    return 0


def _print(headings: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if Console().is_terminal else 140).print(table)
