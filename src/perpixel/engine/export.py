"""A model as one file that ends in boxes, scores, classes, masks, keypoints, stuff: ONNX, OpenVINO, or compiled by AOTInductor.

Every file is made from one traced graph (`perpixel.models.static`), and says in its metadata what using it takes (`Facts`).
"""

import logging
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from perpixel.engine.exported import KINDS, Facts, needed
from perpixel.errors import InputError
from perpixel.models.detector import Detector
from perpixel.models.duplicates import BoxNMS, KeypointNMS
from perpixel.models.heads import Model
from perpixel.models.panoptic import PanopticModel
from perpixel.models.static import StaticDetector, detector_of
from perpixel.nn.deform import DeformConv2d

OPSET = 20
"""Of ONNX: the first with all that masks need; DeformConv came with 19."""
EXAMPLE = (2, 3, 270, 330)
"""What is traced: no side is 1 anywhere in the pyramid, no two sizes are equal, so none is taken for fixed."""


@dataclass(frozen=True)
class Graph:
    """A traced detector.

    Attributes:
        program: of `StaticDetector`.
        example: its inputs.
        outputs: names of its outputs, in order.
    """

    program: ExportedProgram
    example: tuple[torch.Tensor, torch.Tensor]
    outputs: tuple[str, ...]


def export_detector(model: Model, facts: Facts, path: Path, device: torch.device | str = "cpu") -> None:
    """Writes the file, in the form that its name's ending asks for.

    Args:
        model: a detector in evaluation mode; moved to `device`.
        facts: what the file says of itself; a `size` fixes height and width, else both are free, as the batch size always is.
        path: ending in .onnx, .xml (OpenVINO; the weights go beside it, into a .bin file) or .pt2 (AOTInductor).
        device: what a .pt2 file is compiled for; the others are not bound to one.

    Raises:
        InputError: another ending, a missing runtime, or a model that this form cannot hold.
    """
    check_exportable(model, path)
    assert isinstance(model, Detector | PanopticModel)
    graph = trace(model.to(device if path.suffix == ".pt2" else "cpu"), facts.size)
    with placed(path) as file:
        if path.suffix == ".pt2":
            # The compiler takes maps of one cell for a case of its own: every level has two a side or more.
            smallest = 1 if facts.size else detector_of(model).neck.strides[-1] + 1
            write_package(graph, replace(facts, smallest=smallest), file)
            return
        onnx_file = file.with_suffix(".onnx")
        write_onnx(graph, facts, onnx_file)
        if path.suffix == ".xml":
            onnx_to_openvino(onnx_file, facts, file)
            onnx_file.unlink()


def check_exportable(model: Model, path: Path) -> None:
    """Everything that can be said before minutes of work.

    Raises:
        InputError: as `export_detector`.
    """
    if path.suffix not in KINDS:
        raise InputError(f"-o {path}: the name ends in .onnx, .xml (OpenVINO) or .pt2 (AOTInductor)")
    if not isinstance(model, Detector | PanopticModel):
        raise InputError(
            f"a {type(model).__name__} is not exported: only detectors are, alone or under a semantic branch (PanopticFPN)"
        )
    if not isinstance(detector_of(model).duplicates, BoxNMS | KeypointNMS):
        raise InputError(
            "only plain NMS, of boxes or of rectangles around keypoints, is exported: set model.duplicates.kind=BoxNMS"
        )
    if path.suffix == ".pt2":
        return
    needed("onnxscript", "onnx", ".onnx")
    needed("onnxruntime", "onnx", ".onnx")
    if path.suffix == ".xml":
        needed("openvino", "openvino", ".xml")
        if any(isinstance(module, DeformConv2d) for module in model.modules()):
            raise InputError("OpenVINO cannot read deformable convolutions: export this model to .onnx or .pt2")


def trace(model: Detector | PanopticModel, size: tuple[int, int] | None) -> Graph:
    """The detector as one graph, for any batch size and, without a `size`, any height and width.

    Raises:
        InputError: its backbone lays windows over each image (Swin), and no size was given.
    """
    if size is None and detector_of(model).backbone.windowed:
        raise InputError("a backbone with windows (Swin) is exported for one size: give it by --size HEIGHT WIDTH")
    module = StaticDetector(model).eval()
    device = next(model.parameters()).device
    height, width = size or EXAMPLE[2:]
    example = torch.zeros((*EXAMPLE[:2], height, width), device=device), torch.tensor([0.05], device=device)
    free = {0: Dim.DYNAMIC} if size else {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad(), _quiet():
        outputs = tuple(module(*example))
        program = torch.export.export(
            module,
            example,
            dynamic_shapes={"images": free, "score": None},
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    check_free(program)
    return Graph(program, example, outputs)


def check_free(program: ExportedProgram) -> None:
    """No equation among sizes, such as a number of cells that tracing took for fixed: the file would be wrong at others.

    Raises:
        RuntimeError: there is one, a defect of the model; `len(tensor)` in place of `tensor.shape[0]` is one.
    """
    for node in program.graph.nodes:
        if node.target is torch.ops.aten._assert_scalar.default and "expression Eq(" in str(node.args[1]):
            raise RuntimeError(f"tracing fixed a size: {node.args[1]}")


def write_onnx(graph: Graph, facts: Facts, file: Path) -> None:
    """The graph as ONNX, in one file with its weights."""
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph.program,
            graph.example,
            dynamo=True,
            input_names=["images", "score"],
            output_names=graph.outputs,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    _name_free_sizes(program.model.graph)
    program.model.metadata_props.update(facts.to_metadata())
    program.save(str(file), external_data=False)


def onnx_to_openvino(onnx_file: Path, facts: Facts, file: Path) -> None:
    """An ONNX file as OpenVINO's pair of files, in the precision it has."""
    runtime = needed("openvino", "openvino", ".xml")
    model = runtime.convert_model(str(onnx_file))
    for name, value in facts.to_metadata().items():
        model.set_rt_info(value, ["perpixel", name])
    runtime.save_model(model, str(file), compress_to_fp16=False)


def write_package(graph: Graph, facts: Facts, file: Path) -> None:
    """The graph compiled by AOTInductor for the device of its weights.

    Raises:
        InputError: there is no C++ compiler.
    """
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        with torch.no_grad(), _quiet():
            torch._inductor.aoti_compile_and_package(
                graph.program,
                package_path=str(file),
                inductor_configs={"aot_inductor.metadata": facts.to_metadata()},
            )
    except InvalidCxxCompiler as error:
        raise InputError(
            ".pt2 files are compiled: install a C++ compiler (g++ or clang++), or export to .onnx"
        ) from error


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """A file of that name in an empty folder beside it; when all is written, it and its companions replace the old ones.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            yield Path(folder) / path.name
            for file in sorted(Path(folder).iterdir()):  # the .bin before the .xml that reads it
                file.replace(path.parent / file.name)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}") from error


def _name_free_sizes(graph: Any) -> None:
    """batch, height, width and detections in place of the tracer's numbers, wherever a shape mentions them."""
    images, boxes = graph.inputs[0], graph.outputs[0]
    names = {
        str(size): name
        for size, name in zip(
            [*images.shape, boxes.shape[0]], ["batch", "channels", "height", "width", "detections"], strict=True
        )
        if not isinstance(size, int)
    }
    pattern = re.compile(rf"\b({'|'.join(names)})\b")
    values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    for value in values:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value is not None:
                value.shape[axis] = pattern.sub(lambda found: names[found[1]], size.value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing without its notes to developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
