"""What a run leaves behind: a Hugging Face folder. A model is never whole in memory."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from stackrt.finetune import lora
from stackrt.train import models, paths, tokenizer_files
from stackrt.train.layout import AS_IT_IS, Layout
from stackrt.train.ranks import Ranks
from stackrt.train.report import write_atomically, writing
from stackrt.train.weights import INDEX, WHOLE, persistent, whole_tensors

ADAPTER = "adapter_config.json"  # beside a model, it makes from_pretrained load that adapter's base instead
FILE_BYTES = 4 << 30
_PARTS = ".*.safetensors.part"  # files that are being written
_MODELS = (WHOLE, "model-*-of-*.safetensors", "adapter_model.safetensors", "quantized.safetensors")  # of an earlier one


def write(
    model: nn.Module,
    folder: Path,
    tokenizer: Path | str | None,
    ranks: Ranks,
    template: str = "",
    layout: Layout = AS_IT_IS,
) -> None:
    """Write a folder that `from_pretrained` loads: fp32 weights in files of 4 GiB, configuration, tokenizer.

    Args:
        model: Sharded or not; all ranks take part. Adapters are merged into its weights.
        folder: It is made, and an earlier export in it replaced.
        tokenizer: The folder that the tokenizer came from, its definition, or None for bytes.
        ranks: The first one writes.
        template: The chat template to leave beside the model, where its tokenizer has none.
        layout: How files name and hold the model's parameters.

    Raises:
        TrainerError: The disk is full or failing.
    """
    merged = _Merged(model)
    sizes = merged.sizes()
    groups = {held[0]: held for held in layout.groups(sizes)}
    parts = split_by_size({first: sum(sizes[name] for name in held) for first, held in groups.items()}, FILE_BYTES)
    files = [[name for first in part for name in groups[first]] for part in parts]

    def fetched(_: int, held: list[str]) -> dict[str, Tensor]:
        tensors = dict(merged.whole(held, ranks.first))
        return layout.stored(tensors) if ranks.first else tensors

    _write(folder, files, sum(sizes.values()), fetched, ranks)
    with ranks.together():
        if ranks.first:
            _describe_text(model, folder, tokenizer, template)


def write_stages(
    model: nn.Module, parameters: Mapping[str, Tensor], folder: Path, tokenizer: Path | str | None, ranks: Ranks
) -> None:
    """The same of a model whose parameters are spread over the ranks: a file for each rank, all written by the first.

    Args:
        model: The whole model, which may be on meta.
        parameters: Those that are on this rank, by name.
        folder: See `write`.
        tokenizer: See `write`.
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


class _Merged:
    """A model's parameters and kept buffers, by their names without adapters, which are merged into them."""

    def __init__(self, model: nn.Module) -> None:
        self._all = dict(model.named_parameters()) | persistent(model)
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
    stored: dict[str, list[str]] = {}
    for number, (file, held) in enumerate(zip(names, files, strict=True)):
        tensors = fetch_file(number, held)
        stored[file] = list(tensors)
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
            _describe(folder, stored, total)


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
