"""The chat client against a server that fails: nothing is lost, nothing is asked twice, nothing leaks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from clinalign.errors import RowError, UsageError
from clinalign.llm import REASONS, Client, LLMOptions, parse_reply, system, user
from clinalign.llm.replies import entry_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from loopback import serve


class Echo(BaseModel):
    model_config = ConfigDict(extra="forbid")

    word: str
    known: bool


def echo(body: dict[str, Any]) -> str:
    return json.dumps({"word": body["messages"][-1]["content"], "known": True})


def options(url: str, cache: Path | str, **more: Any) -> LLMOptions:
    given: dict[str, Any] = {"base_url": url, "model": "m", "cache": str(cache), "backoff_s": 0.005}
    return LLMOptions(**given | more)


def test_the_request_carries_the_schema_and_the_sampling(tmp_path: Path) -> None:
    with serve(echo) as server, Client(options(server.url, tmp_path, extra={"top_p": 0.5}, max_tokens=7)) as client:
        assert client.ask([system("s"), user("hello")], Echo) == Echo(word="hello", known=True)
    (body,) = server.log
    form = body["response_format"]["json_schema"]
    assert form["strict"] is True and form["schema"]["required"] == ["word", "known"]
    assert form["schema"]["additionalProperties"] is False
    assert (body["temperature"], body["max_tokens"], body["top_p"], body["model"]) == (0.0, 7, 0.5, "m")
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("output, form", [("json", {"type": "json_object"}), ("none", None)])
def test_without_a_schema_it_is_asked_for_in_words(output: str, form: Any, tmp_path: Path) -> None:
    with serve(echo) as server, Client(options(server.url, tmp_path, output=output)) as client:
        assert client.ask([system("s"), user("hello")], Echo).word == "hello"
    (body,) = server.log
    assert body.get("response_format") == form
    assert body["messages"][0]["content"].startswith("s\n\n") and '"required"' in body["messages"][0]["content"]


def test_an_image_travels_as_a_data_url_and_never_reaches_the_cache(tmp_path: Path) -> None:
    with serve(lambda body: "seen") as server, Client(options(server.url, tmp_path)) as client:
        assert client.say([user("what is it?", [b"\x89PNG123"])]) == "seen"
    parts = server.log[0]["messages"][0]["content"]
    assert parts[0]["image_url"]["url"] == "data:image/png;base64,iVBORzEyMw==" and parts[1]["text"] == "what is it?"
    (kept,) = tmp_path.rglob("*.json")
    assert "iVBOR" not in kept.read_text() and "what is it" not in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "fault",
    ["429", "429 without a time", "500", "503", "slow", "trickle", "cut", "not http json", "no choices"],
)
def test_a_passing_fault_is_outlived(fault: str, tmp_path: Path) -> None:
    with serve(echo, lambda body, tries: fault if tries < 1 else "") as server:
        with Client(options(server.url, tmp_path, timeout_s=1.0)) as client:
            assert client.ask([user("hello")], Echo).word == "hello"
            assert client.usage()["requests"] == 2 and client.usage()["retries"] == 1
    assert server.faults[fault] == 1


@pytest.mark.parametrize("fault", ["malformed", "outside schema", "prose"])
def test_a_reply_that_cannot_be_read_is_asked_for_again_with_the_fault_named(fault: str, tmp_path: Path) -> None:
    with serve(
        lambda body: '{"word": "hello", "known": true}', lambda body, tries: fault if len(body["messages"]) == 1 else ""
    ) as server:
        with Client(options(server.url, tmp_path)) as client:
            assert client.ask([user("hello")], Echo).word == "hello"
    assert len(server.log) == 2 and server.log[1]["messages"][1]["role"] == "assistant"
    assert "cannot be read" in server.log[1]["messages"][2]["content"]


@pytest.mark.parametrize(
    "fault, reason, requests",
    [
        ("slow", "timed_out", 2),
        ("trickle", "timed_out", 2),
        ("500", "endpoint_failed", 2),
        ("cut", "endpoint_failed", 2),
        ("429", "endpoint_failed", 2),
        ("malformed", "unparsable", 2),
        ("outside schema", "unparsable", 2),
        ("cut off", "unparsable", 1),
        ("refusal", "refused", 1),
        ("refusal in words", "refused", 1),
        ("filtered", "refused", 1),
        ("400", "rejected", 1),
    ],
)
def test_a_lasting_fault_has_its_reason_and_is_not_asked_again(
    fault: str, reason: str, requests: int, tmp_path: Path
) -> None:
    with serve(echo, lambda body, tries: fault) as server:
        for _ in range(2):
            with Client(options(server.url, tmp_path, retries=1, timeout_s=1.0)) as client:
                with pytest.raises(RowError) as caught:
                    client.ask([user("hello")], Echo)
            assert (caught.value.field, caught.value.reason) == ("reply", reason) and reason in REASONS
            assert len(server.log) == requests
    assert client.usage()["requests"] == 0


def test_what_failed_is_asked_again_on_request(tmp_path: Path) -> None:
    with serve(echo, lambda body, tries: "500" if tries < 1 else "") as server:
        with Client(options(server.url, tmp_path, retries=0)) as client, pytest.raises(RowError):
            client.ask([user("hello")], Echo)
        # the with statement above saw no error leave it, so the failure is on disk
        with Client(options(server.url, tmp_path, retries=0, retry_failed=True)) as client:
            assert client.ask([user("hello")], Echo).word == "hello"
        with Client(options(server.url, tmp_path)) as client:
            assert client.ask([user("hello")], Echo).word == "hello"
    assert len(server.log) == 2


@pytest.mark.parametrize(
    "fault, words",
    [
        ("401", "api_key_env"),
        ("404", "does it end in /v1"),
        ("no schema", "set llm.output to json or none"),
        ("tomorrow", "asks to wait 86400 s"),
    ],
)
def test_an_endpoint_that_is_of_no_use_ends_the_work_in_one_line(fault: str, words: str, tmp_path: Path) -> None:
    with serve(echo, lambda body, tries: fault) as server, pytest.raises(UsageError, match=words) as caught:
        with Client(options(server.url, tmp_path)) as client:
            list(client.each(lambda n: client.ask([user(str(n))], Echo), range(100)))
    assert "\n" not in str(caught.value)
    assert len(server.log) <= 8 and not list(tmp_path.rglob("*.json"))


def test_an_endpoint_that_fails_every_request_is_given_up_and_nothing_is_remembered(tmp_path: Path) -> None:
    with serve(echo, lambda body, tries: "500") as server, pytest.raises(UsageError, match="in a row"):
        with Client(options(server.url, tmp_path, retries=0, concurrency=2)) as client:
            list(client.each(lambda n: client.ask([user(str(n))], Echo), range(500)))
    assert len(server.log) < 30 and not list(tmp_path.rglob("*.json"))


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(UsageError, match="cannot be reached.*start it or correct llm.base_url"):
        with Client(options(f"http://127.0.0.1:{port}/v1", tmp_path, backoff_s=5.0)) as client:
            client.ask([user("hello")], Echo)
    with pytest.raises(UsageError, match="cannot be reached"):
        Client(options(f"http://127.0.0.1:{port}/v1", tmp_path)).check()
    assert time.monotonic() - start < 3, "an endpoint that was never there is not waited for"


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x/v1", "http://"])
def test_an_address_that_is_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="llm"), Client(options(url, tmp_path)) as client:
        client.ask([user("hello")], Echo)


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    with pytest.raises(UsageError, match=r"\$THE_KEY is not set"):
        Client(options("http://x/v1", tmp_path, api_key_env="THE_KEY"))
    monkeypatch.setenv("THE_KEY", "sk-secret\n")
    with serve(echo, lambda body, tries: "500" if body["messages"][0]["content"] == "bad" else "") as server:
        given = options(server.url, tmp_path, api_key_env="THE_KEY", retries=0)
        with Client(given) as client:
            assert client.ask([user("good")], Echo).known
            with pytest.raises(RowError):
                client.ask([user("bad")], Echo)
            client.record(tmp_path / "replies.jsonl")
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in json.dumps(given.model_dump(mode="json"))
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 3 and not any("sk-secret" in text for text in written)
    with serve(echo, lambda body, tries: "401") as server, pytest.raises(UsageError) as caught:
        Client(options(server.url, tmp_path / "b", api_key_env="THE_KEY")).ask([user("good")], Echo)
    assert "sk-secret" not in str(caught.value) and "***" in str(caught.value)


def test_a_key_in_the_recipe_is_refused_and_not_repeated() -> None:
    for bad in ({"api_key_env": "sk-abc-123"}, {"base_url": "http://me:sk-abc-123@host/v1"}):
        with pytest.raises(ValidationError) as caught:
            LLMOptions(**bad)
        assert "sk-abc-123" not in caught.value.errors()[0]["msg"]
        assert isinstance(caught.value.errors()[0]["input"], dict), "a recipe's error shows no value for it"


def test_many_at_once_but_no_more_than_allowed_in_order_and_each_once(tmp_path: Path) -> None:
    def speak(body: dict[str, Any]) -> str:
        time.sleep(0.01)
        return echo(body)

    with serve(speak) as server, Client(options(server.url, tmp_path, concurrency=5)) as client:
        asked = [str(n % 30) for n in range(120)]
        assert [reply.word for reply in client.each(lambda w: client.ask([user(w)], Echo), asked)] == asked
    assert 2 <= server.busiest <= 5
    assert len(server.log) == 30, "the same question is asked once, also when it comes twice at a time"


def test_counts_tokens_and_costs(tmp_path: Path) -> None:
    with serve(echo) as server:
        for spent in (3 * (10 * 2.0 + 5 * 8.0) / 1e6, 0.0):
            with Client(options(server.url, tmp_path, price_in=2.0, price_out=8.0)) as client:
                for word in ("a", "b", "c", "a"):
                    client.ask([user(word)], Echo)
            usage = client.usage()
            assert (usage["replies"], usage["prompt_tokens"], usage["completion_tokens"]) == (3, 30, 15)
            assert usage["cost"] == pytest.approx(180 / 1e6) and usage["spent"] == pytest.approx(spent)
    assert usage["cached"] == 3 and usage["requests"] == 0


def test_recorded_replies_are_served_without_an_endpoint(tmp_path: Path) -> None:
    with serve(echo) as server, Client(options(server.url, tmp_path / "cache")) as client:
        client.ask([user("a \u2028 b")], Echo)
        client.record(tmp_path / "replies.jsonl")
    for source in (tmp_path / "replies.jsonl", tmp_path / "cache"):
        with Client(LLMOptions(model="m"), replay=source) as client:
            assert client.ask([user("a \u2028 b")], Echo).word == "a \u2028 b"
            with pytest.raises(RowError) as caught:
                client.ask([user("c")], Echo)
            assert caught.value.reason == "not_recorded" and client.usage()["requests"] == 0
    with pytest.raises(UsageError, match="no such file of recorded replies"):
        Client(LLMOptions(model="m"), replay=tmp_path / "missing.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"request": "x", "text": "y"}\nnot json\n')
    with pytest.raises(UsageError, match="bad.jsonl:2: not a recorded reply"):
        Client(LLMOptions(model="m"), replay=tmp_path / "bad.jsonl")


def test_a_torn_file_in_the_cache_is_asked_again_and_mended(tmp_path: Path) -> None:
    with serve(echo) as server:
        for damage in (b"", b'{"text": "hal', b"[]", b"\xff\xfe"):
            with Client(options(server.url, tmp_path)) as client:
                client.ask([user("hello")], Echo)
            (kept,) = tmp_path.rglob("*.json")
            kept.write_bytes(damage)
        with Client(options(server.url, tmp_path)) as client:
            client.ask([user("hello")], Echo)
    assert len(server.log) == 5
    assert json.loads(kept.read_text())["text"]


def test_check_says_what_is_served_and_offers_the_nearest_name(tmp_path: Path) -> None:
    with serve(echo) as server:
        assert Client(options(server.url, tmp_path)).check() == f"{server.url} serves m"
        with pytest.raises(UsageError, match="serves no 'othr'; did you mean 'other'"):
            Client(options(server.url, tmp_path, model="othr")).check()
        server.loading = True
        with pytest.raises(UsageError, match="is not ready"):
            Client(options(server.url, tmp_path)).check()


@pytest.mark.parametrize(
    "text",
    [
        '{"word": "a", "known": true}',
        '```json\n{"word": "a", "known": true}\n```',
        '<think>{"word": "no", "known": false}</think>\n{"word": "a", "known": true} I hope that helps.',
        'First {"plan": 1} and then {"word": "a", "known": true}',
        'set {a} = {"word": "a", "known": true}',
    ],
)
def test_an_object_is_found_in_what_is_said_around_it(text: str) -> None:
    assert parse_reply(text, Echo) == Echo(word="a", known=True)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "unparsable"),
        ("{" * 3000, "unparsable"),
        ('{"word": "a"}', "unparsable"),
        ('{"word": "a", "known": true, "more": 1}', "unparsable"),
        ("I cannot assist with that request.", "refused"),
        ('{"word": "I\'m sorry', "unparsable"),
    ],
)
def test_what_has_not_the_shape_is_no_reply(text: str, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_reply(text, Echo)
    assert caught.value.reason == reason


KILLED = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started with it ignored
sys.path.insert(0, {here!r})
from test_llm_client import Client, Echo, options, user
with Client(options({url!r}, {cache!r}, concurrency=4)) as client:
    for reply in client.each(lambda n: client.ask([user(str(n))], Echo), range(80)):
        print(reply.word, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_killed_in_the_middle_it_asks_only_what_is_left(how: signal.Signals, tmp_path: Path) -> None:
    def speak(body: dict[str, Any]) -> str:
        time.sleep(0.02)
        return echo(body)

    with serve(speak) as server:
        code = KILLED.format(here=str(Path(__file__).parent), url=server.url, cache=str(tmp_path))
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while len(server.log) < 30 and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, how)
        start = time.monotonic()
        process.wait(timeout=20)
        assert process.returncode != 0 and time.monotonic() - start < 5
        time.sleep(0.1)
        kept, before = len(list(tmp_path.rglob("*.json"))), len(server.log)
        assert 20 <= kept <= before
        with Client(options(server.url, tmp_path)) as client:
            words = [reply.word for reply in client.each(lambda n: client.ask([user(str(n))], Echo), range(80))]
        assert words == [str(n) for n in range(80)]
        assert len(server.log) - before == 80 - kept
    assert not list(tmp_path.rglob("*.part")) or how == signal.SIGKILL


def test_importing_it_is_light() -> None:
    code = "import sys, clinalign.llm; print({'torch', 'transformers', 'httpx2', 'numpy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_a_reply_without_end_is_a_failure_of_the_endpoint(tmp_path: Path) -> None:
    with serve(lambda body: "x" * 100_000) as server:
        with Client(options(server.url, tmp_path, max_bytes=50_000, retries=1)) as client:
            with pytest.raises(RowError, match="llm.max_bytes") as error:
                client.say([user("hello")])
    assert error.value.reason == "endpoint_failed" and len(server.log) == 2


@pytest.mark.parametrize(
    "text", ["{" * 300_000, '{"word":' * 100_000, '{"word": "\\ud800", "known": true}', "[" * 300_000]
)
def test_a_reply_of_brackets_or_half_characters_is_unparsable_at_once(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(RowError) as error:
        parse_reply(text, Echo)
    assert error.value.reason == "unparsable" and time.monotonic() - started < 5


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e999}}', b"\xff"],
)
def test_a_body_that_is_no_completion(body: bytes) -> None:
    assert entry_of(body) is None


def test_half_a_character_in_a_reply_does_not_travel() -> None:
    entry = entry_of(b'{"choices": [{"message": {"content": "a \\ud800 b"}}]}')
    assert entry is not None and entry["text"] == "a ? b"
