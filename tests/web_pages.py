"""A page in Debian's chromium, as a user opens it."""

from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")


def opened(browser, path: Path, width: int = 1200, scheme: str = "light"):
    """The page without a network; nothing is written to its console, and it asks for nothing."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.as_uri())
    assert said == [] and asked == []
    return page
