"""For a Keras model: TensorFlow Serving's REST API, and the Open Inference Protocol v2."""

import asyncio
import math
import time
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stackrt.serve.asked import RequestError, read
from stackrt.serve.options import Options
from stackrt.serve.pictures import Engine, Rows, Signature
from stackrt.serve.waiting import ClosedError, FullError
from stackrt.serve.watch import Watch

VERSION = "1"
_TYPES = {"float64": "FP64", "float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int64": "INT64",
          "int32": "INT32", "int16": "INT16", "int8": "INT8", "uint8": "UINT8", "bool": "BOOL"}  # fmt: skip
_TF = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "int32": "DT_INT32", "int64": "DT_INT64", "uint8": "DT_UINT8"}
_MOST_SIDES = 16
_GIVEN = {*_TYPES.values(), "UINT16", "UINT32", "UINT64"} - {"BF16"}


def refuse(error: RequestError) -> dict[str, Any]:
    """An error as both protocols know it."""
    return {"error": str(error)}


class Api:
    """The routes."""

    def __init__(self, o: Options, name: str, signature: Signature, engine: Engine, watch: Watch) -> None:
        self._o, self._name, self._signature, self._engine, self._watch = o, name, signature, engine, watch

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            *(Route(f"/v1/models/{{model}}{version}{tail}", handler, methods=[method])
              for version in ("", "/versions/{version}")
              for tail, handler, method in (("", self._tf_status, "GET"), ("/metadata", self._tf_metadata, "GET"))),
            Route("/v1/models/{model}/versions/{version}:{verb}", self._tf_predict, methods=["POST"]),
            Route("/v1/models/{model}:{verb}", self._tf_predict, methods=["POST"]),
            Route("/v2", self._v2_server),
            *(Route(f"/v2/models/{{model}}{version}{tail}", handler, methods=[method])
              for version in ("", "/versions/{version}")
              for tail, handler, method in (
                  ("", self._v2_model, "GET"), ("/ready", self._v2_ready, "GET"), ("/infer", self._v2_infer, "POST"))),
        ]  # fmt: skip

    def _named(self, request: Request) -> None:
        params = request.path_params
        if params["model"] != self._name:
            raise RequestError(f"there is no model {params['model'][:80]!r} here, but {self._name!r}", 404)
        if params.get("version", VERSION) != VERSION:
            raise RequestError(f"{self._name} has version {VERSION} alone", 404)

    # -- TensorFlow Serving

    async def _tf_status(self, request: Request) -> Response:
        self._named(request)
        status = {"error_code": "OK", "error_message": ""}
        return JSONResponse({"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": status}]})

    async def _tf_metadata(self, request: Request) -> Response:
        self._named(request)
        s = self._signature

        def described(name: str, shape: tuple[int | None, ...], dtype: str) -> dict[str, Any]:
            sides = [{"size": str(-1 if side is None else side), "name": ""} for side in (None, *shape)]
            return {
                name: {"dtype": _TF.get(dtype, "DT_INVALID"), "tensor_shape": {"dim": sides, "unknown_rank": False}}
            }

        default = {"inputs": described(s.input_name, s.input_shape, s.input_dtype),
                   "outputs": described(s.output_name, s.output_shape, "float32"),
                   "method_name": "tensorflow/serving/predict"}  # fmt: skip
        spec = {"name": self._name, "signature_name": "", "version": VERSION}
        signatures = {"signature_def": {"signature_def": {"serving_default": default}}}
        return JSONResponse({"model_spec": spec, "metadata": signatures})

    async def _tf_predict(self, request: Request) -> Response:
        self._named(request)
        if request.path_params["verb"] != "predict":
            raise RequestError("this server knows :predict alone", 404)
        body = await request.body()
        inputs, by_row = await asyncio.to_thread(self._tf_read, body)
        outputs = await self._computed(inputs)
        found = await asyncio.to_thread(outputs.tolist)
        return JSONResponse({"predictions" if by_row else "outputs": found})

    def _tf_read(self, body: bytes) -> tuple[Any, bool]:
        row = read(body)
        if unknown := [key for key in row if key not in ("instances", "inputs", "signature_name")]:
            raise RequestError(f"{unknown[0][:80]!r} is no key of this request")
        if row.get("signature_name", "serving_default") not in ("serving_default", "serve"):
            raise RequestError("the model has the signature serving_default alone")
        if ("instances" in row) == ("inputs" in row):
            raise RequestError("give either instances, a list of inputs, or inputs")
        by_row = "instances" in row
        given = row["instances"] if by_row else row["inputs"]
        name = self._signature.input_name
        if by_row:
            if not isinstance(given, list) or not given:
                raise RequestError("instances must be a list that is not empty")
            if all(isinstance(one, dict) for one in given):
                given = [self._only(one, name) for one in given]
        elif isinstance(given, dict):
            given = self._only(given, name)
        return self._array(given, "instances" if by_row else "inputs"), by_row

    def _only(self, row: dict[str, Any], name: str) -> Any:
        if list(row) != [name]:
            raise RequestError(f"the model has one input, {name!r}")
        return row[name]

    # -- Open Inference Protocol v2

    async def _v2_server(self, request: Request) -> Response:
        return JSONResponse({"name": "stackrt.serve", "version": VERSION, "extensions": []})

    async def _v2_ready(self, request: Request) -> Response:
        self._named(request)
        return JSONResponse({"name": self._name, "ready": True})

    async def _v2_model(self, request: Request) -> Response:
        self._named(request)
        s = self._signature

        def described(name: str, shape: tuple[int | None, ...], dtype: str) -> dict[str, Any]:
            sides = [-1, *(-1 if side is None else side for side in shape)]
            return {"name": name, "datatype": _TYPES.get(dtype, "FP32"), "shape": sides}

        return JSONResponse({
            "name": self._name, "versions": [VERSION], "platform": "keras",
            "inputs": [described(s.input_name, s.input_shape, s.input_dtype)],
            "outputs": [described(s.output_name, s.output_shape, "float32")],
        })  # fmt: skip

    async def _v2_infer(self, request: Request) -> Response:
        self._named(request)
        if "inference-header-content-length" in request.headers:
            raise RequestError("the binary form of this protocol is not supported; send JSON")
        body = await request.body()
        inputs, given_id = await asyncio.to_thread(self._v2_read, body)
        outputs = await self._computed(inputs)
        data = await asyncio.to_thread(lambda: outputs.ravel().tolist())
        s = self._signature
        output = {"name": s.output_name, "datatype": "FP32", "shape": list(outputs.shape), "data": data}
        row = {"model_name": self._name, "model_version": VERSION, "outputs": [output]}
        return JSONResponse({**row, "id": given_id} if given_id else row)

    def _v2_read(self, body: bytes) -> tuple[Any, str]:
        row = read(body)
        inputs, name, given_id = row.get("inputs"), self._signature.input_name, row.get("id", "")
        if not isinstance(given_id, str) or len(given_id) > 200:
            raise RequestError("id must be a text")
        wanted = row.get("outputs", [])
        if not isinstance(wanted, list) or any(
            not isinstance(one, dict) or one.get("name") != self._signature.output_name for one in wanted
        ):
            raise RequestError(f"the model has one output, {self._signature.output_name!r}")
        if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
            raise RequestError("inputs must be a list of one tensor: the model has one input")
        tensor = inputs[0]
        if tensor.get("name") != name:
            raise RequestError(f"the model's input is {name!r}")
        if not isinstance(tensor.get("datatype"), str) or tensor["datatype"] not in _GIVEN:
            raise RequestError(f"datatype must be one of {', '.join(sorted(_GIVEN))}")
        shape: Any = tensor.get("shape")
        good = (
            isinstance(shape, list)
            and len(shape) <= _MOST_SIDES
            and all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 1 << 31 for side in shape)
        )
        if not good or not isinstance(tensor.get("data"), list):
            raise RequestError("a tensor has a shape, of whole numbers above 0, 16 at most, and data, a list")
        found = _numbers(tensor["data"], "data")
        if found.size != math.prod(shape):
            raise RequestError(f"data has {found.size} numbers, and shape {shape} asks for {math.prod(shape)}")
        return self._fitting(found.reshape(shape), "shape"), given_id

    # -- both

    def _array(self, given: Any, key: str) -> Any:
        return self._fitting(_numbers(given, key), key)

    def _fitting(self, found: Any, key: str) -> Any:
        """Inputs as the model takes them."""
        wanted = self._signature.input_shape
        fits = found.ndim == len(wanted) + 1 and all(
            side in (None, has) for side, has in zip(wanted, found.shape[1:], strict=True)
        )
        if not fits or not found.shape[0] or 0 in found.shape:
            shown = [-1, *(-1 if side is None else side for side in wanted)]
            raise RequestError(f"{key} has the shape {list(found.shape)}, and the model takes {shown}")
        if len(found) > self._o.max_batch * 16:
            raise RequestError(f"{key} has {len(found)} rows; {self._o.max_batch * 16} at most in one request", 413)
        dtype = self._signature.input_dtype
        if np.dtype(dtype).kind in "iu":
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            if bool(((found != np.floor(found)) | (found < low) | (found > high)).any()):
                raise RequestError(f"{key} must hold whole numbers from {low} to {high}")
            return found.astype(dtype)
        made = found.astype(dtype)
        if not bool(np.isfinite(made).all()):
            raise RequestError(f"{key} holds numbers that are too large for {dtype}")
        return made

    async def _computed(self, inputs: Any) -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def put(outputs: Any, why: str) -> None:
            def tell() -> None:
                if not done.done():
                    done.set_result((outputs, why))

            loop.call_soon_threadsafe(tell)

        rows = Rows(inputs, put)
        try:
            self._engine.waiting.put([rows])
        except FullError:
            raise RequestError("too many requests wait; try again in a moment", 429, retry=1) from None
        except ClosedError:
            raise RequestError("the server ends", 503, retry=1) from None
        self._watch.waiting.set(len(self._engine.waiting))
        began = time.monotonic()
        try:
            outputs, why = await asyncio.wait_for(done, self._o.time_limit)
        except TimeoutError:
            raise RequestError("the server is busy: it took too long", 503, retry=2) from None
        finally:
            rows.gone = True
            self._watch.waiting.set(len(self._engine.waiting))
        if why == "busy":
            waited = time.monotonic() - began
            raise RequestError(f"the server is busy: this request waited {waited:.0f} s", 503, retry=2)
        if outputs is None:
            raise RequestError("the model could not compute this; see the server's log", 500)
        if not bool(np.isfinite(outputs).all()):
            raise RequestError("the model computes what is no number for these inputs", 422)
        return outputs


def _numbers(given: Any, key: str) -> Any:
    """An array of fp64 from nested lists of numbers."""
    try:
        found = np.array(given)
    except (ValueError, TypeError, OverflowError):
        raise RequestError(f"{key} must be numbers in lists of one length on each level") from None
    if found.dtype.kind not in "fiub" or found.ndim > _MOST_SIDES:
        raise RequestError(f"{key} must hold numbers alone, of 64 bits at most")
    return found.astype(np.float64)
