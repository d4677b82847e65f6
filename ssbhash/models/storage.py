"""Models on disk: config.json and weights.safetensors in one folder, no pickle.

Each file is written aside and renamed; config.json names the SHA-256 of the weights,
so that a truncated file, or two files from different saves, are told apart from a model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
from torch import Tensor

from ssbhash.atomic import replacing

FORMAT, VERSION = "ssbhash-model", 1
CONFIG, WEIGHTS = "config.json", "weights.safetensors"


def save(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a model into `folder`, which is made if needed."""
    weights = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    )
    head = {"format": FORMAT, "version": VERSION, "sha256": hashlib.sha256(weights).hexdigest()}
    text = json.dumps(head | config, indent=1, default=_plain)
    for name, content in ((WEIGHTS, weights), (CONFIG, text.encode())):
        with replacing(folder / name) as file:
            file.write(content)


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `save` wrote: (config, tensors).

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is truncated, foreign, or from another save.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / CONFIG} is not JSON; it is truncated or foreign") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{folder / CONFIG} does not describe an ssbhash model")
    if config.get("version") != VERSION:
        raise ValueError(
            f"{folder} has format version {config.get('version')!r}, this ssbhash reads {VERSION}"
        )
    weights = (folder / WEIGHTS).read_bytes()
    if hashlib.sha256(weights).hexdigest() != config.get("sha256"):
        raise ValueError(
            f"{folder / WEIGHTS} is not the file that {CONFIG} was saved with; "
            "it is truncated or foreign"
        )
    try:
        return config, safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is no safetensors file: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a parameter of type {type(value).__name__} cannot be saved")
