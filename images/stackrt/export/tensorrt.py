"""An engine of TensorRT from an ONNX file, for the kind of GPU that is here; and how it computes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stackrt.export.formats import NAME_IN, NAME_OUT, Run
from stackrt.train.errors import BadInputError, TrainerError

MOST = 32
"""Sequences in a batch that an engine takes."""


def write(source: Path, path: Path, context: int) -> Run:
    """Build an engine for batches of 1 to 32 and any length up to the context; gives it as it is read back.

    Raises:
        BadInputError: There is no GPU, or TensorRT cannot read the file.
        TrainerError: It built nothing.
    """
    if not torch.cuda.is_available():
        raise BadInputError("--to tensorrt: an engine is built on the GPU that it is for, and there is none here")
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(source.read_bytes()):
        raise BadInputError(f"--to tensorrt: {source} cannot be read: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # else it rounds more than the tolerance lets pass
    profile = builder.create_optimization_profile()
    profile.set_shape(NAME_IN, (1, 1), (8, context), (MOST, context))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise TrainerError(f"--to tensorrt: no engine could be built of {source}; what is above says why")
    path.write_bytes(bytes(engine))
    return _run(tensorrt.Runtime(logger).deserialize_cuda_engine(path.read_bytes()))


def _run(engine: Any) -> Run:
    context = engine.create_execution_context()
    stream = torch.cuda.current_stream()
    kinds = {"INT32": torch.int32, "INT64": torch.int64}
    kind = kinds.get(engine.get_tensor_dtype(NAME_IN).name, torch.int64)

    def run(ids: Tensor) -> Tensor:
        given = ids.to("cuda", kind).contiguous()
        context.set_input_shape(NAME_IN, tuple(given.shape))
        out = torch.empty(tuple(context.get_tensor_shape(NAME_OUT)), dtype=torch.float32, device="cuda")
        context.set_tensor_address(NAME_IN, given.data_ptr())
        context.set_tensor_address(NAME_OUT, out.data_ptr())
        if not context.execute_async_v3(stream.cuda_stream):
            raise TrainerError("--to tensorrt: the engine does not compute; what is above says why")
        stream.synchronize()
        return out.cpu()

    return run
