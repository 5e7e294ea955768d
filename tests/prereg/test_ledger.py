"""The ledger: what is cut off its end shows, and several writers leave one chain."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dynstat.errors import DynstatError
from dynstat.files import canonical_json
from dynstat.prereg.ledger import EVENTS, append_entry, head_file, open_ledger, read_ledger

STUDY = Path(__file__).parents[2] / "analyses" / "conditional_signatures"


@pytest.fixture
def ledger(tmp_path):
    file = tmp_path / "ledger.jsonl"
    for i in range(5):
        append_entry(file, EVENTS[i % len(EVENTS)], {"what": f"entry {i}"})
    return file


def refused(file) -> DynstatError:
    with pytest.raises(DynstatError) as e:
        read_ledger(file)
    assert e.value.code == "P306" and int(e.value.exit) == 3
    return e.value


@pytest.mark.parametrize("kept", range(5))
def test_a_cut_at_any_line_is_found_and_what_is_missing_is_named(ledger, kept):
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:kept]))
    error = refused(ledger)
    assert ("entry 5 is" if kept == 4 else f"entries {kept + 1} to 5 are") in error.what
    assert error.found == f"{kept} entries" and "5 entries" in error.expected
    with pytest.raises(DynstatError):
        append_entry(ledger, "access", {})
    assert ledger.read_text() == "".join(lines[:kept])


def test_a_removed_ledger_is_found_by_its_head(ledger):
    ledger.unlink()
    assert "entries 1 to 5 are" in refused(ledger).what


def test_a_tail_written_anew_is_found(ledger, tmp_path):
    """The chain of the forged ledger holds; only the head does not fit it."""
    lines = ledger.read_text().splitlines(keepends=True)
    forged = tmp_path / "forged" / "ledger.jsonl"
    forged.parent.mkdir()
    forged.write_text("".join(lines[:3]))
    for i in range(4):
        append_entry(forged, "access", {"what": f"another {i}"})
    shutil.copy(forged, ledger)
    assert "entry 5 of the ledger is not the one its head names" in refused(ledger).what


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"n": 5}',
        '{"n": 0, "sha256": "x"}',
        '{"n": true, "sha256": "x"}',
        '{"n": 5, "sha256": 5}',
        '{"n": 5, "sha256": "00"}',
        '{"n": 6, "sha256": "00"}',
    ],
)
def test_an_edited_head_is_found(ledger, text):
    head_file(ledger).write_text(text)
    refused(ledger)


def test_a_ledger_without_a_head_is_accepted_and_gets_one(ledger):
    head_file(ledger).unlink()
    assert len(read_ledger(ledger)) == 5
    last = append_entry(ledger, "access", {})
    assert json.loads(head_file(ledger).read_text()) == {"n": 6, "sha256": last["sha256"]}


def test_a_writer_stopped_before_the_head_does_no_harm(ledger, monkeypatch):
    import dynstat.prereg.ledger as module

    with monkeypatch.context() as m:
        m.setattr(module, "write_atomic", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            append_entry(ledger, "access", {"what": "half"})
    assert json.loads(head_file(ledger).read_text())["n"] == 5 and len(read_ledger(ledger)) == 6
    append_entry(ledger, "access", {})
    assert json.loads(head_file(ledger).read_text())["n"] == 7


@pytest.mark.parametrize("change", ["space", "twice", "escape", "number"])
def test_another_spelling_of_a_line_is_found(tmp_path, change):
    file = tmp_path / "ledger.jsonl"
    append_entry(file, "access", {"what": "é", "zz": 1}, time="2026-01-01T00:00:00Z")
    text = file.read_text(encoding="utf-8")
    file.write_text(
        {
            "space": text.replace(',"n"', ', "n"'),
            "twice": text.replace("{", '{"event":"run",', 1),
            "escape": text.replace("é", "\\u00e9"),
            "number": text.replace('"zz":1', '"zz":1.0'),
        }[change],
        encoding="utf-8",
    )
    assert file.read_text(encoding="utf-8") != text
    refused(file)


def test_any_text_survives(tmp_path):
    file = tmp_path / "ledger.jsonl"
    texts = ["\u2028", "\u2029", "\x85", "a\nb", "\r", "\x0b", "\x1c", '"\\', "‮", ":::", "\U0001f600"]
    for text in texts:
        append_entry(file, "amend", {"reason": text})
    assert [e["reason"] for e in read_ledger(file)] == texts


def test_an_unknown_event_is_refused(tmp_path):
    with pytest.raises(DynstatError) as e:
        append_entry(tmp_path / "ledger.jsonl", "erase", {})
    assert e.value.code == "S404" and not (tmp_path / "ledger.jsonl").exists()


def test_processes_that_append_at_once_leave_one_chain(tmp_path):
    file = tmp_path / "ledger.jsonl"
    script = (
        "import sys\nfrom dynstat.prereg.ledger import append_entry, read_ledger\n"
        "for i in range(15):\n"
        "    append_entry(sys.argv[1], 'access', {'who': sys.argv[2], 'what': i})\n"
        "    read_ledger(sys.argv[1])\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(file), str(k)], stderr=subprocess.PIPE, text=True)
        for k in range(4)
    ]
    for process in running:
        _, words = process.communicate(timeout=60)
        assert process.returncode == 0, words
    entries = read_ledger(file)
    assert len(entries) == 60 and json.loads(head_file(file).read_text())["n"] == 60
    for k in range(4):
        assert [e["what"] for e in entries if e["who"] == str(k)] == list(range(15))


def test_who_holds_the_ledger_sees_nobody_elses_entry_until_he_lets_go(ledger):
    script = (
        "import sys\nfrom dynstat.prereg.ledger import append_entry\nappend_entry(sys.argv[1], 'run', {})"
    )
    with open_ledger(ledger) as book:
        other = subprocess.Popen([sys.executable, "-c", script, str(ledger)])
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1.5)
        book.append("access", {"what": "mine"})
        assert len(read_ledger(ledger)) == 6
    assert other.wait(30) == 0
    assert [e["event"] for e in read_ledger(ledger)][-2:] == ["access", "run"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_is_read(ledger):
    ledger.parent.chmod(0o555)
    try:
        assert len(read_ledger(ledger)) == 5
        with pytest.raises(DynstatError) as e:
            append_entry(ledger.parent / "other.jsonl", "run", {})
        assert e.value.code == "F002"
    finally:
        ledger.parent.chmod(0o755)


def test_the_committed_ledger_reads_and_every_line_of_it_is_needed(tmp_path):
    committed = STUDY / "ledger.jsonl"
    entries = read_ledger(committed)
    assert [e["event"] for e in entries[:2]] == ["lock", "access"]
    lines = committed.read_text(encoding="utf-8").split("\n")
    assert canonical_json(entries[0]).decode() == lines[0]
    copy = tmp_path / "ledger.jsonl"
    shutil.copy(head_file(committed), head_file(copy))
    copy.write_text("\n".join(lines[: len(entries) - 1]) + "\n")
    refused(copy)
