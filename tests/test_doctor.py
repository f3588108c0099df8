"""`perpixel doctor`: true here, and each thing that can be wrong is said with its mend."""

import importlib.metadata
import os
import shutil
import sys

from perpixel.cli import doctor
from perpixel.cli.main import main


def test_it_works_here(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for title in ("this machine", "packages", "optional extras", "hardware", "folders", "a tiny prediction"):
        assert f"\n{title}\n" in shown
    assert str(tmp_path) in shown and "!!" not in shown and "boxes and masks in" in shown
    assert shown.splitlines()[-1].startswith("perpixel works here")
    assert list(tmp_path.iterdir()) == []


def versions(monkeypatch, changed: dict[str, str | None]):
    """Lets the named packages have other versions, or be absent (None)."""
    true = importlib.metadata.version

    def version(name: str) -> str:
        found = changed.get(name, true(name)) if name in changed else true(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_an_old_package_is_a_problem(capsys, monkeypatch):
    versions(monkeypatch, {"torch": "2.3.1", "rich": None})
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("!!  torch " in line and "2.3.1 is installed, >=2.11 is needed" in line for line in lines)
    assert any("!!  rich " in line and "is not installed" in line for line in lines)
    assert "a tiny prediction" not in lines  # what needs PyTorch is not tried
    assert lines[-1] == "perpixel does not work here; to mend: rich, torch"


def test_torch_and_torchvision_of_two_builds(capsys, monkeypatch):
    """What `import torchvision` does beside a torch of another index."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "torch+torchvision do not load" in shown and "from the same index" in shown


def test_a_missing_extra_is_no_problem(monkeypatch):
    versions(monkeypatch, {"onnxscript": None, "openvino": "2024.1.0"})
    found = {finding.part: finding for finding in doctor.extras()}
    assert found["onnx"].missing and not found["onnx"].wrong
    assert found["onnx"].says == "onnxscript is not installed"
    assert found["onnx"].mend == "pip install 'perpixel[onnx]'"
    assert "2024.1.0 is installed, >=2025.3 is needed" in found["openvino"].says
    assert not found["serve"].missing and "fastapi" in found["serve"].says
    findings = list(found.values())
    assert "onnx, openvino" in doctor.verdict([f for f in findings if f.part in ("onnx", "openvino", "serve")])


def test_every_requirement_is_looked_at():
    """The plain ones once, and those of each extra with it alone."""
    plain = [name for name, _, _ in doctor.installed("")]
    assert "torch" in plain and "fastapi" not in plain and len(plain) == len(set(plain))
    assert {name for name, _, _ in doctor.installed("serve")} == {"fastapi", "uvicorn", "python-multipart"}


def test_folders_without_room_or_right(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=doctor.ROOM - 1))
    found = {finding.part: finding for finding in doctor.folders()}
    assert found["runs"].wrong and "make room" in found["runs"].mend
    assert found["timm's weights"].missing and not found["timm's weights"].wrong
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be written to" in next(iter(doctor.folders())).mend


def test_a_device_that_does_not_compute(monkeypatch):
    def broken(device: str) -> float:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(doctor, "tiny_prediction", broken)
    (found,) = (finding for finding in doctor.predictions() if finding.part == "cpu")
    assert found.wrong and found.says == "no kernel image is available"


def test_not_installed_is_said(capsys, monkeypatch):
    def absent(name: str):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert main(["doctor"]) == 2
    assert "pip install ." in capsys.readouterr().err
