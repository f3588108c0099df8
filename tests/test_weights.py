"""Published weights by name: the table, the cache, terms said once, sums checked at every use, what to do without a network."""

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from perpixel.cli.main import main
from perpixel.config import override
from perpixel.engine import weights_cache
from perpixel.engine.checkpoint import Origin, load_checkpoint, save_checkpoint
from perpixel.engine.convert import convert_checkpoint
from perpixel.engine.recipe import Recipe
from perpixel.engine.weights import checkpoint_file, open_checkpoint
from perpixel.engine.weights_cache import Place, cache_folder, published_file
from perpixel.engine.weights_table import ADELAIDET, ALL, PUBLISHED, TORCHVISION, Published
from perpixel.errors import InputError
from perpixel.models.detector import DetectorConfig
from perpixel.nn.backbones import without_pretrained
from perpixel.recipes import all_recipes, get_recipe
from tiny_training import CLASSES, tiny_recipe
from weights_hosts import FileHost, HostedFile, serving

CONTENT = b"weights of theirs" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WITHOUT_RECIPE = {f"fcos_{name}_2x_iou" for name in ("r50", "r101", "x101_32x8d", "x101_32x8d_deformable")} | {
    "fcos_r50_1x_iou",
    "boxinst_r101_bifpn_dcni3_3x",
    "torchvision_fcos_r50",
    "torchvision_retinanet_r50",
    "torchvision_retinanet_r50_v2",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("PERPIXEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def host() -> Iterator[FileHost]:
    found = FileHost()
    with serving(found):
        yield found


@pytest.fixture
def theirs(host: FileHost, monkeypatch) -> Published:
    """Weights at the host, whose conversion is a tiny model of three classes."""
    host.files["theirs.pth"] = HostedFile(CONTENT)

    def convert(source: Path, target: Path, settings: tuple[str, ...], origin: Origin) -> list[str]:
        assert source.read_bytes() == CONTENT
        recipe = override(tiny_recipe(), settings)
        save_checkpoint(target, recipe.model.build(3), recipe, CLASSES, origin=origin)
        return ["a note"]

    monkeypatch.setattr(weights_cache, "convert_file", convert)
    return Published("theirs", ADELAIDET, f"{host.address}/theirs.pth", {"box AP": 1.0})


def had(published: Published) -> tuple[Path, list[str]]:
    """The file, and what was said."""
    said: list[str] = []
    return published_file(published, said.append), said


def test_the_table_names_recipes():
    """Every name is a recipe's but for those of settings that no recipe has; and the pictures have the recipe's size."""
    assert len(PUBLISHED) == len(ALL) == len({one.address for one in ALL}) == 48
    assert PUBLISHED.keys() - all_recipes().keys() == WITHOUT_RECIPE
    for name, one in PUBLISHED.items():
        made = override(Recipe(name, DetectorConfig()), one.settings)
        if name in all_recipes():
            assert made.data.test == get_recipe(name).data.test, name


def test_addresses_and_sums_of_the_table():
    """Files and not pages; https; torchvision's names end in what is published of their sums, the others publish none."""
    for one in ALL:
        assert re.fullmatch(r"https://[a-z.]+/[\w./-]+\.pth", one.address) and "/blob/" not in one.address
        assert one.file.endswith(f"-{one.sha256}.pth") if one.publisher == TORCHVISION else one.sha256 == ""
        assert all(10 < value < 60 for value in one.reported.values()) and "box AP" in one.reported


def test_figures_are_those_of_the_recipes_docstrings():
    """Where a docstring says `Published by AdelaiDet: 37.3 AP`, the table has the figure too."""
    compared = 0
    for name, one in PUBLISHED.items():
        text = all_recipes()[name].__doc__ or "" if name in all_recipes() else ""
        for figure in re.findall(r"Published by AdelaiDet: (\d+\.\d+)", text):
            assert float(figure) in one.reported.values(), name
            compared += 1
    assert compared >= 10


def test_torchvisions_addresses_are_its_own():
    from torchvision.models import detection

    theirs = {
        "torchvision_fcos_r50": detection.FCOS_ResNet50_FPN_Weights.COCO_V1,
        "torchvision_retinanet_r50": detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
        "torchvision_retinanet_r50_v2": detection.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1,
    }
    for name, weights in theirs.items():
        assert PUBLISHED[name].address == weights.url
        assert PUBLISHED[name].reported["box AP"] == weights.meta["_metrics"]["COCO-val2017"]["box_map"]


def test_first_use_fetches_converts_and_says_the_terms_once(host: FileHost, theirs: Published, cache: Path):
    path, said = had(theirs)
    assert path == cache / "weights" / "theirs" / "theirs.safetensors"
    assert said[0] == f"theirs: {ADELAIDET.terms}" and "NON-COMMERCIAL" in said[0]
    assert said[1].startswith(f"theirs.pth: nobody publishes its SHA-256; it is {SHA256}") and len(said) == 2
    checkpoint = load_checkpoint(path)
    assert checkpoint.recipe.name == "theirs"
    assert checkpoint.origin == Origin(theirs.address, SHA256, "AdelaiDet", "non-commercial")
    record = json.loads((path.parent / "record.json").read_text())
    assert record["sha256"] == SHA256 and record["vouched"] == "nobody" and record["notes"] == ["a note"]
    assert had(theirs) == (path, []) and len(host.asked) == 1


def test_several_at_once_fetch_once(host: FileHost, theirs: Published):
    """As the processes of one training do: one works, the others wait and take what it made."""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(had, [theirs] * 4))
    assert len({path for path, _ in found}) == 1 and len(host.asked) == 1
    assert sum(len(said) for _, said in found) == 2


def test_who_vouches_for_a_file(host: FileHost, theirs: Published):
    """Its publisher's digits, or else what the host states, each said as it is."""
    assert "as published" in had(replace(theirs, name="a", sha256=SHA256[:8]))[1][1]
    host.files["theirs.pth"].headers = {"X-Linked-Etag": f'"{SHA256}"'}
    path, said = had(replace(theirs, name="b"))
    assert "as its host states; the publisher names none" in said[1]
    assert json.loads((path.parent / "record.json").read_text())["vouched"] == "host"


def test_a_file_put_there_by_hand(host: FileHost, theirs: Published, cache: Path):
    """Without a network: the sentence names the file, the address and the place; with the file there it works."""
    place = cache / "weights" / "theirs" / "theirs.pth"
    host.files.clear()
    with pytest.raises(InputError) as caught:
        had(theirs)
    assert str(caught.value) == (
        f"the weights of theirs cannot be downloaded (HTTP 404 Not Found): get {theirs.address} in another way, put it there as "
        f"{place}, and say the same again"
    )
    place.write_bytes(CONTENT)
    assert had(theirs)[0].is_file()


def test_a_wrong_file_put_there_by_hand_is_refused(theirs: Published, cache: Path):
    place = cache / "weights" / "theirs" / "theirs.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    with pytest.raises(InputError, match=r"theirs\.pth has the SHA-256 .*, the published one begins with 99b0c9b7"):
        had(replace(theirs, sha256="99b0c9b7"))


def test_later_uses_are_checked(theirs: Published):
    """A converted file that changed is refused; deleted, it is made anew from the original, if that is what it was."""
    path, _ = had(theirs)
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(InputError, match=r"theirs\.safetensors is not what was written there: delete it"):
        had(theirs)
    path.unlink()
    assert had(theirs) == (path, [])
    path.unlink()
    Place(theirs).original.write_bytes(b"others")
    with pytest.raises(InputError, match=rf"on first use it had {SHA256[:16]}"):
        had(theirs)


def test_another_version_of_the_library_converts_anew(host: FileHost, theirs: Published, monkeypatch):
    path, _ = had(theirs)
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(weights_cache, "__version__", "99.0")
    assert had(theirs) == (path, []) and path.stat().st_mtime_ns > before and len(host.asked) == 1
    assert json.loads((path.parent / "record.json").read_text())["version"] == "99.0"


@pytest.mark.parametrize("damage", ["{", "[]", '{"address": 1}', "\udcff"])
def test_a_damaged_record(theirs: Published, damage: str):
    path, _ = had(theirs)
    (path.parent / "record.json").write_bytes(damage.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"record\.json was damaged: delete the folder"):
        had(theirs)


def test_a_cache_that_cannot_be_written(theirs: Published, cache: Path):
    cache.write_text("a file")
    with pytest.raises(InputError, match="name another folder in the variable PERPIXEL_CACHE"):
        had(theirs)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("PERPIXEL_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
    monkeypatch.delenv("PERPIXEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/perpixel")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "perpixel"


def test_names(tmp_path: Path, monkeypatch):
    """Files go first; what looks like a file is left to its reader; a near miss is answered with the name meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "condinst_r50_3x").write_bytes(b"a file of that name")
    assert checkpoint_file("condinst_r50_3x") == Path("condinst_r50_3x")
    assert checkpoint_file("nowhere.safetensors") == Path("nowhere.safetensors")
    assert checkpoint_file(Path("runs/nowhere")) == Path("runs/nowhere")
    with pytest.raises(InputError, match=r"condinst_r50_3 is no file, .*; did you mean condinst_r50_3x\?"):
        open_checkpoint("condinst_r50_3")
    with pytest.raises(InputError, match="`perpixel list --weights` shows the names"):
        open_checkpoint("zebra")


def test_the_hub_is_not_asked_when_it_must_not_be(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=r"condinst_r50_3x cannot be downloaded \(HF_HUB_OFFLINE is set\): get https://"
    ):
        checkpoint_file("condinst_r50_3x")


def zeros(name: str) -> dict[str, torch.Tensor]:
    """The names and shapes of a reference model, in no memory."""
    listed = json.loads((Path(__file__).parent / "golden" / "keys" / f"{name}.json").read_text())
    return {key: torch.zeros(()).expand(shape) for key, shape in listed["entries"].items()}


@pytest.mark.parametrize(
    ("name", "keys"),
    [("condinst_r50_3x_sem", "adet_CondInst_MS_R_50_3x_sem"), ("blendmask_550_r50_3x", "adet_BlendMask_550_R_50_1x")],
)
def test_a_names_weights_are_those_of_its_recipe(name: str, keys: str):
    """What the publisher's file becomes has the names and shapes of the recipe's model, no more and no fewer."""
    converted = convert_checkpoint(zeros(keys)).weights
    ours = without_pretrained(get_recipe(name).model).build(80).state_dict()
    assert {key: tensor.shape for key, tensor in converted.items()} == {
        key: tensor.shape for key, tensor in ours.items()
    }


def test_from_name_to_objects(host: FileHost, tmp_path: Path, monkeypatch, capsys):
    """`perpixel predict` by a recipe's name: from a stand-in for the hub, converted here, with the size of the recipe's pictures.

    The stand-in has the names and shapes of AdelaiDet's file; its zeros find nothing.
    """
    weights = {key: tensor.clone() for key, tensor in zeros("adet_FCOS_RT_MS_DLA_34_4x_syncbn_shared_towers").items()}
    torch.save({"model": weights}, tmp_path / "theirs.pth")
    name = "FCOS_RT_MS_DLA_34_4x_syncbn_shared_towers.pth"
    host.files[f"tianzhi/AdelaiDet-FCOS/resolve/main/{name}"] = HostedFile(
        (tmp_path / "theirs.pth").read_bytes(), cuts=[1_000_000]
    )
    monkeypatch.setattr(constants, "ENDPOINT", host.address)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 32)).save("photo.jpg")
    arguments = ["predict", "fcos_rt_dla34_shared_4x", "photo.jpg", "--device", "cpu"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "0 objects in 1 pictures" in shown.out and shown.err.count("NON-COMMERCIAL") == 1
    assert [asked for _, asked, _ in host.asked] == [None, "bytes=1000000-"]
    checkpoint = open_checkpoint("fcos_rt_dla34_shared_4x")
    assert checkpoint.recipe.name == "fcos_rt_dla34_shared_4x" and len(checkpoint.class_names) == 80
    assert checkpoint.recipe.data.test == get_recipe("fcos_rt_dla34_shared_4x").data.test
    assert main(["list", "--weights", "dla34_shared"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {row[0]: row[-1] == "yes" for row in rows[1:-1]} == {
        "fcos_rt_dla34_shared_4x": True,
        "fcos_rt_dla34_shared_bn_head_4x": False,
    }
