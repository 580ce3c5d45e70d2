"""Weights to begin with, of a Hugging Face folder or a hub, a tensor at a time; and a sharded model's, whole."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from stackrt.finetune import lora
from stackrt.train import mesh, models, paths
from stackrt.train.errors import BadInputError
from stackrt.train.layout import Layout, Read, empty
from stackrt.train.ranks import Ranks

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_NUMBERS = ("F64", "F32", "F16", "BF16")  # what weights are; those of fewer bits mean nothing without their scales


class Weights:
    """The tensors of a folder's safetensors files, for a model, read one at a time.

    Args:
        folder: Hugging Face model folder.
        model: Whose parameters they are; its adapters are not looked for.
        layout: How the files name and hold them.

    Raises:
        BadInputError: There are none, or a file is damaged.
    """

    def __init__(self, folder: Path, model: nn.Module, layout: Layout) -> None:
        self._folder, self._layout = folder, layout
        files = files_of(folder)
        if not files:
            raise BadInputError(f"--init {folder}: no *.safetensors in it; save the model again with save_pretrained")
        self._where: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        for file in files:
            try:
                paths.see_readable(file)
                self._open[file] = safe_open(str(file), "pt")
                self._where |= dict.fromkeys(self._open[file].keys(), file)
            except (SafetensorError, OSError) as error:
                why = error.strerror if isinstance(error, OSError) else None
                raise BadInputError(f"--init {file}: {why or f'damaged or not readable: {error}'}") from None
        own = dict(model.named_parameters()) | persistent(model)
        self._own = {lora.plain(name): held.shape for name, held in own.items() if not lora.is_adapter(name)}
        self._sources = layout.sources(self._own, self._where)

    def check(self) -> None:
        """See that there is a tensor of the right shape for each parameter, and each buffer that is kept.

        Raises:
            BadInputError: Names the first that is missing or has another shape.
        """
        for name, shape in self._own.items():
            source = self._sources.get(name)
            if source is None:
                raise BadInputError(f"--init {self._folder}: it has no {name}, which the model needs")
            for _, key in source.keys:
                if (kind := self._part(key).get_dtype()) not in _NUMBERS:
                    raise BadInputError(
                        f"--init {self._folder}: {key} is stored as {kind}, quantized: training begins with "
                        f"weights of {', '.join(_NUMBERS)}; name the model that it was made of"
                    )
            found = self._made(name, lambda key: empty(self._part(key).get_shape())).shape
            if found != shape:
                raise BadInputError(
                    f"--init {self._folder}: {name} is {list(found)} there, and {list(shape)} in the model"
                )

    def fill(self, prefix: str, module: nn.Module) -> None:
        """Copy the tensors of a module that is known by its name in the model."""
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            full = lora.plain(f"{prefix}.{name}" if prefix else name)
            if full in self._sources and not tensor.is_meta:
                tensor.copy_(self._made(full, lambda key: self._open[self._where[key]].get_tensor(key)))

    def _part(self, key: str) -> Any:
        return self._open[self._where[key]].get_slice(key)

    def _made(self, name: str, read: Read) -> Tensor:
        source = self._sources[name]
        try:
            return self._layout.made(name, source, read)
        except (RuntimeError, ValueError, LookupError) as error:  # of other shapes than the rule joins, or too few
            held = ", ".join(key for _, key in source.keys[:3])
            raise BadInputError(f"--init {self._folder}: {name} cannot be made of {held}, …: {error}") from None

    def identity(self) -> str:
        """Tells these weights from others of the same shapes: a digest of each tensor's name, shape and first row.

        Training changes all of them; to read all of a large model for this would take minutes.
        """
        digest = hashlib.sha256()
        for name in sorted(self._where):
            part = self._part(name)
            first = part[:1] if part.get_shape() else self._open[self._where[name]].get_tensor(name)
            digest.update(f"{name} {part.get_dtype()} {part.get_shape()} ".encode())
            digest.update(first.flatten().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def first(init: str, model: nn.Module, layout: Layout, ranks: Ranks) -> Weights | None:
    """The weights that `--init` names, held against a model's shapes; None for random ones.

    Raises:
        BadInputError: They are not there, are damaged, or are another model's.
    """
    if not init:
        return None
    folder = fetch(init, "--init", True, ranks) if models.is_hub_name(init) else Path(init)
    with ranks.together():
        held = Weights(folder, model, layout)
        held.check()
    return held


@torch.no_grad()
def load(model: nn.Module, folder: Path) -> None:
    """Fill a model that is whole on this rank, and not of transformers.

    Raises:
        BadInputError: The folder has not its weights.
    """
    held = Weights(folder, model, Layout(str(getattr(model, "base_model_prefix", ""))))
    held.check()
    held.fill("", model)


def persistent(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that belong to what a model has learned, by name, as the biases of DeepSeek's router."""
    return {
        f"{prefix}.{name}" if prefix else name: tensor
        for prefix, module in model.named_modules()
        for name, tensor in module._buffers.items()
        if tensor is not None and name not in module._non_persistent_buffers_set
    }


def whole_tensors(parameters: Mapping[str, Tensor], names: Iterable[str], keep: bool) -> Iterator[tuple[str, Tensor]]:
    """Each tensor, whole and on the CPU, one after another; where `keep` is false, empty. A collective each."""
    for name in names:
        tensor = mesh.whole(parameters[name].detach())
        yield name, tensor.float().cpu().contiguous() if keep else tensor.new_empty(0)


def params_sha256(model: nn.Module, ranks: Ranks) -> str:
    """`report.params_sha256` of what is trained of a sharded model, on every rank."""
    digest = hashlib.sha256()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, tensor in whole_tensors(trained, sorted(trained), ranks.first):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes() if ranks.first else b"")
    return ranks.from_first(digest.hexdigest())


def files_of(folder: Path) -> list[Path]:
    """The files that hold a folder's model, as transformers chooses: others may lie there, of an earlier save too."""
    if (whole := folder / WHOLE).exists():
        return [whole]
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    except FileNotFoundError:
        return sorted(folder.glob("*.safetensors"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInputError(f"--init {folder / INDEX}: damaged or not readable: {error}") from None


def fetch(name: str, option: str, with_weights: bool, ranks: Ranks) -> Path:
    """The folder of a hub's model in the usual cache; one rank a node downloads what is not there.

    Raises:
        BadInputError: The hub does not answer, does not know it, or may not be asked.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["config.json", "tokenizer*.json", "special_tokens_map.json", "chat_template.jinja"]
    wanted += [INDEX, "model*.safetensors"] if with_weights else []  # beside them some have a second form of all
    folder = Path()
    for turn in (True, False):
        with ranks.together():
            if (ranks.local_rank == 0) == turn:
                try:
                    folder = Path(snapshot_download(name, allow_patterns=wanted, etag_timeout=5))
                except LocalEntryNotFoundError:
                    raise BadInputError(
                        f"{option} {name}: not in the cache ({_cache()}), and the hub does not answer or may not be "
                        "asked (HF_HUB_OFFLINE); give a folder, or fetch it first where the network is: hf download "
                        f"{name}"
                    ) from None
                except (HfHubHTTPError, OSError, ValueError) as error:
                    raise BadInputError(f"{option} {name}: the hub refuses it: {str(error).splitlines()[0]}") from None
    return folder


def _cache() -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(HF_HUB_CACHE)


def memory_peak(device: torch.device) -> int:
    """The most memory this rank has used so far, in bytes: of the GPU, or of the process."""
    import resource

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
