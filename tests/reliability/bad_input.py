"""Bad input by the ten thousand: every case ends in a correct result or in one sentence, soon, and nothing is dropped silently.

    python tests/reliability/bad_input.py --cases 1000 --seed 0

runs so many cases of each kind of file. A case is made from (seed, kind, number) alone, so that
``--only coco --first 123 --cases 1`` repeats one. Cases run in a process of their own: one that dies or hangs is a fault, and the
next case goes on.
"""

import argparse
import json
import multiprocessing
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bad_annotations import ANNOTATIONS
from bad_drawings import DRAWINGS
from bad_files import FILES
from bad_requests import REQUESTS
from bad_settings import SETTINGS

from perpixel.errors import InputError

Target = Callable[[Random, Path], str | None]
TARGETS: dict[str, Callable[[Path], Target]] = ANNOTATIONS | DRAWINGS | FILES | SETTINGS | REQUESTS
"""By name: a folder for what all cases share -> a case: (random, folder of its own files) -> None, or what is wrong."""

SECONDS = 20
"""Longer than this is a hang."""
MEMORY = 6 * 2**30
"""Bytes of address space beyond what the process has at its start."""
LONGEST = 1000
"""Letters of a sentence."""


class Hang(BaseException):
    """A case took too long."""


@dataclass
class Tally:
    """What became of the cases of a kind."""

    results: int = 0
    refusals: int = 0
    faults: list[str] = field(default_factory=list)
    sentences: Counter[str] = field(default_factory=Counter)


def _late(_: int, __: object) -> None:
    raise Hang


def run_case(name: str, target: Target, seed: int, number: int, folder: Path) -> tuple[str, str]:
    """("result" | "refused" | "fault", sentence)."""
    random = Random(f"{seed}/{name}/{number}")
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrong = target(random, folder)
        return ("fault", wrong) if wrong else ("result", "")
    except InputError as error:
        sentence = str(error)
        # A name of 5,000 letters is the file's own; everything else has to be short.
        bad = not sentence or "\n" in sentence or len(re.sub(r"(.)\1{20,}", "", sentence)) > LONGEST
        return ("fault", f"no one sentence: {sentence[:300]!r}") if bad else ("refused", sentence)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in where if "perpixel" in frame.filename] or [where[-1]]
        at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return "fault", f"{type(error).__name__} at {at}: {str(error)[:200]}"
    finally:
        signal.alarm(0)


def _child(name: str, seed: int, numbers: range, base: Path, out: Path) -> None:
    import faulthandler

    import torch

    torch.set_num_threads(1)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (max(size, used) + MEMORY, resource.RLIM_INFINITY))
    # A hang in compiled code hears no alarm: this thread ends the process.
    base.mkdir(exist_ok=True)
    target = TARGETS[name](base)
    with out.open("a", encoding="utf-8") as file, (base / "stderr").open("w") as silent:
        import os

        os.dup2(silent.fileno(), 2)
        for number in numbers:
            faulthandler.dump_traceback_later(SECONDS + 10, exit=True, file=silent)
            folder = base / f"case{number % 8}"
            folder.mkdir(exist_ok=True)
            for old in folder.iterdir():
                old.unlink() if old.is_file() or old.is_symlink() else None
            became, sentence = run_case(name, target, seed, number, folder)
            file.write(json.dumps([number, became, sentence]) + "\n")
            file.flush()


def run(name: str, seed: int, cases: int, first: int = 0, say: bool = False) -> Tally:
    """Runs cases of one kind."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix=f"perpixel-{name}-") as temporary:
        out, number, end = Path(temporary) / "out.jsonl", first, first + cases
        context = multiprocessing.get_context("fork")
        while number < end:
            child = context.Process(target=_child, args=(name, seed, range(number, end), Path(temporary) / "base", out))
            child.start()
            child.join()
            rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()] if out.exists() else []
            done = rows[-1][0] + 1 if rows else first
            if done < end:
                rows.append([done, "fault", f"the process died with exit code {child.exitcode}"])
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                done += 1
            number = done
        for number, became, sentence in rows:
            if became == "fault":
                tally.faults.append(f"{name} {number}: {sentence}")
                if say:
                    print(tally.faults[-1], flush=True)
            tally.results += became == "result"
            tally.refusals += became == "refused"
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", nargs="*", choices=sorted(TARGETS), help="kinds")
    arguments = parser.parse_args()
    total = Tally()
    for name in arguments.only or TARGETS:
        began = time.monotonic()
        tally = run(name, arguments.seed, arguments.cases, arguments.first, say=True)
        total.results += tally.results
        total.refusals += tally.refusals
        total.faults += tally.faults
        print(
            f"{name:12} {arguments.cases:6} cases: {tally.results} results, {tally.refusals} refused in a sentence, "
            f"{len(tally.faults)} faults, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    count = total.results + total.refusals + len(total.faults)
    print(f"{count} cases: {total.results} results, {total.refusals} refused, {len(total.faults)} faults")
    return bool(total.faults)


if __name__ == "__main__":
    sys.exit(main())
