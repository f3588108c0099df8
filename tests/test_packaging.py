"""The wheel: all of the package and nothing else, built from the sdist, installed and run in an environment of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "perpixel"

pytestmark = pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")


def run(*command: str | Path, **options) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    run("uv", "build", "--quiet", "--python", sys.executable, "--out-dir", out, ROOT)
    return out


def test_the_wheel_holds_the_package(built):
    """Every file of the source tree, the pages and styles that are no Python among them."""
    (wheel,) = built.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert held == {str(path.relative_to(SOURCE.parent)) for path in files}
    assert held >= {"perpixel/py.typed", "perpixel/engine/gallery.html", "perpixel/serve/page/index.html"}


def test_nothing_is_compiled(built):
    """One wheel for every machine and every Python: no extension to build, against no CUDA."""
    (wheel,) = built.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert {Path(name).suffix for name in zipfile.ZipFile(wheel).namelist()} <= {
        *(".py", ".typed", ".html", ".css", ".js", ".json", ".tsv", ".txt", ".md", "")
    }


def test_metadata(built):
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    folder = next(name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name)
    said = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
    assert said["Name"] == "perpixel" and said["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert said["Description-Content-Type"] == "text/markdown" and "perpixel demo" in said.get_payload()
    assert f"{folder}/licenses/LICENSE" in archive.namelist()


def test_the_sdist_is_small_and_complete(built):
    (sdist,) = built.glob("*.tar.gz")
    assert sdist.stat().st_size < 20 * 2**20
    with tarfile.open(sdist) as archive:
        held = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    assert held >= {"pyproject.toml", "README.md", "LICENSE", "src/perpixel/py.typed", "docs/start.md"}
    assert not {name for name in held if name.startswith(("runs/", ".venv/", "dist/"))}


def test_it_runs_in_a_fresh_environment(built, tmp_path):
    """The wheel alone is installed; what it needs is lent by this environment, whose own perpixel stays hidden."""
    (wheel,) = built.glob("*.whl")
    fresh = tmp_path / "fresh"
    run("uv", "venv", "--quiet", "--python", sys.executable, fresh)
    programs = fresh / ("Scripts" if os.name == "nt" else "bin")
    run("uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python", programs / "python", wheel)
    site = run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    home = run(programs / "python", "-c", "import perpixel; print(perpixel.__file__)", cwd=tmp_path)
    assert Path(home.strip()).is_relative_to(fresh)
    assert run(programs / "perpixel", "--version", cwd=tmp_path) == run(
        programs / "python", "-m", "perpixel", "--version", cwd=tmp_path
    )
    shown = run(programs / "perpixel", "doctor", cwd=tmp_path)
    assert str(fresh) in shown and "perpixel works here" in shown and "!!" not in shown
