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


def test_entry_points_are_loaded(here, monkeypatch):
    (here / "my_installed.py").write_text(PLUGIN.replace("tiny", "installed"))
    folder = here / "mine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[ava.plugins]\nmine = my_installed\n")
    monkeypatch.syspath_prepend(here)

    load_plugins([])

    assert compose([*CHOSEN[:1], *CHOSEN[2:], "model=installed", "data.sides=2"]).model.name == "installed"
