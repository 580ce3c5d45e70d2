"""Hugging Face folders: weights to begin with, and weights to leave behind; a model is never whole in memory."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stackrt.finetune import lora
from stackrt.train import mesh, models, paths, tokenizer_files
from stackrt.train.errors import BadInputError
from stackrt.train.ranks import Ranks
from stackrt.train.report import write_atomically, writing

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"  # beside a model, it makes from_pretrained load that adapter's base instead
FILE_BYTES = 4 << 30
_PARTS = ".*.safetensors.part"  # files that are being written
_MODELS = (WHOLE, "model-*-of-*.safetensors", "adapter_model.safetensors", "quantized.safetensors")  # of an earlier one
_NUMBERS = ("F64", "F32", "F16", "BF16")  # what weights are; those of fewer bits mean nothing without their scales


class Weights:
    """The tensors of a folder's safetensors files, read one at a time.

    Args:
        folder: Hugging Face model folder.
        prefix: The model's name for what lies around its blocks, such as `transformer`: published files leave it out
            now and then.

    Raises:
        BadInputError: There are none, or a file is damaged.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder = folder
        self._prefix = f"{prefix}."
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

    def check(self, model: nn.Module) -> None:
        """See that there is a tensor of the right shape for each parameter of a model but its adapters'.

        Raises:
            BadInputError: Names the first that is missing or has another shape.
        """
        own = {lora.plain(name): p for name, p in model.named_parameters() if not lora.is_adapter(name)}
        for name, parameter in own.items():
            held = self._name(name)
            if held is None:
                raise BadInputError(f"--init {self._folder}: it has no {name}, which the model needs")
            part = self._open[self._where[held]].get_slice(held)
            if part.get_dtype() not in _NUMBERS:
                raise BadInputError(
                    f"--init {self._folder}: {name} is stored as {part.get_dtype()}, quantized: training begins with "
                    f"weights of {', '.join(_NUMBERS)}; name the model that it was made of"
                )
            shape = part.get_shape()
            if list(shape) != list(parameter.shape):
                raise BadInputError(
                    f"--init {self._folder}: {name} is {list(shape)} there, and {list(parameter.shape)} in the model"
                )

    def fill(self, prefix: str, module: nn.Module) -> None:
        """Copy the tensors of a module that is known by its name in the model."""
        for name, parameter in module.named_parameters(recurse=True):
            held = self._name(lora.plain(f"{prefix}.{name}" if prefix else name))
            if held is not None and not parameter.is_meta:
                parameter.copy_(self._open[self._where[held]].get_tensor(held))

    def identity(self) -> str:
        """Tells these weights from others of the same shapes: a digest of each tensor's name, shape and first row.

        Training changes all of them; to read all of a large model for this would take minutes.
        """
        digest = hashlib.sha256()
        for name in sorted(self._where):
            part = self._open[self._where[name]].get_slice(name)
            first = part[:1] if part.get_shape() else self._open[self._where[name]].get_tensor(name)
            digest.update(f"{name} {part.get_dtype()} {part.get_shape()} ".encode())
            digest.update(first.flatten().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _name(self, name: str) -> str | None:
        return next((held for held in (name, name.removeprefix(self._prefix)) if held in self._where), None)


@torch.no_grad()
def load(model: nn.Module, folder: Path) -> None:
    """Fill a model that is whole on this rank.

    Raises:
        BadInputError: The folder has not its weights.
    """
    held = Weights(folder, str(getattr(model, "base_model_prefix", "")))
    held.check(model)
    held.fill("", model)


def whole_tensors(parameters: Mapping[str, Tensor], names: Iterable[str], keep: bool) -> Iterator[tuple[str, Tensor]]:
    """Each parameter, whole and on the CPU, one after another; where `keep` is false, empty. A collective each."""
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


class _Merged:
    """A model's parameters under the names of the model without adapters, which are merged into them."""

    def __init__(self, model: nn.Module) -> None:
        self._all = dict(model.named_parameters())
        self._adapters = {adapter.weight: adapter for adapter in lora.adapters(model)}
        self.names = {lora.plain(name): name for name in self._all if not lora.is_adapter(name)}

    def sizes(self) -> dict[str, int]:
        """Bytes of each parameter as fp32."""
        return {name: self._all[held].numel() * 4 for name, held in self.names.items()}

    def whole(self, names: Iterable[str], keep: bool) -> Iterator[tuple[str, Tensor]]:
        """As `whole_tensors`."""
        for name in names:
            adapter = self._adapters.get(name)
            parts = [self.names[name], *((adapter.a, adapter.b) if adapter else ())]
            tensor, *matrices = (found for _, found in whole_tensors(self._all, parts, keep))
            yield name, (tensor + adapter.delta(*matrices)).contiguous() if adapter and keep else tensor


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


def export(model: nn.Module, folder: Path, tokenizer: Path | str | None, ranks: Ranks, template: str = "") -> None:
    """Write a folder that `from_pretrained` loads: fp32 weights in files of 4 GiB, configuration, tokenizer.

    Args:
        model: Sharded or not; all ranks take part. Adapters are merged into its weights.
        folder: It is made, and an earlier export in it replaced.
        tokenizer: The folder that the tokenizer came from, its definition, or None for bytes.
        ranks: The first one writes.
        template: The chat template to leave beside the model, where its tokenizer has none.

    Raises:
        TrainerError: The disk is full or failing.
    """
    merged = _Merged(model)
    files = split_by_size(merged.sizes(), FILE_BYTES)
    total = sum(merged.sizes().values())
    _write(folder, files, total, lambda _, held: dict(merged.whole(held, ranks.first)), ranks)
    with ranks.together():
        if ranks.first:
            _describe_text(model, folder, tokenizer, template)


def export_stages(
    model: nn.Module, parameters: Mapping[str, Tensor], folder: Path, tokenizer: Path | str | None, ranks: Ranks
) -> None:
    """The same of a model whose parameters are spread over the ranks: a file for each rank, all written by the first.

    Args:
        model: The whole model, which may be on meta.
        parameters: Those that are on this rank, by name.
        folder: See `export`.
        tokenizer: See `export`.
        ranks: All take part.
    """
    shapes = ranks.gather({name: list(tensor.shape) for name, tensor in parameters.items()})

    def fetched(source: int, names: list[str]) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name in names if ranks.rank in (0, source) else ():
            mine = ranks.rank == source
            tensor = parameters[name].detach().float().cpu() if mine else torch.empty(shapes[source][name])
            if not mine:
                dist.recv(tensor, source)
            elif source:
                dist.send(tensor.contiguous(), 0)
            tensors[name] = tensor.contiguous()
        return tensors

    total = sum(p.numel() * 4 for p in model.parameters())
    _write(folder, [list(held) for held in shapes], total, fetched, ranks)
    with ranks.together():
        if ranks.first:
            _describe_text(model, folder, tokenizer, "")


def _write(
    folder: Path,
    files: list[list[str]],
    total: int,
    fetch_file: Callable[[int, list[str]], dict[str, Tensor]],
    ranks: Ranks,
) -> None:
    """Write files of `total` bytes; `fetch_file` gives the first rank the tensors of one, by number and names.

    What is in the folder stays until all of them are whole: a full disk or a kill costs no earlier model.
    """
    names = [f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)]
    if len(files) == 1:
        names = [WHOLE]
    with ranks.together():
        if ranks.first:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                _remove(folder.glob(_PARTS))
    for number, (file, held) in enumerate(zip(names, files, strict=True)):
        tensors = fetch_file(number, held)
        with ranks.together():
            if ranks.first:
                with writing(folder / file):
                    _save(tensors, folder / f".{file}.part")
    with ranks.together():
        if ranks.first:
            with writing(folder):
                for file in names:
                    (folder / f".{file}.part").replace(folder / file)
                earlier = (path for name in _MODELS for path in folder.glob(name) if path.name not in names)
                _remove((*earlier, folder / INDEX, folder / ADAPTER))
            _describe(folder, dict(zip(names, files, strict=True)), total)


def split_by_size(sizes: dict[str, int], most: int) -> list[list[str]]:
    """Names in groups of at most `most` bytes together, in their order."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if filled + size > most and groups[-1]:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def replace_file(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a file of tensors; an earlier one stays until it is whole.

    Raises:
        OSError: The disk is full or failing.
    """
    part = path.with_name(f".{path.name}.part")
    _save(tensors, part)
    part.replace(path)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, str(path), metadata={"format": "pt"})
        paths.open_to_others([path])
    except SafetensorError as error:  # it wraps what the system said
        _remove(path.parent.glob(_PARTS))
        raise OSError(0, str(error)) from None


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _describe(folder: Path, files: dict[str, list[str]], total: int) -> None:
    """Write which file has which tensor, where there are several."""
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_atomically(folder / INDEX, json.dumps(index, indent=2) + "\n")


def _describe_text(model: nn.Module, folder: Path, tokenizer: Path | str | None, template: str) -> None:
    """Write the configuration, the tokenizer, and how both begin and end a text."""
    config: Any = model.config
    values = config.to_dict() | {
        "architectures": [type(model).__name__.removeprefix("FSDP")], "dtype": "float32", "use_cache": True,
    }  # fmt: skip
    end = tokenizer_files.write(folder, tokenizer, models.shape(values).positions, template)
    if values.get("eos_token_id") is None:
        values["eos_token_id"] = end
    write_atomically(folder / "config.json", json.dumps(values, indent=2, default=str) + "\n")
    if not (folder / tokenizer_files.GENERATION).exists():
        ids = {name: values.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        known = {name: number for name, number in ids.items() if number is not None}
        write_atomically(folder / tokenizer_files.GENERATION, json.dumps(known, indent=2) + "\n")


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
