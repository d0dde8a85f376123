"""params.yaml: strict sections, all mistakes at once, each with its dotted name."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from stylebot.errors import StylebotError
from stylebot.params import Section, load_params, read_params


class Source(Section):
    min_score: float


class FilterParams(Section):
    lr: float
    count: Annotated[int, Field(ge=1)]
    mirror: bool
    names: list[str]
    sources: dict[str, Source]


class TrainParams(FilterParams):
    freeze_d: Annotated[int, Field(ge=0)]


GOOD = """\
freeze_d: 4  # a comment
filter:
  lr: 1e-3
  count: 2
  mirror: false
  names:
  - yes
  sources:
    id:
      min_score: 1
"""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD)
    return path


def message(path: Path, cls: type[Section] = FilterParams, top: tuple[str, ...] = ()) -> str:
    with pytest.raises(StylebotError) as caught:
        load_params("filter", cls, top, path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def test_yaml_is_read_as_dvc_reads_it(params: Path) -> None:
    read = load_params("filter", FilterParams, path=params)
    assert (read.lr, read.names) == (0.001, ["yes"])  # PyYAML: "1e-3" and True
    assert read.sources["id"].min_score == 1


def test_top_level_keys_join_the_section(params: Path) -> None:
    assert load_params("filter", TrainParams, ("freeze_d",), params).freeze_d == 4


def test_sections_are_frozen(params: Path) -> None:
    with pytest.raises(ValidationError):
        load_params("filter", FilterParams, path=params).count = 3


def test_every_mistake_is_named_at_once(params: Path) -> None:
    text = GOOD.replace("count: 2", "count: 0\n  cuont: 2").replace("mirror: false", "mirror: 'no'")
    params.write_text(text.replace("min_score: 1", "min_scor: 1").replace("  lr: 1e-3\n", ""))
    said = message(params)
    for part in ("filter.count = 0: input should be greater than or equal to 1",
                 "filter.cuont is not a parameter",
                 "filter.mirror = 'no': input should be a valid boolean", "filter.lr is missing",
                 "filter.sources.id.min_scor is not a parameter", "filter.sources.id.min_score is missing"):
        assert part in said
    assert "\n" not in said


@pytest.mark.parametrize("value", ["abc", "4.5", "-1", "true", "'4'"])
def test_top_level_mistakes_carry_no_section(params: Path, value: str) -> None:
    params.write_text(GOOD.replace("freeze_d: 4", f"freeze_d: {value}"))
    said = message(params, TrainParams, ("freeze_d",))
    assert ": freeze_d = " in said and "filter.freeze_d" not in said


@pytest.mark.parametrize(("text", "said"), [
    (GOOD.replace("freeze_d", "freeze_D"), "unknown freeze_D; known are fetch, align"),
    ("freeze_d: 4\n", "filter is missing"),
    ("filter: 3\n", "filter must be a mapping"),
    ("", "must hold one mapping"),
    ("filter: {lr: 1\n", "is not valid YAML"),
    ("filter:\n\tlr: 1\n", "is not valid YAML: line 2, column 1: found character '\\t' that cannot start"),
    ("filter:\n  lr: 1\n  lr: 2\n", 'is not valid YAML: line 3, column 3: found duplicate key "lr"'),
    ("a: \0", "is not valid YAML: unacceptable character"),
])
def test_a_broken_file_is_one_clear_error(params: Path, text: str, said: str) -> None:
    params.write_text(text)
    assert said in message(params)
    assert len(message(params)) < len(str(params)) + 200, "no excerpts, no links to somebody's documentation"


def test_a_missing_or_undecodable_file(tmp_path: Path) -> None:
    with pytest.raises(StylebotError, match="run from the root of the workspace"):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(StylebotError, match=r"folder\.yaml cannot be read: Is a directory"):
        read_params(tmp_path / "folder.yaml")
    (tmp_path / "cp949.yaml").write_bytes("filter: 얼굴".encode("cp949"))
    with pytest.raises(StylebotError, match="not valid YAML"):
        read_params(tmp_path / "cp949.yaml")
