"""Faces of people who do not exist, from the public MobileStyleGAN weights, with cut-outs."""

import io
from functools import lru_cache
from importlib.resources import as_file
from importlib.resources import files as package_files
from pathlib import Path

import numpy as np
from PIL import Image

from stylebot.errors import StylebotError
from stylebot.files import Memo
from stylebot.scenes import Person, cut_out, refine_matte, resized

PSI = 0.8  # truncation of the target domain; at 0.6 strangers lie too close for dlib to tell them apart
VARIANT = 0.20  # how far the pictures of one person lie from each other in w, in units of a draw's own spread
_FEATURES = ("LeakyRelu_342", "LeakyRelu_442", "LeakyRelu_542")  # 32, 64 and 128 px activations
_SIDE = 1024
_PACKAGE = "pypi:random-face==2021.7.21.1!random_face/data/"
_LICENCE = "Apache-2.0; distilled from NVIDIA's network of FFHQ faces: not for commercial use, to be careful"
FILES = {  # name: source, sha256, licence
    name: (_PACKAGE + name, sha256, _LICENCE) for name, sha256 in {
        "MappingNetwork.xml": "73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b",
        "MappingNetwork.bin": "212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
        "SynthesisNetwork.xml": "7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd",
        "SynthesisNetwork.bin": "c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645"}.items()}


class FaceMaker:
    """Faces of the target domain by identity and variant: picture and cut-out, remembered in scratch.

    folder holds MappingNetwork.xml/.bin and SynthesisNetwork.xml/.bin (OpenVINO IR); loaded at need.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed, self._nets = folder, seed, None
        with as_file(package_files("stylebot") / "data" / "sample.npz") as path, np.load(path) as data:
            self._data = {key: data[key] for key in data.files}
        self._memo = Memo("sample", {"seed": seed, "psi": PSI, "variant": VARIANT, "version": 1})

    def _networks(self):
        if self._nets is None:
            try:
                import openvino
            except ModuleNotFoundError:
                raise StylebotError("openvino is missing: pip install -r requirements-dev.txt") from None
            core = openvino.Core()
            exact = {"INFERENCE_PRECISION_HINT": "f32"}
            synthesis = core.read_model(self.folder / "SynthesisNetwork.xml")
            synthesis.add_outputs([(name, 0) for name in _FEATURES])
            self._nets = (core.compile_model(self.folder / "MappingNetwork.xml", "CPU", exact),
                          core.compile_model(synthesis, "CPU", exact))
        return self._nets

    def _residual(self, *key: int) -> np.ndarray:
        """w - w_avg of a draw, without its part along the target direction; [512]."""
        z = np.random.default_rng([self.seed, *key]).standard_normal((1, 512)).astype(np.float32)
        r = next(iter(self._networks()[0]([z]).values()))[0] - self._data["w_avg"]
        return r - (r @ self._data["direction"]) * self._data["direction"]

    def w(self, identity: int, variant: int) -> np.ndarray:
        """The style [512] of one picture of one person; variant 0 is the person's own."""
        r = self._residual(identity)
        if variant:
            r = np.sqrt(1 - VARIANT**2) * r + VARIANT * self._residual(identity, variant)
        return self._data["w_avg"] + self._data["shift"] * self._data["direction"] + PSI * r

    def _made(self, identity: int, variant: int) -> bytes:
        outputs = self._networks()[1]([self.w(identity, variant)[None].astype(np.float32)]).values()
        by_side = {value.shape[2]: value[0] for value in outputs}
        pixels = ((by_side[_SIDE].clip(-1, 1) + 1) * 127.5 + 0.5).astype(np.uint8).transpose(1, 2, 0)
        weight, logits = self._data["matte_weight"], np.zeros((128, 128), np.float32)
        for side in (32, 64, 128):
            part, weight = weight[: by_side[side].shape[0]], weight[by_side[side].shape[0] :]
            logits += resized(np.tensordot(part, by_side[side], 1), 128, 128, Image.Resampling.BILINEAR)
        jpeg, packed = io.BytesIO(), io.BytesIO()
        Image.fromarray(pixels).save(jpeg, "JPEG", quality=98, subsampling=0)
        np.savez(packed, jpeg=np.frombuffer(jpeg.getvalue(), np.uint8),
                 logits=(logits + self._data["matte_bias"]).astype(np.float16))
        return packed.getvalue()

    @lru_cache(maxsize=4)  # noqa: B019 (one maker lives as long as the process)
    def face(self, identity: int, variant: int, side: int = 512) -> tuple[np.ndarray, Person]:
        """The generated square [side, side, 3] uint8 (256, 512 or 1024) and the person cut out of it."""
        key = f"{identity:04d}-{variant:02d}"
        content = self._memo.get(key)
        if content is None:
            content = self._made(identity, variant)
            self._memo.put(key, content)
        with np.load(io.BytesIO(content)) as stored:
            image = Image.open(io.BytesIO(stored["jpeg"].tobytes()))
            image.draft("RGB", (side, side))
            rgb = np.asarray(image)
            half = rgb if side <= 512 else np.asarray(image.resize((512, 512), Image.Resampling.BOX))
            alpha = refine_matte(stored["logits"].astype(np.float32), half)
        return rgb, cut_out(rgb, alpha)
