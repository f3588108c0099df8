"""`perpixel completion`: what a shell is told, and that it comes without PyTorch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perpixel.cli.completion import SHELLS, recipe_names
from perpixel.cli.main import COMMANDS, main
from perpixel.engine.weights_table import PUBLISHED
from perpixel.recipes import all_recipes

SCRIPT = Path(sys.executable).parent / "perpixel"


def following(line: str) -> list[str]:
    """What may follow on a command line, as the shell asks for it."""
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": "fish", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    plain = {"_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_DFS": "\t", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "perpixel"],
        env={**os.environ, **asked, **plain, "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout"},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines() if row.startswith("import time:")}
    assert "perpixel.cli.main" in imported and not imported & {"torch", "numpy", "pydantic", "rich"}
    return [row.partition("\t")[0] for row in done.stdout.splitlines()]


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="argcomplete answers in a file here")
def test_answers():
    assert set(following("perpixel ")) >= {*COMMANDS, "--version"}
    assert following("perpixel train condinst_r50_bif") == [r for r in sorted(all_recipes()) if "condinst_r50_bif" in r]
    assert following("perpixel analyze assignment fcos_sh") == ["fcos_shapes"]
    assert set(following("perpixel train fcos_shapes --")) >= {"--out", "--resume", "--device", "--skip-bad"}
    assert following("perpixel completion b") == ["bash"]


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="argcomplete answers in a file here")
def test_checkpoints(tmp_path, monkeypatch):
    """Published weights and files, wherever a checkpoint may stand but in `push`, which takes no weights of others."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)
    Path("condinst_mine.safetensors").touch()
    published = sorted(name for name in PUBLISHED if name.startswith("condinst"))
    for command in ("predict", "serve", "evaluate", "export", "label boxes.json photos --checkpoint"):
        assert sorted(following(f"perpixel {command} condinst")) == ["condinst_mine.safetensors", *published]
    assert following("perpixel serve fcos.onnx condinst_r50_1") == ["condinst_r50_1x"]
    assert following("perpixel push condinst") == ["condinst_mine.safetensors"]


def test_names_of_recipes():
    assert recipe_names() == sorted(all_recipes())


@pytest.mark.parametrize("shell", SHELLS)
def test_code_of_each_shell(shell, capsys):
    assert main(["completion", shell]) == 0
    code = capsys.readouterr().out
    assert "perpixel" in code and "_ARGCOMPLETE" in code
    if (program := shutil.which(shell)) is not None:
        check = [program, "--no-execute"] if shell == "fish" else [program, "-n"]
        assert subprocess.run(check, input=code, text=True, capture_output=True).stderr == ""


def test_another_shell_is_refused():
    with pytest.raises(SystemExit) as end:
        main(["completion", "tcl"])
    assert end.value.code == 2


@pytest.mark.skipif(shutil.which("bash") is None or not SCRIPT.exists(), reason="no bash, or perpixel is not installed")
def test_in_bash():
    """What bash does at the Tab key: it calls the function that `complete` named and reads COMPREPLY."""
    line = "perpixel predict model.safetensors --po"
    text = f"""
        eval "$(perpixel completion bash)"
        COMP_LINE='{line}' COMP_POINT={len(line)} COMP_TYPE=9
        $(complete -p perpixel | sed 's/.*-F \\([^ ]*\\).*/\\1/') perpixel
        echo "${{COMPREPLY[@]}}"
    """
    path = f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", text], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.stdout.split() == ["--pose"], done.stderr
