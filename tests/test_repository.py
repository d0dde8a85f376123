"""What git holds besides code: DVC's configuration without secrets, and a README that shows the pipeline."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ALLOWED = {"core": {"remote", "analytics", "check_update", "autostage"}, "cache": {"type", "shared"},
           "remote": {"url", "endpointurl", "region", "verify", "jobs"}}


def test_config_holds_no_secret_and_verifies() -> None:
    config = configparser.ConfigParser(interpolation=None)
    text = (ROOT / ".dvc/config").read_text(encoding="utf-8")
    config.read_string(re.sub(r"^\s+", "", text, flags=re.MULTILINE))
    for section in config.sections():
        kind = section.strip("'").split()[0]
        values = dict(config[section])
        assert not values.keys() - ALLOWED.get(kind, set()), f"[{section}]: keep it in .dvc/config.local"
        assert "@" not in values.get("url", "") and not values.get("url", "").startswith("/")
        assert kind != "remote" or values.get("verify") == "true", f"[{section}]: DVC installs damaged files"
    core = config["core"]
    assert (core["analytics"], core["check_update"], core["autostage"]) == ("false", "false", "true")
    assert "verify" in config[f"'remote \"{core['remote']}\"'"]


def test_readme_shows_the_current_graph() -> None:
    graph = subprocess.run([sys.executable, "-m", "dvc", "dag", "--md"], cwd=ROOT, check=True, text=True,
                           capture_output=True).stdout
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [{line.strip() for line in text.splitlines() if "-->" in line or "[" in line}
             for text in (graph, *re.findall(r"```mermaid\n(.+?)```", readme, re.DOTALL))]
    assert shown[0] and shown[0] in shown[1:], f"paste into README.md:\n{graph}"
