"""The kit's own server process: it is there when it says so."""

from __future__ import annotations

import os
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from unbroken.testing.server_process import TestedServer

pytestmark = pytest.mark.scenario("INFRA-001")


@pytest.mark.skipif(sys.platform != "linux", reason="holds the killed server's output open by way of /proc")
def test_a_restart_waits_for_the_new_server_however_late_the_output_of_the_old_one_ends(tmp_path: Path) -> None:
    with TestedServer(tmp_path) as server:
        held = os.open(f"/proc/{server.pid}/fd/1", os.O_WRONLY)
        threading.Timer(0.2, os.close, [held]).start()  # the new one needs longer than that
        server.restart()
        with urllib.request.urlopen(f"{server.url}/livez") as answer:
            assert answer.status == 200


def test_a_server_that_ends_at_once_is_said_not_to_have_started(tmp_path: Path) -> None:
    server = TestedServer(tmp_path, ["--no-such-option"])
    with pytest.raises(RuntimeError, match=r"(?s)did not start.*no-such-option"):
        server.start()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = server.pid
