"""Proofs of third parties: read offline, stored beside the lock, and held by the ledger."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.files import canonical_hash, sha256_file
from dynstat.prereg.evidence import EVIDENCE, evidence
from dynstat.prereg.ledger import append_entry, read_ledger
from dynstat.prereg.lock import load_lock, lock_study
from dynstat.prereg.proofs import attach_copy, attach_stamp, check_proofs
from dynstat.prereg.stamps import read_stamp
from dynstat.prereg.verify import verify_study

# Made with `openssl ts -reply` for the seven bytes `dynstat`, by an authority that exists nowhere.
OPENSSL = base64.b64decode(
    "MIIB0DADAgEAMIIBxwYJKoZIhvcNAQcCoIIBuDCCAbQCAQMxDzANBglghkgBZQMEAgEFADBnBgsqhkiG9w0BCRABBKBYBFYwVAIB"
    "AQYDKgMEMDEwDQYJYIZIAWUDBAIBBQAEIMpocRvm+gkWlkPuEV6fxLpihXkWQaphike85sgxCXl3AgECGA8yMDI2MTEyMDExMTI1"
    "MFowAwIBATGCATMwggEvAgEBMCswEzERMA8GA1UEAwwIVGVzdCBUU0ECFAaZt4cwLyScTGC+MVhjH5B2UK5XMA0GCWCGSAFlAwQC"
    "AQUAoIGYMBoGCSqGSIb3DQEJAzENBgsqhkiG9w0BCRABBDAcBgkqhkiG9w0BCQUxDxcNMjYxMTIwMTExMjUwWjArBgsqhkiG9w0B"
    "CRACDDEcMBowGDAWBBRkVhrfqArh18I1NNxE6A65BZ5sTjAvBgkqhkiG9w0BCQQxIgQga7CjNXx/Qx1FjnlXBsm70ClyoK1EV3LQ"
    "35R3fzZMkC0wCgYIKoZIzj0EAwIERzBFAiB1CTsJ4F4WSZvl1FUme9kjN1Yn9guq3m83LBUdGD2AtwIhAJswY5rPHrNSJrJUVWlA"
    "si0nsFYuGKFopFbQTIn2MaX7"
)
STAMPED = hashlib.sha256(b"dynstat").digest()


def tsr(digest: bytes) -> bytes:
    """Return a response for another digest; what signs it is then wrong, which offline nobody looks at."""
    assert OPENSSL.count(STAMPED) == 1
    return OPENSSL.replace(STAMPED, digest)


def ots(digest: bytes, height: int | None = 815_000) -> bytes:
    """Write a proof: a nonce is appended and hashed; one branch is promised, the other leads to a block."""
    address = b"https://calendar.example"
    pending = bytes([len(address)]) + address
    head = b"\x00OpenTimestamps\x00\x00Proof\x00\xbf\x89\xe2\xe8\x84\xe8\x92\x94\x01\x08" + digest
    steps = b"\xf0\x04salt\x08"
    promise = b"\x00" + bytes.fromhex("83dfe30d2ef90c8e") + bytes([len(pending)]) + pending
    if height is None:
        return head + steps + promise
    number, rest = b"", height
    while rest > 127:
        number, rest = number + bytes([rest & 127 | 128]), rest >> 7
    number += bytes([rest])
    block = bytes.fromhex("0588960d73d71901") + bytes([len(number)]) + number
    return head + steps + b"\xff" + promise + b"\xf1\x02ab\x08\x08\x00" + block


@pytest.fixture
def path(study, inputs):
    return lock_study(study, "demo", inputs)


@pytest.fixture
def digest(path):
    return bytes.fromhex(sha256_file(path))


def put(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


# reading


def test_a_response_of_openssl_is_read():
    stamp = read_stamp(OPENSSL)
    assert stamp.digest == STAMPED.hex() and stamp.time == "2026-11-20T11:12:50Z" and stamp.complete


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is the outside truth here")
def test_openssl_reads_the_same(tmp_path):
    file = put(tmp_path, "r.tsr", OPENSSL)
    done = subprocess.run(["openssl", "ts", "-reply", "-in", file, "-text"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this openssl has no `ts`")
    assert "Nov 20 11:12:50 2026 GMT" in done.stdout
    dump = [
        line.split(" - ")[1][:48] for line in done.stdout.splitlines() if line.strip()[:4] in ("0000", "0010")
    ]
    assert "".join(dump).replace("-", " ").replace(" ", "") == STAMPED.hex()
    token = tmp_path / "r.tst"
    subprocess.run(["openssl", "ts", "-reply", "-in", file, "-token_out", "-out", token], capture_output=True)
    assert read_stamp(token.read_bytes()) == read_stamp(OPENSSL)


def test_a_proof_in_the_chain_names_its_block_and_root():
    stamp = read_stamp(ots(STAMPED))
    inner = hashlib.sha256(STAMPED + b"salt").digest()
    root = hashlib.sha256(hashlib.sha256(b"ab" + inner).digest()).digest()
    assert stamp.digest == STAMPED.hex() and stamp.complete
    assert stamp.says == f"it leads to Bitcoin block 815000, Merkle root {root[::-1].hex()}"
    pending = read_stamp(ots(STAMPED, None))
    assert not pending.complete and "promised by https://calendar.example" in pending.says


@pytest.mark.parametrize("whole", [OPENSSL, ots(STAMPED), ots(STAMPED, None)])
def test_a_stamp_that_is_cut_is_refused(whole):
    for n in range(len(whole)):
        with pytest.raises(DynstatError) as e:
            read_stamp(whole[:n])
        assert e.value.code == "F003"


@given(st.binary(max_size=80), st.integers(0, len(OPENSSL)))
def test_any_bytes_are_read_or_refused(data, at):
    for whole in (data, ots(STAMPED)[:64] + data, OPENSSL[:at] + data + OPENSSL[at + len(data) :]):
        try:
            assert len(read_stamp(whole).digest) == 64
        except DynstatError as e:
            assert e.code == "F003"


# attaching


@pytest.mark.parametrize("ending, make, kind", [(".tsr", tsr, "rfc3161"), (".ots", ots, "opentimestamps")])
def test_a_stamp_of_the_lock_file_makes_l3(path, study, tmp_path, digest, ending, make, kind):
    lock, before = load_lock(path), path.read_bytes()
    assert evidence(lock, path) == "L0"
    record = attach_stamp(path, put(tmp_path, f"given{ending}", make(digest)))
    assert record["level"] == evidence(lock, path) == "L3" and EVIDENCE["L3"] == "third-party time"
    assert path.read_bytes() == before
    assert (study / f"demo.lock.json{ending}").read_bytes() == make(digest)
    entry = read_ledger(study / "ledger.jsonl")[-1]
    assert (entry["event"], entry["kind"], entry["level"]) == ("proof", kind, "L3")
    assert "SHA-256 of demo.lock.json" in record["checked"] and "not checked" in record["checked"]
    row = verify_study(study)["locks"][0]
    assert row["evidence"] == "L3" and row["evidence_words"] == "third-party time"
    assert row["proofs"][0]["kind"] == kind and row["proofs"][0]["after_access"] is False


def test_a_stamp_of_the_locks_own_hash_will_do(path, tmp_path):
    lock = load_lock(path)
    record = attach_stamp(path, put(tmp_path, "a.tsr", tsr(bytes.fromhex(lock.sha256))))
    assert "the sha256 field of the lock" in record["checked"] and evidence(lock, path) == "L3"


def test_a_stamp_of_something_else_is_refused(path, study, tmp_path):
    files = sorted(study.iterdir())
    for name, data in (("a.tsr", OPENSSL), ("a.ots", ots(STAMPED))):
        with pytest.raises(DynstatError) as e:
            attach_stamp(path, put(tmp_path, name, data))
        assert e.value.code == "P311" and STAMPED.hex() in e.value.found
        assert sha256_file(path) in e.value.expected
    with pytest.raises(DynstatError) as e:
        attach_stamp(path, tmp_path / "none.tsr")
    assert e.value.code == "F001" and sorted(study.iterdir()) == files


def test_a_promise_proves_no_time_until_it_is_kept(path, study, tmp_path, digest):
    record = attach_stamp(path, put(tmp_path, "a.ots", ots(digest, None)))
    assert record["level"] == "L0" and evidence(load_lock(path), path) == "L0"
    attach_stamp(path, put(tmp_path, "a.ots", ots(digest)))
    assert evidence(load_lock(path), path) == "L3" and (study / "demo.lock.json.2.ots").exists()
    with pytest.raises(DynstatError) as e:
        attach_stamp(path, put(tmp_path, "b.ots", ots(digest)))
    assert e.value.code == "S404"


def test_a_stamp_after_the_outcomes_says_so(path, study, tmp_path, digest, inputs):
    seen = {"inputs_sha256": canonical_hash(inputs), "level": "outcomes"}
    append_entry(study / "ledger.jsonl", "access", seen)
    assert attach_stamp(path, put(tmp_path, "a.tsr", tsr(digest)))["after_access"] is True
    assert verify_study(study)["locks"][0]["proofs"][0]["after_access"] is True


@pytest.mark.parametrize("harm", ["edit", "swap", "remove"])
def test_a_stamp_that_was_touched_counts_no_more_and_is_named(path, study, tmp_path, digest, harm):
    attach_stamp(path, put(tmp_path, "a.tsr", tsr(digest)))
    file = study / "demo.lock.json.tsr"
    if harm == "remove":
        file.unlink()
    else:
        file.write_bytes(OPENSSL if harm == "swap" else file.read_bytes()[:-1] + b"x")
    assert evidence(load_lock(path), path) == "L0"
    with pytest.raises(DynstatError) as e:
        verify_study(study)
    assert e.value.code == "P311" and int(e.value.exit) == 3
    assert "demo.lock.json.tsr" in e.value.problems[0] and e.value.problems[0].startswith("/proofs/0/")


def test_a_registry_makes_l2_and_is_not_believed_further(path, study):
    record = attach_copy(path, registry="osf", identifier="https://osf.io/abcde")
    assert record["level"] == evidence(load_lock(path), path) == "L2" and "not checked" in record["checked"]
    for given_ in ({}, {"registry": "osf"}, {"identifier": "x"}, {"pushed": True, "registry": "o"}):
        with pytest.raises(DynstatError) as e:
            attach_copy(path, **given_)
        assert e.value.code == "S404"
    with pytest.raises(DynstatError) as e:
        attach_copy(path, registry="osf", identifier="https://osf.io/abcde")
    assert e.value.code == "S404" and "already" in e.value.what
    assert len(check_proofs(load_lock(path), path)) == 1


def test_a_pushed_commit_makes_l2(study, inputs, tmp_path):
    def git(*arguments, cwd=study):
        who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=cwd, check=True, capture_output=True)

    git("init", "-q", "--bare", str(tmp_path / "remote.git"), cwd=tmp_path)
    git("init", "-q", "-b", "main")
    git("remote", "add", "origin", f"file://name:secret@localhost{tmp_path}/remote.git")
    git("add", "-A")
    git("commit", "-q", "-m", "plan")
    path = lock_study(study, "demo", inputs)
    git("add", "-A")
    git("commit", "-q", "-m", "lock")
    with pytest.raises(DynstatError) as e:
        attach_copy(path, pushed=True)
    assert e.value.code == "S404" and "no branch of a remote" in e.value.what
    git("push", "-q", str(tmp_path / "remote.git"), "main")
    git("update-ref", "refs/remotes/origin/main", "main")
    record = attach_copy(path, pushed=True)
    assert record["level"] == "L2" and record["branch"] == "origin/main" and len(record["commit"]) == 40
    assert "secret" not in (study / "demo.proof.json").read_text() and "localhost" in record["remote"]
    assert evidence(load_lock(path), path) == "L2"


def test_a_copy_in_a_folder_of_results_has_the_level_that_its_ledger_tells(path, study, tmp_path, digest):
    attach_stamp(path, put(tmp_path, "a.tsr", tsr(digest)))
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(path, out / "plan.lock.json")
    shutil.copy(study / "ledger.jsonl", out / "ledger.jsonl")
    assert evidence(load_lock(out / "plan.lock.json"), out / "plan.lock.json") == "L3"
    assert verify_study(out)["locks"][0]["proofs"][0]["level"] == "L3"
    with pytest.raises(DynstatError) as e:
        attach_copy(out / "plan.lock.json", registry="osf", identifier="x")
    assert e.value.code == "F002"


def test_the_record_says_what_is_in_the_ledger(path, study):
    record = attach_copy(path, registry="zenodo", identifier="10.5281/zenodo.1")
    stored = json.loads((study / "demo.proof.json").read_text())
    assert stored["lock_sha256"] == load_lock(path).sha256 and stored["proofs"] == [record]
    assert read_ledger(study / "ledger.jsonl")[-1]["record_sha256"] == canonical_hash(record)
