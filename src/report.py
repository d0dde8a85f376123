"""Stage `report`: everything that a run found, on one page that needs no network."""

from stylebot.cli import Dep, Out, run
from stylebot.params import load_params
from stylebot.report import Inputs, ReportParams, report, values_of
from stylebot.runs import run_before


def main(align: Dep, filter: Dep, pack: Dep, generator: Dep, progress: Dep, live: Dep, superres: Dep,
         fid: Dep, audit: Dep, fetch: Dep, metrics: Dep, out: Out) -> None:
    """Write one self-contained HTML page from what the other stages found.

    Numbers are compared with those of the last commit that has others, if git knows one.

    align: folder with photos.parquet
    filter: folder with faces.parquet and both sheets
    pack: folder with faces.parquet
    generator: the fine-tuned networks
    progress: folder of pictures drawn while training
    live: folder of dvclive's curves
    superres: folder with rows_x*.png and drift.csv
    fid: folder with sheet.png and table.csv
    audit: folder with pairs.png and table.csv
    fetch: folder with the record of each weight file
    metrics: folder of the stages' numbers
    out: the page
    """
    inputs = Inputs(align, filter, pack, generator, progress, live, superres, fid, audit, fetch, metrics)
    report(inputs, out, load_params("report", ReportParams), run_before(values_of(metrics)))


if __name__ == "__main__":
    run(main)
