"""Generated pictures and films that say what they are: metadata, and on request a signed C2PA manifest."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stylebot.errors import StylebotError

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
NOBODY = "Synthetic: made by a generator; this person does not exist."
BESIDE = "Left a photograph, beside it synthetic: a generator's imitations of it."
AMONG = "Partly synthetic: photographs, and faces that a generator made."
IMITATION = "Synthetic: a generator's imitation of a photograph; no photograph."
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_C2PA = "c2pa-python==0.38.1"
_JPEG_BYTES = 60_000  # of XMP, and about as many of EXIF: the format ends at 65,533
_EXIF = {"ImageDescription": 0x010E, "Software": 0x0131}
_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp",
         ".mp4": "video/mp4"}  # fmt: skip
_ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


def xmp(comment: str, facts: dict[str, str]) -> str:
    """An XMP packet: IPTC's DigitalSourceType, the comment and the facts as the picture's description."""
    told = quoteattr(json.dumps(facts, sort_keys=True, ensure_ascii=False))
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}" xmp:CreatorTool="Stylebot" '
        f"photoshop:Headline={quoteattr(comment)} photoshop:Instructions={told}/></rdf:RDF></x:xmpmeta>"
    )


def check_name(path: Path) -> None:
    """Raise StylebotError unless the name's ending is a kind of picture that carries metadata."""
    if path.suffix.lower() not in PICTURES:
        raise StylebotError(f"{path}: pictures are written as {', '.join(PICTURES)}")


def encode(picture: Image.Image, suffix: str, facts: dict[str, str], comment: str = NOBODY) -> bytes:
    """`picture` as a file of the kind `suffix` (".png", ".jpg", ".webp") that says that it is synthetic.

    PNG: text chunks of `facts`, and XMP. JPEG (quality 95, whole colours) and lossless WebP: EXIF and XMP.
    Raises StylebotError for more facts than a JPEG can hold.
    """
    kind = PICTURES[suffix.lower()]
    packet, buffer = xmp(comment, facts), io.BytesIO()
    if kind == "PNG":
        info = PngInfo()
        for name, value in {"DigitalSourceType": SOURCE_TYPE, "Comment": comment, **facts}.items():
            info.add_text(name, value)
        info.add_itxt("XML:com.adobe.xmp", packet)
        picture.save(buffer, "PNG", pnginfo=info)
        return buffer.getvalue()
    if kind == "JPEG" and len(packet.encode()) > _JPEG_BYTES:
        raise StylebotError("too many faces for the metadata of one JPEG: write .png or .webp")
    exif = Image.Exif()
    told = {"Comment": comment, "DigitalSourceType": SOURCE_TYPE, **facts}
    exif[_EXIF["ImageDescription"]] = json.dumps(told, sort_keys=True)
    exif[_EXIF["Software"]] = "Stylebot"
    how = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True}
    picture.save(buffer, kind, exif=exif, xmp=packet.encode(), **how)
    return buffer.getvalue()


@dataclass(frozen=True)
class Signer:
    """Signs pictures with a user's certificate by C2PA; offline, without a time stamp.

    chain: PEM, the signing certificate first, then those that vouch for it; key: PEM, not encrypted.
    """

    chain: bytes
    key: bytes
    algorithm: str

    @staticmethod
    def of(certificate: Path | None, key: Path | None) -> "Signer | None":
        """The signer of two PEM files, or None without any. Raises StylebotError when one is missing."""
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            raise StylebotError("--certificate and --key go together")
        return Signer.read(certificate, key)

    @staticmethod
    def read(certificate: Path, key: Path) -> "Signer":
        """The signer of two PEM files, tried once.

        Raises StylebotError without c2pa-python, and for files that cannot sign.
        """
        try:
            import c2pa  # noqa: F401
        except ImportError:
            raise StylebotError(f"signing needs one more package: pip install {_C2PA}") from None
        parts = []
        for path in (certificate, key):
            try:
                parts.append(path.read_bytes())
            except OSError as error:
                raise StylebotError(f"{path} cannot be read: {error.strerror}") from None
        made = Signer(*parts, _algorithm(parts[1], key))
        trial = encode(Image.new("RGB", (8, 8)), ".png", {})
        try:
            made.sign(trial, ".png", "trial")
        except StylebotError as error:
            raise StylebotError(f"{certificate} and {key} cannot sign: {error}") from None
        return made

    def sign(self, content: bytes, suffix: str, title: str) -> bytes:
        """`content`, a picture or film of kind `suffix`, with a manifest that says that a model made it."""
        import c2pa

        created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}
        manifest = {
            "claim_generator_info": [{"name": "Stylebot"}], "title": title,
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
        }  # fmt: skip
        signed = io.BytesIO()
        try:
            info = c2pa.C2paSignerInfo(self.algorithm, self.chain, self.key, None)
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
                builder.sign(signer, _MIME[suffix.lower()], io.BytesIO(content), signed)
        except c2pa.C2paError as error:
            raise StylebotError(f"C2PA refuses: {error}") from None
        return signed.getvalue()


def _algorithm(pem: bytes, path: Path) -> str:
    """C2PA's name of the signature that a private key makes."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise StylebotError(f"{path} is no unencrypted private key in PEM: {error}") from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _ALGORITHMS:
        return _ALGORITHMS[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise StylebotError(f"{path}: C2PA signs with P-256, P-384, P-521, Ed25519 and RSA keys only")
