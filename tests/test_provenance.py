"""Metadata of each kind of picture, and C2PA signatures by a certificate made for the test."""

import datetime
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from stylebot.errors import StylebotError
from stylebot.provenance import Signer, encode

FACTS = {"Model": "ab" * 32, "Seed": "7", "Note": 'a "quoted" <word>'}
PICTURE = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint32).reshape(32, 32, 3).astype(np.uint8))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_every_kind_of_picture_says_that_it_is_synthetic(suffix: str) -> None:
    made = Image.open(io.BytesIO(encode(PICTURE, suffix, FACTS)))
    xmp = made.info.get("xmp") or made.info["XML:com.adobe.xmp"]
    about = next(node for node in ElementTree.fromstring(xmp).iter() if node.tag.endswith("}Description"))
    about = {name.rpartition("}")[2]: value for name, value in about.attrib.items()}
    assert about["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert json.loads(about["Instructions"]) == FACTS and "does not exist" in about["Headline"]
    if suffix == ".png":
        assert made.text["Seed"] == "7" and "does not exist" in made.text["Comment"]
    else:
        told = json.loads(made.getexif()[0x010E])
        assert told["Seed"] == "7" and told["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    if suffix != ".jpg":
        assert np.array_equal(np.asarray(made.convert("RGB")), np.asarray(PICTURE))


def test_more_facts_than_a_jpeg_holds() -> None:
    many = {"Faces": "x" * 70_000}
    assert len(encode(PICTURE, ".webp", many)) > 70_000
    with pytest.raises(StylebotError, match="one JPEG"):
        encode(PICTURE, ".jpg", many)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signing certificate with the one that vouches for it, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)
    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def certificate(name: str, key: ec.EllipticCurvePrivateKey, ca: bool) -> bytes:
        named = [x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"),
                            x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (name, "root")]  # fmt: skip
        made = (
            x509.CertificateBuilder(named[1], named[0], key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
        )
        if not ca:
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return made.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    folder = tmp_path_factory.mktemp("pem")
    (folder / "chain.pem").write_bytes(certificate("faces", own, False) + certificate("root", root, True))
    secret = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(own.private_bytes(*secret))
    (folder / "other.pem").write_bytes(root.private_bytes(*secret))
    return folder / "chain.pem", folder / "key.pem"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_signature_holds_until_a_pixel_changes(pems: tuple[Path, Path], suffix: str) -> None:
    c2pa = pytest.importorskip("c2pa")
    mime = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}[suffix]
    signed = Signer.of(*pems).sign(encode(PICTURE, suffix, FACTS), suffix, "seed0007")
    told = json.loads(c2pa.Reader(mime, io.BytesIO(signed)).json())
    assert told["validation_state"] == "Valid" and "trainedAlgorithmicMedia" in json.dumps(told["manifests"])
    assert Image.open(io.BytesIO(signed)).getxmp()["xmpmeta"], "the other metadata stay"
    changed = bytearray(signed)
    changed[-20] ^= 1
    assert json.loads(c2pa.Reader(mime, io.BytesIO(bytes(changed))).json())["validation_state"] == "Invalid"


def test_what_cannot_sign_is_refused(pems: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    chain, key = pems
    assert Signer.of(None, None) is None
    with pytest.raises(StylebotError, match="go together"):
        Signer.of(chain, None)
    with pytest.raises(StylebotError, match="cannot be read"):
        Signer.of(tmp_path / "none.pem", key)
    with pytest.raises(StylebotError, match="no unencrypted private key"):
        Signer.of(chain, chain)
    with pytest.raises(StylebotError, match="cannot sign"):
        Signer.of(chain, key.with_name("other.pem"))
