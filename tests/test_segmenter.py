"""Semantic segmentation of images and of videos: losses, results in pixels of the photo, learning, and streams."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from perpixel.cli.main import main
from perpixel.data.loader import test_batches, train_batches
from perpixel.data.open import open_dataset
from perpixel.data.settings import Augment, DataConfig, TestSize
from perpixel.engine.checkpoint import initialize_from, save_checkpoint
from perpixel.engine.evaluate import evaluate
from perpixel.engine.fast import optimize
from perpixel.engine.load import load
from perpixel.engine.optimize import SeveralOptimizers, build_optimizer, load_optimizer_tensors, optimizer_tensors
from perpixel.engine.predict import Predictor
from perpixel.engine.prediction_folder import predict_to_folder
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import PartTraining, Training
from perpixel.engine.sources import as_video
from perpixel.engine.video import VideoPredictor
from perpixel.errors import InputError
from perpixel.models.heads import Model
from perpixel.models.mask_losses import pixel_cross_entropy
from perpixel.models.segmenter import Segmenter, class_truth
from perpixel.models.video_segmenter import Memory, VideoSegmenter
from perpixel.nn.backbones import Backbone
from perpixel.structures import VOID, Batch, Detections, Segments, Stuff, Targets

TINY = Backbone("test_resnet", stages=(4, 8, 16, 32), weights=None, norm="train", frozen_stages=0)
NONE = torch.zeros((0, 4)), torch.zeros(0, dtype=torch.int64)


def batch_with(stuff, seed=0):
    """Images of 64 x 96, the second of which ends at column 90; `stuff` is one map for both."""
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    targets = (Targets(*NONE, stuff=stuff),) * 2
    return Batch(images, ((64, 96), (64, 90)), ((64, 96), (128, 180)), targets)


def halves():
    """Class 0 above, class 2 below, void at the left."""
    stuff = torch.full((64, 96), 1, dtype=torch.uint8)
    stuff[32:] = 3
    stuff[:, :10] = VOID
    return stuff


def void():
    return torch.full((64, 96), VOID, dtype=torch.uint8)


def window(stuff, count=3):
    frames = [batch_with(stuff, seed) for seed in range(count)]
    return replace(frames[-1], before=tuple(frames[:-1]))


def test_truth_is_the_class_without_objects():
    stuff = torch.tensor([[0, 1, 3, VOID]], dtype=torch.uint8)
    batch = Batch(torch.zeros(1, 3, 1, 4), ((1, 4),), targets=(Targets(*NONE, stuff=stuff),))
    assert class_truth(batch).tolist() == [[[VOID, 0, 2, VOID]]]
    assert class_truth(replace(batch, targets=None)).tolist() == [[[VOID] * 4]]
    with pytest.raises(InputError, match=r"data\.stuff=all"):
        class_truth(replace(batch, targets=(Targets(*NONE),)))


def test_pixel_loss_by_hand():
    """Logits (ln 3, 0) at both pixels that count: -ln(3/4) where class 0 is true, -ln(1/4) where 1 is; void does not count."""
    logits = torch.tensor([np.log(3.0), 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 3).float()
    truth = torch.tensor([[[0, 1, VOID]]])
    expected = -(np.log(3 / 4) + np.log(1 / 4)) / 2
    assert pixel_cross_entropy(logits, truth).item() == pytest.approx(expected, rel=1e-5)
    assert pixel_cross_entropy(logits, torch.full_like(truth, VOID)).item() == 0


def test_losses_are_the_output_and_the_mean_of_the_merges():
    """0.3 of the mean of three auxiliary cross entropies (appendix A.1)."""
    model = Segmenter(backbone=TINY, width=8).build(0, 3).eval()
    batch = batch_with(halves())
    losses = model.loss(batch)
    logits, merges = model(model.pixels.normalize(batch.images, batch.sizes))
    truth = class_truth(batch)

    def plain(x):
        large = F.interpolate(x, (64, 96), mode="bilinear", align_corners=False)
        known = truth != VOID
        return F.cross_entropy(large.movedim(1, -1)[known], truth[known])

    torch.testing.assert_close(losses["pixels"], plain(logits))
    each = [plain(classify(one)) for classify, one in zip(model.auxiliary, merges, strict=True)]
    torch.testing.assert_close(losses["auxiliary"], 0.3 * sum(each) / 3)


@pytest.mark.parametrize("stuff", [halves(), void()], ids=["known", "void"])
def test_every_parameter_learns(stuff):
    static, video = Segmenter(backbone=TINY, width=8), VideoSegmenter(backbone=TINY, width=8)
    for config, batch in ((static, batch_with(stuff)), (video, window(stuff)), (video, window(stuff, 2))):
        model = config.build(0, 3).train()
        losses = model.loss(batch)
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_first_frame_without_labels_counts_nothing():
    """Cityscapes labels the last frame of a window alone."""
    model = VideoSegmenter(backbone=TINY, width=8, first_frame=1.0).build(0, 3).train()
    batch = window(halves(), 2)
    batch = replace(batch, before=(replace(batch.before[0], targets=None),))
    losses = model.loss(batch)
    assert losses["first_pixels"] == 0 and losses["pixels"] > 0


def test_a_fixed_static_network_stays_as_it_is():
    model = VideoSegmenter(backbone=TINY, width=8, static="fixed").build(0, 3).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = model.loss(window(halves()))
    assert set(losses) == {"pixels"}
    losses["pixels"].backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"cell"}
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("cell.") for name in changed)


def test_the_loss_sums_later_frames():
    """Frame by frame by hand: the static network first, then the cell, each seeing what the frame before left."""
    model = VideoSegmenter(backbone=TINY, width=8).build(0, 3).eval()
    batch = window(halves())
    frames = (*batch.before, batch)
    images = [model.pixels.normalize(frame.images, frame.sizes) for frame in frames]
    maps = model.encode(images[0])
    layer4, dec, total = maps[3], model.decoder(maps)[0], 0
    for frame, pixels in zip(frames[1:], images[1:], strict=True):
        layers = model.encode(pixels)[1:]
        layer4, dec = layers[2], model.cell(layer4, dec, layers)
        total = total + pixel_cross_entropy(model.classifier(dec), class_truth(frame))
    torch.testing.assert_close(model.loss(batch)["pixels"], total)


def test_windows_are_needed_to_learn():
    with pytest.raises(InputError, match=r"data\.frames=2"):
        VideoSegmenter(backbone=TINY, width=8).build(0, 3).loss(batch_with(halves()))


def test_segments_are_the_classes_of_the_photo():
    """The class of largest logit, at the photo's size, which for the second image is twice the input's."""
    model = Segmenter(backbone=TINY, width=8).build(0, 3).eval()
    batch = replace(batch_with(halves()), targets=None)
    found = model.predict(batch)
    assert [tuple(one.segments.map.shape) for one in found] == [(64, 96), (128, 180)]
    assert all(len(one) == 0 for one in found)
    with torch.no_grad():
        logits, _ = model(model.pixels.normalize(batch.images, batch.sizes))
    large = F.interpolate(logits, (64, 96), mode="bilinear", align_corners=False)
    first = found[0].segments
    assert torch.equal(first.labels[first.map], large[0].argmax(0))
    assert (torch.bincount(first.map.flatten(), minlength=len(first)) > 0).all()


class Stripes(Model):
    """Calls the first rows of a photo road (two segments), the next sky, then car, then tree; the last belongs to none."""

    LABELS, ROWS = (3, 0, 8, 5, 3), (4, 3, 2, 1, 9)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def loss(self, batch):
        return {"none": self.weight.sum()}

    def predict(self, batch):
        found = []
        for height, width in batch.originals:
            owner = torch.cat([torch.full((count,), row) for row, count in enumerate(self.ROWS)] + [torch.tensor([-1])])
            owner = owner[:height, None].repeat(1, width)
            none = torch.zeros(0)
            segments = Segments(owner, torch.tensor(self.LABELS), torch.ones(5), torch.zeros(5, dtype=torch.bool))
            found.append(Detections(torch.zeros(0, 4), none, none.long(), (height, width), segments=segments))
        return found


@pytest.mark.parametrize(
    ("height", "shares"),
    # Of 20 rows road has 4 + 9, sky 3, car 2, tree 1, and one has no class; of 4 rows all are road.
    [(20, "road 65 %, sky 15 %, car 10 % of the pixels"), (4, "road 100 % of the pixels")],
)
def test_a_prediction_tells_the_shares_of_classes(tmp_path, height, shares):
    """A model of pixels finds no objects: what it says, prints and shows are the classes with the most pixels."""
    Image.new("RGB", (30, height)).save(tmp_path / "a.png")
    names = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car")
    predictor = Predictor(Stripes(), (), TestSize(height, 64), "cpu", stuff=Stuff(names, tuple(range(9))))
    assert repr(predictor.predict(tmp_path / "a.png")).startswith(f"Instances({shares} in a.png")
    written = predict_to_folder(predictor, tmp_path / "a.png", tmp_path / "out", progress=False)
    assert written.says == f"1 pictures: {shares}"
    page = (tmp_path / "out" / "gallery.html").read_text("utf-8")
    assert f"1 photos or frames, {shares}" in page and '["segments","data:image/jpeg' in page and '"found":' not in page


def test_a_video_is_followed():
    """Frame by frame with memory equals the whole window at once; a photo alone is the static network's."""
    model = VideoSegmenter(backbone=TINY, width=8).build(0, 3).eval()
    batch = replace(window(halves()), targets=None)
    memory = None
    for frame in (*batch.before, replace(batch, before=())):
        found, memory = model.follow(frame, memory)
    assert isinstance(memory, Memory)
    for one, other in zip(found, model.predict(batch), strict=True):
        assert torch.equal(one.segments.labels[one.segments.map], other.segments.labels[other.segments.map])
    alone = model.predict(replace(batch, before=()))
    with torch.no_grad():
        logits, _ = model(model.pixels.normalize(batch.images, batch.sizes))
    expected = F.interpolate(logits, (64, 96), mode="bilinear", align_corners=False)[0].argmax(0)
    assert torch.equal(alone[0].segments.labels[alone[0].segments.map], expected)


def test_faster_is_the_same():
    """Folded norms, of the cell too: logits within 1e-4 of those as built."""
    model = VideoSegmenter(backbone=TINY, width=8).build(0, 3).eval()
    fast = optimize(model, "exact").model
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for ours, plain in zip(fast(images), model(images), strict=True):
            torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)
    assert not [part for part in fast.cell.modules() if isinstance(part, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize(("classes", "stuff"), [(3, 2), (0, 0)])
def test_objects_are_refused(classes, stuff):
    for config in (Segmenter(backbone=TINY), VideoSegmenter(backbone=TINY)):
        with pytest.raises(InputError, match=r"data\.stuff=all"):
            config.build(classes, stuff)


def test_a_backbone_without_the_maps_is_refused():
    with pytest.raises(InputError, match=r"\[4, 8, 16, 32\]"):
        Segmenter(backbone=replace(TINY, stages=(8, 16, 32))).build(0, 2)


def test_it_learns():
    """Two synthetic scenes by heart: after 75 steps of a tiny network 9 of 10 pixels are right, mIoU is above 0.6."""
    torch.manual_seed(0)
    dataset = open_dataset("scenes:2:0", all_stuff=True)
    augment = Augment(short_sides=(96,), max_side=200, flip=0.0)
    data = DataConfig(augment=augment, test=TestSize(96, 200), stuff="all", workers=0)
    model = Segmenter(backbone=TINY, width=16).build(0, len(dataset.stuff)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batches = train_batches(dataset, data, batch_size=2, seed=0)
    for _ in range(75):
        optimizer.zero_grad()
        sum(model.loss(next(batches)).values()).backward()
        optimizer.step()
    found = evaluate(model, dataset, test_batches(dataset, data, batch_size=4), progress=False)
    assert found.metrics == {} and found.panoptic is None
    assert found.summary["semantic/gAcc"] > 0.9 and found.summary["semantic/mIoU"] > 0.6


def street(folder, count=4, size=(64, 96)):
    """CamVid's layout: a video whose left part is dark (road, 3), the right bright (sky, 0); the border moves."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        (folder / f"{split}annot").mkdir()
        for number in range(count):
            border = 30 + 8 * number
            classes = np.full(size, 3, dtype=np.uint8)
            classes[:, border:] = 0
            pixels = np.random.default_rng(number).integers(0, 60, (*size, 3)) + 180 * (classes == 0)[..., None]
            Image.fromarray(pixels.astype(np.uint8)).save(folder / split / f"s_{number:06d}.png")
            Image.fromarray(classes).save(folder / f"{split}annot" / f"s_{number:06d}.png")
    return folder


TINY_RUN = (
    *("data.workers=0", "data.augment.short_sides=[64]", "data.augment.crop_size=64", "data.test.short_side=64"),
    *("model.backbone.name=test_resnet", "model.backbone.weights=null", "model.width=8", "training.batch_size=2"),
    *("training.evaluate_every=null", "training.log_every=10"),
)


def test_both_stages_from_the_command_line(tmp_path, capsys):
    """A static network, the cell on it, both together; then a folder of frames is followed, and measured."""
    root = street(tmp_path / "street")
    data = (f"data.train={root / 'train'}", f"data.val={root / 'val'}")

    def train(recipe, *settings):
        out = tmp_path / recipe
        assert main(["train", recipe, "--out", str(out), *data, *TINY_RUN, *settings]) == 0
        return out / "last.safetensors"

    static = train("arch2_camvid", "training.steps=30")
    first = train("dynamic_cell_camvid", "training.steps=12", f"training.init_from={static}")
    one, two = load(static).model.state_dict(), load(first).model.state_dict()
    assert all(torch.equal(two[name], tensor) for name, tensor in one.items())
    both = train("dynamic_cell_camvid_end_to_end", "training.steps=6", f"training.init_from={first}")
    three = load(both).model.state_dict()
    assert not torch.equal(three["classifier.weight"], two["classifier.weight"])

    out = tmp_path / "found"
    assert main(["predict", str(both), str(root / "val"), "--video", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "ms a frame that follows another (3)" in said and "ms a frame alone" in said
    assert "4 pictures: " in said and " % of the pixels" in said and "objects" not in said
    document = json.loads((out / "panoptic.json").read_text())
    assert len(document["images"]) == 4 and (out / "val.mp4").is_file()
    names = {category["name"] for category in document["categories"]}
    assert names >= {"sky", "road"} and len(names) == 11

    out = tmp_path / "measured"
    assert main(["evaluate", str(both), "--out", str(out), "data.workers=0"]) == 0
    numbers = json.loads((out / "metrics.json").read_text())
    assert set(numbers["semantic"]["summary"]) == {"mIoU", "mAcc", "gAcc", "fwIoU", "tIoU"}
    assert 0 < numbers["summary"]["semantic/gAcc"] <= 1
    page = (out / "report.html").read_text()
    assert page.count('["true segments","data:image/jpeg') == page.count('["predicted segments","data:image/jpeg') == 4


def test_a_stream_follows_and_photos_do_not(tmp_path):
    """The stream over a folder of frames equals `follow` by hand; the same files as photos equal the static network."""
    root = street(tmp_path / "street")
    config = VideoSegmenter(backbone=TINY, width=8)
    model = config.build(0, 11).eval()
    stuff = open_dataset(root / "val").stuff
    predictor = VideoPredictor(model, (), TestSize(64, 200), "cpu", stuff=stuff)
    files = sorted((root / "val").iterdir())
    memory, expected = None, []
    for path in files:
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
        (found,), memory = model.follow(Batch(pixels, ((64, 96),), ((64, 96),)), memory)
        expected.append(found.segments.labels[found.segments.map])
    streamed = list(predictor.stream(as_video(root / "val")))
    assert [one.frame for one in streamed] == [0, 1, 2, 3] and len(predictor.pace.following) == 3
    for one, other in zip(streamed, expected, strict=True):
        assert torch.equal(one.segments.labels[one.segments.map], other)
    alone = list(predictor.stream([str(path) for path in files]))
    for one, path in zip(alone, files, strict=True):
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
        found = model.predict(Batch(pixels, ((64, 96),), ((64, 96),)))[0]
        assert torch.equal(one.segments.labels[one.segments.map], found.segments.labels[found.segments.map])


def test_a_static_checkpoint_starts_a_video_model(tmp_path):
    recipe = Recipe("static", Segmenter(backbone=TINY, width=8))
    static = recipe.model.build(0, 3)
    path = tmp_path / "static.safetensors"
    stuff = Stuff(("a", "b", "c"), (0, 1, 2))
    save_checkpoint(path, static, recipe, (), category_ids=(), stuff=stuff)
    video = VideoSegmenter(backbone=TINY, width=8).build(0, 3)
    assert initialize_from(video, path, ()) == ["cell"]
    assert torch.equal(video.decoder.reduce[0].weight, static.decoder.reduce[0].weight)


def two_parts():
    torch.manual_seed(0)
    return torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})


def stepped(model, optimizer, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        model["b"](model["a"](torch.ones(1, 2))).square().sum().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_parts_learn_by_their_own_optimiser_and_rate():
    """Adam at 0.1 for a, SGD at half of it for b: as two optimisers by hand; and its state survives a save."""
    training = Training(optimizer="adam", learning_rate=0.1, weight_decay=0.0, parts=(PartTraining("b", 0.5, "sgd"),))
    model, plain = two_parts(), two_parts()
    optimizer = build_optimizer(model, training)
    assert isinstance(optimizer, SeveralOptimizers)
    by_hand = [
        torch.optim.Adam(plain["a"].parameters(), lr=0.1),
        torch.optim.SGD(plain["b"].parameters(), lr=0.05, momentum=0.9),
    ]
    for _ in range(3):
        for one in by_hand:
            one.zero_grad()
        plain["b"](plain["a"](torch.ones(1, 2))).square().sum().backward()
        for one in by_hand:
            one.step()
    for ours, theirs in zip(stepped(model, optimizer), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach())
    again = two_parts()
    again.load_state_dict(model.state_dict())
    restored = build_optimizer(again, training)
    load_optimizer_tensors(restored, optimizer_tensors(optimizer))
    for ours, theirs in zip(stepped(again, restored, 1), stepped(model, optimizer, 1), strict=True):
        assert torch.equal(ours, theirs)


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no part c, but a, b"):
        build_optimizer(two_parts(), Training(parts=(PartTraining("c"),)))
