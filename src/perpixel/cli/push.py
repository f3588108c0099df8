"""`perpixel push`."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("file", help="a .safetensors file that `perpixel train` wrote")
    parser.add_argument("repository", metavar="OWNER/NAME", help="of the Hugging Face hub; made if there is none")
    parser.add_argument(
        "--licence",
        "--license",
        required=True,
        help="of the weights, as the hub abbreviates it: apache-2.0, cc-by-4.0, cc-by-nc-4.0 ...",
    )
    parser.add_argument("--private", action="store_true", help="a new repository is seen by its owner alone")
    parser.add_argument("--revision", metavar="BRANCH", help="an existing branch to push to (default: main)")


def run(arguments: argparse.Namespace) -> int:
    """Pushes weights, recipe and card, and says how others load them."""
    from perpixel.engine.weights_hub import push

    name = arguments.repository
    commit = push(arguments.file, name, arguments.licence, arguments.private, arguments.revision)
    print(f'perpixel.load("hf:{name}")')
    print(f'perpixel.load("hf:{name}@{commit}")  # these weights for good')
    return 0
