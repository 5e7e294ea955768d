"""The documentation names what exists: links, commands, public names."""

import re
from pathlib import Path

import pytest
import typer.main

import dynstat
from dynstat.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "data").rglob("README.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


def test_every_page_is_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [p.name for p in (ROOT / "docs").glob("*.md") if f"docs/{p.name}" not in readme] == []


def commands(group, path=()):
    for name, command in group.commands.items():
        yield from commands(command, (*path, name)) if hasattr(command, "commands") else [(*path, name)]


def test_every_command_is_documented_and_says_what_it_does():
    text = "\n".join(p.read_text("utf-8") for p in PAGES)
    for path in commands(typer.main.get_command(app)):
        assert " ".join(path) in text, f"dynstat {' '.join(path)} stands on no page"


def test_every_public_name_resolves_and_has_a_docstring():
    for name in dynstat.__all__:
        if name != "__version__":
            assert (getattr(dynstat, name).__doc__ or "").strip(), name


def test_the_two_commands_are_single_lines():
    text = (ROOT / "README.md").read_text("utf-8")
    for heading in ("Run", "Test"):
        block = re.search(rf"^## {heading}\n+```bash\n(.*?)```", text, re.M | re.S)
        assert block and len(block[1].strip().splitlines()) == 1
