"""What each number of metrics/*.json means, in words that need no training in the field."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Meaning:
    """How to read one number: its name in plain words, which way is better, and what it says."""

    label: str
    better: str  # "lower", "higher" or "" for neither
    text: str


_FID = """Distance between the statistics of generated and of held-out faces. With few faces it comes out too
    high, by an amount that depends on their number: compare only equal numbers of faces."""
_KID = """Like FID, but right on average for any number of faces: the number to decide by. 0 means that the
    two cannot be told apart."""
_RATIO = """KID after fine-tuning divided by KID before. 0.5 means half as far from real faces of the region;
    1 means that nothing was gained."""
_SIGNS = """Mean verdict on real faces, 1: all called real. Near 1 the discriminator knows them by heart; the
    augmentation is steered to hold it at train.ada_target."""
_COPIES = """Share of generated faces that are nearer to a training face, by person and by picture, than
    strangers ever are."""
_PEOPLE = """Different people among the faces that the generator can make, by how often two of its faces pass
    for one person. Ends at 1 / audit.false_match_rate: more cannot be told from chance."""
_PSNR = """How near the pixels are to the original. Blur scores well here, so this favours bicubic; it guards
    against invention."""
_LPIPS = "How different result and original look to a network trained on human eyes. Blur scores badly."
_DRIFT = """How far enlarged faces moved from their originals towards the faces of the base generator's
    training: 0 not at all, 1 the whole way. Blur moves faces, too: compare results that are
    equally sharp, one generator's with another's."""
_NEAR = "KID of enlarged faces to held-out faces of the region: how unlike them they look as a group."
_AWAY = """KID of enlarged faces to faces of the base generator. When it falls while the KID to the region
    rises, results drift to the base generator's domain."""
_IDENTITY = """dlib's distance between the person in the result and the person in the original. Pairs below
    superres.same_person_distance pass for one person."""

_SAYS = {
    "align_photos": ("photos", "", "Files found in the photo folders."),
    "align_faces": ("faces", "", "Aligned faces; one photo may give several."),
    "align_found": ("photos with a face", "higher",
                    "Share of the photos with a usable face, copies aside."),
    "filter_faces": ("faces judged", "", "Aligned faces that the quality filter looked at."),
    "filter_accepted": ("faces accepted", "", "Faces good enough to learn from."),
    "filter_share": ("share accepted", "", "Accepted faces among all; the limits are in params.yaml."),
    "filter_identities": ("people", "", "Different people among accepted faces, as dlib sees them."),
    "filter_duplicates": ("duplicates", "", "Faces left out because the same picture is there already."),
    "filter_score": ("mean quality", "higher", "Mean score of the accepted faces, 0 to 100."),
    "pack_train": ("training faces", "", "Faces that the networks learn from."),
    "pack_heldout": ("held-out faces", "", "Faces of other people, never shown in training: the yardstick."),
    "pack_people": ("people in the dataset", "", "Different people in training and held-out set together."),
    "pack_resolution": ("resolution, px", "", "Side of the square faces."),
    "fid_(tuned|base)": ("FID, {0} generator", "lower", _FID),
    "kid_(tuned|base)": ("KID, {0} generator", "lower", _KID),
    "kid_ratio": ("KID ratio, tuned to base", "lower", _RATIO),
    "kid_(tuned|ratio)_(low|high)": ("KID {0}, {1} end", "", "End of its 95 % interval."),
    "train_kimg": ("training, kimg", "", "Thousands of real faces shown, repeats included."),
    "train_faces": ("different faces", "", "Training faces without their mirror images."),
    "train_frozen_layers": ("frozen layers", "", "Layers of the discriminator left as they were."),
    "train_skipped_steps": ("skipped steps", "lower", "Steps left out because a gradient was not finite."),
    "train_loss_(g|d)": ("loss of {0}", "", "Which of the two is winning; says nothing about quality."),
    "train_r_t": ("discriminator on real faces", "", _SIGNS),
    "train_fake_sign": ("discriminator on generated faces", "", "The same for generated faces."),
    "train_(r1|pl|lecam)_penalty": ("{0} penalty", "", "How steep a network is; large values warn."),
    "train_kid": ("KID at the end of training", "lower", "To the held-out faces, as training looked at it."),
    "train_best_kid": ("lowest KID while training", "lower", "Too kind where it chose the networks."),
    "train_best_kimg": ("where KID was lowest, kimg", "", "Far before the end: training went on too long."),
    "train_p": ("augmentation probability", "", "How often training pictures were changed at the end."),
    "encode_faithful_(.+)": ("{0} loss of the skip connections", "lower",
                             "Mean over the last tenth of their training."),
    "encode_(.+)": ("{0} loss of the encoder", "lower", "Mean over the last tenth of its training."),
    "superres_psnr(_bicubic)?_x(.+)": ("PSNR at ×{1}, dB{0}", "higher", _PSNR),
    "superres_lpips(_bicubic)?_x(.+)": ("perceptual distance at ×{1}{0}", "lower", _LPIPS),
    "superres_id(_bicubic)?_x(.+)": ("identity distance at ×{1}{0}", "lower", _IDENTITY),
    "superres_drift(_bicubic|_lanczos|_pure)?_x(.+)": ("drift at ×{1}{0}", "lower", _DRIFT),
    "superres_kid_x(.+)": ("KID to the region at ×{0}", "lower", _NEAR),
    "superres_kid_base_x(.+)": ("KID to the base domain at ×{0}", "", _AWAY),
    "superres_kid_given": ("KID of the given faces", "", "The same before they were made small and rebuilt."),
    "superres_domains_clear": ("domains told apart", "", """Share of pairs of a region's face and a base face
        that the ruler of drift puts in the right order; 0.5 is chance, and below 0.75 there is no drift."""),
    "superres_pictures": ("pictures rebuilt", "", "Pictures of a folder of your own; nothing is measured."),
    "audit_ok": ("verdict", "higher", "1 when the share of copies stays within audit.max_copies."),
    "audit_copies": ("copies", "lower", _COPIES),
    "audit_copies_high": ("copies, upper end", "lower", "Upper end of the interval of that share."),
    "audit_same_person": ("look-alikes", "lower", "Generated faces that pass for a training person."),
    "audit_same_person_heldout": ("look-alikes by chance", "", "The same for real people never trained on."),
    "audit_people": ("people that it makes", "higher", _PEOPLE),
    "audit_threshold": ("threshold", "", "Identity distance below which two faces pass for one person."),
}
_PLAIN = {None: "", "_bicubic": ", bicubic", "_lanczos": ", Lanczos", "_pure": ", mode pure",
          "tuned": "fine-tuned"}


def meaning(name: str) -> Meaning | None:
    """What the number `name` says, or None for a name that nobody has explained."""
    for pattern, (label, better, text) in _SAYS.items():
        if found := re.fullmatch(pattern, name):
            parts = [_PLAIN.get(part, part) for part in found.groups()]
            return Meaning(label.format(*parts), better, " ".join(text.split()))
    return None
