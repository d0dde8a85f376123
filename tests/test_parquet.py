"""Tables of other stages: read whole, or refused in one line."""

from pathlib import Path

import pandas as pd
import pytest

from stylebot.errors import StylebotError
from stylebot.parquet import read_table


@pytest.mark.parametrize(("damage", "columns"), [
    (lambda path: path.write_bytes(path.read_bytes()[:-20]), None),
    (lambda path: path.write_bytes(b""), None),
    (lambda path: path.unlink(), None),
    (lambda path: None, ["split"]),
], ids=["cut", "empty", "absent", "another table"])  # fmt: skip
def test_what_is_no_whole_table_is_one_line(tmp_path: Path, damage, columns: list[str] | None) -> None:
    path, table = tmp_path / "faces.parquet", pd.DataFrame({"face_id": ["a", "b"], "score": [1.0, 2.0]})
    table.to_parquet(path, index=False)
    pd.testing.assert_frame_equal(read_table(path), table)
    assert list(read_table(path, ["score"])) == ["score"]
    damage(path)
    with pytest.raises(StylebotError, match=r"faces\.parquet is not a whole table \(.+\); run") as caught:
        read_table(path, columns)
    assert "\n" not in str(caught.value)
