"""Names to builders: the signature is the schema.

A part is a function or class under a decorator, alone in its file:

    @model(kind="images")
    def convnet(spec: ImageSpec, /, width: PositiveInt = 32) -> nn.Module: ...

What stands before the `/` comes from the frame, what stands after it from the configuration: its annotation says what
is allowed, its default what is used when nothing is said. Tags (`kind` here) say which parts fit together. Built-in
parts are found in their files' syntax trees, without importing torch. Plugins register as their module is imported.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, TypeVar, overload

from annotated_types import Ge, Gt, Le, Lt, MinLen

from ava.errors import InputError, nearest

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Decay = Annotated[float, Ge(0), Lt(1)]
"""The weight of the past in a moving average: `beta`, `momentum`."""
Length = NonNegativeInt | Fraction
"""Steps; or, where it is no whole number, a share of the training."""
Name = Annotated[str, MinLen(1)]

_ANNOTATIONS: dict[str, Any] = {
    "PositiveInt": PositiveInt, "NonNegativeInt": NonNegativeInt, "PositiveFloat": PositiveFloat,
    "NonNegativeFloat": NonNegativeFloat, "Fraction": Fraction, "Decay": Decay, "Length": Length, "Name": Name,
    "Any": Any, "Annotated": Annotated, "Literal": Literal, "Ge": Ge, "Gt": Gt, "Le": Le, "Lt": Lt, "MinLen": MinLen,
}  # fmt: skip

REQUIRED = inspect.Parameter.empty
B = TypeVar("B", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One registered part.

    Attributes:
        name: what the configuration calls it.
        module: the module that defines it; imported only when it is built.
        attribute: its name in that module.
        doc: its docstring.
        parameters: option -> (annotation, default); the default is `REQUIRED` where there is none.
        tags: what its decorator was given, such as `kind="images"`.
        shared: the part of `parameters` that every part of the sort has, and the builder is not called with.
    """

    name: str
    module: str
    attribute: str
    doc: str
    parameters: dict[str, tuple[Any, Any]]
    tags: dict[str, Any] = field(default_factory=dict)
    builder: Callable[..., Any] | None = None
    shared: frozenset[str] = frozenset()

    @property
    def own(self) -> list[str]:
        """The options that the builder itself takes."""
        return [name for name in self.parameters if name not in self.shared]

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.strip().split("\n", 1)[0]

    @property
    def defaults(self) -> dict[str, Any]:
        """Each option that has a default, with it."""
        return {name: default for name, (_, default) in self.parameters.items() if default is not REQUIRED}

    def load(self) -> Callable[..., Any]:
        """The builder itself; imports its module."""
        if self.builder is not None:
            return self.builder
        return typing.cast(Callable[..., Any], getattr(importlib.import_module(self.module), self.attribute))


class Registry:
    """The parts of one sort. Calling the registry registers: it is the decorator.

    Args:
        sort: what one part is called in messages, and the decorator's own name ("model").
        package: the package whose files define the built-in parts ("ava.models").
        frame: what the frame gives a builder, in order: the names before the `/` of its signature.
        class_frame: the same where the builder is a class; None for no difference.
        shared: "module:function" whose options every part has besides its own; a tag `defaults` gives a part
            other defaults of them.
    """

    def __init__(
        self, sort: str, package: str, frame: tuple[str, ...] = (), shared: str | None = None,
        class_frame: tuple[str, ...] | None = None,
    ) -> None:  # fmt: skip
        self.sort, self.package, self.frame, self.shared = sort, package, frame, shared
        self.class_frame = frame if class_frame is None else class_frame
        self._builtin: dict[str, Entry] | None = None
        self._plugins: dict[str, Entry] = {}

    @overload
    def __call__(self, builder: B, /) -> B: ...
    @overload
    def __call__(self, /, **tags: Any) -> Callable[[B], B]: ...
    def __call__(self, builder: B | None = None, /, **tags: Any) -> B | Callable[[B], B]:
        """Register `builder` under its own name in lower case, or under the tag `name`."""
        if builder is None:
            return lambda late: self._register(late, tags)
        return self._register(builder, {})

    def _register(self, builder: B, tags: dict[str, Any]) -> B:
        if not builder.__module__.startswith(self.package + "."):
            self._register_plugin(builder, dict(tags))
        return builder

    def __iter__(self) -> Iterator[Entry]:
        """Every part, by name."""
        known = self._known()
        return iter([known[name] for name in sorted(known)])

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def __getitem__(self, name: str) -> Entry:
        """The part called `name`.

        Raises:
            InputError: no part has that name; says which exist and which is nearest.
        """
        known = self._known()
        if name not in known:
            raise InputError(
                f"no {self.sort} is called {name!r}; there are: {', '.join(sorted(known))}.",
                hint=nearest(str(name), known),
            )
        return known[name]

    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted(self._known())

    def plugin_entries(self) -> list[Entry]:
        """The parts that plugins registered."""
        return list(self._plugins.values())

    def _known(self) -> dict[str, Entry]:
        if self._builtin is None:
            self._builtin = {e.name: self._with_shared(e) for e in _read_package(self.package, self.sort)}
        return self._builtin | self._plugins

    def _register_plugin(self, builder: Callable[..., Any], tags: dict[str, Any]) -> None:
        name = tags.pop("name", builder.__name__.lower())
        taken = self._known().get(name)
        if taken is not None and (taken.module, taken.attribute) != (builder.__module__, builder.__name__):
            raise InputError(
                f"{builder.__module__} registers {self.sort} {name!r}, which {taken.module} already has.",
                hint="Give yours another name.",
            )
        try:
            options = _read_signature(builder, self.class_frame if inspect.isclass(builder) else self.frame)
        except InputError as error:
            owner = f"the signature of {self.sort} {name!r} in {builder.__module__}"
            raise InputError(f"{owner} {error.problem}", hint=error.hint) from None
        doc = inspect.getdoc(builder) or ""
        entry = Entry(name, builder.__module__, builder.__name__, doc, options, tags, builder)
        self._plugins[name] = self._with_shared(entry)

    def _with_shared(self, entry: Entry) -> Entry:
        """The part with the options that all of its sort have."""
        if self.shared is None:
            return entry
        shared = {name: field for name, field in _read_function(self.shared).items() if name not in entry.parameters}
        for name, default in entry.tags.get("defaults", {}).items():
            shared[name] = (shared[name][0], default)
        return replace(entry, parameters=entry.parameters | shared, shared=frozenset(shared))


def _read_signature(builder: Callable[..., Any], frame: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """The options of a builder that is at hand.

    Raises:
        InputError: the frame could not call it, or an option has a name that means something else.
    """
    is_class = inspect.isclass(builder)
    target = inspect.unwrap(builder.__init__ if is_class else builder)
    parameters = list(inspect.signature(builder).parameters.values())
    if sum(p.kind is p.POSITIONAL_ONLY for p in parameters) != len(frame):
        before = ", ".join([*(["self"] if is_class else []), *frame, "/"])
        name = "__init__" if is_class else builder.__name__
        problem = f"needs {' and '.join(frame)} before a `/`, and its options after it."
        raise InputError(problem, hint=f"Write `def {name}({before}, ...)`.")
    options = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if any(p.name == "name" for p in options):
        raise InputError("has an option `name`, which is the key that chooses the part.", hint="Call it otherwise.")
    # Only the options' annotations are evaluated: those of the frame's may name what only a type checker imports.
    written = {p.name: p.annotation for p in options if p.annotation is not REQUIRED}
    scope = getattr(target, "__globals__", {})
    hints = typing.get_type_hints(SimpleNamespace(__annotations__=written), scope, include_extras=True)
    return {p.name: (hints.get(p.name, Any), p.default) for p in options}


def _read_package(package: str, decorator: str) -> Iterator[Entry]:
    """The entries that the files of a package define, read without importing them."""
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if f"@{decorator}" not in source:
            continue
        module = ".".join((package, *path.relative_to(folder).with_suffix("").parts))
        for node in ast.parse(source, str(path)).body:
            tags = _read_tags(node, decorator)
            if tags is not None and isinstance(node, ast.FunctionDef | ast.ClassDef):
                name = tags.pop("name", node.name.lower())
                yield Entry(name, module, node.name, ast.get_docstring(node) or "", _read_options(node), tags)


@functools.cache
def _read_function(address: str) -> dict[str, tuple[Any, Any]]:
    """The options of the function at "module:function", read without importing it."""
    module, _, function = address.partition(":")
    path = Path(__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8"), str(path)).body
    return _read_options(next(n for n in body if isinstance(n, ast.FunctionDef) and n.name == function))


def _read_tags(node: ast.stmt, decorator: str) -> dict[str, Any] | None:
    """The keywords of `@decorator(...)` above a definition; None if it does not stand there."""
    for d in getattr(node, "decorator_list", []):
        call = d if isinstance(d, ast.Call) else None
        target = call.func if call else d
        if isinstance(target, ast.Name) and target.id == decorator:
            return {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg} if call else {}
    return None


def _read_options(node: ast.FunctionDef | ast.ClassDef) -> dict[str, tuple[Any, Any]]:
    """The parameters after the `/` of a definition, or of a class's `__init__`."""
    if isinstance(node, ast.ClassDef):
        node = next(n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    arguments = node.args
    ordinary = arguments.posonlyargs + arguments.args
    given: list[ast.expr | None] = [*([None] * (len(ordinary) - len(arguments.defaults))), *arguments.defaults]
    pairs = list(zip(ordinary, given, strict=True))[len(arguments.posonlyargs) :]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return {
        argument.arg: (
            _evaluate(argument.annotation) if argument.annotation else Any,
            REQUIRED if default is None else ast.literal_eval(default),
        )
        for argument, default in pairs
    }


def _evaluate(annotation: ast.expr) -> Any:
    """An annotation of Ava's own source, as the type it denotes."""
    return eval(compile(ast.Expression(annotation), "<annotation>", "eval"), dict(_ANNOTATIONS))


optimizer = Registry(
    "optimizer", "ava.optimization.optimizers", shared="ava.optimization.optimizers.composition:extend"
)
scheduler = Registry(
    "scheduler", "ava.optimization.learning_rate.schedules", ("step", "total"),
    shared="ava.optimization.learning_rate.course:extend", class_frame=())  # fmt: skip
clip = Registry("clip", "ava.optimization.gradients.clip", ("measured",), class_frame=())
surgery = Registry(
    "surgery", "ava.optimization.gradients.surgery.methods", ("objectives",),
    shared="ava.optimization.gradients.surgery.options:extend", class_frame=())  # fmt: skip
detector = Registry("detector", "ava.optimization.stability.detectors", ("seen",), class_frame=())
momentum_schedule = Registry(
    "momentum_schedule", "ava.optimization.stability.momentum_schedules", ("hindrance",), class_frame=())  # fmt: skip
response = Registry("response", "ava.optimization.stability.responses", ("verdict", "update_factor"), class_frame=())
advice = Registry("advice", "ava.training.advice_rules", ("history",), class_frame=())
model = Registry("model", "ava.models", ("spec",))
data = Registry("data", "ava.data", ("seed",))
task = Registry("task", "ava.tasks", ("data",))
logger = Registry("logger", "ava.reporting", ("run_dir", "first_step"))

REGISTRIES: dict[str, Registry] = {
    "optimizers": optimizer, "schedulers": scheduler, "clips": clip, "surgery": surgery, "detectors": detector,
    "momentum_schedules": momentum_schedule, "responses": response, "models": model, "data": data, "tasks": task,
    "loggers": logger, "advice": advice}  # fmt: skip
"""What `ava list` lists, by plural."""
