"""The tool `guard.py`: no secrets and no large files in what git is about to hold."""

import configparser
import re
import subprocess

from stylebot.errors import StylebotError

CONFIG, LOCAL = ".dvc/config", ".dvc/config.local"
LARGEST_BYTES = 2 << 20
LARGE_ALLOWED = (".dvc/sample/",)  # the embedded remote
HARMLESS = {
    "core": {"remote", "analytics", "check_update", "autostage", "hardlink_lock"},
    "cache": {"type", "shared", "slow_link_warning"},
    "remote": {
        "url",
        "endpointurl",
        "region",
        "verify",
        "jobs",
        "port",
        "timeout",
        "read_timeout",
        "connect_timeout",
        "use_ssl",
        "listobjects",
        "allow_anonymous_login",
    },
    "plots": {"html_template", "auto_open", "out_dir"},
    "exp": {"auto_push", "git_remote"},
}


def faults(text: str) -> list[str]:
    """What in the text of a .dvc/config does not belong into git, and remotes that DVC would not check.

    Only harmless keys may be there, as DVC writes secrets into this file without a word when `--local` is
    forgotten. Anything that cannot be read counts as a fault.
    """
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read_string(re.sub(r"^[ \t]+", "", text, flags=re.MULTILINE))
    except configparser.Error as error:
        return [f"{CONFIG} cannot be read: {error.message}"]
    found = []
    for section in config.sections():
        kind, values = section.strip("'").split()[0], dict(config[section])
        where = section.strip("'")
        alien = sorted(values.keys() - HARMLESS.get(kind, set()))
        found += [f"[{where}] {key} belongs into {LOCAL}: dvc remote modify --local" for key in alien]
        address = values.get("url", "")
        if re.search(r"://[^/@]*:[^/@]*@|[?&](sig|token|key|password)=", address):
            found.append(f"[{where}] url carries a password: it belongs into {LOCAL}")
        if kind == "remote" and values.get("verify", "").lower() != "true":
            name = where.split('"')[1] if '"' in where else where
            found.append(
                f"[{where}] lacks verify = true, so damaged files go unnoticed: "
                f"dvc remote modify {name} verify true"
            )
    return found


def _git(*words: str) -> bytes:
    try:
        return subprocess.run(["git", *words], check=True, capture_output=True).stdout
    except FileNotFoundError:
        raise StylebotError("git is not installed") from None
    except subprocess.CalledProcessError as error:
        raise StylebotError(f"git {words[0]}: {error.stderr.decode(errors='replace').strip()}") from None


def staged() -> dict[str, int]:
    """Size in bytes of every file in git's index, by path."""
    listed = _git("ls-files", "--stage", "-z").decode().split("\0")
    submodule = "160000"
    entries = {s.partition("\t")[2]: s.split()[1] for s in listed if s and not s.startswith(submodule)}
    ask = "\n".join(entries.values()).encode()
    told = subprocess.run(
        ["git", "cat-file", "--batch-check=%(objectsize)"], input=ask, check=True, capture_output=True
    ).stdout.split()
    return dict(zip(entries, map(int, told), strict=True))


def guard() -> None:
    """Look at git's index. Raises StylebotError naming everything that must not be committed."""
    files = staged()
    found = [f"{LOCAL} holds credentials: git rm --cached {LOCAL}"] if LOCAL in files else []
    if CONFIG in files:
        found += faults(_git("show", f":{CONFIG}").decode())
    large = [p for p, size in files.items() if size > LARGEST_BYTES and not p.startswith(LARGE_ALLOWED)]
    found += [f"{p} is {files[p] / 2**20:.0f} MiB: git rm --cached {p}, then dvc add" for p in large]
    if found:
        raise StylebotError("; ".join(found))
