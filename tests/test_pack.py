"""The split: nobody on both sides, the same every time; the datasets hold what the table says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from aligned_faces import write_aligned
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_quality import FACES

from stylebot.dataset import Dataset
from stylebot.errors import StylebotError
from stylebot.pack import PackParams, heldout, linked_groups, pack


def table(identities: list[int], sources: list[str] | None = None) -> pd.DataFrame:
    count = len(identities)
    return pd.DataFrame({
        "face_id": [f"{i * 7919 % 104729:016x}-0" for i in range(count)],
        "source": sources or ["celebrity"] * count,
        "photo": [f"{i}.jpg" for i in range(count)], "identity": identities, "duplicate_of": [""] * count})


def params(**changed: object) -> PackParams:
    base = {"resolution": 64, "heldout_share": 0.25, "seed": 0, "min_train": 2, "min_heldout": 1}
    return PackParams(**(base | changed))


@given(st.lists(st.integers(-1, 40), min_size=40, max_size=200), st.integers(0, 5), st.floats(0.1, 0.5))
@settings(max_examples=30, deadline=None, phases=[Phase.generate])
def test_nobody_is_on_both_sides(identities: list[int], seed: int, share: float) -> None:
    faces = table(identities)
    groups = linked_groups(faces)
    mask = heldout(faces, groups, share, seed)
    known = faces["identity"] >= 0
    assert not set(faces["identity"][mask & known]) & set(faces["identity"][~mask & known])
    assert not set(groups[mask]) & set(groups[~mask])
    largest = max(np.bincount(groups))
    assert abs(mask.sum() - share * len(faces)) <= largest


def test_photos_and_copies_stay_together_too() -> None:
    faces = table([0, 1, 2, 3, -1, -1])
    faces.loc[1, "photo"] = "0.jpg"
    faces.loc[3, "duplicate_of"] = faces.loc[2, "face_id"]
    groups = linked_groups(faces)
    assert groups[0] == groups[1] and groups[2] == groups[3] and len(set(groups.tolist())) == 4


def test_each_source_gives_its_share_and_new_faces_move_few() -> None:
    faces = table([i // 4 for i in range(400)], ["celebrity"] * 300 + ["id"] * 100)
    mask = heldout(faces, linked_groups(faces), 0.2, 3)
    assert mask[:300].sum() == 60 and mask[300:].sum() == 20
    assert (heldout(faces, linked_groups(faces), 0.2, 4) != mask).any()
    shuffled = faces.sample(frac=1, random_state=1).reset_index(drop=True)
    again = heldout(shuffled, linked_groups(shuffled), 0.2, 3)
    assert set(shuffled["face_id"][again]) == set(faces["face_id"][mask])
    more = table([i // 4 for i in range(440)], ["celebrity"] * 300 + ["id"] * 140)
    assert (heldout(more, linked_groups(more), 0.2, 3)[:400] != mask).sum() <= 16


def workspace(tmp_path: Path) -> tuple[Path, Path]:
    faces = [{"source": "celebrity" if n < 8 else "id", "name": f"{n}.jpg", "rgb": rgb, "landmarks": points}
             for n, (rgb, points) in enumerate(FACES)]
    aligned = write_aligned(tmp_path, faces)
    rows = pd.read_parquet(aligned / "faces.parquet")
    rows["identity"] = [i // 2 for i in range(len(rows))]
    rows["duplicate_of"], rows["accepted"] = "", True
    rows.loc[0, "accepted"] = False
    rows.to_parquet(tmp_path / "filtered.parquet")
    return aligned, tmp_path / "filtered.parquet"


def test_datasets_hold_what_the_table_says(tmp_path: Path) -> None:
    aligned, filtered = workspace(tmp_path)
    outs = [tmp_path / name for name in ("dataset.zip", "heldout.zip", "faces.parquet")]
    metrics = pack(filtered, aligned, *outs, params())
    faces = pd.read_parquet(outs[2])
    train, held = Dataset(outs[0]), Dataset(outs[1])
    assert (len(train), len(held)) == (metrics["pack_train"], metrics["pack_heldout"])
    assert len(train) + len(held) == 11 and train.resolution == held.resolution == 64
    people = faces.groupby("split")["identity"].agg(set)
    assert not people["train"] & people["heldout"]
    photo = pd.read_parquet(filtered).set_index("face_id")["photo"]
    for row in faces.itertuples():
        data = train if row.split == "train" else held
        original = Image.fromarray(FACES[int(Path(photo[row.face_id]).stem)][0])
        wanted = original.resize((64, 64), Image.Resampling.LANCZOS)
        assert (data.read(data.names.index(row.file)).transpose(1, 2, 0) == np.asarray(wanted)).all()
    before = [path.read_bytes() for path in outs]
    pack(filtered, aligned, *outs, params())
    assert [path.read_bytes() for path in outs] == before


def test_too_few_faces_are_one_clear_line(tmp_path: Path) -> None:
    aligned, filtered = workspace(tmp_path)
    outs = [tmp_path / name for name in "abc"]
    with pytest.raises(StylebotError, match=r"of 11 accepted faces \(\d people\) .* training set, 100 are"):
        pack(filtered, aligned, *outs, params(min_train=100))
    with pytest.raises(StylebotError, match=r"held-out set, 10 are needed"):
        pack(filtered, aligned, *outs, params(min_heldout=10))
    with pytest.raises(StylebotError, match=r"pack.resolution is 512 px, .* have 256 px"):
        pack(filtered, aligned, *outs, params(resolution=512))
    assert not any(path.exists() for path in outs)
    rows = pd.read_parquet(filtered)
    rows.assign(accepted=False).to_parquet(filtered)
    with pytest.raises(StylebotError, match="no accepted face"):
        pack(filtered, aligned, *outs, params())


def test_resolution_must_be_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="power of two"):
        params(resolution=96)
