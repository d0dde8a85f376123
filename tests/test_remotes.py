"""Sharing through real servers on loopback: OpenSSH, S3, WebDAV; with kills, bad keys and bad bytes."""

import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guide import block, follow
from servers import S3, SERVERS, Server
from workspaces import PHOTOS, Workspace, new_workspace

pytestmark = [pytest.mark.remote, pytest.mark.slow]
COUNT, SIZE_BYTES = 24, 500_000  # 12 MB: long enough to be killed in the middle


@pytest.fixture(scope="module", params=SERVERS, ids=lambda cls: cls.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = request.param(tmp_path_factory.mktemp(request.param.name))
    server.prepare()
    server.start()
    yield server
    server.kill()


@pytest.fixture
def ours(server: Server, tmp_path: Path) -> Workspace:
    """A workspace whose default remote is the server, set up as the README says."""
    if server.process is None:
        server.start()
    found = new_workspace(tmp_path / "ours", COUNT, SIZE_BYTES)
    text = block("Share with your team", f"dvc remote add -d team {server.scheme}://")
    for said, meant in server.readme(tmp_path.name).items():
        assert said in text, f"README: {said} is gone"
        text = text.replace(said, meant)
    follow(found, text)
    found.env |= {key: value for key, value in server.secrets().items() if key.isupper()}
    found.commit("Our remote")
    return found


def sign_in(workspace: Workspace, secrets: dict[str, str]) -> None:
    for key, value in secrets.items():
        if key.isupper():
            workspace.env[key] = value
        else:
            workspace.dvc("remote", "modify", "--local", "team", key, value)


def colleague(ours: Workspace, server: Server) -> Workspace:
    theirs = ours.clone(ours.root.parent / "theirs")
    sign_in(theirs, server.secrets())
    return theirs


def size_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # renamed meanwhile
            continue
    return total


def kill_during(server: Server, workspace: Workspace, watched: Path, *words: str) -> str:
    """Start `dvc WORDS`, kill the server once `watched` grows; what DVC said in the end."""
    before = size_bytes(watched)
    process = workspace.start("dvc", *words)
    end = time.monotonic() + 120
    while size_bytes(watched) < before + SIZE_BYTES:
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.005)
    server.kill()
    said, _ = process.communicate(timeout=500)
    assert process.returncode != 0, f"dvc was done before the server was killed:\n{said}"
    return said


def oid_of(workspace: Workspace, number: int) -> tuple[str, str]:
    """The name of a photo and its object."""
    name = sorted(workspace.photos())[number]
    return f"{PHOTOS}/{name}", hashlib.md5(workspace.photos()[name]).hexdigest()


def test_colleagues_get_the_same_files(ours: Workspace, server: Server) -> None:
    assert f"{COUNT + 1} files pushed" in ours.dvc("push")
    theirs = colleague(ours, server)
    theirs.dvc("pull")
    assert theirs.photos() == ours.photos() and len(theirs.photos()) == COUNT
    for workspace in (ours, theirs):
        workspace.drop_data()
        workspace.dvc("pull")
        assert "up to date" in workspace.dvc("status")
        assert "in sync" in workspace.dvc("status", "--cloud")
    assert theirs.photos() == ours.photos() and len(ours.photos()) == COUNT
    assert "not_in_remote" not in theirs.dvc("data", "status", "--not-in-remote", "--json")
    assert theirs.git("status", "--porcelain") == ""


def test_killed_servers_cost_only_time(ours: Workspace, server: Server) -> None:
    kill_during(server, ours, server.store, "push", "-j", server.jobs)
    server.start()
    ours.dvc("push")
    theirs = colleague(ours, server)
    kill_during(server, theirs, theirs.root / ".dvc/cache", "pull", "-j", server.jobs)
    server.start()
    theirs.dvc("pull")
    assert theirs.photos() == ours.photos() and len(theirs.photos()) == COUNT
    done = theirs.tool("verify", "--cloud")
    assert done.returncode == 0, done.stdout
    assert f"team: {COUNT + 1} of {COUNT + 1} objects are whole" in done.stdout


def test_wrong_credentials_are_one_clear_line(ours: Workspace, server: Server) -> None:
    sign_in(ours, server.wrong())
    done = ours.call("dvc", "push")
    errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    assert done.returncode != 0 and len(errors) == 1 and server.refused in errors[0], done.stdout
    assert "Traceback" not in done.stdout
    found = ours.tool("verify", "--cloud")
    assert found.returncode == 1 and "Traceback" not in found.stdout
    assert found.stdout.splitlines()[-1].startswith("verify: team: ") and server.refused in found.stdout


def test_damaged_objects_are_found_and_healed(ours: Workspace, server: Server) -> None:
    ours.dvc("push")
    name, oid = oid_of(ours, 3)
    server.damage(ours.root.parent.name, oid)
    assert "in sync" in ours.dvc("status", "--cloud"), "DVC has learnt to find it: simplify verify.py"
    theirs = colleague(ours, server)
    done = theirs.call("dvc", "pull")
    assert done.returncode != 0, "verify = true let a damaged object through"
    assert not (theirs.root / name).exists()
    done = ours.tool("verify", "--remote", "team", "--remove")
    assert done.returncode == 1 and f"team: damaged {name} (" in done.stdout, done.stdout
    assert "1 in team; deleted, now `dvc push -r team`" in done.stdout
    ours.dvc("push")
    assert ours.tool("verify", "-c").returncode == 0
    theirs.dvc("pull")
    assert theirs.photos() == ours.photos()


def test_a_lost_cache_heals_from_the_remote(ours: Workspace, server: Server) -> None:
    ours.dvc("push")
    shutil.rmtree(ours.root / ".dvc/cache")
    assert "not there" in ours.tool("verify").stdout
    ours.dvc("fetch")
    assert "not there" not in ours.tool("verify").stdout


@pytest.mark.parametrize("server", [S3], ids=["s3"], indirect=True)
def test_photos_come_from_a_bucket_that_others_fill(ours: Workspace, server: S3) -> None:
    """`dvc import-url` and `dvc update`, with the address of another's S3 in the environment."""
    text = block("Share with your team", "dvc import-url").replace("s3://bucket/", "s3://faces/")
    ours.env["AWS_ENDPOINT_URL"] = server.endpoint
    for number, line in enumerate(text.splitlines()):
        server.client().put_object(Bucket="faces", Key=f"incoming/{number}.jpg", Body=bytes([number]) * 99)
        follow(ours, line)
        found = sorted((ours.root / PHOTOS / "incoming").iterdir())
        assert [path.name for path in found] == [f"{n}.jpg" for n in range(number + 1)]
    assert number == 1
