"""From named tensors and constructor arguments to networks, refused unless every name and shape agrees."""

import copy
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stylebot.arrays import shown
from stylebot.discriminator import Discriminator
from stylebot.errors import StylebotError
from stylebot.generator import Generator

ROLES = ("G", "D", "G_ema")
MAX_RESOLUTION = 4096  # px; larger claims come from damaged files
_CLASSES = {"G": Generator, "D": Discriminator, "G_ema": Generator}
_LARGEST = {"img_resolution": MAX_RESOLUTION, "mapping_layers": 64, "num_fp16_res": 32, "img_channels": 1024}
_MOST = 1 << 20  # of any other whole number in a configuration
_ALLOW = "--allow-missing, or train.allow_missing,"
_ANEW = 8  # times the numbers of a file that may start anew beside them
_SHARED = ("c_dim", "img_resolution", "img_channels")  # what the networks of one training run agree on
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_META = {"at_initialisation": list, "parents": list, "opts": dict, "augment_p": int | float,
         "kimg": int | float}  # what is read again
_SHOWN = 6  # names listed in a message before "and N more"


@dataclass
class Networks:
    """The three networks of one training run. What the file did not hold is None; `meta` is plain data.

    encoder: state dict of the pSp/e4e encoder that came with the generator, keys without "encoder.", or None
    """

    G: Generator | None
    D: Discriminator | None
    G_ema: Generator | None
    meta: dict = field(default_factory=dict)
    encoder: dict[str, Tensor] | None = None


@dataclass
class Weights:
    """What a reader found in a file, in official names: configs and states by role ("G", "D", "G_ema")."""

    configs: dict[str, dict]
    states: dict[str, dict[str, Tensor]]
    meta: dict = field(default_factory=dict)
    encoder: dict[str, Tensor] | None = None


def some(names: Collection[str]) -> str:
    """The first few names, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def check_config(role: str, config: Mapping[str, object]) -> dict:
    """The constructor arguments `config` of network `role`, every value checked to be plain and in range.

    Raises: StylebotError naming the argument.
    """
    if not isinstance(config, Mapping):
        raise StylebotError(f"the architecture of {role} is not a table of arguments")
    known = _arguments(role)
    out = {}
    for name, value in config.items():
        if name not in known:
            raise StylebotError(f"{role}: unknown architecture argument {shown(name)}")
        if name == "filter_taps" and value is not None:
            value = tuple(value) if isinstance(value, list | tuple) else ()
            good = len(value) == 4 or (len(value) == 1 and role == "D")  # what our convolutions do
            good = good and all(_number(v) for v in value) and sum(value) != 0 and value == value[::-1]
        elif isinstance(value, bool | str) or value is None:
            good = value is None or isinstance(value, bool) or len(value) < 16
        elif isinstance(value, int):
            good = 0 <= value <= _LARGEST.get(name, _MOST)
        else:
            good = _number(value)
        if not good:
            raise StylebotError(f"{role}: architecture argument {name} = {shown(value)} is out of range")
        out[name] = value
    return out


def _number(value: object) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value) and abs(value) < 1e9


def _arguments(role: str) -> frozenset[str]:
    code = _CLASSES[role].__init__.__code__
    return frozenset(code.co_varnames[1 : code.co_argcount])


class _ShapesOnly(TorchFunctionMode):
    """Within it, filled tensors have a shape and no memory.

    `with torch.device("meta")` would do too, but its random numbers import a compiler: seconds of start-up.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.randn, torch.zeros, torch.ones):
            return torch.empty(*args, device="meta")
        if function is torch.full:
            return torch.empty(args[0], device="meta")
        if function.__name__ in ("to", "div", "__truediv__") and args[0].is_meta:
            return args[0]  # scaling and memory layout leave the shape alone
        return function(*args, **(kwargs or {}))


def skeleton(role: str, config: Mapping[str, object]) -> nn.Module:
    """The network `role` without memory for its numbers: shapes only.

    Raises: StylebotError if no such network can exist.
    """
    arguments = check_config(role, config)
    try:
        with _ShapesOnly():
            network = _CLASSES[role](**arguments)
        maps = network.b4.mbstd_num_channels if role == "D" else 0
        if maps and (network.b4.conv.weight.shape[0] % maps or network.b4.mbstd_group_size < 1):
            raise ValueError("minibatch stddev of such groups")
        return network
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StylebotError(f"{role}: no network has this architecture ({reason})") from None


def compare(role: str, wanted: nn.Module, state: Mapping[str, Tensor]) -> set[str]:
    """Names that `wanted` needs and `state` lacks.

    Raises: StylebotError for names that no part of the network has, for other shapes, for non-float tensors.
    """
    shapes = {name: tuple(t.shape) for name, t in wanted.state_dict().items()}
    unknown = state.keys() - shapes.keys()
    if unknown:
        raise StylebotError(f"{role}: tensors that its architecture has no place for: {some(unknown)}")
    wrong = [f"{name} {list(state[name].shape)} instead of {list(shape)}" for name, shape in shapes.items()
             if name in state and tuple(state[name].shape) != shape]
    if wrong:
        raise StylebotError(f"{role}: other shapes than its architecture wants: {some(wrong)}")
    strange = [name for name, tensor in state.items() if tensor.dtype not in _FLOATS]
    if strange:
        raise StylebotError(f"{role}: not floating-point numbers: {some(strange)}")
    strange = [name for name, tensor in state.items() if not tensor.float().isfinite().all()]
    if strange:
        raise StylebotError(f"{role}: numbers that are not finite: {some(strange)}")
    return shapes.keys() - state.keys()


def build(weights: Weights, need: Collection[str] = (), allow_missing: bool = False) -> Networks:
    """Networks from `weights`, on the CPU, in float32, ready for inference (eval mode).

    `need` names the roles that must be there. A missing tensor or network is refused unless `allow_missing`:
    then a missing G is a copy of G_ema (or the other way round), everything else missing starts at random
    from a fixed seed, and meta["at_initialisation"] lists both by name.
    Raises: StylebotError naming what does not fit.
    """
    made: dict[str, nn.Module | None] = dict.fromkeys(ROLES)
    initial: list[str] = []
    anew = _ANEW * sum(t.numel() for state in weights.states.values() for t in state.values())
    for role in ROLES:
        if role not in weights.states:
            continue
        state = weights.states[role]
        wanted = skeleton(role, weights.configs[role])
        missing = compare(role, wanted, state)
        if missing and not allow_missing:
            raise StylebotError(f"{role}: missing {some(missing)} ({_ALLOW} starts these at random)")
        anew -= sum(t.numel() for name, t in wanted.state_dict().items() if name in missing)
        if anew < 0:
            raise StylebotError(f"{role}: more than {_ANEW} times what the file holds would start anew")
        initial += [f"{role}.{name}" for name in sorted(missing)]
        network = _fresh(role, weights.configs[role])
        network.load_state_dict(state, strict=False)
        made[role] = network.requires_grad_(role != "G_ema")
    _check_kinship(made)
    absent = [role for role in need if made[role] is None]
    if absent and not allow_missing:
        raise StylebotError(f"the file holds no {' and no '.join(absent)} ({_ALLOW} goes on without)")
    for role in absent:
        made[role], note = _substitute(role, made)
        initial.append(note)
    meta = _checked_meta(weights.meta)
    if initial:
        meta["at_initialisation"] = initial
    return Networks(made["G"], made["D"], made["G_ema"], meta, weights.encoder)


def _check_kinship(made: Mapping[str, nn.Module | None]) -> None:
    """Raise StylebotError for networks of one file that cannot work together."""
    present = [net for net in made.values() if net is not None]
    for name in _SHARED:
        values = sorted({net.config[name] for net in present})
        if len(values) > 1:
            listed = " and ".join(map(str, values))
            raise StylebotError(f"its networks do not belong together: {name} is {listed}")
    shapes = [{name: t.shape for name, t in made[role].state_dict().items()} for role in ("G", "G_ema")
              if made[role] is not None]  # fmt: skip
    if len(shapes) == 2 and shapes[0] != shapes[1]:
        raise StylebotError("its networks do not belong together: G and G_ema have other shapes")


def _checked_meta(meta: Mapping[str, object]) -> dict:
    """A copy of `meta` in which the entries that are read again are of the right kind.

    Raises: StylebotError.
    """
    for name, kind in _META.items():
        value = meta.get(name)
        words = value if isinstance(value, list) else ()
        if (name in meta and not isinstance(value, kind)) or not all(isinstance(word, str) for word in words):
            raise StylebotError(f"its description says {name} = {shown(value)}")
    return dict(meta)


def at_initialisation(networks: Networks) -> list[str]:
    """For people: which tensors the file did not hold, a line each; nothing if it held them all."""
    return [f"not in the file, starts anew: {name}" for name in networks.meta.get("at_initialisation", ())]


def _substitute(role: str, made: Mapping[str, nn.Module | None]) -> tuple[nn.Module, str]:
    """A network for `role` where the file has none, and what it is."""
    other = {"G": "G_ema", "G_ema": "G", "D": None}[role]
    if other and made[other] is not None:
        return copy.deepcopy(made[other]).requires_grad_(role != "G_ema"), f"{role} (copy of {other})"
    source = made["G_ema"] or made["G"] or made["D"]
    if source is None:
        raise StylebotError("the file holds no network of this family")
    shared = ("c_dim", "img_resolution", "img_channels", "channel_base", "channel_max", "conv_clamp")
    config = {name: source.config[name] for name in shared}
    return _fresh(role, config), f"{role} (all of it)"


def _fresh(role: str, config: Mapping[str, object]) -> nn.Module:
    """The network at its random start, always the same one, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _CLASSES[role](**check_config(role, config)).eval()
