"""The documentation as a site: it builds without a warning, each page is reached, nothing leads nowhere or to another host."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; the sources are copied, since the builder writes beside its configuration."""
    here = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", here)
    shutil.copytree(ROOT / "docs", here / "docs")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"], cwd=here, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "No issues found" in done.stdout + done.stderr, done.stdout + done.stderr
    return here / "site"


class Page(HTMLParser):
    """What a page points to, what it loads, and the anchors it has."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.anchors.add(str(values["id"]))
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]))
        elif tag in ("img", "script", "iframe") and values.get("src"):
            self.loads.append(str(values["src"]))
        elif tag == "link" and values.get("href"):
            self.loads.append(str(values["href"]))


def file_of(target: str, page: Path, site: Path) -> Path:
    path = unquote(urlsplit(target).path)
    place = (site / path.lstrip("/") if path.startswith("/") else page.parent / path).resolve() if path else page
    return place / "index.html" if place.is_dir() else place


def test_every_page_is_built(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    wanted = {
        site / page.parent / "index.html" if page.name == "index" else site / page / "index.html" for page in pages
    }
    assert {path for path in wanted if not path.exists()} == set()
    landing = Page(site / "index.html")
    reached = {file_of(link, site / "index.html", site) for link in landing.links if not urlsplit(link).scheme}
    assert {path.relative_to(site) for path in wanted - reached} == set()  # each stands in the navigation


def test_links_lead_somewhere(site):
    broken = []
    pages = {path: Page(path) for path in site.rglob("index.html")}
    for path, page in pages.items():
        for target in page.links + page.loads:
            if urlsplit(target).scheme or target.startswith("//"):
                continue
            place = file_of(target, path, site)
            fragment = unquote(urlsplit(target).fragment)
            anchored = not fragment or place not in pages or fragment in pages[place].anchors or fragment == "__top"
            if not place.exists() or not anchored:
                broken.append(f"{path.relative_to(site)}: {target}")
    assert broken == []


def test_pages_ask_no_other_host(site):
    """Fonts and scripts are the site's own. Drawings of mermaid alone are made by a script from outside."""
    asked = {load for path in site.rglob("index.html") for load in Page(path).loads if urlsplit(load).scheme}
    assert asked == set()
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"url\(['\"]?https?:", styles) == []
