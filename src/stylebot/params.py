"""The only reader of params.yaml: strict sections, every mistake at once, with its dotted name."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML, YAMLError

from stylebot.errors import StylebotError

STAGES = ("fetch", "align", "filter", "pack", "train", "encode", "superres", "fid", "audit", "report")
TOP_LEVEL = ("freeze_d",)


class Section(BaseModel):
    """Base of every params section: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


S = TypeVar("S", bound=Section)


def read_params(path: Path = Path("params.yaml")) -> dict:
    """The whole file as plain data (YAML 1.2, the dialect DVC reads), top-level names checked."""
    try:
        data = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StylebotError(f"{path} does not exist: run from the root of the workspace") from None
    except OSError as error:
        raise StylebotError(f"{path} cannot be read: {error.strerror}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise StylebotError(f"{path} is not valid YAML: {_where(error)}") from None
    if not isinstance(data, dict):
        raise StylebotError(f"{path} must hold one mapping of sections")
    unknown = [str(k) for k in data if k not in STAGES + TOP_LEVEL]
    if unknown:
        known = ", ".join(STAGES + TOP_LEVEL)
        raise StylebotError(f"{path}: unknown {', '.join(unknown)}; known are {known}")
    return data


def _where(error: Exception) -> str:
    """Line, column and problem of a YAML error, without the excerpts and links of its whole text."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark and problem else str(error)


def load_params(section: str, cls: type[S], top: tuple[str, ...] = (), path: Path = Path("params.yaml")) -> S:
    """Section `section` of params.yaml, the top-level keys `top` beside its own, checked against `cls`."""
    data = read_params(path)
    absent = [name for name in (section, *top) if name not in data]
    if absent:
        raise StylebotError(f"{path}: {', '.join(absent)} is missing")
    if not isinstance(data[section], dict):
        raise StylebotError(f"{path}: {section} must be a mapping")
    try:
        return cls.model_validate(data[section] | {name: data[name] for name in top})
    except ValidationError as error:
        lines = [_explain(section, top, e) for e in error.errors()]
        raise StylebotError(f"{path}: {'; '.join(lines)}") from None


def _explain(section: str, top: tuple[str, ...], error: dict) -> str:
    where = [str(part) for part in error["loc"]]
    name = ".".join(where if where and where[0] in top else [section, *where])
    if error["type"] == "extra_forbidden":
        return f"{name} is not a parameter"
    if error["type"] == "missing":
        return f"{name} is missing"
    return f"{name} = {error['input']!r}: {error['msg'].lower()}"
