"""Models on disk: one folder with JSON and safetensors, no pickle.

    model/
      config.json          method, parameters, classes, history
      weights.safetensors  network and statistics
      ...                  files that belong to the model, such as a vocabulary
      manifest.json        checksum of every file

By the checksums files of two models, or of two saves of one, are never read together.
"""

from __future__ import annotations

import datetime
import json
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ssbhash.atomic import MANIFEST, read_together, write_together
from ssbhash.data import files

FORMAT, VERSION = "ssbhash-model", 3
CONFIG, WEIGHTS = "config.json", "weights.safetensors"


class Saved(NamedTuple):
    """What a model's folder holds."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    beside: dict[str, bytes]


def save(
    folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], beside: Mapping[str, bytes]
) -> None:
    """Replace what `folder` holds by a model, and files that belong to it."""
    # Cloned, because tensors that share memory are refused.
    weights = safetensors.torch.save(
        {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
    )
    text = to_json({"format": FORMAT, "version": VERSION} | config).encode()
    write_together(folder, {CONFIG: text, WEIGHTS: weights, **beside})


def load(folder: Path) -> Saved:
    """Read what `save` wrote.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is truncated, damaged, foreign, or from another save.
    """
    if (folder / CONFIG).exists() and not (folder / MANIFEST).exists():
        raise ValueError(
            f"{folder} has no {MANIFEST}: an older ssbhash wrote it, or a file is missing. "
            "Train the model again, or copy the whole folder"
        )
    if folder.is_dir() and not (folder / MANIFEST).exists():
        raise FileNotFoundError(2, f"No model in this folder (no {MANIFEST})", str(folder))
    contents = read_together(folder)
    if not {CONFIG, WEIGHTS} <= contents.keys():
        raise ValueError(f"{folder} holds {', '.join(contents)}, which is no ssbhash model")
    config = files.parse_json(contents.pop(CONFIG), folder / CONFIG)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{folder / CONFIG} does not describe an ssbhash model")
    if config.get("version") != VERSION:
        raise ValueError(
            f"{folder} has format version {config.get('version')!r}, this ssbhash reads {VERSION}"
        )
    try:
        return Saved(config, safetensors.torch.load(contents.pop(WEIGHTS)), contents)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is no safetensors file: {error}") from error


def saved_parameters(estimator: Any) -> dict[str, Any]:
    """Return an estimator's parameters as they are saved: the encoder by its name.

    Parameters
    ----------
    estimator : Hasher
        Fitted or not.

    Returns
    -------
    dict
        Values by name of the parameter.

    Examples
    --------
    >>> from ssbhash import VDSH
    >>> saved_parameters(VDSH(encoder=str))["encoder"]
    'str'
    """
    parameters: dict[str, Any] = estimator.get_params(deep=False)
    encoder = parameters["encoder"]
    if encoder is None:
        return parameters
    return {**parameters, "encoder": getattr(encoder, "__qualname__", type(encoder).__name__)}


def to_json(content: Any) -> str:
    """Write parameters and classes as JSON; equal values give equal text.

    Raises
    ------
    TypeError
        If a value cannot be saved.
    """
    return json.dumps(content, indent=1, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path | torch.device):
        return str(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"{value!r}, a {type(value).__name__}, cannot be saved in a model")
