"""The forms that data sets are written in."""

from perpixel.data.coco_writer import CocoWriter
from perpixel.data.cvat_writer import CvatWriter
from perpixel.data.labelme_writer import LabelMeWriter
from perpixel.data.voc_writer import VocWriter
from perpixel.data.writer import Writer
from perpixel.data.yolo_writer import YoloWriter

WRITERS: dict[str, type[Writer]] = {
    writer.form: writer for writer in (CocoWriter, VocWriter, YoloWriter, LabelMeWriter, CvatWriter)
}
