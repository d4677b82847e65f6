"""State of an unfinished training, one file, replaced whole after each epoch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ssbhash.atomic import replacing

FORMAT = "ssbhash-checkpoint-2"
NAME = "checkpoint.safetensors"


def write(folder: Path, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write `about` (JSON) and tensors into `folder`, which is made if needed."""
    flat = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    text = json.dumps(about)
    head = {"format": FORMAT, "about": text, "sha256": _checksum(text, flat)}
    content = safetensors.torch.save(flat, head)
    with replacing(folder / NAME) as file:
        file.write(content)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Read what `write` wrote; None if there is nothing yet.

    Raises
    ------
    ValueError
        If the file is truncated, damaged or foreign.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if head.get("format") != FORMAT:
            raise ValueError(f"its format is {head.get('format')!r}, not {FORMAT!r}")
        if _checksum(head["about"], tensors) != head["sha256"]:
            raise ValueError("its checksum differs")
        return json.loads(head["about"]), tensors
    except PermissionError:
        raise
    except (safetensors.SafetensorError, ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"{path} is no checkpoint; damaged, truncated or foreign: {error}"
        ) from error


def _checksum(about: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
