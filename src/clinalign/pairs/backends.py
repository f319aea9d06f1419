"""An editor's backends: none (the rules), an API or its recorded replies, or the model that is being aligned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from clinalign.errors import RowError, UsageError
from clinalign.language.align import Edit
from clinalign.llm import Client, Replies, parse_reply, replies_folder
from clinalign.llm.messages import in_words
from clinalign.llm.replies import Entry, write
from clinalign.pairs.dialogue import Dialogue, Made, Request
from clinalign.pairs.options import PairOptions
from clinalign.storage import canonical, key_of

Item = TypeVar("Item")
Start = Callable[[Item], Edit | Dialogue]

BATCH = 64
"""Dialogues that the model in this process holds side by side."""


class Backend(Protocol):
    """Holds the dialogues of an editor."""

    def each(self, start: Start[Item], items: Sequence[Item]) -> Iterator[Made | RowError]:
        """What came of every item, in order; a RowError stands where there is no edit."""
        ...

    def usage(self) -> dict[str, int | float]:
        """What was asked, by count; empty where nobody was."""
        ...

    def record(self, path: Path) -> None:
        """Writes the replies for `editor: replay`, where there are any."""
        ...


def open_backend(options: PairOptions, *, vlm: Any = None, name: str = "") -> AbstractContextManager[Backend]:
    """The backend of `options.editor`, to be used in a `with` block.

    `vlm` is the model of `editor: self`; `name` tells its weights apart in the cache ("": its replies are not kept).
    Raises `UsageError` where the editor cannot work: no key, no recorded replies, no model.
    """
    if options.editor == "rule":
        return nullcontext(NoBackend())
    if options.editor == "self":
        if vlm is None:
            raise UsageError("pair.editor self: there is no model to ask; give build_pairs a backend opened with one")
        return nullcontext(LocalBackend(vlm, options, name))
    replay = options.replay if options.editor == "replay" else ""
    return APIBackend(Client(options.llm, replay=replay))


class NoBackend:
    """Asks nobody: the rules give their edits at once."""

    def each(self, start: Start[Item], items: Sequence[Item]) -> Iterator[Made | RowError]:
        for item in items:
            try:
                yield _made(start(item))
            except RowError as error:
                yield error

    def usage(self) -> dict[str, int | float]:
        return {}

    def record(self, path: Path) -> None:
        """Nothing was said."""


class APIBackend:
    """Asks through a client, as many dialogues side by side as its options say."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __enter__(self) -> APIBackend:
        self.client.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.client.__exit__(*error)

    def each(self, start: Start[Item], items: Sequence[Item]) -> Iterator[Made | RowError]:
        return self.client.each(lambda item: self._hold(start(item)), items)

    def _hold(self, begun: Edit | Dialogue) -> Made:
        if isinstance(begun, Edit):
            return begun, None
        try:
            request = next(begun)
            while True:
                request = begun.send(self.client.ask(*request))
        except StopIteration as end:
            return end.value

    def usage(self) -> dict[str, int | float]:
        return self.client.usage()

    def record(self, path: Path) -> None:
        self.client.record(path)


class LocalBackend:
    """Asks the model in this process, text only, in batches. Its replies are kept like an endpoint's."""

    def __init__(self, vlm: Any, options: PairOptions, name: str) -> None:
        self.vlm, self.name = vlm, name
        self.longest = min(options.llm.max_tokens or vlm.max_positions, vlm.max_positions // 2)
        self.replies = Replies(replies_folder(options.llm.cache) if name else None)
        self.used: dict[str, Entry] = {}
        self.cached = 0

    def each(self, start: Start[Item], items: Sequence[Item]) -> Iterator[Made | RowError]:
        for at in range(0, len(items), BATCH):
            yield from self._batch(start, items[at : at + BATCH])

    def _batch(self, start: Start[Item], items: Sequence[Item]) -> list[Made | RowError]:
        """All dialogues of a batch, one turn of each at a time."""
        done: dict[int, Made | RowError] = {}
        open_: dict[int, Dialogue] = {}
        asked: dict[int, Request] = {}

        def advance(n: int, step: Callable[[], Request]) -> None:
            try:
                asked[n] = step()
            except StopIteration as end:
                done[n] = end.value
            except RowError as error:
                done[n] = error

        for n, item in enumerate(items):
            try:
                begun = start(item)
            except RowError as error:
                done[n] = error
                continue
            if isinstance(begun, Edit):
                done[n] = begun, None
            else:
                open_[n] = begun
                advance(n, begun.__next__)
        while asked:
            turn, asked = asked, {}
            for (n, (_, shape)), text in zip(turn.items(), self._texts(list(turn.values()))):
                try:
                    reply = parse_reply(text, shape) if isinstance(text, str) else text
                except RowError as error:
                    reply = error
                if isinstance(reply, RowError):
                    done[n] = reply
                else:
                    advance(n, lambda n=n, reply=reply: open_[n].send(reply))  # type: ignore[misc]
        return [done[n] for n in range(len(items))]

    def _texts(self, requests: Sequence[Request]) -> list[str | RowError]:
        """What the model says to each request; a RowError where it cannot be asked."""
        prompts = ["\n\n".join(m["content"] for m in in_words(messages, shape)) for messages, shape in requests]
        keys = [key_of({"model": self.name, "prompt": p, "max_new_tokens": self.longest}) for p in prompts]
        found: dict[str, str | RowError] = {}
        for key, prompt in zip(keys, prompts):
            entry = self.used.get(key) or self.replies.get(key)
            if entry is not None:
                self.cached += key not in self.used
                self.used[key] = entry
                found[key] = entry["text"]
            elif key not in found:
                error = self._refusal(prompt)
                if error is not None:
                    found[key] = error
        fresh = {key: prompt for key, prompt in zip(keys, prompts) if key not in found}
        said = self.vlm.generate([(p, []) for p in fresh.values()], max_new_tokens=self.longest) if fresh else []
        for key, answer in zip(fresh, said, strict=True):
            counts = {"prompt_tokens": 0, "completion_tokens": len(answer.token_ids)}
            entry = {"text": answer.text, "finish_reason": answer.finish_reason, "refusal": "", **counts}
            self.replies.put(key, entry)
            self.used[key] = entry
            found[key] = answer.text
        return [found[key] for key in keys]

    def _refusal(self, prompt: str) -> RowError | None:
        """Why the model cannot be asked this, if it cannot."""
        try:
            length = len(self.vlm.prompt_ids(prompt, []))
        except RowError as error:
            return RowError("reply", "rejected", error.detail)
        if length + self.longest > self.vlm.max_positions:
            return RowError("reply", "rejected", f"a prompt of {length} tokens does not fit into the model's positions")
        return None

    def usage(self) -> dict[str, int | float]:
        tokens = sum(entry["completion_tokens"] for entry in self.used.values())
        return {"replies": len(self.used), "cached": self.cached, "completion_tokens": tokens}

    def record(self, path: Path) -> None:
        write(path, "".join(canonical({"request": key, **self.used[key]}) + "\n" for key in sorted(self.used)))


def _made(begun: Edit | Dialogue) -> Made:
    if isinstance(begun, Edit):
        return begun, None
    raise TypeError("this editor holds a dialogue and needs somebody to ask")
