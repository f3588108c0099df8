"""A skeleton of one's own, from the data's file to the drawn limb: five joints in COCO's form, and YOLO's poses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import perpixel
from perpixel.cli.main import main
from perpixel.config import override
from perpixel.data.figures import FiguresDataset
from perpixel.data.open import open_dataset
from perpixel.engine.checkpoint import load_checkpoint, save_checkpoint
from perpixel.engine.evaluate import check_keypoints
from perpixel.engine.visualize import Style, draw
from perpixel.errors import InputError
from perpixel.models.skeleton import COCO_SIGMAS, sigmas_of
from perpixel.recipes import get_recipe
from perpixel.structures import COCO_KEYPOINTS, COCO_SKELETON

NAMES = ("head", "left_hand", "right_hand", "left_foot", "right_foot")
OF_COCO = (0, 9, 10, 15, 16)
LIMBS = ((0, 1), (0, 2), (0, 3), (0, 4))
SIGMAS = "data.sigmas=[0.03,0.06,0.06,0.09,0.09]"


@pytest.fixture(scope="module")
def five_joints(tmp_path_factory) -> Path:
    """Six pictures of stick figures as COCO json with five joints and a skeleton that counts them from 1."""
    path = FiguresDataset(6, size=(96, 96), seed=3).write_coco(tmp_path_factory.mktemp("five"))
    truth = json.loads(path.read_text())
    for annotation in truth["annotations"]:
        joints = np.array(annotation["keypoints"]).reshape(17, 3)[list(OF_COCO)]
        annotation |= {"keypoints": joints.ravel().tolist(), "num_keypoints": int((joints[:, 2] > 0).sum())}
    limbs = [[first + 1, second + 1] for first, second in LIMBS]
    truth["categories"] = [{"id": 1, "name": "person", "keypoints": list(NAMES), "skeleton": limbs}]
    path.write_text(json.dumps(truth))
    return path


def settings(path: Path) -> list[str]:
    return [
        f"data.train={path}",
        f"data.val={path}",
        f"model.instance.keypoints=[{','.join(NAMES)}]",
        "model.backbone.name=test_resnet",
        "model.neck.channels=32",
        "model.selection.threshold=0.0001",
        "data.augment.short_sides=[96]",
        "data.test.short_side=96",
        "data.workers=0",
        "training.steps=3",
        "training.warmup_steps=1",
        "training.batch_size=2",
    ]


@pytest.fixture(scope="module")
def trained(five_joints, tmp_path_factory) -> Path:
    """Three steps on them, evaluated at the end."""
    out = tmp_path_factory.mktemp("run") / "five"
    assert main(["train", "directpose_figures", *settings(five_joints), SIGMAS, "--out", str(out)]) == 0
    return out / "last.safetensors"


def test_names_limbs_and_pairs_come_from_the_file(five_joints):
    """Joints of the file count from 1, ours from 0; pairs follow from the names."""
    data = open_dataset(str(five_joints))
    assert (data.keypoint_names, data.skeleton, data.flip_pairs) == (NAMES, LIMBS, ((1, 2), (3, 4)))
    assert data.coco_truth()["categories"][0]["skeleton"] == [[1, 2], [1, 3], [1, 4], [1, 5]]


def test_coco_s_own_limbs(tmp_path):
    """The synthetic figures write COCO's; a file with COCO's names and no skeleton gets it, one with other names none."""
    path = FiguresDataset(1, size=(96, 96)).write_coco(tmp_path)
    truth = json.loads(path.read_text())
    assert truth["categories"][0]["skeleton"] == [[a + 1, b + 1] for a, b in COCO_SKELETON]
    for names, limbs in ((COCO_KEYPOINTS, COCO_SKELETON), (tuple("abcdefghijklmnopq"), ())):
        truth["categories"][0] |= {"keypoints": list(names), "skeleton": []}
        path.write_text(json.dumps(truth))
        assert open_dataset(str(path)).skeleton == limbs


@pytest.mark.parametrize("limbs", [[[0, 1]], [[1, 6]], [[1, 2, 3]], "1-2"])
def test_a_skeleton_of_joints_that_do_not_exist_is_refused(five_joints, tmp_path, limbs):
    truth = json.loads(five_joints.read_text())
    truth["categories"][0]["skeleton"] = limbs
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(truth))
    with pytest.raises(InputError, match=r"skeleton=.* of 'person' are not pairs of numbers from 1 to 5"):
        open_dataset(str(bad), str(five_joints.parent / "images"))


def test_from_training_to_the_picture(trained, five_joints, tmp_path, capsys):
    """Trained, evaluated and predicted by the commands; a limb's middle has the person's colour, boxes only without --pose."""
    checkpoint = load_checkpoint(trained)
    assert checkpoint.skeleton == LIMBS and 0 <= checkpoint.metrics["keypoints/AP"] <= 1
    assert main(["evaluate", str(trained), "--augmented", "96", "--out", str(tmp_path / "evaluation")]) == 0
    assert '"limbs":[[0,1],[0,2],[0,3],[0,4]]' in (tmp_path / "evaluation" / "report.html").read_text()

    model = perpixel.load(trained, "cpu")
    assert model.keypoint_names == NAMES and model.skeleton == LIMBS
    photo = five_joints.parent / "images" / "000000.png"
    best = model.predict(photo, score=0.0)[0]
    assert best.keypoints is not None and best.keypoints.shape == (1, 5, 3)
    pictures = []
    for name, more in (("all", []), ("pose", ["--pose"])):
        out = tmp_path / name
        assert main(["predict", str(trained), str(photo), "--score", "0", "--out", str(out), *more]) == 0
        assert len(json.loads((out / "results.json").read_text())[0]["keypoints"]) == 15
        pictures.append(np.asarray(Image.open(out / "000000.png")))
    assert (pictures[0] != pictures[1]).any()


def test_skeletons_alone():
    """A limb from (40, 50) to (80, 50) and no box: red between its ends, the photo's grey at the box's edge."""
    photo = np.full((320, 320, 3), 120, np.uint8)
    joints = np.array([[[40.0, 50, 0.9], [80, 50, 0.9]]])
    box = np.array([[20.0, 20, 120, 90]])
    style = Style(boxes=False, labels=False)
    picture = np.asarray(draw(photo, box, ["person"], [(255, 0, 0)], None, joints, ((0, 1),), style))
    assert picture[50, 60].tolist() == [255, 0, 0]
    assert picture[20, 60].tolist() == picture[60, 20].tolist() == [120, 120, 120]


def test_a_video_keeps_its_size(trained, tmp_path):
    """Three frames of 96 x 96: alone they would be enlarged, as a small photo is."""
    cv2 = pytest.importorskip("cv2")
    video = tmp_path / "figures.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (96, 96))
    figures = FiguresDataset(3, size=(96, 96), seed=4)
    for index in range(3):
        writer.write(np.ascontiguousarray(figures.image(index)[:, :, ::-1]))
    writer.release()
    out = tmp_path / "out"
    assert main(["predict", str(trained), str(video), "--pose", "--score", "0", "--out", str(out)]) == 0
    reader = cv2.VideoCapture(str(out / "figures.mp4"))
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and reader.get(cv2.CAP_PROP_FRAME_WIDTH) == 96
    found = json.loads((out / "results.json").read_text())
    assert len({row["file_name"] for row in found}) == 3 and all(len(row["keypoints"]) == 15 for row in found)


def test_a_pose_needs_keypoints(tmp_path, capsys):
    recipe = override(get_recipe("fcos_shapes"), ["model.backbone.name=test_resnet"])
    path = tmp_path / "boxes.safetensors"
    save_checkpoint(path, recipe.model.build(1), recipe, ["person"])
    assert main(["predict", str(path), "photo.png", "--pose", "--out", str(tmp_path / "out")]) == 2
    assert "boxes.safetensors predicts no keypoints" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_sigmas_are_known_before_the_training(five_joints, tmp_path, capsys):
    """COCO's spread goes by the names of keypoints; others need numbers, one each, before anything is trained."""
    assert sigmas_of(COCO_KEYPOINTS) == COCO_SIGMAS
    assert sigmas_of(("left_hip", "nose")) == (0.107, 0.026) and sigmas_of(("nose", "tail")) is None
    for more, message in (([], "none are known"), (["data.sigmas=[0.1,0.1]"], "2 are known")):
        arguments = ["train", "directpose_figures", *settings(five_joints), *more, "--out", str(tmp_path / "run")]
        assert main(arguments) != 0
        said = " ".join(capsys.readouterr().err.split())
        assert message in said and "set data.sigmas to 5 numbers, in the order head, left_hand" in said
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_other_keypoints_are_not_compared(five_joints):
    data = open_dataset(str(five_joints))
    with pytest.raises(InputError, match=r"its keypoints are head, .* the model predicts nose"):
        check_keypoints(COCO_KEYPOINTS, data, None)
    check_keypoints((), data, None)


def test_yolo_says_what_changes_places(tmp_path):
    """flip_idx [0, 2, 1]: keypoint 1 becomes 2 in the mirror and 2 becomes 1; without names nothing else would say so."""
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(tmp_path / "images/train/a.png")
    (tmp_path / "labels/train/a.txt").write_text("0 0.5 0.5 0.5 0.5 0.25 0.5 0.5 0.5 0.6 0.5\n")
    yaml = tmp_path / "data.yaml"
    text = "path: .\ntrain: images/train\nnames: [dog]\nkpt_shape: [3, 2]\n"
    yaml.write_text(text + "flip_idx: [0, 2, 1]\n")
    data = open_dataset(f"{yaml}:train")
    assert data.flip_pairs == ((1, 2),) and data.skeleton == ()
    for wrong, message in (("[0, 1]", "each of the numbers 0 to 2 once"), ("[1, 2, 0]", "is not its own inverse")):
        yaml.write_text(text + f"flip_idx: {wrong}\n")
        with pytest.raises(InputError, match=message):
            open_dataset(f"{yaml}:train")
