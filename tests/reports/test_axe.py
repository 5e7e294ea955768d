"""A rendered page has no violation that axe-core finds; runs where AXE names axe.min.js (docs/reports.md)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pypandoc
import pytest

import dynstat.reports
from dynstat.reports import quarto

from . import fixture, full

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=60000",
    "--dump-dom",
)


def violations(page: Path, axe: Path, browser: str, width: int = 1200) -> dict[str, Any]:
    """Run axe-core on a page in a headless browser; return its passes and violations by rule."""
    script = (
        f"<script>{axe.read_text(encoding='utf-8')}</script><script>"
        "axe.run(document).then(r => {const e = document.createElement('pre'); e.id = 'axe-result';"
        "e.textContent = JSON.stringify({passes: r.passes.map(x => x.id), violations: r.violations.map("
        "x => ({id: x.id, help: x.help, nodes: x.nodes.map(n => n.html.slice(0, 120))}))});"
        "document.body.appendChild(e);});</script>"
    )
    text = page.read_text(encoding="utf-8").replace("</body>", script + "</body>")
    copy = page.with_name("axe.html")
    copy.write_text(text, encoding="utf-8")
    profile = page.parent / "profile"
    run = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},2000", copy.as_uri()],
        capture_output=True,
        check=True,
        timeout=180,
    )
    found = re.search(r'<pre id="axe-result">(.*?)</pre>', run.stdout.decode(), re.S)
    assert found, "axe-core did not end"
    words = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return dict(json.loads(words))


def page_of(folder: Path) -> Path:
    """Render report.qmd by Quarto where it is, else by Pandoc with the report's own style."""
    if shutil.which(os.environ.get("QUARTO", "quarto")):
        return quarto.render(folder)
    style = Path(dynstat.reports.__file__).parent / "style" / "report.css"
    options = ["-f", "markdown", "-s", "--embed-resources", "--toc", f"--css={style}", "-o", "report.html"]
    program = pypandoc.get_pandoc_path()
    subprocess.run([program, *options, "report.qmd"], cwd=folder, check=True)
    page = folder / "report.html"
    # Quarto's template has the landmark, Pandoc's has not.
    text = re.sub(r"<body>(.*)</body>", r"<body><main>\1</main></body>", page.read_text("utf-8"), flags=re.S)
    page.write_text(text, encoding="utf-8")
    return page


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 400])
def test_axe_finds_no_violation(width: int, tmp_path: Path) -> None:
    axe, browser = os.environ.get("AXE", ""), next(filter(None, map(shutil.which, BROWSERS)), None)
    if not axe or browser is None:
        pytest.skip("AXE does not name axe.min.js, or there is no Chromium")
    given = os.environ.get("AXE_REPORT")
    folder = Path(shutil.copytree(given, tmp_path / "out")) if given else tmp_path / "out"
    if not given:
        fixture.save(folder, full.results())
        dynstat.reports.build(folder)
    found = violations(page_of(folder), Path(axe), browser, width)
    print(f"{len(found['passes'])} passes, {len(found['violations'])} violations")
    assert found["violations"] == []
    assert len(found["passes"]) > 20
