"""Questions of a server to whoever watches: their form in the stream, and the answers in the form of the protocol. Pure.

A round of questions is stored with what the server needs to go on with the call, so that another process can, later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from unbroken.limits import Limits
from unbroken.mcp.failures import Failure, FailureClass
from unbroken.mcp.redaction import Redaction
from unbroken.runs.answers import refusal
from unbroken.runs.history import History

__all__ = ["Round", "answer_of", "question_of", "round_of", "saved_round"]

METHOD_CHARACTERS_MAX: Final = 100
Object = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: `requests` by their key, the server's opaque `state`, and how many `sent` were stored before it."""

    sent: int
    requests: Mapping[str, Object]
    state: str | None

    def ids(self) -> dict[str, str]:
        """The id of each question, by its key."""
        return {key: f"sent-{self.sent}-{number}" for number, key in enumerate(self.requests, start=1)}

    def stored(self, redact: Redaction) -> dict[str, object]:
        """As it is stored with its first question. A state without its secret is refused later, and asked anew."""
        state = None if self.state is None else redact(self.state)
        return {"sent": self.sent, "requests": self.requests, "state": state}


class _Stored(msgspec.Struct, frozen=True):
    sent: int
    requests: dict[str, dict[str, object]]
    state: str | None = None


class _Asked(msgspec.Struct, frozen=True):
    round: _Stored | None = None


def round_of(result: Object, sent: int, limits: Limits, redact: Redaction) -> Round:
    """The round that an `input_required` result begins; `Failure` for one that cannot be stored or asked."""
    requests, state = result.get("inputRequests"), result.get("requestState")
    requests = requests if isinstance(requests, dict) else {}
    found = Round(sent=sent, requests=requests, state=state if isinstance(state, str) else None)
    if len(requests) > limits.mcp_input_requests_max:
        raise _bad(f"the server asks more than {limits.mcp_input_requests_max} questions at once")
    if len(msgspec.json.encode(found.stored(redact))) > limits.run_checkpoint_bytes_max:
        raise _bad(f"the server's questions have more than {limits.run_checkpoint_bytes_max} bytes")
    for request in requests.values():
        question_of(request)
    return found


def saved_round(history: History) -> Round | None:
    """The round in which the stored call is: it was asked, and nothing was sent since."""
    latest: Round | None = None
    for body in history.asked.values():
        stored = msgspec.json.decode(body, type=_Asked).round
        if stored is not None and stored.sent == history.sent:
            latest = Round(sent=stored.sent, requests=stored.requests, state=stored.state)
    return latest


def question_of(request: Object) -> dict[str, object]:
    """A request of the server as it is asked; `Failure` for what we did not say that we can do."""
    params = request.get("params")
    if request.get("method") != "elicitation/create" or not isinstance(params, Mapping):
        method = str(request.get("method"))[:METHOD_CHARACTERS_MAX]
        raise _bad(f"the server asks for {method}, which this client does not offer")
    return elicitation(params)


def elicitation(params: Object) -> dict[str, object]:
    """What an elicitation asks, and of which form the answer is."""
    message = str(params.get("message") or "")
    if params.get("mode") == "url":
        return {"message": message, "url": str(params.get("url") or "")}
    schema = params.get("requestedSchema")
    return {"message": message, "schema": schema if isinstance(schema, dict) else {"type": "object"}}


def identity(params: Object, number: int) -> str:
    """The id of a question of the old protocol: the same for the same question of another execution."""
    digest = hashlib.sha256(msgspec.json.encode(elicitation(params), order="sorted")).hexdigest()[:16]
    return f"elicit-{digest}-{number}"


def answer_of(request: Object, response: object) -> dict[str, object]:
    """The elicitation result: an object is the content, null a refusal; `{"action": "decline"|"cancel"}` says which."""
    params = request.get("params", request)
    url = isinstance(params, Mapping) and params.get("mode") == "url"
    if (action := refusal(response)) is not None:
        return {"action": action}
    if url:
        return {"action": "accept"}
    if isinstance(response, Mapping):
        return {"action": "accept", "content": {name: _value(value) for name, value in response.items()}}
    return {"action": "accept", "content": {"value": _value(response)}}


def _value(value: object) -> object:
    """The protocol allows plain values and lists of texts."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return (
        value if isinstance(value, str | int | float | bool) or value is None else msgspec.json.encode(value).decode()
    )


def _bad(message: str) -> Failure:
    return Failure(kind=FailureClass.BAD_RESPONSE, message=message, answered=True)
