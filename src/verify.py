"""Rehash what DVC stores: `python src/verify.py`, with the default remote `-c`, with another `-r team`."""

from typing import Annotated

from typer import Option

from stylebot.cli import run
from stylebot.verify import verify


def main(
    cloud: Annotated[bool, Option("--cloud", "-c", help="the default remote, too")] = False,
    remote: Annotated[list[str] | None, Option("--remote", "-r", help="this remote, too; repeatable")] = None,
    all_commits: Annotated[bool, Option("--all-commits", "-A", help="objects of every commit")] = False,
    remove: Annotated[bool, Option("--remove", help="delete damaged objects; pull or push heals")] = False,
) -> None:
    """Read every object that this workspace refers to, in the cache and on remotes; name the damaged ones.

    DVC trusts an object in its cache or on a remote by its name: `dvc status` calls damaged files clean.
    """
    verify(cloud, remote or [], all_commits, remove)


if __name__ == "__main__":
    run(main)
