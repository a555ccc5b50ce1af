"""The convolutional encoder and decoder of ours (`jaxgen.nets.autoencoder`), and the same in PyTorch."""

from __future__ import annotations

DATA, SIDE = "fashion", 28
WIDTHS, HIDDEN, CODE = (16, 32, 64), 256, 64


def jaxgen_net():
    """Ours."""
    from jaxgen.nets.autoencoder import AutoencoderConfig

    return AutoencoderConfig("conv", widths=WIDTHS, hidden=HIDDEN)


def torch_nets(features: int):
    """An encoder to `features` numbers and a decoder of CODE, initialised as ours are."""
    from torch import nn

    pair = lambda channels, width: (
        *(nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()),
        *(nn.Conv2d(width, width, 3, padding=1), nn.SiLU()),
    )
    low, mid, high = WIDTHS
    side = SIDE // 4
    flat = high * side * side
    encoder = nn.Sequential(
        *pair(1, low),
        nn.AvgPool2d(2),
        *pair(low, mid),
        nn.AvgPool2d(2),
        *pair(mid, high),
        *(nn.Flatten(), nn.Linear(flat, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, features)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(CODE, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, flat), nn.SiLU(), nn.Unflatten(1, (high, side, side))),
        *pair(high, high),
        nn.Upsample(scale_factor=2),
        *pair(high, mid),
        nn.Upsample(scale_factor=2),
        *pair(mid, low),
        nn.Conv2d(low, 1, 3, padding=1),
    )
    for net in (encoder, decoder):
        layers = [layer for layer in net if isinstance(layer, nn.Conv2d | nn.Linear)]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if layer is layers[-1] else "relu")
            nn.init.zeros_(layer.bias)
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder})
