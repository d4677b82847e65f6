"""Networks, losses, relaxations and torch operators: one paper, one file."""

from ssbhash.nn.autoencoder import Autoencoder, Shape, TrainingBatch, Weights
from ssbhash.nn.bernoulli_vae import BernoulliVAENetwork
from ssbhash.nn.layers import TILE
from ssbhash.nn.phs_gs import PHSGSNetwork
from ssbhash.nn.self_taught import SelfTaughtNetwork
from ssbhash.nn.ssb_vae import SSBVAENetwork
from ssbhash.nn.vdsh import VDSHNetwork, VDSHSNetwork

__all__ = [
    "TILE",
    "Autoencoder",
    "BernoulliVAENetwork",
    "PHSGSNetwork",
    "SSBVAENetwork",
    "SelfTaughtNetwork",
    "Shape",
    "TrainingBatch",
    "VDSHNetwork",
    "VDSHSNetwork",
    "Weights",
]
