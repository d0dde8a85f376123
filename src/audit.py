"""Stage `audit`: are generated faces new people, or copies of the training set?"""

from stylebot.audit import AuditParams, audit
from stylebot.cli import Dep, Metric, Out, run
from stylebot.files import write_json
from stylebot.params import load_params


def main(
    generator: Dep, dataset: Dep, heldout: Dep, faces: Dep, identity: Dep, inception: Dep, out: Out,
    metrics: Metric,
) -> None:  # fmt: skip
    """Compare generated faces with the training faces, by person and by picture.

    generator: the fine-tuned networks
    dataset: the faces that they were trained on (dataset zip)
    heldout: real faces of other people (dataset zip), to tell chance from copying
    faces: who each face shows (parquet of pack)
    identity: dlib's face recogniser
    inception: the network behind FID, for one more look
    out: folder for table.csv, nearest.csv and pairs.png
    metrics: shares of copies and look-alikes, and the verdict
    """
    params = load_params("audit", AuditParams)
    write_json(metrics, audit(generator, dataset, heldout, faces, identity, inception, out, params))


if __name__ == "__main__":
    run(main)
