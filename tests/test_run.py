"""The `run` script's promises that a machine without the right tools would break."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("sh", "dirname", "cat", "cksum", "rm", "env")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout on a machine with neither Python nor uv, for a user who is not root."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    (tools / "id").write_text("#!/bin/sh\necho 1000\n")
    (tools / "id").chmod(0o755)
    shutil.copy(ROOT / "run", tmp_path / "run")
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def run_in(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "run", *arguments],
        env={"PATH": str(checkout / "bin")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["demo", "test", "check", "bench"])
def test_a_machine_without_python_is_told_both_cures(bare: Path, command: str) -> None:
    done = run_in(bare, command)
    assert done.returncode == 69
    assert "python3-venv" in done.stderr
    assert "install uv" in done.stderr
    assert not (bare / ".venv").exists()


def test_a_python_that_is_too_old_or_broken_is_passed_over(bare: Path) -> None:
    for name in ("python3.13", "python3"):
        (bare / "bin" / name).write_text("#!/bin/sh\nexit 127\n")
        (bare / "bin" / name).chmod(0o755)
    assert run_in(bare, "demo").returncode == 69


def test_an_unknown_command_is_a_usage_error(bare: Path) -> None:
    done = run_in(bare, "dance")
    assert done.returncode == 64
    assert "usage: ./run" in done.stderr


def test_no_command_explains_itself(bare: Path) -> None:
    done = run_in(bare)
    assert done.returncode == 0
    assert "test [PYTEST ARGS]" in done.stdout


def test_what_is_installed_is_not_installed_again(bare: Path) -> None:
    tools = bare / ".venv" / "bin"
    tools.mkdir(parents=True)
    log = bare / "log"
    for name in ("python", "unbroken"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n')
        (tools / name).chmod(0o755)
    assert run_in(bare, "demo", "--once").returncode == 0
    first = log.read_text().splitlines()
    assert any("--require-hashes -r requirements/run.txt" in line for line in first)
    assert first[-1] == "unbroken demo --once"
    log.unlink()
    assert run_in(bare, "demo", "--once").returncode == 0
    assert [line for line in log.read_text().splitlines() if "install" in line] == []
    with (bare / "requirements" / "run.txt").open("a") as lock:
        lock.write("# changed\n")
    log.unlink()
    assert run_in(bare, "demo").returncode == 0
    assert any("--require-hashes" in line for line in log.read_text().splitlines())


def test_root_gets_the_venv_module_from_apt(bare: Path) -> None:
    log, installed = bare / "log", bare / "installed"
    scripts = {
        "id": "echo 0",
        "apt-get": f'echo "apt-get $*" >> {log}\n[ "$1" = update ] || : > {installed}',
        "python3": f'case "$*" in *ensurepip*) [ -e {installed} ]; exit ;; *venv*) exec sh make-venv ;; esac',
    }
    for name, body in scripts.items():
        (bare / "bin" / name).unlink(missing_ok=True)
        (bare / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (bare / "bin" / name).chmod(0o755)
    for tool in ("mkdir", "chmod", "cp"):
        (bare / "bin" / tool).symlink_to(shutil.which(tool) or "")
    (bare / "python-stub").write_text("#!/bin/sh\nexit 0\n")
    (bare / "make-venv").write_text(
        "mkdir -p .venv/bin && cp python-stub .venv/bin/python && cp python-stub .venv/bin/unbroken\nchmod +x .venv/bin/*\n"
    )
    done = run_in(bare, "demo")
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in log.read_text().splitlines()] == ["update", "install"]
    assert "python3-venv" in log.read_text()
