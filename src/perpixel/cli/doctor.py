"""`perpixel doctor`: what this machine has, what is missing and how to get it, and whether a tiny prediction works."""

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOM = 2**30
"""Bytes: with less free, a training cannot save its checkpoints."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        part: what was looked at.
        says: what was found.
        mend: what to do about it; empty where all is well.
        needed: perpixel does not work without the mend.
    """

    part: str
    says: str
    mend: str = ""
    needed: bool = True

    @property
    def wrong(self) -> bool:
        """Whether perpixel does not work because of it."""
        return self.needed and self.mend != ""

    @property
    def missing(self) -> bool:
        """Whether it is something optional that is not there."""
        return not self.needed and self.mend != ""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Prints the findings and a verdict; 0 if perpixel works here, 1 if not."""
    findings = []
    for title, part in (
        ("this machine", machine()),
        ("packages", packages()),
        ("optional extras", extras()),
        ("hardware", hardware()),
        ("folders", folders()),
        ("a tiny prediction", predictions()),
    ):
        if title in ("hardware", "folders", "a tiny prediction") and any(found.wrong for found in findings):
            continue  # these import PyTorch
        print(f"\n{title}")
        for found in part:
            mark = "!!" if found.wrong else "--" if found.missing else "ok"
            print(f"  {mark}  {found.part:<16} {found.says}", flush=True)
            if found.mend:
                print(f"      {'':<16} {found.mend}")
            findings.append(found)
    print(f"\n{verdict(findings)}")
    return 1 if any(found.wrong for found in findings) else 0


def verdict(findings: list[Finding]) -> str:
    """All findings in one line."""
    wrong = [found for found in findings if found.wrong]
    if wrong:
        names = ", ".join(found.part for found in wrong)
        return f"perpixel does not work here; to mend: {names}"
    missing = [found.part for found in findings if found.missing]
    return "perpixel works here" + (f"; optional and missing: {', '.join(missing)}" if missing else "")


def machine() -> Iterator[Finding]:
    """Versions, system and processor."""
    from perpixel import __file__ as home
    from perpixel import __version__
    from perpixel.engine.environment import processor_name

    yield Finding("perpixel", f"{__version__} in {Path(home).parent}")
    yield Finding("python", f"{platform.python_version()} at {sys.executable}")
    yield Finding("system", platform.platform())
    yield Finding("processor", f"{processor_name()}, {os.cpu_count()} cores")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield Finding("memory", gibibytes(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))


def gibibytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 2**30:.1f} GiB"


def packages() -> Iterator[Finding]:
    """What perpixel cannot do without."""
    for name, says, fits in installed(""):
        yield Finding(name, says, "" if fits else "pip install --upgrade perpixel brings it")
    try:
        import torchvision  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        mend = "install torch and torchvision together, from the same index: one is built for the other"
        yield Finding("torch+torchvision", f"do not load: {str(error).splitlines()[0]}", mend)


def extras() -> Iterator[Finding]:
    """What may be added: each extra of the package, and a compiler."""
    from importlib.metadata import metadata

    for extra in metadata("perpixel").get_all("Provides-Extra") or ():
        parts = list(installed(extra))
        lacking = [f"{name} {says}" for name, says, fits in parts if not fits]
        says = ", ".join(lacking or [f"{name} {version}" for name, version, _ in parts])
        yield Finding(extra, says, f"pip install 'perpixel[{extra}]'" if lacking else "", needed=False)
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++", "cl"))), None)
    mend = "" if compiler else "--fast compile and .pt2 files need one, such as g++"
    yield Finding("C++ compiler", compiler or "not found", mend, needed=False)


def installed(extra: str) -> Iterator[tuple[str, str, bool]]:
    """Name, version or what is wrong, and whether it fits, of each package that perpixel needs or an extra brings."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    from perpixel.errors import InputError

    try:
        requirements = requires("perpixel") or ()
    except PackageNotFoundError as error:
        raise InputError("perpixel is on Python's path but not installed: say `pip install .` in its folder") from error
    for requirement in map(Requirement, requirements):
        if requirement.marker is None:
            wanted = extra == ""
        else:  # of an extra, if it holds with that extra and not without
            wanted = requirement.marker.evaluate({"extra": extra}) and (
                extra == "" or not requirement.marker.evaluate({"extra": ""})
            )
        if not wanted:
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield requirement.name, "is not installed", False
            continue
        fits = requirement.specifier.contains(found, prereleases=True)
        yield requirement.name, found if fits else f"{found} is installed, {requirement.specifier} is needed", fits


def hardware() -> Iterator[Finding]:
    """What PyTorch computes on."""
    import torch

    from perpixel.engine.fast import bfloat16_hardware

    yield Finding("threads", f"{torch.get_num_threads()} (OMP_NUM_THREADS changes it)")
    yield Finding("vector units", torch.backends.cpu.get_cpu_capability())
    has, why = bfloat16_hardware(torch.device("cpu"))
    yield Finding("bfloat16", f"{why}: --fast gains" if has else f"{why}: --fast stays in float32")
    for index in range(torch.cuda.device_count()):
        part = torch.cuda.get_device_properties(index)
        bfloat16 = "bfloat16" if bfloat16_hardware(torch.device("cuda", index))[0] else "no bfloat16"
        yield Finding(f"cuda:{index}", f"{part.name}, {gibibytes(part.total_memory)}, {bfloat16}")
    if torch.cuda.device_count() == 0:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for processors alone"
        yield Finding("GPU", f"none that PyTorch can use (it is {built}); the processor computes")


def folders() -> Iterator[Finding]:
    """Where downloads and runs go, and the room there."""
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from perpixel.engine.weights_cache import cache_folder

    places = {
        "runs": Path.cwd(),
        "weights": cache_folder(),
        "timm's weights": Path(HF_HUB_CACHE),
        "torch's weights": Path(torch.hub.get_dir()),
    }
    for name, folder in places.items():
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free
        mend = ""
        if not os.access(there, os.W_OK):
            mend = f"{there} cannot be written to"
        elif free < ROOM:
            mend = f"make room: less than {gibibytes(ROOM)} is free"
        yield Finding(name, f"{folder}, {gibibytes(free)} free", mend, needed=name == "runs")


def predictions() -> Iterator[Finding]:
    """A small CondInst with random weights finds boxes and masks in a generated photo, on every device."""
    import torch

    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    for device in devices:
        try:
            seconds = tiny_prediction(device)
        except RuntimeError as error:
            mend = "this PyTorch does not fit this device: pytorch.org/get-started names one that does"
            yield Finding(device, str(error).splitlines()[0], mend, needed=device == "cpu")
        else:
            yield Finding(device, f"boxes and masks in {1000 * seconds:.0f} ms")


def tiny_prediction(device: str) -> float:
    """Seconds for one photo, the second time.

    Raises:
        RuntimeError: the device does not compute, or computes numbers that are none.
    """
    import time

    import numpy as np
    import torch

    from perpixel.config import override
    from perpixel.data.settings import TestSize
    from perpixel.engine.instances import Instances
    from perpixel.engine.predict import Predictor
    from perpixel.recipes import get_recipe

    # Random weights score near the prior of 0.01: without a threshold of 0 nothing would be found.
    recipe = override(get_recipe("condinst_shapes"), ["model.selection.threshold=0.0", "model.selection.keep=5"])
    predictor = Predictor(recipe.model.build(3), ("a", "b", "c"), TestSize(96, 128), device)
    photo = np.random.default_rng(0).integers(256, size=(96, 128, 3), dtype=np.uint8)
    for _ in range(2):
        start = time.perf_counter()
        found = predictor.predict(photo, score=0.0)
        seconds = time.perf_counter() - start
    assert isinstance(found, Instances)
    if len(found) != 5 or found.masks is None or not torch.as_tensor(found.boxes).isfinite().all():
        raise RuntimeError(f"{device} computed no numbers: {found.boxes}")
    return seconds
