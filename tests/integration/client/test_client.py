"""The client's whole surface against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.emptied import emptied
from tests.support.server import ServerProcess, free_port
from unbroken.client import Appended, Client, SyncClient
from unbroken.client.delivery import Delivery
from unbroken.client.link import Link
from unbroken.client.outbox import Outbox
from unbroken.client.spill import SpillHeader
from unbroken.client.transport import Address, Connector
from unbroken.clock import SystemClock
from unbroken.errors import (
    AlreadyExistsError,
    ConflictError,
    EndedError,
    InvalidError,
    NotFoundError,
    TrimmedError,
    UnbrokenError,
)
from unbroken.limits import Limits
from unbroken.messages import StreamState

pytestmark = pytest.mark.anyio
CEILING = 60.0


@pytest.fixture
async def server(shared: ServerProcess) -> ServerProcess:
    """The file's one server, as good as new."""
    return await emptied(shared)


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    async with Client(server.url) as client, asyncio.timeout(CEILING):
        yield client


async def test_a_stream_from_its_creation_to_its_end(client: Client) -> None:
    created = await client.create("build/42", kind="run", session="s1", metadata={"branch": "main"})
    assert (created.stream, created.state, created.head, created.session) == ("build/42", "open", 0, "s1")
    assert bytes(created.metadata) == b'{"branch":"main"}'
    assert (await client.create("build/42", kind="run", session="s1")).epoch == created.epoch
    with pytest.raises(AlreadyExistsError):
        await client.create("build/42", kind="other")

    assert await client.append("build/42", ["one", {"two": [2]}, b"\x00three"], kind="stdout") == Appended(1, 3)
    with pytest.raises(ConflictError):
        await client.append("build/42", "x", expected_head=1)

    page = await client.read("build/42", limit=2)
    first, second = page.received()
    assert (first.seq, first.text, first.kind) == (1, "one", "stdout")
    assert (second.json, page.up_to_date) == ({"two": [2]}, False)
    page = await client.read("build/42", page.cursor)
    assert ([each.data for each in page.received()], page.up_to_date) == ([b"\x00three"], True)

    assert (await client.verify("build/42")).ok
    closed = await client.close("build/42", "failed", {"exit_code": 2})
    assert (closed.state, bytes(closed.reason)) == ("failed", b'{"exit_code":2}')
    with pytest.raises(EndedError):
        await client.append("build/42", "late")


async def test_streams_are_listed_and_grouped_by_session(client: Client) -> None:
    for name in ("x/1", "x/2", "y/1"):
        await client.create(name, session=name[0])
    assert {view.stream for view in (await client.list()).streams} == {"x/1", "x/2", "y/1"}
    assert [view.stream for view in (await client.list(prefix="x/")).streams] == ["x/2", "x/1"]
    assert [view.stream for view in (await client.session_streams("x")).streams] == ["x/1", "x/2"]
    page = await client.list(limit=2)
    assert page.next is not None
    rest = await client.list(limit=2, page=page.next)
    assert len(page.streams) + len(rest.streams) == 3
    assert {each.session for each in (await client.sessions()).sessions} == {"x", "y"}
    assert (await client.put_session("z", metadata={"user": "me"})).state == "active"
    assert bytes((await client.session("z")).metadata) == b'{"user":"me"}'
    await client.delete_session("z")
    with pytest.raises(NotFoundError):
        await client.session("z")


async def test_states_trim_and_deletion(client: Client) -> None:
    epoch = (await client.create("a")).epoch
    assert (await client.pause("a")).state == "paused"
    assert (await client.resume("a")).state == "open"
    await client.append("a", [f"m{number}" for number in range(10)])
    assert (await client.trim("a", 6)).first == 6
    with pytest.raises(TrimmedError) as caught:
        await client.read("a", f"{epoch}:2")
    assert caught.value.detail["first"] == 6
    assert (await client.state("a")).epoch == epoch
    await client.delete("a")
    with pytest.raises(NotFoundError):
        await client.state("a")
    assert (await client.create("a")).epoch > epoch
    assert (await client.cancel("a")).state == "cancelled"


async def test_names_and_payloads_come_back_as_they_were(client: Client) -> None:
    name = "päth/with space/%2F?#&/'; DROP TABLE stream--"
    texts = ["", "\n\r\u2028", "日本語 🎈", '"}],', "<script>alert(1)</script>", "\x00\x1f"]
    await client.create(name)
    await client.append(name, texts)
    assert [each.text for each in (await client.read(name)).received()] == texts
    await client.close(name)
    assert [each.text async for each in client.follow(name, verify=True)] == texts


async def test_a_producer_with_a_lease_a_follower_and_a_request_to_stop(client: Client) -> None:
    await client.create("run")
    follow = client.follow("run", verify=True)
    async with client.producer("run", id="worker", epoch=1, lease_seconds=2) as producer:
        assert (await client.state("run")).state == "running"
        for number in range(500):
            await producer.send(f"token {number}")
        assert await producer.append("done") == Appended(501, 501)
        await client.cancel("run")
        await producer.cancel_requested.wait()
    texts = [message.text async for message in follow]
    assert texts == [*(f"token {number}" for number in range(500)), "done"]
    assert follow.state is not None
    assert follow.state.state == "cancelled"


async def test_a_lease_outlives_its_own_length_while_the_producer_lives_and_no_longer(client: Client) -> None:
    await client.create("run")
    producer = client.producer("run", id="worker", lease_seconds=1)
    await producer.__aenter__()
    follow = client.follow("run")
    await asyncio.sleep(2.5)  # longer than the lease: renewing keeps it
    assert (await client.state("run")).state == "running"
    await producer.stop()
    assert [message async for message in follow] == []
    assert follow.state is not None
    assert follow.state.state == "interrupted"


async def test_a_pause_outlives_the_renewals_of_a_producer_and_does_not_end_it(client: Client) -> None:
    await client.create("run")
    async with client.producer("run", id="worker", lease_seconds=1) as producer:
        assert (await client.pause("run")).state == "paused"
        await asyncio.sleep(1.2)  # three renewals
        assert await producer.append("while it is paused") == Appended(1, 1)
        assert (await client.state("run")).state == "paused"
        assert (await client.resume("run")).state == "open"
        while (await client.state("run")).state != "running":  # the next renewal takes the lease again
            await asyncio.sleep(0.05)
    assert (await client.state("run")).state in {"open", "completed"}


@pytest.mark.parametrize("name", ["x/../victim", "..", "a/./victim", "/victim", ""])
async def test_a_name_that_a_url_would_fold_into_another_one_reaches_nothing(client: Client, name: str) -> None:
    await client.create("victim")
    for call in (client.delete, client.state, client.pause, client.verify, client.delete_session, client.read):
        with pytest.raises(InvalidError):
            await call(name)
    assert (await client.state("victim")).stream == "victim"


async def test_an_error_over_http_is_typed(client: Client) -> None:
    for call in (client.read("missing"), client.trim("missing", 1), client.verify("missing"), client.session("no")):
        with pytest.raises(NotFoundError):
            await call
    await client.create("a")
    with pytest.raises(InvalidError):
        await client.read("a", "nonsense")


async def test_a_server_that_is_not_there_is_told_over_http_after_bounded_retries() -> None:
    limits = Limits(backoff_seconds_min=0.001, backoff_seconds_max=0.002)
    async with Client(f"http://127.0.0.1:{free_port()}", limits=limits) as client, asyncio.timeout(CEILING):
        with pytest.raises(UnbrokenError) as caught:
            await client.state("a")
    assert caught.value.retryable


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://x", "http://", "http://user:secret@host", "http://host/?a=b"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidError):
        Client(url)


async def test_the_blocking_client_does_the_same(server: ServerProcess) -> None:
    def script() -> None:
        with SyncClient(server.url) as client:
            epoch = client.create("a", session="s", metadata={"x": 1}).epoch
            assert client.append("a", "one") == Appended(1, 1)
            assert client.append("a", ["two", "three"]) == Appended(2, 3)
            for message in client.follow("a"):
                if message.seq == 2:
                    break
            client.close("a", "completed")
            assert [message.text for message in client.follow("a", verify=True)] == ["one", "two", "three"]
            assert client.state("a").state == "completed"
            assert [message.seq for message in client.read("a", f"{epoch}:1").received()] == [2, 3]
            assert [view.stream for view in client.list(session="s").streams] == ["a"]
            with pytest.raises(EndedError):
                client.append("a", "late")
            client.create("b")
            assert client.cancel("b").state == "cancelled"

    await asyncio.to_thread(script)


async def test_a_producer_comes_back_in_time_for_its_lease_however_long_the_server_was_away(tmp_path: Path) -> None:
    patient = Limits(backoff_seconds_min=50.0, backoff_seconds_max=60.0)
    async with (
        ServerProcess(tmp_path, arguments=["--lease", "2"]) as server,
        Client(server.url, limits=patient) as client,
        asyncio.timeout(CEILING),
    ):
        await client.create("leased")
        async with client.producer("leased", id="p", lease_seconds=2.0) as producer:
            await producer.append("before")
            for _ in range(2):
                await server.restart(kill=True)
                await producer.append("after")
            await producer.close()
        assert (await client.state("leased")).state == "completed"


async def test_what_a_command_prints_is_delivered_under_its_lease_however_long_the_server_was_away(
    tmp_path: Path,
) -> None:
    patient = Limits(backoff_seconds_min=50.0, backoff_seconds_max=60.0)
    async with ServerProcess(tmp_path, arguments=["--lease", "2"]) as server, asyncio.timeout(CEILING):
        link = Link(Connector(Address.parse(server.url), patient, SystemClock(), None), lambda _: None)
        header = SpillHeader(run="run-1", stream="job", server=server.url)
        outbox = Outbox(tmp_path / "run-1.spill", header, patient, wake=lambda: None)
        delivery = Delivery(link, outbox, patient, lease_seconds=2.0, notice=lambda _: None)
        async with asyncio.TaskGroup() as tasks:
            linked = tasks.create_task(link.run())
            delivering = tasks.create_task(delivery.run())
            await delivery.opened.wait()
            for number in range(2):
                await server.restart(kill=True)
                outbox.output("stdout", b"line %d\n" % number)
                outbox.flush()
                delivery.wake()
                while outbox.waiting_bytes:
                    await asyncio.sleep(0.01)
            outbox.finish(StreamState.COMPLETED, b"{}")
            delivery.wake()
            await delivering
            linked.cancel()
        async with Client(server.url) as client:
            assert (await client.state("job")).state == "completed"
            assert [message.text for message in (await client.read("job")).messages] == ["line 0\n", "line 1\n"]
