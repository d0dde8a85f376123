"""Stage `filter`: which aligned faces are good enough for training."""

from stylebot.cli import Dep, Metric, Out, run
from stylebot.files import write_json
from stylebot.filter import FilterParams, select
from stylebot.lineups import Sheets
from stylebot.params import load_params


def main(aligned: Dep, photos: Dep, identity: Dep, table: Out, accepted: Out, refused: Out, borderline: Out,
         duplicates: Out, identities: Out, metrics: Metric) -> None:
    """Measure every face, refuse the bad ones with all reasons, find copies and who is who.

    aligned: what align wrote: a zip of faces per source and faces.parquet
    photos: the folder of photo folders (JPEG blocks are measured in the photos themselves)
    identity: dlib's 128-d face recogniser
    table: the verdict on every face, with components, scores, reasons and identity (parquet)
    accepted: contact sheet of accepted faces, best first (PNG)
    refused: contact sheet of refused faces by their worst reason, with all reasons (PNG)
    borderline: contact sheet of the faces nearest to a limit on either side, with value and limit (PNG)
    duplicates: contact sheet of kept and refused copies side by side, the least alike first (PNG)
    identities: contact sheet of people, a row each (PNG)
    metrics: how many faces, accepted faces, identities and duplicates
    """
    params = load_params("filter", FilterParams)
    sheets = Sheets(accepted, refused, borderline, duplicates, identities)
    write_json(metrics, select(aligned, photos, identity, table, sheets, params))


if __name__ == "__main__":
    run(main)
