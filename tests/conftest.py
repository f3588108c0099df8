"""Shapes are checked at run time in every test: jaxtyping annotations, enforced by beartype."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

hook = install_import_hook("perpixel", "beartype.beartype")

from pathlib import Path

import pytest
import torch

from web_pages import CHROMIUM


@pytest.fixture(autouse=True)
def _repeatable():
    """Every test starts from the same random state and uses one thread."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside a development checkout; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data is absent: {folder} (development machines only)")
    return folder


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium without a window."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is absent: pages are tested where Debian's chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()
