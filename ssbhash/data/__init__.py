"""Reads and writes files, turns texts into features, and numbers labels; needs numpy alone."""

from ssbhash.data import files
from ssbhash.data.files import read_items
from ssbhash.data.items import Items
from ssbhash.data.named_labels import (
    UNLABELLED,
    encode_labels,
    hide_labels,
    is_labelled,
    number_labels,
)
from ssbhash.data.text import FILE_NAME, TextFeatures

__all__ = [
    "FILE_NAME",
    "UNLABELLED",
    "Items",
    "TextFeatures",
    "encode_labels",
    "files",
    "hide_labels",
    "is_labelled",
    "number_labels",
    "read_items",
]
