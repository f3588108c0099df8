"""Where a run or a measurement took place: versions, machine, commit and command, as text to show and to keep.

`perpixel doctor` reads this file where PyTorch does not load, so it is imported only where it is needed.
"""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from perpixel import __version__

PACKAGES = ("torch", "torchvision", "timm", "numpy", "hotcoco")


def environment(device: str) -> dict[str, str]:
    """By name: date, command, device, processor, system, versions, and the commit where perpixel runs from a clone.

    Args:
        device: what computed, such as cpu or cuda:0.
    """
    import torch

    gpu = device.startswith("cuda")
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command(),
        "device": torch.cuda.get_device_name(device) if gpu else device,
        "processor": f"{processor_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used",
        "system": platform.platform(),
        "python": platform.python_version(),
        "perpixel": __version__,
    }
    if (found := commit()) is not None:
        facts["commit"] = found
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:  # put on the path without being installed
            facts[package] = "unknown version"
    return facts


def command() -> str:
    """The command that started this process, ready for a shell."""
    program = Path(sys.argv[0]).name
    # `python -m perpixel.cli.main`, and torchrun, name the module's file.
    return shlex.join(["perpixel" if program == "main.py" else program, *sys.argv[1:]])


def commit() -> str | None:
    """Commit of the clone that perpixel runs from, "changed" added where files differ from it; None where there is none."""
    folder = Path(__file__).parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=True
            ).stdout
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or not our clone to look into
        return None
    return head.strip() + (", changed" if changes.strip() else "")


def processor_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
