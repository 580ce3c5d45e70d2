from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from stackrt.launch.environment import IS_LINUX
from stackrt.serve.generate import Batch, Row
from tests.integration.serve.conftest import TOKEN
from tests.support.served import Served, language_model, served
from tests.support.waiting import until


def client(server: Served, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key=TOKEN, max_retries=0, timeout=120, **more)


def greedy(folder: Path, prompt: str, count: int) -> str:
    """What transformers alone makes of a prompt, byte for byte as the model was made."""
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    ids = library.encode(prompt).ids
    for _ in range(count):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return str(library.decode(ids[-count:]))


def test_the_openai_client_gets_what_the_model_says(words: Served, models: Path) -> None:
    api = client(words)
    assert [row.id for row in api.models.list()] == ["words"]
    asked: dict[str, Any] = {"model": "words", "prompt": "To be", "max_tokens": 20, "temperature": 0}
    answer = api.completions.create(**asked)
    wanted = greedy(models / "words", "To be", 20)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (wanted, "length")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 20)
    pieces = list(api.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == wanted
    assert pieces[-1].usage == answer.usage
    stop = wanted[8:10]
    stopped = api.completions.create(**asked, stop=[stop])
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == (wanted[: wanted.index(stop)], "stop")


def test_draws_without_a_choice_take_the_likeliest_token_and_leave_others_alone(words: Served, models: Path) -> None:
    api = client(words)
    wanted = greedy(models / "words", "To be", 12)
    more: list[dict[str, Any]] = [{"temperature": 0}, {"top_p": 0}, {"temperature": 1e-45}, {"temperature": 1e-9}]
    more.append({"temperature": 2, "top_p": 1e-12})

    def asked(options: dict[str, Any]) -> str:
        return str(api.completions.create(model="words", prompt="To be", max_tokens=12, **options).choices[0].text)

    with ThreadPoolExecutor(len(more)) as pool:
        assert list(pool.map(asked, more)) == [wanted] * len(more)


def test_a_row_whose_numbers_are_none_is_an_error_whether_drawn_or_not_and_leaves_others_alone() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=16, n_embd=8, n_layer=1, n_head=1))
    model.transformer.wte.weight.data[:] = torch.randn(16, 8)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.transformer.wte.weight.data[5] = float("nan")
    told: list[tuple[int, int | None, str]] = []

    def row(number: int, token: int, temperature: float) -> Row:
        return Row([token], 3, lambda made, why: told.append((number, made, why)), temperature=temperature)

    batch = Batch(model.eval(), 16)
    with torch.inference_mode():
        batch.join([row(0, 1, 0.0), row(1, 5, 0.0), row(2, 5, 1.0)])
    assert [(number, why) for number, _, why in told] == [(0, ""), (1, "error"), (2, "error")]
    assert len(batch.rows) == 1


def test_a_chat_is_answered_whole_and_as_a_stream_and_a_seed_repeats_it(words: Served) -> None:
    api = client(words)
    asked: dict[str, Any] = {
        "model": "words",
        "messages": [{"role": "user", "content": "Who?"}],
        "seed": 7,
        "max_tokens": 12,
    }
    whole = api.chat.completions.create(**asked, n=2)
    assert len({choice.message.content for choice in whole.choices}) == 2
    pieces = list(api.chat.completions.create(**asked, stream=True))
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content
    assert pieces[-1].choices[0].finish_reason == "length"


def test_requests_of_all_lengths_share_batches_and_get_what_they_would_alone(words: Served, models: Path) -> None:
    prompts = [("x" * length)[:length] + chr(97 + length) for length in (1, 3, 30, 7, 22, 1, 45, 12)]

    def ask(index: int) -> str:
        time.sleep(index * 0.02)  # so that they join a batch that runs
        asked: dict[str, Any] = {"model": "words", "prompt": prompts[index], "max_tokens": 8 + index, "temperature": 0}
        return str(client(words).completions.create(**asked).choices[0].text)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert found == [greedy(models / "words", prompt, 8 + index) for index, prompt in enumerate(prompts)]


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"model": "other"}, 404, "no model 'other' here, but 'words'"),
        ({"prompt": "x" * 64}, 400, "the prompt has 64 tokens, and the model takes 64"),
        ({"prompt": "x" * 100_000}, 400, "100,000 characters: more than 64 tokens can be"),
        ({"prompt": ""}, 400, "prompt is empty"),
        ({"prompt": [1, 256]}, 400, "token ids must be from 0 to 255"),
        ({"prompt": 3}, 400, "prompt must be a text"),
        ({"n": 17}, 400, "n must be from 1 to 16"),
        ({"temperature": "hot"}, 400, "temperature must be a number"),
        ({"logprobs": 3}, 400, "logprobs is not supported"),
        ({"stream": "yes"}, 400, "stream must be true or false"),
    ],
)
def test_what_cannot_be_answered_is_told(words: Served, asked: dict[str, Any], status: int, said: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client(words).completions.create(**{"model": "words", "prompt": "a", **asked})
    assert caught.value.status_code == status
    assert said in caught.value.message


def test_a_wrong_token_is_refused_and_a_changed_file_counts(words: Served) -> None:
    wrong = openai.OpenAI(base_url=f"{words.address}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="send the server's token"):
        wrong.models.list()
    file = words.log.parent / "token"
    try:
        file.write_text("wrong")
        assert until(lambda: _lists(wrong), 30)
    finally:
        file.write_text(TOKEN)
    assert until(lambda: _lists(client(words)), 30)


def _lists(api: openai.OpenAI) -> bool:
    try:
        return bool(api.models.list().data)
    except openai.AuthenticationError:
        return False


def test_a_client_that_hangs_up_frees_its_place(words: Served) -> None:
    with pytest.raises(openai.APITimeoutError):
        client(words).with_options(timeout=0.001).completions.create(model="words", prompt="a", max_tokens=60)
    stream = client(words).completions.create(model="words", prompt="a", max_tokens=60, stream=True)
    next(iter(stream))
    stream.close()

    def running() -> float:
        import urllib.request

        with urllib.request.urlopen(f"{words.address}/metrics") as answer:
            rows = answer.read().decode().splitlines()
        return next(float(row.split()[1]) for row in rows if row.startswith("stack_serve_running"))

    assert until(lambda: running() == 1, 30)  # the look at it


def test_overload_is_told_at_once_and_passes_and_a_batch_does_more_than_one_by_one(tmp_path: Path) -> None:
    model = language_model(tmp_path / "model", width=256, layers=4, context=128, spread=0.02)
    asked: dict[str, Any] = {"model": "model", "prompt": "Once", "max_tokens": 48, "temperature": 0}

    def speed(server: Served) -> float:
        """Answers a second of 16 clients."""
        api = client(server)
        api.completions.create(**asked)
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: api.completions.create(**asked), range(32)))
        return 32 / (time.monotonic() - began)

    with served(model, tmp_path / "one", "--max-batch", "1", "--name", "model") as server:
        alone = speed(server)
    with served(model, tmp_path / "many", "--max-batch", "16", "--queue", "16", "--name", "model") as server:
        together = speed(server)
        api = client(server)
        statuses, waits = list[int](), list[str]()

        def ask(_: int) -> None:
            try:
                api.completions.create(**asked)
                statuses.append(200)
            except openai.APIStatusError as error:
                statuses.append(error.status_code)
                waits.append(error.response.headers.get("retry-after", ""))

        with ThreadPoolExecutor(64) as pool:
            list(pool.map(ask, range(96)))
        assert set(statuses) == {200, 429}
        assert set(waits) == {"1"}
        assert api.completions.create(**asked).choices[0].text
    print(f"answers a second of 16 clients: {alone:.1f} one by one, {together:.1f} in batches")
    assert together >= 2 * alone


def test_a_server_that_ends_answers_what_it_has_and_what_still_comes(models: Path, tmp_path: Path) -> None:
    with served(models / "words", tmp_path / "log", "--workers", "2", "--drain", "1.5") as server:
        ended, codes = threading.Event(), []

        def ask(_: int) -> None:
            while not ended.is_set():
                try:
                    client(server).completions.create(model="words", prompt="a", max_tokens=4)
                    codes.append("ok")
                except openai.APIConnectionError:
                    return  # it has ended
                except openai.APIStatusError as error:
                    codes.append(str(error))

        with ThreadPoolExecutor(4) as pool:
            for index in range(4):
                pool.submit(ask, index)
            until(lambda: len(codes) > 8, 60)
            try:
                assert server.stop() == 0
            finally:
                ended.set()
        assert set(codes) == {"ok"}
        events = [row["event"] for row in server.rows]
        assert (events.count("draining"), events.count("ended")) == (2, 2)


@pytest.mark.skipif(not IS_LINUX, reason="only Linux ends children with their parent")
def test_workers_end_with_a_server_that_is_killed(models: Path, tmp_path: Path) -> None:
    """Else they would keep the port, and answer from the old model."""
    with served(models / "words", tmp_path / "log", "--workers", "2") as server:
        workers = {int(row["worker"]) for row in server.rows if row["event"] == "ready"}
        server.process.kill()
        server.process.wait()
        until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 15, lambda: workers)
