"""pixel2style2pixel's networks as its checkpoints hold them: three encoders, e4e's, and what follows them."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylebot.encoder import PSP_STAGES, PspEncoder, Trunk, n_styles
from stylebot.errors import StylebotError
from stylebot.generator import FullyConnected, Generator

_LAST = 512  # channels of IR-SE50's last features, and pSp's w_dim
_POOLED = 7  # px that IntoWPlus pools them to


class LastLayerEncoder(Trunk):
    """IR-SE50's last features to one style (pSp's …LastLayerIntoW) or to all (…IntoWPlus); 256 px pictures.

    Source: Richardson et al. 2021 (pSp), section 4.1, the two encoders it is compared with.
    """

    def __init__(self, styles: int, wide: bool) -> None:
        super().__init__(PSP_STAGES, 3, stem_stride=1)
        self.n_styles, self.input_px = styles if wide else 1, 256
        self.linear = FullyConnected(_LAST, self.n_styles * _LAST)
        self.output_layer_2 = nn.Sequential(
            nn.BatchNorm2d(_LAST), nn.AdaptiveAvgPool2d(_POOLED), nn.Flatten(),
            nn.Linear(_LAST * _POOLED**2, _LAST)) if wide else None  # fmt: skip

    def forward(self, img: Tensor) -> Tensor:
        """`img` [N,3,256,256] float, [-1,1] to codes [N,n_styles,512], n_styles 1 for IntoW."""
        x = self.taps(img)[-1]
        x = x.mean((2, 3)) if self.output_layer_2 is None else self.output_layer_2(x)
        return self.linear(x).reshape(len(img), self.n_styles, _LAST)


class ProgressiveEncoder(PspEncoder):
    """e4e's encoder: the same layers; the first head's style, and each other head's difference from it.

    Source: Tov et al. 2021 (e4e), arXiv 2102.02766, section 4.1.
    """

    def forward(self, img: Tensor) -> Tensor:
        """`img` [N,3,256,256] float, [-1,1] to codes [N,n_styles,512]."""
        codes = super().forward(img)
        return torch.cat([codes[:, :1], codes[:, :1] + codes[:, 1:]], 1)


def read_encoder(state: Mapping[str, Tensor], resolution: int, kind: str | None = None) -> nn.Module:
    """The encoder with the tensors `state` (names without "encoder."), for a decoder of `resolution` px.

    kind: `encoder_type` of the checkpoint's opts; only e4e's "Encoder4Editing" cannot be told by the names.
    On the CPU, frozen, in evaluation mode.
    Raises: StylebotError naming tensors that are missing, that have no place or another shape.
    """
    own = {name: tensor for name, tensor in state.items() if name != "latent_avg"}
    with torch.device("meta"):  # no memory until everything is known to fit
        if any(name.startswith("styles.") for name in own):
            net = (ProgressiveEncoder if kind == "Encoder4Editing" else PspEncoder)(resolution)
        else:
            wide = any(name.startswith("output_layer_2.") for name in own)
            net = LastLayerEncoder(n_styles(resolution), wide)
    shapes = {name: tuple(t.shape) for name, t in net.state_dict().items()}
    wrong = {name for name in shapes.keys() & own.keys() if shapes[name] != tuple(own[name].shape)}
    for names, words in ((own.keys() - shapes.keys(), "tensors that no such encoder has"),
                         (shapes.keys() - own.keys(), "missing tensors"), (wrong, "other shapes")):
        if names:
            listed = ", ".join(sorted(names)[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            raise StylebotError(f"encoder: {words}: {listed}")
    net = net.to_empty(device="cpu")
    net.load_state_dict(own)
    return net.eval().requires_grad_(False)


def inverter(
    state: Mapping[str, Tensor], G: Generator, kind: str | None = None
) -> Callable[[Tensor], Tensor]:
    """What an encoder makes of a face for G: img [N,3,R,R] float, [-1,1] to ws [N,num_ws,w_dim].

    state, kind: as in `read_encoder`; "latent_avg" in state, if any, is added to the codes.
    Raises: StylebotError as `read_encoder` does, for a G of another w_dim, for another latent_avg.
    """
    if G.w_dim != _LAST:
        raise StylebotError(f"encoder: it makes styles of {_LAST} numbers, the generator takes {G.w_dim}")
    net, average, num_ws = read_encoder(state, G.img_resolution, kind), state.get("latent_avg"), G.num_ws
    if average is not None and tuple(average.shape) not in ((num_ws, _LAST), (1, _LAST), (_LAST,)):
        raise StylebotError(f"encoder: latent_avg has the shape {list(average.shape)}")

    @torch.inference_mode()
    def encode(img: Tensor) -> Tensor:
        there = net.to(img.device)
        size = (there.input_px, there.input_px)
        larger = img.shape[2] > there.input_px
        fitted = F.interpolate(img, size, mode="bilinear", align_corners=False, antialias=larger)
        return placed(there(fitted), num_ws, None if average is None else average.to(img))

    return encode


def placed(codes: Tensor, num_ws: int, latent_avg: Tensor | None = None) -> Tensor:
    """ws [N, num_ws, w_dim] of an encoder's codes [N, num_ws or 1, w_dim] or [N, w_dim].

    latent_avg [num_ws or 1, w_dim] or [w_dim] is added: what the encoder was trained to start from.
    """
    codes = codes[:, None] if codes.ndim == 2 else codes
    codes = codes if latent_avg is None else codes + latent_avg.reshape(1, -1, latent_avg.shape[-1])
    return codes.expand(-1, num_ws, -1)


def masked(
    ws: Tensor, layers: Sequence[int], inject: Tensor | None = None, alpha: float = 1.0
) -> Tensor:
    """ws [N, num_ws, w_dim] with `layers` taken from `inject` [N or 1, num_ws, w_dim], or set to zero.

    alpha: share of the injected style, the rest stays as it was (pSp's multi-modal synthesis).
    """
    out = ws.clone()
    chosen = list(layers)
    out[:, chosen] = 0 if inject is None else alpha * inject[:, chosen] + (1 - alpha) * ws[:, chosen]
    return out
