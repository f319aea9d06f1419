"""One OpenAI-compatible chat client: constrained replies, bounded concurrency, retries, a cache on disk, replay.

    with Client(LLMOptions(base_url="http://localhost:8000/v1", model="m")) as client:
        verdict = client.ask([system("..."), user("...")], Verdict)             # Verdict: a pydantic model
        for found in client.each(lambda item: client.ask(asked(item), Verdict), items): ...

Light to import: recipes are read before a connection is thought of.
"""

from clinalign.llm.client import Client
from clinalign.llm.messages import Message, parse_reply, system, user
from clinalign.llm.options import LLMOptions, replies_folder
from clinalign.llm.replies import REASONS, Replies

__all__ = ["REASONS", "Client", "LLMOptions", "Message", "Replies", "replies_folder", "parse_reply", "system", "user"]
