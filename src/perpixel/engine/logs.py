"""The log of a run: one JSON object a line, and TensorBoard files when asked for."""

import json
import os
from pathlib import Path
from typing import Any

from perpixel.engine.files import write_atomically
from perpixel.errors import InputError


class RunLog:
    """Appends rows to a log file, from where a stopped run left off.

    Args:
        path: the file; its folder exists.
        rows: rows to keep of an old file: those that the resumed checkpoint knows of. Later ones, a half written line
            included, are cut off, so that a resumed log has neither gap nor double.
        tensorboard: also write TensorBoard files to this folder; None: no.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, rows: int = 0, tensorboard: Path | None = None):
        self.rows = rows
        if rows:
            self._cut(path)
        self._file = path.open("a" if rows else "w", encoding="utf-8")
        self._board = _board(tensorboard)

    def _cut(self, path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if len(lines) < self.rows:
            raise InputError(
                f"{path} has {len(lines)} rows, the checkpoint beside it knows of {self.rows}: "
                "put the log back, or start a new run"
            )
        if len(lines) > self.rows:
            write_atomically(path, lambda file: _write_bytes(file, b"".join(lines[: self.rows])))

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row; it survives this process's death at once."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self.rows += 1
        if self._board is not None:
            for name, value in _scalars(row):
                self._board.add_scalar(name, value, row["step"])

    def sync(self) -> None:
        """Brings all rows to the disk: they survive the machine's death."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; a last line that is only half written is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    return rows


def _scalars(row: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    out = []
    for name, value in row.items():
        if isinstance(value, dict):
            out += _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            out.append((prefix + name, value))
    return out


def _board(folder: Path | None) -> Any:
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "training.tensorboard=true needs TensorBoard, which is not installed: pip install 'perpixel[track]'"
        ) from error
    return SummaryWriter(str(folder))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
