"""The pytest plugin gives its fixtures to whoever asks, and costs everybody else nothing."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.scenario("INFRA-003")

HEAVY = ("websockets", "httpx2", "uvicorn", "starlette", "apsw", "msgspec", "unbroken.client", "unbroken.server")


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest as a user's project runs it, with every warning an error."""
    return pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", *arguments, timeout=100)


def test_a_run_without_its_fixtures_loads_nothing_of_ours_but_the_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import sys

        def test_nothing_is_loaded():
            heavy = {HEAVY!r}
            loaded = [name for name in sys.modules if name in heavy or name.startswith(tuple(f"{{one}}." for one in heavy))]
            assert loaded == []
            assert "unbroken.testing.plugin" in sys.modules
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_every_fixture_works_in_a_blocking_and_in_an_asynchronous_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio
        import urllib.request

        from unbroken import Client, SyncClient

        def test_a_real_server_survives(unbroken_server):
            with SyncClient(unbroken_server.url) as client:
                client.create("a")
                client.append("a", "one")
            unbroken_server.restart()
            with urllib.request.urlopen(unbroken_server.url + "/v1/messages/a") as answer:
                assert b'"text":"one"' in answer.read()
            unbroken_server.stop()

        def test_faults_are_judged(unbroken_server, fault_proxy, history):
            async def main():
                async with fault_proxy(unbroken_server.url) as proxy, Client(proxy.url) as client:
                    await client.create("b")
                    history.invoke("p", "one", "one")
                    history.ack("one", (await client.append("b", "one")).first)
                    history.fault("reset", proxy.reset())
                    await client.close("b")
                    history.open("v")
                    async for received in client.follow("b"):
                        history.deliver("v", received.seq, received.text, received.text)
                    history.end("v", "completed")
                    history.final([(1, "one", "one")], state="completed")
            asyncio.run(main())
            history.check().raise_if_failed()

        def test_a_server_misbehaves(mock_server):
            async def main():
                async with mock_server() as server, Client(server.url) as client:
                    await client.create("c")
            asyncio.run(main())
        """
    )
    run(pytester).assert_outcomes(passed=3)


def test_disks_stores_and_names_are_fixtures_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio
        import socket

        import apsw
        import pytest

        from unbroken.errors import StoreUnavailableError
        from unbroken.store.memory import MemoryStore
        from unbroken.testing import CallFails, DiskError, DiskFault, DiskFile, DiskOperation, StoreFault

        def test_a_disk(fault_disk, tmp_path):
            fault = fault_disk.plant(
                DiskFault(DiskError(), frozenset({DiskOperation.WRITE}), frozenset({DiskFile.DATABASE}), times=None)
            )
            with pytest.raises(apsw.IOError):
                apsw.Connection(str(tmp_path / "a.db")).execute("CREATE TABLE a (b)")
            assert fault.bites

        def test_a_store(faulty_store):
            async def main():
                store = faulty_store(MemoryStore())
                fault = store.plant(StoreFault(CallFails(StoreUnavailableError())))
                with pytest.raises(StoreUnavailableError):
                    await store.write([])
                assert fault.bites == 1
            asyncio.run(main())

        def test_a_name(faulty_resolver):
            async def main():
                with faulty_resolver({"streams.test": "127.0.0.1"}) as names:
                    names.fail("streams.test")
                    with pytest.raises(socket.gaierror):
                        await asyncio.get_running_loop().getaddrinfo("streams.test", 80)
                    assert names.bites["streams.test"] == 1
            asyncio.run(main())

        """
    )
    run(pytester).assert_outcomes(passed=3)


def test_mcp_servers_proxies_and_time_are_fixtures_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio
        import subprocess
        import time

        def test_mcp_servers(mock_mcp_server, mcp_stdio_command):
            async def main():
                async with mock_mcp_server().running() as server:
                    assert server.port
            asyncio.run(main())
            command, arguments = mcp_stdio_command("none")
            subprocess.run([command, *arguments], stdin=subprocess.DEVNULL, timeout=60, check=False)

        def test_a_proxy(reverse_proxy, unbroken_server):
            async def main():
                async with reverse_proxy(unbroken_server.url) as proxy:
                    assert await proxy.status() == 200
                    await proxy.reload()
                    await proxy.stop()
                    assert await proxy.status() is None
                    await proxy.start()
                    assert await proxy.status() == 200
            asyncio.run(main())

        def test_an_hour_takes_no_time(run_virtual, simulated_clock):
            async def main():
                before = simulated_clock.now_ms()
                await asyncio.sleep(3600)
                return simulated_clock.now_ms() - before
            begun = time.monotonic()
            assert run_virtual(main()) == 3_600_000
            assert time.monotonic() - begun < 600
        """
    )
    done = run(pytester, "-rs")
    outcomes = done.parseoutcomes()
    assert outcomes["passed"] + outcomes.get("skipped", 0) == 4
    skipped = [line for line in done.outlines if line.startswith("SKIPPED")]
    assert all("is not on PATH" in line for line in skipped)


def test_a_failure_tells_the_seed_and_the_seed_repeats_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_it(unbroken_seed, fault_proxy):
            assert fault_proxy("127.0.0.1:1").seed == unbroken_seed
            assert unbroken_seed == 0, unbroken_seed
        """
    )
    failed = run(pytester, "--unbroken-seed=77")
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["*unbroken fault kit*", "repeat with --unbroken-seed=77"])
    run(pytester, "--unbroken-seed=0").assert_outcomes(passed=1)


def test_its_fixtures_are_listed_with_what_they_are(pytester: pytest.Pytester) -> None:
    listed = run(pytester, "--fixtures").stdout.str()
    for name in (
        *("history", "fault_proxy", "mock_server", "unbroken_server", "unbroken_seed", "fault_disk", "faulty_store"),
        *("faulty_resolver", "mock_mcp_server", "mcp_stdio_command", "run_virtual", "simulated_clock"),
        "reverse_proxy",
    ):
        assert f"{name} -- " in listed
