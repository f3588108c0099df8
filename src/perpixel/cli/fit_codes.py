"""`perpixel fit-codes`."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("data", help="annotations with masks: a data file (my.yaml), a COCO json, shapes:N ...")
    parser.add_argument("--images", help="folder of the images, where it cannot be found from the annotations")
    parser.add_argument("--skip-bad", action="store_true", help="go on without bad annotations, and list them")
    parser.add_argument("--dim", type=int, default=60, help="numbers a mask (default: 60)")
    parser.add_argument("--size", type=int, default=28, help="cells a side of the masks (default: 28)")
    parser.add_argument(
        "--kind",
        choices=("PCA", "SparseCoding", "AutoEncoder"),
        default="PCA",
        help="principal components, or one of the paper's alternatives (default: PCA)",
    )
    parser.add_argument("--class-specific", action="store_true", help="a dictionary for each class")
    parser.add_argument("--no-whiten", action="store_true", help="numbers are not divided by their deviation")
    parser.add_argument("--no-logit", action="store_true", help="masks are projected as 0 and 1, not as logits")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw masks (default: 2)")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("codes.safetensors"), help="file to write (default: codes.safetensors)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Fits a code in one pass over the masks, writes it and says how a training takes it."""
    from perpixel.config import from_dict
    from perpixel.data.open import open_dataset
    from perpixel.data.settings import load_data_yaml
    from perpixel.engine.codes import fit_code, save_code
    from perpixel.engine.recipe import load_model_configs
    from perpixel.errors import InputError
    from perpixel.nn.mask_codes import CodeConfig

    if arguments.out.suffix != ".safetensors":
        raise InputError(f"--out {arguments.out}: codes are kept in a .safetensors file")
    source, images = arguments.data, arguments.images
    if source.endswith((".yaml", ".yml")):
        settings = load_data_yaml(source)
        source, images = settings.get("train"), images or settings.get("images")
        if source is None:
            raise InputError(f"{arguments.data} names no train: codes are fitted to training data")
    common = {"kind": arguments.kind, "dim": arguments.dim, "size": arguments.size}
    chosen = {
        "whiten": not arguments.no_whiten,
        "logit": not arguments.no_logit,
        "class_specific": arguments.class_specific,
    }
    if arguments.kind != "PCA" and chosen != {"whiten": True, "logit": True, "class_specific": False}:
        raise InputError("--class-specific, --no-whiten and --no-logit are settings of --kind PCA: leave them out")
    load_model_configs()
    config = from_dict(CodeConfig, common | (chosen if arguments.kind == "PCA" else {}))
    dataset = open_dataset(source, images, skip_bad=arguments.skip_bad)
    code = config.build(len(dataset.classes))
    found = fit_code(code, dataset, skip_bad=arguments.skip_bad, workers=arguments.workers)
    save_code(arguments.out, code, str(source), dataset.classes)
    print("\n".join([*found.lines(), f"a training takes them by model.instance.code.file={arguments.out}"]))
    for sentence in dataset.skipped:
        print(f"left out: {sentence}")
    return 0
