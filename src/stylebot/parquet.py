"""Tables that other stages wrote, read or refused in one line."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from stylebot.errors import StylebotError


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The parquet table `path`, all of its columns or those named.

    Raises StylebotError for a file that is missing, cut off or no such table, or lacks a column.
    """
    try:
        return pd.read_parquet(path, columns=columns)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are kinds of these
        reason = " ".join(str(error).split())[:160]
        raise StylebotError(f"{path} is not a whole table ({reason}); run its stage again") from None
