"""Ways to spoil a file: its bytes, and what its bytes mean."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeAlias

import numpy as np
import safetensors.torch
import torch
import yaml
from torch import Tensor

Mutator: TypeAlias = Callable[[random.Random, bytes], bytes]

# What no writer of ours leaves in a file. The deepest nesting is put in as text, as writers cannot nest so deep.
DEEP = "@deep@"
NUMBERS: list[Any] = [0, 1, -1, 2, 7, 0.5, -0.0, 2**31, 2**63, -(2**64), 10**30, 10**400, 1e308, -1e308, 5e-324]
NUMBERS += [math.nan, math.inf, -math.inf]
TEXTS = [
    "",
    " ",
    "x" * 20000,
    "\x1b[31m\x07",
    "a\nb\rc\x00d",
    "\u202eabc\u2028",
    "𝔘é\ud7ff",
    "<script>",
    "../../etc/passwd",
]
TEXTS += ["nan", "1e999", "null", "-1", "no.such:thing", ":", "mlp:", "mlp:4-999999999999999-3", "{}", "$x^", DEEP]
OTHERS: list[Any] = [None, True, False, [], {}, [[]], [None], {"": {}}, {"a": 1}, [1, 2], [0.5, math.nan]]
STRANGE = [*NUMBERS, *TEXTS, *OTHERS]
DEPTH = 3000


def spoiled_bytes(rng: random.Random, content: bytes, other: bytes = b"") -> bytes:
    """Cut, flip, repeat, blank, empty or mix bytes."""
    size = len(content)
    at = rng.randrange(size + 1)
    length = min(rng.choice((1, 2, 8, 64, 1024)), size - at)
    block = content[at : at + length]
    way = rng.randrange(9)
    if way == 0:
        return content[:at]
    if way == 1:
        spoiled = bytearray(content)
        for _ in range(rng.choice((1, 1, 3, 20)) if size else 0):
            spoiled[rng.randrange(size)] ^= 1 << rng.randrange(8)
        return bytes(spoiled)
    if way == 2:
        return content[:at] + block * rng.choice((2, 3, 50)) + content[at + length :]
    if way == 3:
        return content[:at] + bytes(length) + content[at + length :]
    if way == 4:
        return content[:at] + content[at + length :]
    if way == 5:
        return rng.choice((b"", bytes(size), b"\xff" * 64, b"\x80\x04.", b"PK\x03\x04", b"{", b"[" * 9999, b"\x1f\x8b"))
    if way == 6:
        return other or content[::-1]
    if way == 7:
        return content[:at] + rng.choice(TEXTS).encode() + content[at:]
    return content + (block or b"\0")


def spoiled_tree(rng: random.Random, tree: Any) -> Any:
    """Change one to three places of nested lists, dictionaries, tensors and arrays."""
    holder = [deepcopy(tree)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        _collect(holder, places)
        container, key = rng.choice(places)
        _change(rng, container, key, places)
        if not holder:
            return None
    return holder[0]


def _collect(node: Any, places: list[tuple[Any, Any]]) -> None:
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        places.append((node, key))
        _collect(node[key], places)


def _change(rng: random.Random, container: Any, key: Any, places: list[tuple[Any, Any]]) -> None:
    value, way = container[key], rng.randrange(8)
    if way == 0:
        del container[key]
    elif way == 1 and isinstance(container, dict):
        name = rng.choice((f"{key}x", "", "x" * 5000, "\x1b", 1, None, True))
        container[name] = container.pop(key)
    elif way == 2 and isinstance(value, dict):
        value[rng.choice(("more", "format", "\0"))] = deepcopy(rng.choice(STRANGE))
    elif way == 2 and isinstance(value, list):
        value.append(deepcopy(value[0]) if value and rng.random() < 0.5 else deepcopy(rng.choice(STRANGE)))
    elif way == 3:
        container[key] = rng.choice(([value], {"a": value}, str(value)[:1000]))
    elif way == 4:
        source, name = rng.choice(places)
        there = name in source if isinstance(source, dict) else name < len(source)
        container[key] = deepcopy(source[name]) if there else None
    elif isinstance(value, (Tensor, np.ndarray)):
        container[key] = _spoiled_array(rng, value)
    elif isinstance(value, (int, float)) and rng.random() < 0.7:
        container[key] = rng.choice(NUMBERS)
    else:
        container[key] = deepcopy(rng.choice(STRANGE))


def _spoiled_array(rng: random.Random, value: Any) -> Any:
    tensor = value.clone() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    way = rng.randrange(6)
    if way == 0:
        tensor = tensor.to(rng.choice((torch.float16, torch.float64, torch.int64, torch.bool, torch.uint8)))
    elif way == 1:
        tensor = tensor.unsqueeze(0)
    elif way == 2:
        tensor = tensor.flatten()[: rng.randrange(tensor.numel() + 1)]
    elif way == 3 and tensor.numel():
        bad = rng.choice((math.nan, math.inf, 1e30, -1.0) if tensor.is_floating_point() else (0, 1, 100))
        tensor.view(-1)[rng.randrange(tensor.numel())] = bad
    elif way == 4:
        tensor = torch.zeros_like(tensor)
    else:
        tensor = torch.cat([tensor.flatten()] * 2)
    return tensor if isinstance(value, Tensor) else tensor.numpy()


def _deep(text: str) -> str:
    return text.replace(f'"{DEEP}"', DEEP).replace(DEEP, "[" * DEPTH + "]" * DEPTH)


def as_json(rng: random.Random, content: bytes) -> bytes:
    """Spoil the values of a JSON file."""
    return _deep(json.dumps(spoiled_tree(rng, json.loads(content)), default=str)).encode()


def as_yaml(rng: random.Random, content: bytes) -> bytes:
    """Spoil the values of a YAML file."""
    return _deep(yaml.safe_dump(spoiled_tree(rng, yaml.safe_load(content)), sort_keys=False)).encode()


def as_archive(rng: random.Random, content: bytes) -> bytes:
    """Spoil the arrays of an .npz file, and the JSON in it."""
    with np.load(io.BytesIO(content)) as arrays:
        tree: dict[Any, Any] = {name: arrays[name] for name in arrays.files}
    if "about" in tree:
        tree["about"] = json.loads(str(tree["about"]))
    tree = spoiled_tree(rng, tree)
    if isinstance(tree, dict) and "about" in tree:
        tree["about"] = np.array(_deep(json.dumps(tree["about"], default=str)))
    return _archived(tree)


def _archived(tree: Any) -> bytes:
    stream = io.BytesIO()
    entries = tree.items() if isinstance(tree, dict) else [("arr_0", tree)]
    plain = {str(name).replace("\0", "0") or "empty": np.asarray(str(value) if value is None else value)
             for name, value in entries if not isinstance(value, (dict, list, int))}  # fmt: skip
    np.savez(stream, **plain)  # type: ignore[arg-type]
    return stream.getvalue()


def as_weights(rng: random.Random, content: bytes) -> bytes:
    """Spoil the tensors of a safetensors file."""
    tree = spoiled_tree(rng, safetensors.torch.load(content))
    if not isinstance(tree, dict):
        return b""
    kept = {str(name): value.contiguous().clone() for name, value in tree.items() if isinstance(value, Tensor)}
    return safetensors.torch.save(kept)


def as_checkpoint(rng: random.Random, content: bytes) -> bytes:
    """Spoil the state in a checkpoint."""
    stream = io.BytesIO()
    torch.save(spoiled_tree(rng, torch.load(io.BytesIO(content), weights_only=True)), stream)
    return stream.getvalue()


def as_table(rng: random.Random, content: bytes) -> bytes:
    """Spoil the cells of a CSV file."""
    rows = spoiled_tree(rng, list(csv.reader(io.StringIO(content.decode()))))
    if not isinstance(rows, list):
        return str(rows).encode()
    return "\n".join(",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows).encode()
