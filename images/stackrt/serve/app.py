"""A worker: load the model, and make the application that answers for it."""

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stackrt.serve.asked import RequestError
from stackrt.serve.found import Model
from stackrt.serve.guard import FAILED, Guard, State, say
from stackrt.serve.options import Options
from stackrt.serve.waiting import Waiting
from stackrt.serve.watch import Watch


def make(found: Model, name: str, o: Options, state: State) -> tuple[Any, Callable[[], None]]:
    """The application, and what ends its engine.

    Raises:
        BadInputError: The model cannot be loaded.
    """
    watch = Watch()

    def batch(rows: int) -> None:
        watch.batch.observe(rows)

    def tell(text: str) -> None:
        say("error", engine=text)

    def note(text: str) -> None:
        say("loaded", model=name, what=text)

    engine: Any
    if found.kind == "language":
        from stackrt.serve import generate, language, openai_api, openai_json

        rows, words, ends = language.load(found, o, note)
        waiting: Waiting[Any] = Waiting(o.queue, o.queue_timeout)
        engine = generate.Engine(rows, waiting, o.max_batch, batch, tell)
        context = min(o.context, found.context)
        routes = openai_api.Api(o, name, words, ends, context, engine, watch).routes()
        refuse = openai_json.refuse
    else:
        from stackrt.serve import pictures, pictures_api

        compute, signature = pictures.load(found, note)
        engine = pictures.Engine(compute, Waiting(o.queue, o.queue_timeout), o.max_batch, o.batch_wait, batch, tell)
        routes = pictures_api.Api(o, name, signature, engine, watch).routes()
        refuse = pictures_api.refuse
    state.healthy = lambda: engine.alive

    async def live(_: Request) -> Response:
        return JSONResponse({"live": state.healthy()}, 200 if state.healthy() else 503)

    async def ready(_: Request) -> Response:
        good = state.healthy() and not state.draining
        return JSONResponse({"ready": good, "draining": state.draining}, 200 if good else 503)

    async def metrics(_: Request) -> Response:
        text, kind = watch.text()
        return Response(text, media_type=kind)

    async def refused(_: Request, error: Exception) -> Response:
        if isinstance(error, RequestError):
            more = {"retry-after": str(error.retry)} if error.retry else None
            return JSONResponse(refuse(error), error.status, headers=more)
        if not isinstance(error, HTTPException):  # the guard writes it into the log
            return JSONResponse(refuse(RequestError(FAILED, 500)), 500)
        said = {404: "there is nothing here", 405: "this path does not take that method"}
        told = RequestError(said.get(error.status_code, error.detail), error.status_code)
        return JSONResponse(refuse(told), error.status_code, headers=error.headers)

    probes = [Route(f"{base}/health/{what}", answer)
              for base in ("", "/v2") for what, answer in (("live", live), ("ready", ready))]  # fmt: skip
    handlers = dict.fromkeys((HTTPException, RequestError, Exception), refused)
    inner = Starlette(routes=[*probes, Route("/metrics", metrics), *routes], exception_handlers=handlers)
    return Guard(inner, o, state, watch, refuse), engine.close
