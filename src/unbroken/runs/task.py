"""Python functions as runs: the `task` decorator, its options, and the source that offers tasks.

An application decorates functions and names their module (or hands them over); the supervisor executes them through
`TaskRunnable`. How items get from a thread or a process into the run is in `runs.blocking` and `runs.process`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast, overload

import msgspec
from pydantic import ConfigDict, ValidationError, create_model

from unbroken.errors import ConfigurationError, InvalidError, UnknownRunnableError
from unbroken.messages import StreamState
from unbroken.runs.blocking import in_thread
from unbroken.runs.catalog import Recovery
from unbroken.runs.context import RunContext, RunEnded
from unbroken.runs.history import History
from unbroken.runs.items import Item
from unbroken.runs.process import in_process
from unbroken.runs.spec import RunnableView, RunSpec, RunType, SourceView

__all__ = ["Task", "TaskOptions", "Tasks", "load_tasks", "task"]

P = ParamSpec("P")
R = TypeVar("R")
Execution = Literal["loop", "thread", "process"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How a task is run.

    `retries` repeats an execution that raised, after `retry_seconds`, doubled each time. `resume` says what happens after a
    crash: `checkpoint` goes on from the last checkpoint, or ends as interrupted when there is none; `start` begins again
    where there is none. `idle_seconds` and `total_seconds` end it as timed out. A function that is not async runs in a
    `thread`, or in a `process`, which a cancel kills.
    """

    name: str = ""
    title: str = ""
    retries: int = 0
    retry_seconds: float = 1.0
    resume: Literal["checkpoint", "start"] = "checkpoint"
    idle_seconds: float | None = None
    total_seconds: float | None = None
    execution: Execution | None = None


class Task(Generic[P, R]):
    """A function that can be run. Calling it calls the function."""

    def __init__(self, function: Callable[P, R], options: TaskOptions) -> None:
        self.function = function
        self.options = options
        self.name = options.name or function.__name__
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__module__ = function.__module__
        self.__qualname__ = function.__qualname__
        if options.execution == "process" and "." in function.__qualname__:
            raise ConfigurationError(
                f"the task {self.name!r} runs in a process, so it must be at its module's top level"
            )
        asynchronous = inspect.isasyncgenfunction(function) or inspect.iscoroutinefunction(function)
        self.execution: Execution = options.execution or ("loop" if asynchronous else "thread")
        if asynchronous != (self.execution == "loop"):
            wrong = "runs in the event loop" if asynchronous else "is not async and runs in a thread or a process"
            raise ConfigurationError(f"the task {self.name!r} {wrong}; its execution cannot be {self.execution!r}")
        self._takes_context, self._arguments = _arguments_of(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        schema: dict[str, Any] = self._arguments.model_json_schema()
        schema.pop("title", None)
        return schema

    def check(self, arguments: msgspec.Raw) -> dict[str, object]:
        """The arguments as the function takes them; `InvalidError` names the one that does not fit."""
        try:
            model = self._arguments.model_validate_json(bytes(arguments))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InvalidError(f"{field or 'arguments'}: {first['msg']}", field=f"arguments.{field}") from None
        return {name: getattr(model, name) for name in type(model).model_fields}

    def call(self, context: object, arguments: Mapping[str, object]) -> Any:
        """Call the function for one execution."""
        first = (context,) if self._takes_context else ()
        return self.function(*first, **arguments)  # type: ignore[arg-type]


def _arguments_of(function: Callable[..., object]) -> tuple[bool, Any]:
    """Whether the first parameter takes the run's context, and a model of the others."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError as error:
        raise ConfigurationError(
            f"the task {function.__name__!r} has an annotation that is not known: {error}"
        ) from None
    parameters = list(signature.parameters.values())
    first = parameters[0] if parameters else None
    takes_context = first is not None and (first.annotation is RunContext or first.name == "run")
    fields: dict[str, Any] = {}
    for parameter in parameters[1:] if takes_context else parameters:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            raise ConfigurationError(
                f"the task {function.__name__!r} has a parameter that cannot be named: {parameter}"
            )
        kind = Any if parameter.annotation is parameter.empty else parameter.annotation
        fields[parameter.name] = (kind, ... if parameter.default is parameter.empty else parameter.default)
    return takes_context, create_model(
        f"{function.__name__}_arguments", __config__=ConfigDict(extra="forbid"), **fields
    )


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(*, options: TaskOptions) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(
    function: Callable[P, R] | None = None, /, *, options: TaskOptions | None = None
) -> Task[P, R] | Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a task: an async generator, an async function, a generator or a function.

    What it yields becomes messages, what it returns its result. A first parameter called `run` gets the `RunContext`; the
    others are the arguments, checked against their annotations. `ConfigurationError` for a signature that cannot be called
    by name.
    """
    if function is not None:
        return Task(function, TaskOptions())
    return lambda decorated: Task(decorated, options or TaskOptions())


class TaskRunnable:
    """One task with checked arguments."""

    def __init__(self, task: Task[..., object], arguments: Mapping[str, object]) -> None:
        self._task = task
        self._arguments = arguments
        options = task.options
        self.idle_seconds = options.idle_seconds
        self.total_seconds = options.total_seconds
        self.retries = options.retries
        self.retry_seconds = options.retry_seconds

    def recover(self, history: History) -> Recovery:
        """Go on from a checkpoint, or from the start where the task says so."""
        return Recovery(
            resume=history.checkpoint is not None or self._task.options.resume == "start", may_have_run=True
        )

    async def execute(self, context: RunContext) -> AsyncIterator[Item]:
        """Call the function wherever it is to run, and yield what it yields."""
        task = self._task
        if task.execution == "process":
            items = in_process(f"{task.__module__}:{task.__qualname__}", context)
        elif task.execution == "thread":
            items = in_thread(context, lambda blocking: task.call(blocking, self._arguments))
        else:
            items = _in_loop(task.call(context, self._arguments))
        async for item in items:
            yield item


async def _in_loop(called: Any) -> AsyncIterator[Item]:
    if inspect.isasyncgen(called):
        async for item in cast("AsyncIterator[Item]", called):
            yield item
        return
    value: object = await called
    if value is not None:
        raise RunEnded(StreamState.COMPLETED, {"value": value}, reason={})


class Tasks:
    """The source that offers tasks."""

    type: RunType = "task"
    server = ""

    def __init__(self, tasks: Iterable[Task[..., Any]]) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}
        for found in tasks:
            if self._tasks.setdefault(found.name, found) is not found:
                raise ConfigurationError(f"there are two tasks of the name {found.name!r}")

    async def find(self, spec: RunSpec) -> TaskRunnable:
        """As `Source.find`."""
        found = self._tasks.get(spec.name)
        if found is None:
            raise UnknownRunnableError(f"there is no task {spec.name!r} here")
        return TaskRunnable(found, found.check(spec.arguments))

    async def view(self) -> SourceView:
        """As `Source.view`."""
        return SourceView(type=self.type, runnables=tuple(map(_view, self._tasks.values())))

    async def close(self) -> None:
        """Nothing is held."""


def _view(found: Task[..., Any]) -> RunnableView:
    return RunnableView(
        type="task",
        name=found.name,
        title=found.options.title,
        description=inspect.getdoc(found) or "",
        input_schema=msgspec.Raw(msgspec.json.encode(found.input_schema)),
    )


def load_tasks(path: str) -> list[Task[..., Any]]:
    """The tasks that a module holds: `package.module`, or one of them: `package.module:name`.

    `ConfigurationError` when it cannot be imported or holds none.
    """
    module_name, _, name = path.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does: an application's own modules are where it is started
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(f"the tasks of {path!r} cannot be imported: {error}") from error
    found = [value for key, value in vars(module).items() if isinstance(value, Task) and (not name or key == name)]
    if not found:
        raise ConfigurationError(f"{path!r} holds no task; decorate a function with `unbroken.task`")
    return found
