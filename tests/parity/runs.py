"""Our models with the references' weights, run on the references' inputs; every stage measured."""

import re
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.engine.convert import Conversion, convert_checkpoint
from perpixel.engine.convert.detect import detect_layout
from perpixel.engine.instances import Instances
from perpixel.models.blendmask import BlendMaskHead
from perpixel.models.boxinst import BoxInstHead
from perpixel.models.condinst import CondInstHead
from perpixel.models.detector import Detector
from perpixel.models.meinst import MEInstHead
from perpixel.nn.bifpn import BidirectionalPyramid
from perpixel.nn.mask_codes import LinearCode
from perpixel.nn.renaming import renamed
from perpixel.ops.boxes import clip_boxes
from perpixel.structures import Batch, DenseOutputs, Detections, Locations, Matches, Targets, pad_images

from . import deterministic
from .masks import box_pixels, mass_centers, photo_masks, polygon_truth, wrong_pixels
from .masks import stages as mask_stages
from .reference import GOLDEN, Agreement, Reference, pair_detections

MODELS = (
    "adet_FCOS_R_50_1x",
    "adet_FCOS_RT_MS_DLA_34_4x_syncbn_shared_towers",
    "adet_CondInst_MS_R_50_1x",
    "adet_CondInst_MS_R_50_BiFPN_1x",
    "adet_BoxInst_MS_R_50_1x",
    "adet_BlendMask_R_50_1x",
    "adet_MEInst_R_50_1x_none",
    "nasfcos_R_50_NAS_densebox",
    "d2_retinanet_R_50_FPN_1x",
    "tv_fcos_resnet50_fpn",
    "tv_retinanet_resnet50_fpn",
)

# The references' shorter side and longest side: torchvision resizes image 1.
TORCHVISION_SIZE = (256, 320)
# Maps of the pyramid over 256x320.
SHAPES = ((32, 40), (16, 20), (8, 10), (4, 5), (2, 3))
# What detectron2 and AdelaiDet were asked to scale case B to.
OUTPUT_B = (360, 456)

Unit = Literal["relative", "pixels", "absolute", "count"]


@dataclass(frozen=True)
class Measured:
    """How far one stage is from the reference, and how far it may be."""

    model: str
    stage: str
    difference: float
    tolerance: float
    unit: Unit = "relative"


class Case:
    """One reference model as ours."""

    def __init__(self, name: str):
        self.reference = Reference(name)
        self.theirs = deterministic.weights(self.reference.entries, self.reference.anchors)
        self.conversion: Conversion = convert_checkpoint(self.theirs)
        model = self.conversion.build()
        assert isinstance(model, Detector)
        # What the reference run set for torchvision, and the others' default.
        model.selection = replace(model.selection, threshold=0.05)
        head = model.instance_head
        if isinstance(head, BlendMaskHead | MEInstHead):
            # The reference draws polygons anew in each box; ours cuts pixels of the photo.
            size = 56 if isinstance(head, BlendMaskHead) else 28
            head.truth = partial(polygon_truth, size)  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(head, MEInstHead) and isinstance(head.code, LinearCode):
            # The reference's random numbers were all 1/2.
            head.code.config = replace(head.code.config, margin=0.025)
        self.model: Detector = model
        self.torchvision = name.startswith("tv_")
        # NAS-FCOS stands on maskrcnn-benchmark: stages have numbers, nothing is scaled to the photo.
        self.maskrcnn = name.startswith("nasfcos_")
        # With batch norms in batch statistics a rounding of the input to float32 alone moves gradients by 1e-3 (ReLUs flip):
        # torchvision's own float32 gradients are up to 2.8e-3 from its float64 ones, which alone can be compared.
        self.precision = torch.float64 if self.torchvision else torch.float32

    def batch(self, *numbers: int, kind: torch.dtype = torch.float32) -> Batch:
        """The chosen images and their targets as the reference's network sees them, resized in the precision of the run."""
        images, targets, sizes = [], [], []
        with np.load(GOLDEN / "inputs.npz") as inputs:
            for number in numbers:
                image = torch.from_numpy(inputs[f"{number}/image"]).permute(2, 0, 1)
                boxes = torch.from_numpy(inputs[f"{number}/boxes"]).to(kind)
                labels = torch.from_numpy(inputs[f"{number}/classes"]).long()
                masks = torch.from_numpy(inputs[f"{number}/masks"]).bool()
                if isinstance(self.model.instance_head, BoxInstHead):
                    masks = box_pixels(boxes, (image.shape[1], image.shape[2]))
                sizes.append((image.shape[1], image.shape[2]))
                if self.torchvision:
                    image, boxes = torchvision_resize(image.to(kind), boxes)
                    labels = labels + 1
                else:
                    # Stored in the order the network takes, which is BGR; ours is RGB outside the network.
                    image = image.flip(0) if kind == torch.float32 else image.flip(0).to(kind)
                images.append(image)
                targets.append(Targets(boxes, labels, masks, mass_centers(masks)))
        padded = pad_images(images, 32)
        # torchvision's inputs are resized, and nobody reads their masks.
        targets = [replace(t, masks=_padded(t.masks, padded)) for t in targets]
        own = tuple((image.shape[1], image.shape[2]) for image in images)
        return Batch(padded, own, tuple(sizes), tuple(targets))

    def measure_inference(self) -> list[Measured]:
        """Every stored stage of both cases."""
        out = []
        for case, number in (("A", 0), ("B", 1)):
            out += self._measure_case(case, self.batch(number))
        return out

    def _measure_case(self, case: str, batch: Batch) -> list[Measured]:
        model = self.model.eval()
        stored = self.reference.infer
        with torch.inference_mode():
            images = model.normalized(batch)
            maps = model.backbone(images)
            top = model.neck.inputs(maps)[len(maps) :] if isinstance(model.neck, BidirectionalPyramid) else ()
            pyramid = model.neck(maps)
            outputs = model.box_head(pyramid)
            candidates = model.selection.choose(outputs, batch.sizes)
        stages: dict[str, Tensor] = {}
        if self.maskrcnn:
            stages |= {f"bottom_up/{1 + i}": x for i, x in enumerate(maps)}
            stages |= {f"feat/{i}": x for i, x in enumerate(pyramid)}
            stages |= self._head_by_level(in_pixels(outputs))
        elif not self.torchvision:
            stages["image_normalized_padded"] = images
            stages |= self._finest_maps(images)
            kind = "level" if self.is_dla else "res"
            stages |= {f"bottom_up/{kind}{3 + i}": x for i, x in enumerate(maps)}
            stages |= {f"bottom_up/res{6 + i}": x for i, x in enumerate(top)}
            stages |= {f"feat/p{3 + i}": x for i, x in enumerate(pyramid)}
            stages |= self._head_by_level(outputs)
        else:
            stages |= {f"feat/{n}": x for n, x in zip(("0", "1", "2", "p6", "p7"), pyramid, strict=True)}
            stages |= {"head/cls_logits": outputs.logits, "head/bbox_regression": outputs.regression}
            if outputs.quality is not None:
                stages["head/bbox_ctrness"] = outputs.quality[..., None]
        name = self.reference.name
        out = []
        if f"{case}/prop/boxes" in stored:
            assert candidates.scores is not None
            rows = (candidates.boxes, candidates.scores, candidates.labels)
            paired = self._pair(f"{case}/prop", rows, "pred_classes")
            out += self._measure_detections(f"{case}/prop", paired)
            out += self._measure_locations(case, candidates.points, candidates.level)
            if isinstance(model.instance_head, CondInstHead | BlendMaskHead | MEInstHead):
                with torch.inference_mode():
                    dense = model.instance_head(pyramid, outputs.beside(maps, ()))
                    stages |= mask_stages(model.instance_head, dense, candidates.rows(paired.rows))
        names = {key.split("@")[0].removeprefix(f"{case}/") for key in stored if key.startswith(case)}
        wanted = {key for key in names if not key.startswith(("prop/", "det/"))} | (
            names & {"prop/top_feat", "prop/pred_masks"}
        )
        if self.maskrcnn:
            wanted.remove("bottom_up/0")  # C2, which the pyramid does not take
        assert wanted == set(stages), wanted ^ set(stages)
        out += [
            Measured(name, f"{case}/{key}", self.reference.difference(f"{case}/{key}", value), 1e-4)
            for key, value in stages.items()
        ]
        original = batch.originals[0] if case == "A" or self.torchvision or self.maskrcnn else OUTPUT_B
        classes = [str(i) for i in range(91)]
        detections = self._in_their_pixels(outputs, batch) if self.maskrcnn else model.predict(batch)[0]
        found = Instances.from_detections(detections, original, classes)
        rows = (torch.from_numpy(found.boxes), torch.from_numpy(found.scores), torch.from_numpy(found.labels))
        paired = self._pair(f"{case}/det", rows, "classes")
        out += self._measure_detections(f"{case}/det", paired)
        if found.masks is not None:
            for path, masks in photo_masks(model, batch, original, found.masks).items():
                wrong = wrong_pixels(stored, case, masks, paired.rows)
                out.append(Measured(name, f"{case}/det/{path}", wrong, 1e-4))
        return out

    def _in_their_pixels(self, outputs: DenseOutputs, batch: Batch) -> Detections:
        """Detections as maskrcnn-benchmark finds them: boxes are cut first, and a box from 3 to 5 is 3 pixels wide, not 2.

        So it is ours of boxes whose last pixel is added; classes count from 1, and no root of the score is taken.
        """
        height, width = batch.sizes[0]
        last = clip_boxes(outputs.boxes, (height - 1, width - 1))
        one = last.new_tensor([0.0, 0.0, 1.0, 1.0])
        found = self.model.detections(replace(outputs, boxes=last + one), None, batch)[0]
        return replace(found, boxes=found.boxes - one, scores=found.scores**2, labels=found.labels + 1)

    @property
    def is_dla(self) -> bool:
        return self.conversion.config.backbone.name == "dla34"

    def _finest_maps(self, images: Tensor) -> dict[str, Tensor]:
        """What the references store of DLA beside the maps that the pyramid reads: at strides 1, 2 and 4."""
        if not self.is_dla:
            return {}
        stages, body = {}, self.model.backbone.body
        with torch.inference_mode():
            x = body.get_submodule("base_layer")(images)
            for level in ("level0", "level1", "level2"):
                x = stages[f"bottom_up/{level}"] = body.get_submodule(level)(x)
        return stages

    def _head_by_level(self, outputs: DenseOutputs) -> dict[str, Tensor]:
        """Joined outputs as maps again: the references store them before joining."""
        stages = {}
        parts = {"logits": outputs.logits, "reg": outputs.regression}
        if outputs.quality is not None:
            parts["ctr"] = outputs.quality[..., None]
        for name, rows in parts.items():
            for level, values in enumerate(rows.split(outputs.locations.counts, dim=1)):
                height, width = outputs.locations.shapes[level]
                stages[f"head/{name}/{level}"] = values.reshape(1, height, width, -1).permute(0, 3, 1, 2)
        return stages

    def _pair(self, key: str, ours: tuple[Tensor, Tensor, Tensor], classes: str) -> Agreement:
        stored = self.reference.infer
        return pair_detections(ours, (stored[f"{key}/boxes"], stored[f"{key}/scores"], stored[f"{key}/{classes}"]))

    def _measure_detections(self, key: str, found: Agreement) -> list[Measured]:
        name = self.reference.name
        return [
            Measured(name, f"{key}/boxes", found.boxes, 1e-2, "pixels"),
            Measured(name, f"{key}/scores", found.scores, 1e-4, "absolute"),
            Measured(name, f"{key} unpaired", found.unpaired, 0, "count"),
        ]

    def _measure_locations(self, case: str, points: Tensor, levels: Tensor) -> list[Measured]:
        """Where the detections come from, as a set: their order is that of the scores, which nearly tie."""
        stored = self.reference.infer
        theirs, ours = torch.from_numpy(stored[f"{case}/prop/locations"]), points
        if f"{case}/prop/fpn_levels" in stored:  # MEInst's detections do not tell
            their_levels = torch.from_numpy(stored[f"{case}/prop/fpn_levels"])
            theirs = torch.cat([theirs, their_levels[:, None].float()], dim=1)
            ours = torch.cat([ours, levels[:, None].float()], dim=1)
        wrong = sum(a != b for a, b in zip(sorted(theirs.tolist()), sorted(ours.tolist()), strict=True))
        return [Measured(self.reference.name, f"{case}/prop/locations, levels", wrong, 0, "count")]

    def measure_training(self) -> list[Measured]:
        """Targets, losses, gradients and statistics of one step, the gradients in the precision that can be compared."""
        batch = self.batch(0, 1)
        matches = self.model.box_head.assign(self._locations(), batch.truth())
        out = self._measure_targets(matches, batch)
        # BoxInst was run at two steps, of which the last one's gradients were kept.
        for step in self.reference.meta["train"]:
            now = replace(batch, progress=int(step.removeprefix("iter")))
            out += self._measure_losses(step, self._step(now))
        out += self._measure_statistics()
        if self.precision == torch.float64:
            self.model.double()
            self._step(self.batch(0, 1, kind=torch.float64))
        out += self._measure_gradients()
        self.model.float()
        self.model.zero_grad()
        self.model.load_state_dict(self.conversion.weights)
        self.model.eval()
        return out

    def _locations(self) -> Locations:
        return self.model.box_head.locate(SHAPES[: len(self.model.neck.strides)])

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        """Losses and gradients of one training step from the reference's weights."""
        self.model.load_state_dict(self.conversion.weights)
        self.model.train()
        self.model.zero_grad()
        losses = self.model.loss(batch)
        torch.stack(list(losses.values())).sum().backward()
        return losses

    def _measure_targets(self, matches: Matches, batch: Batch) -> list[Measured]:
        name = self.reference.name
        if not self.reference.has_targets:
            return []
        stored = self.reference.targets
        targets = batch.truth()
        labels = torch.full_like(matches.target, 80)
        for row, (match, target) in enumerate(zip(matches.target, targets, strict=True)):
            labels[row][match == -2] = -1
            labels[row][match >= 0] = target.labels[match[match >= 0]]
        if self.reference.anchors:
            ours = labels
            image, anchor = torch.nonzero(matches.target >= 0, as_tuple=True)
            values = torch.stack([targets[i].boxes[matches.target[i, a]] for i, a in zip(image, anchor, strict=True)])
            wanted = stored["target/pos_matched_boxes"]
        else:
            locations = self._locations()
            # Level-major, then image.
            ours = torch.cat([part.flatten() for part in labels.split(locations.counts, dim=1)])
            rows = torch.cat([
                torch.stack([torch.arange(len(labels)).repeat_interleave(n), torch.arange(a, a + n).repeat(len(labels))], 1)
                for a, n in zip(np.cumsum([0, *locations.counts[:-1]]).tolist(), locations.counts, strict=True)
            ])  # fmt: skip
            image, place = rows[ours != 80].T
            boxes = torch.stack([targets[i].boxes[matches.target[i, p]] for i, p in zip(image, place, strict=True)])
            points, strides = locations.points[place], locations.strides[place, None]
            values = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], dim=1) / strides
            wanted = stored["target/pos_reg_targets"]
            assert np.array_equal(image.numpy(), stored["target/pos_im_inds"])
            assert np.array_equal(points.numpy(), stored["target/pos_locations"])
            assert np.array_equal(locations.levels[place].numpy(), stored["target/pos_fpn_levels"])
        wrong = int((ours.flatten().numpy() != stored["target/labels"].flatten()).sum())
        error = np.abs(values.numpy() - wanted).max() / np.abs(wanted).max()
        return [Measured(name, "labels", wrong, 0, "count"), Measured(name, "box targets", float(error), 1e-4)]

    def _measure_losses(self, step: str, losses: dict[str, Tensor]) -> list[Measured]:
        """In the references' order: class, box, centre-ness, masks; BlendMask's own stand first there, classes before masks."""
        stored = self.reference.meta["train"][step]["losses"]
        if "loss_basis_sem" in stored:
            own = ("loss_mask", "loss_basis_sem")
            stored = {name: stored[name] for name in (*(n for n in stored if n not in own), *own)}
        assert len(stored) == len(losses)
        return [
            Measured(self.reference.name, f"loss {key} {step}", abs(losses[key].item() / value - 1), 1e-4)
            for key, value in zip(losses, stored.values(), strict=True)
        ]

    def _measure_gradients(self) -> list[Measured]:
        """Sum, absolute sum and L2 norm of each gradient against the reference's; over the largest norm of all.

        A sum of n elements may differ by sqrt(n) as much as a norm, and an absolute sum too.
        """
        stored = self.reference.gradients["grad"]
        first = 0 if self.precision == torch.float32 else 3
        largest = max(row[first + 2] for row in stored.values())
        parameters = dict(self.model.named_parameters())
        names = self.their_names()
        worst = {"sum": 0.0, "absolute sum": 0.0, "norm": 0.0}
        seen = set()
        for ours, parameter in parameters.items():
            theirs = names[ours]
            assert (parameter.grad is None) == (theirs not in stored), ours
            if parameter.grad is None:
                continue
            seen.add(theirs)
            gradient = parameter.grad.double()
            measured = (gradient.sum(), gradient.abs().sum(), gradient.norm())
            width = gradient.numel() ** 0.5
            for kind, value, wanted, scale in zip(
                worst, measured, stored[theirs][first : first + 3], (width, width, 1), strict=True
            ):
                worst[kind] = max(worst[kind], abs(value.item() - wanted) / scale / largest)
        assert seen == stored.keys() - self.idle()
        assert not any(any(stored[theirs]) for theirs in stored.keys() & self.idle())
        return [Measured(self.reference.name, f"gradients, {kind}", value, 1e-3) for kind, value in worst.items()]

    def _measure_statistics(self) -> list[Measured]:
        """Sums of the running statistics of batch norms after the step, over their absolute sums."""
        stored = self.reference.gradients.get("buffers_after_step")
        if stored is None:
            return []
        names = self.their_names()
        worst = 0.0
        seen = 0
        for ours, buffer in self.model.named_buffers():
            theirs = names.get(ours)
            if theirs not in stored:
                continue
            seen += 1
            total, absolute = stored[theirs]
            values = self._as_often_as_they(ours, theirs, buffer)
            worst = max(
                worst, abs(values.sum().item() - total) / absolute, abs(values.abs().sum().item() / absolute - 1)
            )
        # BoxInst's count of steps, which CondInst has too, is the run's progress here.
        assert seen == len(stored.keys() - {"mask_head._iter"} - self.idle())
        return [Measured(self.reference.name, "statistics after the step", worst, 1e-4)]

    def _as_often_as_they(self, ours: str, theirs: str, buffer: Tensor) -> Tensor:
        """Statistics after as many updates as the reference makes in a step.

        It runs the laterals of P4 and P5 twice, once for the way down and once for the way up, so their norms move twice towards
        the same batch's statistics; ours move once, by (new - old) = 0.1 (batch - old).
        """
        if not re.search(r"\.lateral_[12]_f[12]\.norm\.", theirs):
            return buffer.double()
        if ours.endswith("num_batches_tracked"):
            return 2 * buffer.double()
        old, new = self.conversion.weights[ours].double(), buffer.double()
        return new + 0.9 * (new - old)

    def idle(self) -> set[str]:
        """Their names of what ours has no place for, since it carries nothing: projections of DLA that nobody reads."""
        names = self.their_names()
        return {names[ours] for ours in self.conversion.harmless if ours in names}

    def their_names(self) -> dict[str, str]:
        """Their name of each of our weights, by sending numbers through the conversion's table."""
        known = list(self.theirs)
        numbers = {name: torch.tensor(i) for i, name in enumerate(known)}
        ours, _ = renamed(numbers, detect_layout(numbers).rows(numbers))
        return {name: known[int(number)] for name, number in ours.items()}


def in_pixels(outputs: DenseOutputs) -> DenseOutputs:
    """Distances in pixels, not strides."""
    return replace(outputs, regression=outputs.regression * outputs.locations.strides[:, None])


def _padded(masks: Tensor, images: Tensor) -> Tensor:
    """Masks at the top left of the batch's padded input."""
    height, width = (min(a, b) for a, b in zip(masks.shape[1:], images.shape[2:], strict=True))
    out = masks.new_zeros((len(masks), *images.shape[2:]))
    out[:, :height, :width] = masks[:, :height, :width]
    return out


def torchvision_resize(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """As its transform does: bilinear in floats to a shorter side of 256 or a longer of 320; boxes by the ratios of the sizes."""
    height, width = image.shape[1:]
    shortest, longest = TORCHVISION_SIZE
    scale = min(shortest / min(height, width), longest / max(height, width))
    resized = image[None]
    if scale != 1:
        resized = F.interpolate(
            resized, scale_factor=scale, mode="bilinear", recompute_scale_factor=True, align_corners=False
        )
    ratio = boxes.new_tensor([resized.shape[3] / width, resized.shape[2] / height])
    return resized[0], boxes * ratio.repeat(2)


@cache
def case(name: str) -> Case:
    """The model, built once."""
    return Case(name)
