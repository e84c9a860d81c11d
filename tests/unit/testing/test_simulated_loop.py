"""Virtual time: waiting takes none, the order is that of the calls, and a program that waits for ever is told so."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from unbroken.testing import SimulatedClock, SimulatedNetwork, run_virtual
from unbroken.testing.simulation.freezing import Freezer


def test_a_day_passes_at_once() -> None:
    async def main() -> float:
        for _ in range(24):
            await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run_virtual(main(), SimulatedNetwork(1)) == pytest.approx(86_400)
    assert time.monotonic() - began < 60


def test_timers_for_the_same_moment_run_in_the_order_in_which_they_were_set() -> None:
    async def main() -> list[int]:
        loop, ran = asyncio.get_running_loop(), list[int]()
        for number in range(500):  # a heap alone swaps some of so many
            loop.call_at(1.0, ran.append, number)
        await asyncio.sleep(2)
        return ran

    assert run_virtual(main(), SimulatedNetwork(1)) == list(range(500))


def test_the_same_holds_over_real_sockets() -> None:
    async def main() -> float:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(3600)
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.close()
        return asyncio.get_running_loop().time()

    assert 3600 <= run_virtual(main()) < 3700


def test_a_process_that_is_frozen_does_nothing_and_goes_on_in_order_while_others_live() -> None:
    async def main(network: SimulatedNetwork) -> None:
        loop = asyncio.get_running_loop()
        freezer, steps, beats = Freezer(loop), list[str](), list[float]()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                steps.append(line.decode().strip())
                writer.write(line)
            writer.close()

        async def process() -> None:
            await asyncio.start_server(serve, "server", 80)
            for number in range(10):
                await asyncio.sleep(1)
                steps.append(f"tick {number}")

        async def beat() -> None:
            while loop.time() < 10:
                await asyncio.sleep(1)
                beats.append(loop.time())

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(process(), context=freezer.context())
            tasks.create_task(beat())
            await asyncio.sleep(1.5)
            reader, writer = await asyncio.open_connection("server", 80)
            writer.write(b"before\n")
            assert await reader.readline() == b"before\n"
            freezer.freeze()
            writer.write(b"in between\n")
            loop.call_later(5, freezer.thaw)
            await asyncio.sleep(4)
            assert steps == ["tick 0", "before"]
            assert len(beats) == 5
            assert await reader.readline() == b"in between\n"
            assert loop.time() > 6.5, "it answers when it runs again"
            assert freezer.bites > 1
            writer.close()
        assert steps == ["tick 0", "before", "in between", *(f"tick {number}" for number in range(1, 10))]

    network = SimulatedNetwork(1)
    run_virtual(main(network), network)


def test_a_program_that_waits_for_ever_is_told_so() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="nothing is due"):
        run_virtual(main(), SimulatedNetwork(1))


def test_with_a_network_there_are_no_threads() -> None:
    def double(number: int) -> int:
        if number < 0:
            raise ValueError("negative")
        return 2 * number

    async def main() -> int:
        with pytest.raises(ValueError, match="negative"):
            await asyncio.to_thread(double, -1)
        return await asyncio.to_thread(double, 21)

    assert run_virtual(main(), SimulatedNetwork(1)) == 42


def test_a_set_of_tasks_has_one_order() -> None:
    async def main() -> list[str]:
        async def wait() -> None:
            await asyncio.sleep(1)

        async with asyncio.TaskGroup() as tasks:
            # Other objects in between make places in memory irregular.
            made = [(tasks.create_task(wait(), name=str(number)), bytearray(number * 37)) for number in range(50)]
        return [task.get_name() for task in {task for task, _ in made}]

    assert run_virtual(main(), SimulatedNetwork(1)) == run_virtual(main(), SimulatedNetwork(1))


def test_a_clock_runs_with_the_loop_and_can_be_set() -> None:
    async def main() -> list[int]:
        clock = SimulatedClock(Random(1), begin_ms=1_000_000)
        seen = [clock.now_ms()]
        await asyncio.sleep(5)
        seen.append(clock.now_ms())
        clock.jump(-60)
        seen.append(clock.now_ms())
        clock.jump(3600)
        await asyncio.sleep(1)
        seen.append(clock.now_ms())
        assert asyncio.get_running_loop().time() == pytest.approx(6)
        return seen

    assert run_virtual(main(), SimulatedNetwork(1)) == [1_000_000, 1_005_000, 945_000, 4_546_000]
