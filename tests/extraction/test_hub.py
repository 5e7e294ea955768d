"""Hub repositories: a cache folder in the hub's layout, no network."""

import os
import shutil
from contextlib import nullcontext

import pytest

pytest.importorskip("torch")
huggingface_hub = pytest.importorskip("huggingface_hub")
from huggingface_hub import constants  # noqa: E402

import dynstat  # noqa: E402
from dynstat import DynstatError  # noqa: E402
from dynstat.extraction.models.sources import locate, offline  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.stores.run import extract_panel  # noqa: E402

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch, model_folders, tokenizer_folder):
    """``models--org--tiny`` with one commit, tagged v1, its tokenizer among its files."""
    root = tmp_path / "hub"
    repo = root / "models--org--tiny"
    snapshot = repo / "snapshots" / COMMIT
    shutil.copytree(model_folders["llama"], snapshot)
    shutil.copy(tokenizer_folder / "tokenizer.json", snapshot)
    shutil.copy(tokenizer_folder / "tokenizer_config.json", snapshot)
    (repo / "refs").mkdir()
    (repo / "refs" / "v1").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    real = huggingface_hub.snapshot_download

    def no_network(*args, local_files_only=False, **more):
        if not local_files_only:
            raise Broken("no way to the hub")
        return real(*args, local_files_only=True, **more)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    return root


class Broken(Exception):
    """As the classes of the network library: no OSError, no class of the hub."""


def panel(write_panel, repo="org/tiny", revision=COMMIT):
    line = f"  - {{id: a, repo: {repo}, revision: '{revision}', tokenizer: own, factors: {{make: llama}}}}"
    return write_panel((line,))


@pytest.mark.parametrize("revision", [COMMIT, "v1"])
def test_cached_repository(cache, write_panel, tmp_path, revision):
    ds = dynstat.open(extract_panel(panel(write_panel, revision=revision), tmp_path / "s"))
    assert list(ds["revision"].values) == [COMMIT], "a tag is resolved to its commit"
    assert list(ds["source"].values) == ["org/tiny"]
    local = dynstat.open(extract_panel(write_panel(("llama",), folder=tmp_path / "l"), tmp_path / "sl"))
    assert list(local["weights_sha256"].values) == list(ds["weights_sha256"].values)


@pytest.mark.parametrize(
    ("repo", "revision", "code"),
    [
        ("org/tiny", "f" * 40, "X202"),
        ("org/tiny", "v2", "X202"),
        ("org/none", COMMIT, "X201"),
        ("not a name", COMMIT, "X201"),
    ],
)
def test_what_the_cache_does_not_hold(cache, write_panel, repo, revision, code):
    with pytest.raises(DynstatError) as e:
        locate(load_panel(panel(write_panel, repo, revision)).models[0])
    assert e.value.code == code and e.value.mend
    if code == "X202":
        assert COMMIT in e.value.found


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "code", "mend"),
    [
        ("RepositoryNotFoundError", 401, "X201", "if it is private, log in"),
        ("RevisionNotFoundError", 404, "X202", "revision:"),
        ("GatedRepoError", 403, "X218", "accept the terms at https://huggingface.co/org/tiny, then log in"),
        ("GatedRepoError", 401, "X218", "log in"),
        ("HfHubHTTPError", 401, "X218", "log in"),
        ("HfHubHTTPError", 403, "X218", "token"),
        ("HfHubHTTPError", 503, "X201", "connect"),
    ],
)
def test_what_the_hub_answers(cache, write_panel, monkeypatch, error, status, code, mend, wrapped):
    from types import SimpleNamespace

    from huggingface_hub import errors

    def answer(*_, local_files_only=False, **__):
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not cached")
        kind = getattr(errors, error)
        said = kind.__new__(kind)  # its constructor needs a response of the hub's client
        said.response = SimpleNamespace(status_code=status)
        if not wrapped:
            raise said
        raise errors.LocalEntryNotFoundError("neither there nor cached") from said

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    shutil.rmtree(cache / "models--org--tiny")
    with pytest.raises(DynstatError) as e:
        locate(load_panel(panel(write_panel)).models[0])
    assert e.value.code == code and mend in e.value.mend and e.value.found


@pytest.mark.parametrize("way", ["context", "environment"])
@pytest.mark.parametrize(
    "gone", ["tokenizer.json", "config.json", "model.safetensors", "revision", "all", ""]
)
def test_offline_asks_nothing_and_names_what_is_lacking(cache, write_panel, monkeypatch, gone, way):
    repo = cache / "models--org--tiny"
    if gone == "all":
        shutil.rmtree(repo)
    elif gone == "revision":
        (repo / "snapshots" / COMMIT).rename(repo / "snapshots" / ("e" * 40))
    elif gone:
        (repo / "snapshots" / COMMIT / gone).unlink()
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", None)  # whoever calls it fails otherwise
    if way == "environment":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with offline() if way == "context" else nullcontext():
        spec = load_panel(panel(write_panel)).models[0]
        if not gone:
            assert locate(spec).revision == COMMIT
            return
        assert way == "environment" or os.environ["HF_HUB_OFFLINE"] == "1"
        with pytest.raises(DynstatError) as e:
            locate(spec)
    assert e.value.code == "X219" and "--offline" in e.value.mend
    assert {"revision": "e" * 40, "all": "nothing"}.get(gone, gone.replace("model.", "*.")) in e.value.found
    assert constants.HF_HUB_OFFLINE is (way == "environment") and "HF_HUB_OFFLINE" not in os.environ


def test_pickled_repository(cache, write_panel):
    folder = cache / "models--org--tiny" / "snapshots" / COMMIT
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DynstatError) as e, offline():
        locate(load_panel(panel(write_panel)).models[0])
    assert e.value.code == "X210"


@pytest.mark.parametrize("gone", ["tokenizer.json", "config.json", "model.safetensors"])
def test_what_a_download_left_out_is_fetched(cache, write_panel, monkeypatch, gone):
    """Another program may have cached a part of a repository only: the hub is asked for the rest."""
    folder = cache / "models--org--tiny" / "snapshots" / COMMIT
    (folder / gone).rename(cache / gone)
    asked = []

    def download(*_, local_files_only=False, **__):
        asked.append(local_files_only)
        if not local_files_only:
            (cache / gone).rename(folder / gone)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = locate(load_panel(panel(write_panel)).models[0])
    assert asked == [True, False] and (source.folder / gone).is_file()


@pytest.mark.parametrize(
    ("error", "code"), [(Broken("read"), "X201"), (OSError(28, "No space left on device"), "F002")]
)
def test_a_download_that_breaks_off(cache, write_panel, monkeypatch, error, code):
    folder = cache / "models--org--tiny" / "snapshots" / COMMIT
    (folder / "model.safetensors").unlink()

    def download(*_, local_files_only=False, **__):
        if local_files_only:
            return str(folder)
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(DynstatError) as e:
        locate(load_panel(panel(write_panel)).models[0])
    assert e.value.code == code and e.value.mend


def test_a_repository_without_safetensors(cache, write_panel, monkeypatch):
    """Pickled weights are not fetched, so what comes is a folder without any."""
    folder = cache / "models--org--tiny" / "snapshots" / COMMIT
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(DynstatError) as e:
        locate(load_panel(panel(write_panel)).models[0])
    assert e.value.code == "X201" and "safetensors" in e.value.found and "revision" in e.value.mend
