"""Networks, losses, relaxations and torch operators: one paper, one file."""

from ssbhash.nn.bernoulli_vae import Autoencoder, BernoulliVAENetwork, Items, Shape, Weights
from ssbhash.nn.layers import TILE
from ssbhash.nn.losses import LOG_FLOOR
from ssbhash.nn.phs_gs import PHSGSNetwork
from ssbhash.nn.relaxations import as_seed
from ssbhash.nn.self_taught import SelfTaughtNetwork
from ssbhash.nn.ssb_vae import SSBVAENetwork
from ssbhash.nn.vdsh import VDSHNetwork, VDSHSNetwork

__all__ = [
    "LOG_FLOOR",
    "TILE",
    "Autoencoder",
    "BernoulliVAENetwork",
    "Items",
    "PHSGSNetwork",
    "SSBVAENetwork",
    "SelfTaughtNetwork",
    "Shape",
    "VDSHNetwork",
    "VDSHSNetwork",
    "Weights",
    "as_seed",
]
