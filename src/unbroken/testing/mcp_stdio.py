"""An MCP server over standard input and output that misbehaves as it is told, for the tests of whatever calls tools.

Started as a program of its own (`stdio_command`), with the standard library alone, so that it starts quickly. A fault bites
the tool `faulty`; `steady` waits until the file in its argument `until` is there. It speaks the protocol of 2025-11-25.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["STDIO_FAULTS", "stdio_command"]

STDIO_FAULTS = (
    *("none", "exit", "killed", "frozen", "hang", "junk", "invalid utf-8", "endless line", "large", "stderr flood"),
    *("exit at start", "slow start", "bad answer", "wrong id", "stubborn", "grandchild", "is error", "rpc error"),
    *("log flood", "close stdout", "unknown version", "environment", "progress", "ask", "leak", "sampling"),
)
"""What can go wrong (or, for the last ones, what it does)."""

VERSION = "2025-11-25"
Json = dict[str, Any]


def stdio_command(fault: str = "none", *arguments: str) -> tuple[str, list[str]]:
    """The command and arguments that start it. `arguments`: the seconds of a slow start, the megabytes of a large result."""
    if fault not in STDIO_FAULTS:
        raise ValueError(f"{fault!r} is none of {', '.join(STDIO_FAULTS)}")
    return sys.executable, ["-S", "-E", str(Path(__file__)), fault, *arguments]


class _Server:
    def __init__(self, fault: str, arguments: list[str]) -> None:
        self.fault = fault
        self.arguments = arguments

    def run(self) -> None:
        """Answer until the input ends."""
        self.start()
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if "method" in message and "id" in message:
                self.answer(message)
        if self.fault == "stubborn":
            while True:
                time.sleep(60)

    def start(self) -> None:
        if self.fault == "exit at start":
            print(f"fatal: missing KEY (I was given {os.environ.get('SECRET', 'nothing')})", file=sys.stderr)
            raise SystemExit(3)
        if self.fault == "slow start":
            time.sleep(float(self.arguments[0]))
        if self.fault == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.fault == "grandchild":
            child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
            print(f"grandchild {child.pid}", file=sys.stderr, flush=True)
            self.pid = child.pid

    def answer(self, message: Json) -> None:
        method, identity = message["method"], message["id"]
        if method == "initialize":
            version = "1999-01-01" if self.fault == "unknown version" else VERSION
            about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "mock", "version": "1"}}
            self.result(identity, {"protocolVersion": version, **about})
        elif method == "tools/list":
            about = {"inputSchema": {"type": "object"}, "description": os.environ.get("SECRET", "a tool")}
            self.result(identity, {"tools": [{"name": name, **about} for name in ("faulty", "steady")]})
        elif method == "tools/call":
            self.call(identity, message["params"])
        else:
            self.error(identity, -32601, "no such method")

    def call(self, identity: object, params: Json) -> None:
        if params["name"] == "steady":
            while not Path(params["arguments"]["until"]).exists():
                time.sleep(0.01)
            self.result(identity, text("steady"))
            return
        behave = getattr(self, "do_" + self.fault.replace(" ", "_").replace("-", "_"), None)
        if behave is None:
            self.result(identity, text("fine"))
        else:
            behave(identity, params)

    def do_exit(self, _identity: object, _params: Json) -> None:
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(3)

    def do_killed(self, _identity: object, _params: Json) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def do_frozen(self, _identity: object, _params: Json) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def do_hang(self, _identity: object, _params: Json) -> None:
        time.sleep(600)

    def do_stubborn(self, _identity: object, _params: Json) -> None:
        while True:
            time.sleep(600)

    def do_junk(self, identity: object, _params: Json) -> None:
        self.raw(b'hello, I am a log line\n{"half": \n\n[1, 2]\n')
        self.result(identity, text("fine"))

    def do_invalid_utf_8(self, identity: object, _params: Json) -> None:
        self.raw(b"\xff\xfe broken\n")
        line = json.dumps({"jsonrpc": "2.0", "id": identity, "result": text("fine @")}).encode()
        self.raw(line.replace(b"@", b"\xff") + b"\n")

    def do_endless_line(self, _identity: object, _params: Json) -> None:
        while True:
            self.raw(b"x" * 65_536)

    def do_large(self, identity: object, _params: Json) -> None:
        self.result(identity, text("x" * int(float(self.arguments[0]) * 1024 * 1024)))

    def do_stderr_flood(self, identity: object, _params: Json) -> None:
        for _ in range(20 * 16):
            sys.stderr.write("e" * 65_535 + "\n")
        sys.stderr.flush()
        self.result(identity, text("fine"))

    def do_bad_answer(self, identity: object, _params: Json) -> None:
        self.raw(b'{"jsonrpc": "2.0", "id": ' + json.dumps(identity).encode() + b', "result": \n')
        time.sleep(600)

    def do_wrong_id(self, _identity: object, _params: Json) -> None:
        self.result(987_654, text("fine"))

    def do_is_error(self, identity: object, _params: Json) -> None:
        self.result(identity, {**text("broken"), "isError": True})

    def do_rpc_error(self, identity: object, _params: Json) -> None:
        self.error(identity, -32000, "the database is on fire")

    def do_log_flood(self, identity: object, _params: Json) -> None:
        for number in range(2_000):
            self.notify("notifications/message", {"level": "info", "data": f"line {number}"})
        self.result(identity, text("fine"))

    def do_close_stdout(self, _identity: object, _params: Json) -> None:
        os.close(1)
        time.sleep(600)

    def do_environment(self, identity: object, _params: Json) -> None:
        self.result(identity, text(json.dumps(dict(os.environ))))

    def do_grandchild(self, identity: object, _params: Json) -> None:
        self.result(identity, text(str(self.pid)))

    def do_progress(self, identity: object, params: Json) -> None:
        token = params.get("_meta", {}).get("progressToken")
        for done in range(1, 4):
            self.notify("notifications/progress", {"progressToken": token, "progress": done, "total": 3})
        self.result(identity, text("fine"))

    def do_ask(self, identity: object, _params: Json) -> None:
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        params = {"message": "who are you?", "requestedSchema": schema}
        self.send({"jsonrpc": "2.0", "id": "ask-1", "method": "elicitation/create", "params": params})
        answer = json.loads(sys.stdin.buffer.readline())
        self.result(identity, text(json.dumps(answer.get("result"))))

    def do_leak(self, identity: object, params: Json) -> None:
        """Tell the variable SECRET wherever one can; the argument `end` says how the call ends."""
        secret = os.environ["SECRET"]
        number = int(secret) if secret.isdecimal() else 1
        end = params["arguments"].get("end", "result")
        token = params.get("_meta", {}).get("progressToken")
        print(f"stderr: {secret}", file=sys.stderr, flush=True)
        self.notify(
            "notifications/message", {"level": "info", "logger": secret, "data": {secret: [secret, "logged", number]}}
        )
        for part in (f"whole: {secret} ", secret[:5], secret[5:]):
            self.notify("notifications/progress", {"progressToken": token, "progress": number, "message": part})
        self.raw(f"junk: {secret}\n".encode())
        schema = {"type": "object", "properties": {"name": {"type": "string", "description": secret}}}
        self.send(
            {
                "jsonrpc": "2.0",
                "id": "ask-1",
                "method": "elicitation/create",
                "params": {"message": f"is it {secret}?", "requestedSchema": schema},
            }
        )
        sys.stdin.buffer.readline()
        if end == "exit":
            os._exit(3)
        if end == "error":
            self.send(
                {"jsonrpc": "2.0", "id": identity, "error": {"code": -1, "message": secret, "data": [secret, number]}}
            )
            return
        forms = [secret, json.dumps(secret), quote(secret), base64.b64encode(f"(({secret}))".encode()).decode()]
        self.result(identity, {**text(" ".join(forms)), "structuredContent": {secret: [*forms, number]}})

    def do_sampling(self, identity: object, _params: Json) -> None:
        """Ask for what was not offered, and give the refusals as the result."""
        refusals = []
        message = {"role": "user", "content": {"type": "text", "text": "think for me"}}
        for method, params in (
            ("sampling/createMessage", {"messages": [message], "maxTokens": 10}),
            ("roots/list", {}),
        ):
            self.send({"jsonrpc": "2.0", "id": method, "method": method, "params": params})
            refusals.append(json.loads(sys.stdin.buffer.readline()).get("error"))
        self.result(identity, text(json.dumps(refusals)))

    def result(self, identity: object, result: Json) -> None:
        self.send({"jsonrpc": "2.0", "id": identity, "result": result})

    def error(self, identity: object, code: int, message: str) -> None:
        self.send({"jsonrpc": "2.0", "id": identity, "error": {"code": code, "message": message}})

    def notify(self, method: str, params: Json) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def send(self, message: Json) -> None:
        self.raw(json.dumps(message).encode() + b"\n")

    @staticmethod
    def raw(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def text(words: str) -> Json:
    """A tool's result that is a text."""
    return {"content": [{"type": "text", "text": words}], "isError": False}


if __name__ == "__main__":
    _Server(sys.argv[1], sys.argv[2:]).run()
