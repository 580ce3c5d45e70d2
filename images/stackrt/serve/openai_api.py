"""OpenAI's API for a language model: completions, chat completions, models; whole or as a stream."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from stackrt.serve.asked import Fields, RequestError, read, text
from stackrt.serve.generate import Engine, Row
from stackrt.serve.language import Words
from stackrt.serve.openai_json import delta, event, message, refuse, said
from stackrt.serve.options import Options
from stackrt.serve.pieces import OVERLAP, Pieces
from stackrt.serve.waiting import ClosedError, FullError
from stackrt.serve.watch import Watch

MOST_CHOICES = 16

_ASIDE = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
)
_KNOWN = _ASIDE | {"model", "max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "n"}
_REFUSED: dict[str, Any] = {
    "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}, "logprobs": False, "top_logprobs": 0,
    "echo": False, "suffix": "", "best_of": 1, "tools": [], "tool_choice": "none", "functions": [],
    "function_call": "none", "response_format": {"type": "text"}, "modalities": ["text"], "audio": None,
    "prediction": None, "reasoning_effort": None, "web_search_options": None,
}  # fmt: skip


@dataclass
class _Choice:
    """One answer of a request."""

    index: int
    row: Row
    pieces: Pieces


_Event = tuple[int, int | None, str]
"""Of which choice, its next token, and why there are no more."""


@dataclass
class _Work:
    """The choices of a request, and what the engine says of them."""

    choices: list[_Choice] = field(default_factory=list)
    events: "asyncio.Queue[_Event]" = field(default_factory=asyncio.Queue)

    def let_go(self) -> None:
        """Whatever is not done need not be."""
        for choice in self.choices:
            choice.row.gone = True

    async def pieces(self, first: _Event) -> AsyncIterator[tuple[_Choice, str, str]]:
        """Pieces of all choices as they come, and why each ends: `stop` or `length`."""
        open_, found = len(self.choices), first
        while True:
            index, token, why = found
            choice = self.choices[index]
            if not choice.pieces.stopped:
                piece = _last(choice, why) if token is None else choice.pieces.add(token)
                done = token is None or choice.pieces.stopped
                reason = "stop" if why == "stop" or choice.pieces.stopped else "length"
                yield choice, piece, reason if done else ""
                if done:
                    choice.row.gone = True
                    open_ -= 1
                    if not open_:
                        return
            found = await self.events.get()


def _last(choice: _Choice, why: str) -> str:
    """What is left to show of a choice that has ended."""
    _good(why)
    return choice.pieces.all(choice.row.tokens) if choice.row.whole else choice.pieces.end()


@dataclass(frozen=True)
class _Asked:
    """What a request asks for."""

    chat: bool
    prompts: list[list[int]]
    copies: int
    limit: int | None
    temperature: float
    top_p: float
    seed: int | None
    stops: list[str]
    stream: bool
    usage: bool


class Api:
    """The routes.

    Args:
        name: The model's name.
        words: Its tokenizer.
        ends: Tokens that end a text.
        context: The most tokens of a prompt and its answer.
    """

    def __init__(
        self, o: Options, name: str, words: Words, ends: frozenset[int], context: int, engine: Engine, watch: Watch
    ) -> None:
        self._o, self._name, self._words, self._ends, self._context = o, name, words, ends, context
        self._engine, self._watch, self._created = engine, watch, int(time.time())

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v1/models", self._models),
            Route("/v1/models/{model:path}", self._model),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
        ]

    def _card(self) -> dict[str, Any]:
        return {"id": self._name, "object": "model", "created": self._created, "owned_by": "stackctl",
                "max_model_len": self._context}  # fmt: skip

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def _model(self, request: Request) -> Response:
        self._named(request.path_params["model"])
        return JSONResponse(self._card())

    def _named(self, model: Any) -> None:
        if model != self._name:
            shown = repr(model)[:80]
            raise RequestError(f"there is no model {shown} here, but {self._name!r}", 404, "model", "model_not_found")

    async def _completions(self, request: Request) -> Response:
        return await self._answered(request, await request.body(), chat=False)

    async def _chat(self, request: Request) -> Response:
        return await self._answered(request, await request.body(), chat=True)

    async def _answered(self, request: Request, body: bytes, *, chat: bool) -> Response:
        # A long text takes its time to be read; the loop must go on.
        asked = (
            await asyncio.to_thread(self._read, body, chat=chat) if len(body) > 4096 else self._read(body, chat=chat)
        )
        work = self._submitted(asked)
        notes = request.scope["state"]["notes"]
        prompt = sum(len(ids) for ids in asked.prompts)
        self._watch.tokens.labels("prompt").inc(prompt)
        # A refusal must be a status: so a stream begins with its first event.
        first = await self._first(request, work)
        head = {
            "id": f"{'chat' if chat else ''}cmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self._name,
        }
        pieces = work.pieces(first)
        try:
            if asked.stream:
                return StreamingResponse(
                    self._streamed(asked, work, pieces, head, prompt, notes), media_type="text/event-stream",
                    headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
                )  # fmt: skip
            return JSONResponse(await self._whole(request, asked, work, pieces, head, prompt, notes))
        except BaseException:
            work.let_go()
            raise

    # -- what is asked

    def _read(self, body: bytes, *, chat: bool) -> _Asked:
        row = read(body)
        fields = Fields(row)
        fields.only(_KNOWN | ({"messages", "max_completion_tokens"} if chat else {"prompt"}), _REFUSED)
        self._named(row.get("model"))
        prompts = [self._messages(row.get("messages"))] if chat else self._prompts(row.get("prompt"))
        longest = max(map(len, prompts))
        if longest >= self._context:
            raise RequestError(
                f"the prompt has {longest} tokens, and the model takes {self._context} of prompt and answer together",
                param="messages" if chat else "prompt", code="context_length_exceeded",
            )  # fmt: skip
        copies = fields.whole("n", 1, 1, MOST_CHOICES) or 1
        if copies * len(prompts) > min(MOST_CHOICES, self._o.queue):
            raise RequestError(f"asks for {copies * len(prompts)} answers; {MOST_CHOICES} at most", param="n")
        # OpenAI's own default of completions is 16; a chat goes on as long as it can.
        limit = fields.whole("max_tokens", None if chat else 16, 1, 1 << 30)
        if chat:
            limit = fields.whole("max_completion_tokens", limit, 1, 1 << 30)
        options = row.get("stream_options")
        if options is not None and not isinstance(options, dict):
            raise RequestError("stream_options must be an object", param="stream_options")
        seed = fields.whole("seed", None, -(1 << 63), (1 << 63) - 1)
        return _Asked(
            chat=chat, prompts=prompts, copies=copies, limit=limit,
            temperature=fields.number("temperature", 1.0, 0.0, 2.0), top_p=fields.number("top_p", 1.0, 0.0, 1.0),
            seed=seed, stops=fields.words("stop", 4, 256), stream=fields.flag("stream"),
            usage=Fields(options or {}).flag("include_usage"),
        )  # fmt: skip

    def _prompts(self, given: Any) -> list[list[int]]:
        if given is None or isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
            given = [given]
        if not isinstance(given, list) or not given or len(given) > MOST_CHOICES:
            raise RequestError(f"prompt must be a text or a list of 1 to {MOST_CHOICES} texts", param="prompt")
        return [self._tokens(one) for one in given]

    def _tokens(self, given: Any) -> list[int]:
        if isinstance(given, str):
            return self._encoded(given, "prompt", special=True)
        if isinstance(given, list) and given:
            if all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < self._words.size for one in given):
                return given
            raise RequestError(f"token ids must be from 0 to {self._words.size - 1}", param="prompt")
        raise RequestError("prompt must be a text, a list of texts, or token ids", param="prompt")

    def _encoded(self, given: str, key: str, *, special: bool) -> list[int]:
        if len(given) > self._context * self._words.longest:  # without reading a book to its end
            raise RequestError(
                f"{key} has {len(given):,} characters: more than {self._context} tokens can be",
                param=key, code="context_length_exceeded",
            )  # fmt: skip
        found = self._words.encode(text(given, key), special=special)
        if not found:
            raise RequestError(f"{key} is empty", param=key)
        return found

    def _messages(self, given: Any) -> list[int]:
        if not isinstance(given, list) or not given or len(given) > 1000:
            raise RequestError("messages must be a list of 1 to 1000 messages", param="messages")
        messages = [message(row, index) for index, row in enumerate(given)]
        try:
            prompt, special = self._words.chat(messages)
        except ValueError as error:
            raise RequestError(f"the model's chat template refuses it: {error}", param="messages") from None
        return self._encoded(prompt, "messages", special=not special)

    # -- what is answered

    def _submitted(self, asked: _Asked) -> _Work:
        loop, deadline, work = asyncio.get_running_loop(), time.monotonic() + self._o.time_limit, _Work()
        for number, ids in enumerate(ids for ids in asked.prompts for _ in range(asked.copies)):

            def put(token: int | None, why: str, number: int = number) -> None:
                loop.call_soon_threadsafe(work.events.put_nowait, (number, token, why))

            room = self._context - len(ids)
            seed = None if asked.seed is None else (asked.seed + number) % (1 << 63)
            row = Row(
                ids, min(asked.limit or room, room), put, self._ends, asked.temperature, asked.top_p, seed, deadline,
                whole=not asked.stream and not asked.stops,
            )  # fmt: skip
            before = () if asked.chat else ids[-OVERLAP:]  # a chat's answer is a text of its own
            work.choices.append(_Choice(number, row, Pieces(self._words.decode, asked.stops, before)))
        try:
            self._engine.waiting.put([choice.row for choice in work.choices])
        except FullError:
            raise RequestError(
                "too many requests wait; try again in a moment", 429, code="overloaded", retry=1
            ) from None
        except ClosedError:
            raise RequestError("the server ends", 503, code="closing", retry=1) from None
        self._watch.waiting.set(len(self._engine.waiting))
        return work

    async def _first(self, request: Request, work: _Work) -> _Event:
        """The first event: a refusal, or the proof that it is this request's turn."""
        try:
            event: _Event = await _unless_gone(request, work.events.get())
            _good(event[2])
        except BaseException:
            work.let_go()
            raise
        row = work.choices[event[0]].row
        if row.first:
            self._watch.first.observe(row.first - row.since)
        self._watch.waiting.set(len(self._engine.waiting))
        return event

    async def _whole(
        self, request: Request, asked: _Asked, work: _Work, pieces: AsyncIterator[tuple[_Choice, str, str]],
        head: dict[str, Any], prompt: int, notes: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        texts, whys = [""] * len(work.choices), [""] * len(work.choices)

        async def gather() -> None:
            async for choice, piece, why in pieces:
                texts[choice.index] += piece
                whys[choice.index] = why or whys[choice.index]

        await _unless_gone(request, gather())
        answers = [
            said(index, piece, why, chat=asked.chat) for index, (piece, why) in enumerate(zip(texts, whys, strict=True))
        ]
        kind = "chat.completion" if asked.chat else "text_completion"
        return {**head, "object": kind, "choices": answers, "usage": self._usage(work, prompt, notes)}

    async def _streamed(
        self, asked: _Asked, work: _Work, pieces: AsyncIterator[tuple[_Choice, str, str]],
        head: dict[str, Any], prompt: int, notes: dict[str, Any],
    ) -> AsyncIterator[str]:  # fmt: skip
        head = {**head, "object": "chat.completion.chunk" if asked.chat else "text_completion"}
        more = {"usage": None} if asked.usage else {}
        begun: set[int] = set()
        try:
            async for choice, piece, why in pieces:
                if not piece and not why:
                    continue
                opening = asked.chat and choice.index not in begun
                begun.add(choice.index)
                yield event(
                    {**head, "choices": [delta(choice.index, piece, why, chat=asked.chat, opening=opening)], **more}
                )
            usage = self._usage(work, prompt, notes)
            if asked.usage:
                yield event({**head, "choices": [], "usage": usage})
            yield "data: [DONE]\n\n"
        except RequestError as error:  # its status is sent already
            yield event(refuse(error))
        finally:
            work.let_go()

    def _usage(self, work: _Work, prompt: int, notes: dict[str, Any]) -> dict[str, int]:
        made = sum(len(choice.row.tokens) for choice in work.choices)
        self._watch.tokens.labels("made").inc(made)
        notes |= {"prompt_tokens": prompt, "completion_tokens": made}
        return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def _good(why: str) -> None:
    if why == "busy":
        raise RequestError(
            "the server is busy: it was not this request's turn in time", 503, code="overloaded", retry=2
        )
    if why == "error":
        raise RequestError("the model could not compute this; see the server's log", 500)


async def _unless_gone(request: Request, work: Any) -> Any:
    """Do something, unless the client hangs up meanwhile.

    Raises:
        CancelledError: It has.
    """
    task = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise asyncio.CancelledError
        return task.result()
    finally:
        task.cancel()
        listening.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
