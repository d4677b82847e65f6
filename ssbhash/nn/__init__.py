"""Networks, losses, relaxations and torch operators: one paper, one file."""

from ssbhash.nn.autoencoder import Autoencoder, Shape, Terms, TrainingBatch, Weights
from ssbhash.nn.bernoulli_vae import BernoulliVAENetwork
from ssbhash.nn.class_and_item import ClassAndItemNetwork
from ssbhash.nn.layers import TILE, Encoder, EncoderFactory, Linear
from ssbhash.nn.phs_gs import PHSGSNetwork
from ssbhash.nn.ssb_vae import SSBVAENetwork
from ssbhash.nn.vdsh import VDSHNetwork, VDSHSNetwork

__all__ = [
    "TILE",
    "Autoencoder",
    "BernoulliVAENetwork",
    "ClassAndItemNetwork",
    "Encoder",
    "EncoderFactory",
    "Linear",
    "PHSGSNetwork",
    "SSBVAENetwork",
    "Shape",
    "Terms",
    "TrainingBatch",
    "VDSHNetwork",
    "VDSHSNetwork",
    "Weights",
]
