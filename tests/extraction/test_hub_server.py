"""The hub's own client against a server that answers as the hub does, on this machine."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("torch")
pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSALS = {
    "gated": (403, "GatedRepo", "Access to model org/gated is restricted."),
    "gated401": (401, "GatedRepo", "Access to model org/gated401 is restricted."),
    "forbidden": (403, "", "Your token may not."),
}
CODE = """
import json, sys
from dynstat import DynstatError
from dynstat.extraction.panels.panel import ModelSpec
from dynstat.extraction.models.sources import locate, offline
spec = ModelSpec("a", "hub", sys.argv[1], sys.argv[2])
try:
    found = locate(spec)
    with offline():
        again = locate(spec)
    print(json.dumps({"code": "", "revision": found.revision, "same": found == again}))
except DynstatError as e:
    print(json.dumps(e.as_dict()))
"""


@pytest.fixture(scope="module")
def hub(model_folders, tokenizer_folder):
    files = {
        name: (model_folders["llama"] / name).read_bytes() for name in ("config.json", "model.safetensors")
    }
    files["tokenizer.json"] = (tokenizer_folder / "tokenizer.json").read_bytes()
    listing = [{"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in files.items()]

    class Hub(BaseHTTPRequestHandler):
        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def refuse(self, status, code, message):
            more = {"X_Error_Code": code} if code else {}
            self.answer(status, b"{}", X_Error_Message=message, **more)

        def do_GET(self):
            path = self.path.partition("?")[0].strip("/").split("/")
            name = path[3] if path[0] == "api" else path[1]
            if name == "missing":
                # What the hub says of both what does not exist and what it hides from strangers.
                self.refuse(401, "RepoNotFound", "Repository not found")
            elif name == "token":
                self.refuse(401, "", "Invalid credentials in Authorization header")
            elif path[0] == "api" and path[4] == "revision" and path[5] not in (COMMIT, "v1"):
                self.refuse(404, "RevisionNotFound", "Invalid rev id")
            elif path[0] == "api" and path[4] == "revision":
                about = {"id": f"org/{name}", "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]}
                self.answer(200, json.dumps(about).encode(), Content_Type="application/json")
            elif path[0] == "api":
                self.answer(200, json.dumps(listing).encode(), Content_Type="application/json")
            elif name in REFUSALS:
                self.refuse(*REFUSALS[name])
            else:
                tag = f'"{path[-1].replace(".", "")}"'
                self.answer(200, files[path[-1]], ETag=tag, X_Repo_Commit=COMMIT)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "revision", "code", "words"),
    [
        ("org/open", "v1", "", ""),
        ("org/open", "v9", "X202", "revision"),
        ("org/missing", "v1", "X201", "private, log in"),
        ("org/gated", "v1", "X218", "accept the terms"),
        ("org/gated401", COMMIT, "X218", "accept the terms"),
        ("org/forbidden", "v1", "X218", "log in"),
        ("org/token", "v1", "X218", "log in"),
    ],
)
def test_what_the_client_makes_of_the_answers(hub, tmp_path, name, revision, code, words):
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    env |= {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, name, revision], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["code"] == code, said
    if code:
        assert words in said["mend"]
    else:
        assert said["revision"] == COMMIT and said["same"], (
            "what was fetched is found again without a network"
        )
