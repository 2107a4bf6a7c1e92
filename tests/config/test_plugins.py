from __future__ import annotations

import pytest

from ava.config.compose import compose
from ava.config.plugins import load_plugins
from ava.errors import InputError

PLUGIN = '''
from ava.registry import PositiveInt, data, model, optimizer, task


@model(kind="mine")
def tiny(spec, /, width: PositiveInt = 4, layers: tuple[int, ...] = (1, 2)):
    """Tiny."""


@task(kind="mine")
def guess(data, /):
    """Guess."""


@data(kind="mine")
def coins(seed, /, sides: PositiveInt):
    """Coins."""
'''

CHOSEN = ["task=guess", "model=tiny", "data=coins", "trainer.max_steps=3"]

pytestmark = pytest.mark.usefixtures("forgetful")


@pytest.fixture
def plugin(here):
    (here / "my_parts.py").write_text(PLUGIN)


@pytest.mark.usefixtures("plugin")
def test_the_parts_of_a_plugin_are_chosen_by_name_without_a_file():
    config = compose(["plugins=[my_parts]", *CHOSEN, "data.sides=6", "model.width=8"])

    assert config.model.options == {"width": 8, "layers": (1, 2)}
    assert config.data.options == {"sides": 6}
    assert config.plugins == ("my_parts",)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("overrides", "fragments"),
    [
        (["model.width=0"], ["model.width=0", "a whole number > 0"]),
        (["model.widht=3"], ["model.widht=3", "`model.width`"]),
        ([], ["data.sides has to be given", "`data.sides=...`"]),
        (["data=digits"], ["data=digits", "images", "mine", "coins"]),
    ],
)
def test_the_parts_of_a_plugin_are_checked_like_ours(overrides, fragments):
    chosen = ["plugins=[my_parts]", *CHOSEN]
    with pytest.raises(InputError) as caught:
        compose([*chosen, *overrides])

    for fragment in fragments:
        assert fragment in str(caught.value)


def test_an_option_that_cannot_be_checked_is_told(here):
    text = "from ava.registry import model\n\nclass Odd: ...\n\n@model\ndef odd(spec, /, x: Odd = None):\n    'Odd.'\n"
    (here / "my_odd.py").write_text(text)

    with pytest.raises(InputError, match=r"model\.x=1: its annotation .*Odd.* cannot be checked"):
        compose(["plugins=[my_odd]", "model=odd", "model.x=1"])


MISTAKES = {
    "no slash": ("@model\ndef odd(spec, width=3): ...", ["model 'odd'", "needs spec before a `/`", "def odd(spec, /"]),
    "no slash in a class": (
        "@model\nclass Odd:\n    def __init__(self, spec, width=3): ...", ["def __init__(self, spec, /"],
    ),
    "no frame": ("@model\ndef odd(): ...", ["needs spec before a `/`"]),
    "an option called name": ("@model\ndef odd(spec, /, name='x'): ...", ["option `name`", "Call it otherwise"]),
    "a default that no file can hold": (
        "@model\ndef odd(spec, /, act=print): ...", ["model=odd", "`act`", "no plain value"],
    ),
    "an error of its own": ("1 / 0", ["ZeroDivisionError", "AVA_TRACEBACK=1"]),
    "an exit": ("raise SystemExit('bye')", ["SystemExit: bye"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_in_a_plugin_is_told_as_it_is_loaded(here, mistake):
    text, fragments = MISTAKES[mistake]
    (here / "my_odd.py").write_text(f"from ava.registry import model\n\n{text}\n")

    with pytest.raises(InputError) as caught:
        compose(["plugins=[my_odd]"])

    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("named", ["my_parts.py", "./my_parts.py"])
@pytest.mark.usefixtures("plugin")
def test_a_plugin_named_by_its_file_is_told_its_module(named):
    with pytest.raises(InputError, match=r"`plugins=\[my_parts\]`"):
        compose([f"plugins=[{named}]"])


def test_annotations_of_the_frame_may_be_for_type_checkers_only(here):
    (here / "my_checked.py").write_text(
        "from __future__ import annotations\n\nfrom typing import TYPE_CHECKING, Literal\n\n"
        "from ava.registry import model\n\nif TYPE_CHECKING:\n    from ava.data.source import ImageSpec\n\n\n"
        "@model(kind='images')\ndef checked(spec: ImageSpec, /, mode: Literal['a', 'b'] = 'a'):\n    'Checked.'\n"
    )
    chosen = ["plugins=[my_checked]", "model=checked"]
    assert compose(chosen).model.options == {"mode": "a"}
    with pytest.raises(InputError, match=r"model\.mode=c: must be one of: a, b"):
        compose([*chosen, "model.mode=c"])


def test_entry_points_are_loaded(here, monkeypatch):
    (here / "my_installed.py").write_text(PLUGIN.replace("tiny", "installed"))
    folder = here / "mine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[ava.plugins]\nmine = my_installed\n")
    monkeypatch.syspath_prepend(here)

    load_plugins([])

    assert compose([*CHOSEN[:1], *CHOSEN[2:], "model=installed", "data.sides=2"]).model.name == "installed"
