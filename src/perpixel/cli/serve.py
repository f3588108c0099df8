"""`perpixel serve`."""

import argparse
import os

from perpixel.cli.settings import add_device, add_fast, chosen_device


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="what `perpixel predict` takes; the first is the default"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000); 0 takes a free one")
    parser.add_argument(
        "--token",
        default=os.environ.get("PERPIXEL_TOKEN") or None,
        help="what requests must bring (default: the variable PERPIXEL_TOKEN, which other users of the machine cannot see)",
    )
    parser.add_argument("--max-megabytes", type=float, default=32, help="of a request (default: 32)")
    parser.add_argument("--max-megapixels", type=float, default=50, help="of a photo (default: 50)")
    parser.add_argument(
        "--places", type=int, default=16, help="requests inside at one time (default: 16); others get 503"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for an answer (default: 60); later ones get 504")
    add_device(parser)
    add_fast(parser)


def run(arguments: argparse.Namespace) -> int:
    """Loads the models and answers until Ctrl-C or SIGTERM."""
    import importlib.util
    from pathlib import Path

    from perpixel.engine.allocator import keep_freed_memory
    from perpixel.engine.load import load
    from perpixel.engine.prediction_files import unique_names
    from perpixel.errors import InputError

    for module in ("fastapi", "uvicorn", "python_multipart"):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"perpixel serve needs {module}: pip install 'perpixel[serve]'")

    from perpixel.serve.app import create_app
    from perpixel.serve.guard import LOOPBACK
    from perpixel.serve.limits import Limits
    from perpixel.serve.run import listen, server_of

    if min(arguments.max_megabytes, arguments.max_megapixels, arguments.places, arguments.seconds) <= 0:
        raise InputError("--max-megabytes, --max-megapixels, --places and --seconds are positive numbers")
    limits = Limits(
        body_bytes=int(arguments.max_megabytes * 2**20),
        pixels=int(arguments.max_megapixels * 1e6),
        places=arguments.places,
        answer_seconds=arguments.seconds,
    )
    device = None if arguments.device is None else chosen_device(arguments.device)
    keep_freed_memory()
    paths = [Path(model) for model in arguments.models]
    names = unique_names([path.parent.name if path.stem in ("best", "last") else path.stem for path in paths])
    models = {}
    for name, path in zip(names, paths, strict=True):
        models[name] = load(path, device, arguments.fast)
        print(f"{name}: {path}, {len(models[name].class_names)} classes", flush=True)
    here = arguments.host in LOOPBACK
    app = create_app(models, limits, arguments.token, LOOPBACK if here else None)
    with listen(arguments.host, arguments.port) as sock:
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        print(f"look at http://{host}:{sock.getsockname()[1]}/ (Ctrl-C stops)", flush=True)
        if not here and arguments.token is None:
            print("everybody who reaches this machine can use it: --token asks for a password", flush=True)
        try:
            server_of(app, limits).run(sockets=[sock])
        except KeyboardInterrupt:
            print("stopped", flush=True)
    return 0
