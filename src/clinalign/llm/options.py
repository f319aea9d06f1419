"""Settings of an endpoint. Light to import: recipes are read before anything heavy is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinalign.storage import cache_folder


class LLMOptions(BaseModel):
    """An OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, hosted) and how it is asked."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    base_url: str = Field("", description="Address up to and with the version, for example http://localhost:8000/v1")
    model: str = Field("", description="The model's name at the endpoint")
    api_key_env: str = Field(
        "", description="Name of the environment variable that holds the key; empty: the endpoint needs none"
    )
    output: Literal["schema", "json", "none"] = Field(
        "schema",
        description="How replies are held to JSON: schema (response_format json_schema), json (json_object) or none "
        "(asked for in words). Replies are validated whichever it is",
    )
    concurrency: int = Field(8, ge=1, le=512, description="Requests under way at once")
    timeout_s: float = Field(120.0, gt=0, description="Longest wait for one reply")
    retries: int = Field(5, ge=0, description="Further tries after 429, 5xx, a timeout or a cut connection")
    backoff_s: float = Field(1.0, ge=0, description="Wait before the first further try; doubled each time, jittered")
    max_wait_s: float = Field(300.0, gt=0, description="A Retry-After beyond this ends the run; it can be resumed")
    attempts: int = Field(2, ge=1, description="Times that a reply which cannot be read is asked for, the error named")
    max_bytes: int = Field(1 << 24, ge=1, description="A reply of more bytes counts as a failure of the endpoint")
    max_tokens: int | None = Field(1024, ge=1, description="Longest reply in tokens; null leaves it to the endpoint")
    temperature: float | None = Field(0.0, ge=0, description="null leaves it to the endpoint")
    extra: dict[str, Any] = Field(default_factory=dict, description="Further fields of the request's body")
    cache: str = Field("", description="Folder of the replies; empty: $CLINALIGN_CACHE or ~/.cache/clinalign; or off")
    retry_failed: bool = Field(False, description="Ask again what an earlier run asked in vain")
    price_in: float = Field(0.0, ge=0, description="Price of a million prompt tokens")
    price_out: float = Field(0.0, ge=0, description="Price of a million reply tokens")

    @model_validator(mode="after")
    def _no_secrets(self) -> LLMOptions:
        if self.api_key_env and not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env):
            raise ValueError("api_key_env is the name of an environment variable, never the key itself")
        if "@" in urlsplit(self.base_url).netloc:
            raise ValueError("base_url holds a user or password; put the key into a variable and name it api_key_env")
        return self


def replies_folder(setting: str = "") -> Path | None:
    """Where replies are kept, below the cache folder; None for "off"."""
    folder = cache_folder(setting)
    return folder / "replies" if folder else None
