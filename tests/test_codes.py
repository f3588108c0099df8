"""Codes fitted to data sets, their files, the commands, and trainings that fit them or take a file."""

import json

import numpy as np
import pytest
import torch

from perpixel.cli.main import main
from perpixel.config import override
from perpixel.data.mask_crops import mask_crops
from perpixel.data.masks import draw_shape
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.engine.codes import (
    components_of_npz,
    convert_components,
    fit_code,
    give_codes,
    load_code,
    sample,
    save_code,
)
from perpixel.engine.codes_page import chart, table_rows
from perpixel.engine.codes_study import study_codes
from perpixel.engine.distributed import World
from perpixel.engine.train import train
from perpixel.errors import InputError
from perpixel.nn.mask_autoencoder import AutoEncoder
from perpixel.nn.mask_codes import PCA
from perpixel.nn.sparse_codes import SparseCoding, lasso
from perpixel.ops.masks import crop_masks
from perpixel.recipes import get_recipe

TINY = [
    "model.backbone.name=test_resnet",
    "model.neck.channels=32",
    "model.head.class_convs=1",
    "model.head.box_convs=1",
    "model.instance.convs=1",
    "model.instance.code.dim=8",
    "model.instance.code.size=12",
    "data.train=shapes:12:0",
    "data.val=null",
    "data.workers=0",
    "training.steps=2",
    "training.warmup_steps=1",
    "training.batch_size=2",
]


def tiny_recipe(*settings):
    return override(get_recipe("meinst_shapes"), [*TINY, *settings])


def all_crops(dataset, size):
    """Every mask the slow way: drawn in full, then cut."""
    masks, labels = [], []
    for index in range(len(dataset)):
        record = dataset.record(index)
        for row in np.flatnonzero(~record.crowd):
            whole = torch.from_numpy(draw_shape(record.shapes[row], record.size))[None]
            masks.append(crop_masks(whole, torch.tensor([0]), torch.from_numpy(record.boxes[row])[None], size)[0])
            labels.append(int(record.labels[row]))
    return torch.stack(masks), torch.tensor(labels)


def test_crops_of_patches_equal_crops_of_whole_masks():
    dataset = ShapesDataset(6, seed=3)
    found = list(mask_crops(dataset, 9))
    masks, labels = all_crops(dataset, 9)
    assert len(found) == 6 and len(masks) > 10
    assert np.array_equal(np.concatenate([f.masks for f in found]), masks.numpy())
    assert np.concatenate([f.labels for f in found]).tolist() == labels.tolist()
    some = list(mask_crops(dataset, 9, classes=[dataset.classes[1]]))
    assert {int(label) for crops in some for label in crops.labels} == {1}


def test_a_fit_equals_one_of_all_masks_at_once(monkeypatch):
    """In portions of five masks or more, against numpy's covariance of all."""
    monkeypatch.setattr("perpixel.engine.codes.AT_ONCE", 5)
    dataset = ShapesDataset(20, seed=0)
    code = PCA(4, 7, whiten=False, logit=False).build(3)
    found = fit_code(code, dataset)
    pixels = all_crops(dataset, 7)[0].flatten(1).double().numpy()
    assert found.masks == len(pixels) and found.images == 20 and found.shared == ()
    values = np.linalg.eigvalsh(np.cov(pixels.T))[::-1]
    np.testing.assert_allclose(code.variances[0], values[:4], rtol=1e-5)
    np.testing.assert_allclose(code.means[0], pixels.mean(axis=0), atol=1e-6)


def test_classes_with_few_masks_share_a_dictionary():
    """One class is left out of the data by name: it has no masks, so it takes the dictionary of all."""
    dataset = ShapesDataset(40, seed=0)
    code = PCA(4, 7, class_specific=True).build(6)
    found = fit_code(code, dataset, classes=dataset.classes[:2])
    assert found.shared == dataset.classes[2:] and code.fitted
    every = PCA(4, 7).build(3)
    fit_code(every, dataset, classes=dataset.classes[:2])
    assert torch.equal(code.components[2], every.components[0])
    assert not torch.allclose(code.components[1], every.components[0])
    assert found.lines()[1].endswith(", ".join(dataset.classes[2:]))


def test_data_without_masks_are_refused(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 0}],
        "categories": [{"id": 1, "name": "disc"}],
    }))  # fmt: skip
    (tmp_path / "a.png").touch()
    assert main(["fit-codes", str(path), "--images", str(tmp_path), "--out", str(tmp_path / "c.safetensors")]) == 2
    assert not (tmp_path / "c.safetensors").exists()


def test_a_file_of_codes_comes_back(tmp_path):
    path, names = tmp_path / "codes.safetensors", ShapesDataset(1).classes
    code = PCA(4, 7, class_specific=True).build(6)
    fit_code(code, ShapesDataset(20, seed=0))
    save_code(path, code, "shapes:20:0", names)
    again = PCA(4, 7, class_specific=True, file=str(path), margin=0.1).build(6)
    load_code(path, again, names)
    assert all(torch.equal(tensor, code.state_dict()[name]) for name, tensor in again.state_dict().items())
    with pytest.raises(InputError, match=r"dim=4, the recipe wants 5: set model\.instance\.code\.dim=4"):
        load_code(path, PCA(5, 7, class_specific=True).build(6), names)
    with pytest.raises(InputError, match=r"class_specific=true, the recipe wants false"):
        load_code(path, PCA(4, 7).build(3), names)
    with pytest.raises(InputError, match="other classes: disc, square"):
        load_code(path, again, names[::-1])
    with pytest.raises(InputError, match="6 dictionaries, the data have 2 classes"):
        load_code(path, PCA(4, 7, class_specific=True).build(2), names)
    with pytest.raises(InputError, match="does not exist"):
        load_code(tmp_path / "none.safetensors", again, names)


def test_components_of_adelaidet_convert(tmp_path, capsys):
    """Names and shapes of the released file; means beyond 0..1 say that they are of logits."""
    arrays = {
        "components_c": np.random.default_rng(0).normal(size=(1, 5, 16)).astype(np.float32),
        "mean_c": np.linspace(-3, 3, 16, dtype=np.float32)[None],
        "ratio_c": np.ones((1, 5), np.float32),
        "explained_variance_c": np.arange(1, 6, dtype=np.float32)[None],
    }
    source, target = tmp_path / "components.npz", tmp_path / "codes.safetensors"
    np.savez(source, **arrays)
    assert main(["convert", str(source), str(target)]) == 0
    assert "codes of 5 numbers for masks of 4 x 4 cells" in capsys.readouterr().out
    for path in (source, target):
        code = PCA(5, 4).build(7)
        load_code(path, code, tuple("abcdefg"))
        assert code.fitted and code.variances.tolist() == [[1, 2, 3, 4, 5]]
        assert torch.equal(code.components, torch.from_numpy(arrays["components_c"]))
    np.savez(source, **(arrays | {"mean_c": np.full((1, 16), 0.5, np.float32)}))
    assert not components_of_npz(source)[1].logit
    np.savez(source, other=np.ones(3))
    with pytest.raises(InputError, match="has no components_c"):
        list(convert_components(source, target))


def test_training_fits_the_codes_and_prediction_needs_no_file(tmp_path, capsys):
    """One command on data without codes; then a file in their place; then other classes start from the checkpoint."""
    result = train(tiny_recipe(), tmp_path / "fitted", device="cpu")
    said = capsys.readouterr()
    assert "mask codes fitted to" in said.out + said.err
    mine = PCA(8, 12).build(3)
    fit_code(mine, ShapesDataset(12, seed=0))
    model = build_model(load_checkpoint(result.last))
    assert torch.equal(model.instance_head.code.components, mine.components)
    assert torch.equal(model.instance_head.code.counts, mine.counts)

    path = tmp_path / "codes.safetensors"
    other = PCA(8, 12).build(3)
    fit_code(other, ShapesDataset(12, seed=5))
    save_code(path, other, "shapes:12:5", ("disc", "ring", "cross"))
    result = train(tiny_recipe(f"model.instance.code.file={path}"), tmp_path / "file", device="cpu")
    path.unlink()
    taken = build_model(load_checkpoint(result.last)).instance_head.code
    assert torch.equal(taken.components, other.components) and not torch.equal(taken.components, mine.components)

    start = tiny_recipe(f"training.init_from={result.last}", "training.average=0.9")
    again = train(start, tmp_path / "tuned", device="cpu")
    kept = build_model(load_checkpoint(again.last)).instance_head.code
    torch.testing.assert_close(kept.components, other.components)
    assert torch.equal(kept.counts, other.counts)


def test_a_run_without_codes_has_nothing_to_fit(tmp_path):
    result = train(tiny_recipe("model.instance.encoding=none"), tmp_path / "none", device="cpu")
    assert build_model(load_checkpoint(result.last)).instance_head.code is None


def test_fit_codes_command(tmp_path, capsys):
    """On a data file: its training split; the written file is taken by a training of these settings."""
    out, data = tmp_path / "codes.safetensors", tmp_path / "my.yaml"
    data.write_text("train: shapes:12:0\n")
    command = ["fit-codes", str(data), "--dim", "5", "--size", "9", "--class-specific", "--workers", "0"]
    assert main([*command, "--out", str(out)]) == 0
    assert f"model.instance.code.file={out}" in capsys.readouterr().out
    load_code(out, PCA(5, 9, class_specific=True).build(6), ShapesDataset(1).classes)
    assert main([*command, "--out", str(tmp_path / "codes.bin")]) == 2
    data.write_text("val: shapes:12:0\n")
    assert main([*command, "--out", str(out)]) == 2
    assert "names no train" in capsys.readouterr().err


def test_what_a_code_keeps_by_a_slow_loop():
    """Two numbers of 6 x 6 cells: IoU in cells, share of the variance, no loss without a code."""
    dataset = ShapesDataset(15, seed=1)
    study = study_codes(dataset, size=6, dims=(2, 5))
    masks = torch.from_numpy(np.concatenate([crops.masks for crops in mask_crops(dataset, 6)]))
    pixels = masks.flatten(1).double()
    mean = pixels.mean(0)
    _, _, rows = torch.linalg.svd(pixels - mean, full_matrices=False)
    for kept, dim in zip(study.kept, (2, 5), strict=False):
        back = (pixels - mean) @ rows[:dim].T @ rows[:dim] + mean
        found = back >= 0.5
        iou = ((found & masks.flatten(1)).sum(1) / (found | masks.flatten(1)).sum(1)).mean()
        assert kept.dim == dim and kept.cells == pytest.approx(iou.item(), abs=1e-3)
        share = 1 - (back - pixels).square().sum() / (pixels - mean).square().sum()
        assert kept.variance == pytest.approx(share.item(), abs=1e-4)
    last = study.kept[-1]
    assert last.dim is None and last.cells == 1 and last.variance == 1
    assert study.kept[0].photo < study.kept[1].photo < last.photo < 1
    assert study.objects == len(masks) == study.fitted_to
    headings, rows_of_table = table_rows(study)
    assert [len(row) for row in rows_of_table] == [len(headings)] * 3
    assert chart(study).count("<polyline") == 2


def test_analyze_command(tmp_path, capsys):
    page, drawn = tmp_path / "codes.html", tmp_path / "codes.png"
    command = ["analyze", "codes", "shapes:8:0", "--size", "8", "--dims", "3", "20", "--workers", "0"]
    asked = [
        "--fit-to",
        "shapes:30:1",
        "--class-specific",
        "--limit",
        "5",
        "--page",
        str(page),
        "--picture",
        str(drawn),
    ]
    assert main([*command, *asked]) == 0
    said = capsys.readouterr().out
    assert "no code" in said and "masks of 5 images" in said and "fitted to" in said and f"look at {page}" in said
    assert page.read_text().startswith("<!doctype html>") and drawn.read_bytes().startswith(b"\x89PNG")
    assert main([*command[:5], "--dims", "65", "--workers", "0"]) == 2
    assert "not between 1 and 64" in capsys.readouterr().err


def test_every_process_gets_the_same_codes():
    """The first one's, whatever the others have."""

    class Second(World):
        def share(self, tensors):
            assert len(tensors) == 4
            for tensor in tensors:
                tensor.fill_(7)

    model = tiny_recipe().model.build(3)
    assert give_codes(model, ShapesDataset(2), tiny_recipe().data, Second(1, 2, torch.device("cpu"))) == []
    assert (model.instance_head.code.components == 7).all() and model.instance_head.code.fitted


def test_a_sample_is_drawn_evenly():
    """Of 1000 masks 100 are kept, each as likely: of the last half, which comes in portions, about 50 of them."""
    masks = torch.zeros(1000, 4, 4, dtype=torch.bool)
    masks[500:] = True
    portions = [(part, torch.zeros(len(part), dtype=torch.long)) for part in masks.split(90)]
    kept, seen = sample(portions, 100, 4)
    assert len(kept) == 100 and seen == 1000
    assert 35 <= kept[:, 0, 0].sum() <= 65
    assert torch.equal(sample(portions, 2000, 4)[0], masks)


@pytest.mark.parametrize(
    ("kind", "settings", "alike"),
    [(AutoEncoder, {"steps": 300, "hidden": 48}, 0.9), (SparseCoding, {"steps": 40}, 0.85)],
)
def test_other_dictionaries(kind, settings, alike, tmp_path):
    """Fitted to shapes they give masks back; their numbers have deviation 1; the same data give the same code; files keep it."""
    dataset = ShapesDataset(40, seed=0)
    config = kind(dim=20, size=10, **settings)
    code, again = config.build(3), config.build(3)
    found = fit_code(code, dataset)
    fit_code(again, dataset)
    assert code.fitted and all(torch.equal(t, again.state_dict()[n]) for n, t in code.state_dict().items())
    masks, labels = all_crops(dataset, 10)
    assert found.masks == len(masks)
    numbers = code.encode(masks, labels)
    torch.testing.assert_close(numbers.std(dim=0, correction=0), torch.ones(20), atol=0.01, rtol=0)
    decoded = code.decode(numbers, labels)
    assert decoded.min() >= 0 and decoded.max() <= 1
    hit = (decoded >= 0.5) & masks
    assert (hit.sum((1, 2)) / ((decoded >= 0.5) | masks).sum((1, 2))).mean() > alike
    assert torch.equal(code.logits(numbers, labels) > 0, decoded > 0.5)
    assert not any(p.requires_grad for p in code.parameters())
    save_code(tmp_path / "codes.safetensors", code, "shapes", dataset.classes)
    load_code(tmp_path / "codes.safetensors", fresh := config.build(3), dataset.classes)
    assert torch.equal(fresh.encode(masks, labels), numbers)
    with pytest.raises(InputError, match=r"kind=.*model\.instance\.code\.kind="):
        load_code(tmp_path / "codes.safetensors", PCA(20, 10).build(3), dataset.classes)


def test_lasso_by_hand():
    """Orthonormal atoms: each number is the projection, shrunk by the penalty and cut off at 0; (3, -0.5, 1) by 1: (2, 0, 0)."""
    found = lasso(torch.tensor([[3.0, -0.5, 1.0, 9.0]]), torch.eye(4)[:3], 1.0, 20)
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.0, 0.0]]))


def test_lasso_fulfils_its_condition():
    """At the solution the gradient is -penalty sign(v) where v is not 0, and no larger than the penalty elsewhere."""
    torch.manual_seed(0)
    atoms, values = torch.nn.functional.normalize(torch.randn(8, 12), dim=1), torch.randn(5, 12)
    found = lasso(values, atoms, 0.3, 2000)
    gradient = (found @ atoms - values) @ atoms.T
    used = found != 0
    assert used.any() and not used.all()
    torch.testing.assert_close(gradient[used], -0.3 * found.sign()[used], atol=1e-4, rtol=0)
    assert gradient[~used].abs().max() < 0.3001
