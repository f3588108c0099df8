"""Nobody is let in: no file is executed, no name leads out of its folder, no text becomes markup, no limit is missing."""

import ast
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_annotations import coco_document, make_images
from PIL import Image

import perpixel
from perpixel.cli.main import main
from perpixel.data.image import read_image
from perpixel.data.open import open_dataset
from perpixel.data.place import ImageFolder, climbs
from perpixel.engine.label_file import UNREADABLE, BoxFile
from perpixel.errors import InputError
from perpixel.nn.tensor_files import read_tensors
from perpixel.serve.guard import LOOPBACK
from perpixel.serve.limits import Limits

SOURCES = sorted(Path(perpixel.__file__).parent.rglob("*.py"))


class Malicious:
    """What an attacker puts into a pickle: code that runs as the file is read."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self):
        return (exec, (f"open({str(self.proof)!r}, 'w').write('owned')",))


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle", "renamed"])
def test_a_malicious_checkpoint_is_refused_with_the_reason_and_not_executed(tmp_path, form, capsys):
    proof = tmp_path / "owned"
    content = {"model": {"a.weight": torch.zeros(2)}, "hooks": Malicious(proof)}
    path = tmp_path / ("evil.safetensors" if form == "renamed" else "evil.pth")
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(InputError, match=r"evil\.(pth holds Python objects.*never loaded|safetensors cannot be read)"):
        read_tensors(path)
    assert main(["convert", str(path), str(tmp_path / "out.safetensors")]) == 2
    assert main(["predict", str(path), str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and not proof.exists()
    # The test can fail: the same bytes, read as pickles are, run the code.
    if form == "bare pickle":
        pickle.loads(path.read_bytes())
        assert proof.exists()


def test_an_array_file_with_objects_is_not_executed(tmp_path):
    np.savez(tmp_path / "evil.npz", a=np.array([Malicious(tmp_path / "owned")], dtype=object))
    with pytest.raises(InputError, match=r"evil\.npz cannot be read as arrays"):
        read_tensors(tmp_path / "evil.npz")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_a_zip_that_explodes_is_refused_before_it_is_unpacked(tmp_path, suffix, monkeypatch):
    """32 MiB of zeros in 32 kiB; the real limit is a GiB, which would take the test seconds to write."""
    monkeypatch.setattr("perpixel.nn.tensor_files._LARGE", 2**24)
    path = tmp_path / f"bomb{suffix}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(2**25))
    assert path.stat().st_size < 2**16
    with pytest.raises(InputError, match=r"would unpack to \d+ MiB"):
        read_tensors(path)


def test_weights_that_compress_well_are_read(tmp_path):
    np.savez_compressed(tmp_path / "zeros.npz", a=np.zeros(10**6, np.float32))
    assert read_tensors(tmp_path / "zeros.npz")["a"].shape == (10**6,)


def test_a_photo_that_is_a_program_for_another_program_is_not_run(tmp_path, monkeypatch):
    """PIL hands PostScript to `gs`, whatever the file's name ends in; a `gs` of ours would tell."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'owned'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "EPS")
    (tmp_path / "photo.jpg").write_bytes(out.getvalue())
    with pytest.raises(InputError, match=r"photo\.jpg: cannot be read as an image"):
        read_image(tmp_path / "photo.jpg")
    assert not (tmp_path / "owned").exists()
    # The test can fail: PIL itself does run it.
    with pytest.raises(OSError), Image.open(tmp_path / "photo.jpg") as picture:
        picture.load()
    assert (tmp_path / "owned").exists()


NAMES = (
    "../secret.png",
    "sub/../../secret.png",
    "{root}/secret.png",
    "link.png",
    "away/secret.png",
    "..\\secret.png",
    "C:\\secret.png",
)


@pytest.fixture
def folder(tmp_path) -> Path:
    make_images(tmp_path / "images")
    (tmp_path / "images" / "one.png").rename(tmp_path / "secret.png")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "images" / "away").symlink_to(tmp_path)
    (tmp_path / "images" / "good.png").symlink_to(tmp_path / "images" / "two.png")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_no_file_name_leaves_the_folder_of_the_images(folder, name):
    """COCO, LVIS and panoptic files (one reader), and `label`; with skip_bad the image goes with its annotations, named."""
    document = coco_document()
    document["images"][0]["file_name"] = name.format(root=folder)
    (folder / "a.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"leaves the folder|is a link to a file outside|with its 3 annotations"):
        open_dataset(folder / "a.json", folder / "images")
    dataset = open_dataset(folder / "a.json", folder / "images", skip_bad=True)
    assert len(dataset) == 2 and "with its 3 annotations" in dataset.skipped[0]
    file = BoxFile.read(folder / "a.json", folder / "images", replace=True)
    assert UNREADABLE in file.left and all(image.path.name != "secret.png" for image in file.images)


def test_links_inside_the_folder_and_to_the_folder_are_followed(folder):
    (folder / "elsewhere").symlink_to(folder / "images")
    inside = ImageFolder(folder / "elsewhere")
    assert (
        inside.fault("good.png") is None
        and inside.fault("two.png") is None
        and inside.fault("none.png") == "is missing"
    )


def test_names_that_climb():
    """By hand, for both kinds of system."""
    out = ("..", "a/../../b", "/etc/passwd", "\\\\host\\share", "C:/x", "a\\..\\..\\b", "C:x")
    assert all(map(climbs, out)) and not any(map(climbs, ("a", "a/b", "..a", "a..b", ".hidden", "a/b.c")))


def test_a_voc_split_names_no_other_folder(tmp_path):
    make_images(tmp_path / "root" / "JPEGImages")
    (tmp_path / "root" / "Annotations").mkdir()
    (tmp_path / "root" / "Annotations" / "one.xml").write_text("<annotation/>")
    (tmp_path / "secret.xml").write_text("<annotation/>")
    split = tmp_path / "root" / "train.txt"
    split.write_text("../../secret\n")
    with pytest.raises(InputError, match="lies outside"):
        open_dataset(split)


def test_an_xml_bomb_ends_in_a_sentence(tmp_path):
    make_images(tmp_path / "JPEGImages")
    (tmp_path / "Annotations").mkdir()
    entities = (
        '<!ENTITY a "'
        + "x" * 1000
        + '">'
        + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 20}">' for n in range(8))
    )
    bomb = f"<!DOCTYPE x [{entities}]><annotation><object><name>&i;</name></object></annotation>"
    (tmp_path / "Annotations" / "one.xml").write_text(bomb)
    with pytest.raises(InputError, match=r"one\.xml: is not valid xml"):
        open_dataset(tmp_path)
    secret = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{tmp_path}/Annotations/two.xml">]><annotation><folder>&e;</folder></annotation>'
    (tmp_path / "Annotations" / "one.xml").write_text(secret)
    with pytest.raises(InputError, match="not valid xml"):
        open_dataset(tmp_path)


FORBIDDEN = (
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "yaml.unsafe_load",
    "yaml.full_load",
)


def wrong(call: ast.Call) -> str | None:
    """What is wrong with a call: a shell, evaluated text, a loader that unpickles."""
    name = ast.unparse(call.func)
    options = {option.arg: ast.unparse(option.value) for option in call.keywords if option.arg}
    if name in FORBIDDEN or (name.startswith("subprocess.") and options.get("shell", "False") != "False"):
        return name
    if name == "torch.load" and options.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if name == "np.load" and options.get("allow_pickle", "False") != "False":
        return "np.load of pickles"
    return "yaml.load of objects" if name == "yaml.load" and ast.unparse(call.args[1]) != "_Yaml" else None


def test_no_shell_no_eval_no_pickle():
    """In all sources."""
    found = [
        f"{path.name}:{node.lineno}: {fault}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and (fault := wrong(node))
    ]
    assert not found and len(SOURCES) > 100
    for text in (
        "subprocess.run('ls', shell=True)",
        "torch.load(p)",
        "np.load(p, allow_pickle=True)",
        "yaml.load(t, Loader)",
    ):
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call) and wrong(call)


def test_the_server_listens_to_this_machine_alone_unless_told():
    import argparse

    from perpixel.cli import serve

    parser = argparse.ArgumentParser()
    serve.configure(parser)
    assert parser.parse_args(["a.safetensors"]).host in LOOPBACK
    limits = Limits()
    assert 0 < limits.body_bytes <= 2**26 and 0 < limits.pixels <= 10**8 and limits.places <= 64
    assert 0 < limits.upload_seconds <= 60 and 0 < limits.answer_seconds <= 120


def test_no_request_touches_the_disk(monkeypatch, tmp_path):
    """Nothing is opened for writing while forms and bodies of all sizes are answered."""
    import builtins
    import tempfile

    from starlette.testclient import TestClient

    from perpixel.serve.app import create_app
    from serve_fakes import picture, predictors

    api = TestClient(create_app(predictors()), base_url="http://127.0.0.1:8000")
    api.post("/api/predict", files=[("image", ("a.png", picture()))])  # imports are done
    real, opened = builtins.open, []

    def noting(file, mode="r", *rest, **options):
        opened.append((file, mode)) if set(mode) & set("wax+") else None
        return real(file, mode, *rest, **options)

    monkeypatch.setattr(builtins, "open", noting)
    monkeypatch.setattr(io, "open", noting)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: pytest.fail("a temporary file"))
    large = picture() + bytes(3 * 2**20)
    for name in ("../../etc/passwd", "/tmp/x", "a.png"):
        answer = api.post("/api/predict", files=[("image", (name, large))])
        assert answer.status_code == 200 and answer.json()["photos"][0]["name"] == name
    assert not opened
