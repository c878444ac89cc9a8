"""The names that a file imports, without running it."""

from __future__ import annotations

from pathlib import Path

from tokbench.tokenizers.imports import imported_names


def test_what_a_file_imports(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        "from __future__ import annotations\nimport a.b.c, os as system\nfrom . import near\nfrom ..far import thing\n"
        "from ....beyond import it\nfrom here import *\n"
        "if typing.TYPE_CHECKING:\n    import never\nelse:\n    import other\n"
        "try:\n    import perhaps\nexcept ImportError:\n    import instead\n"
        "class C:\n    async def f(self):\n        with x:\n            import deep\n"
        "match x:\n    case 1:\n        import case\nimportlib.import_module('by.name'); __import__('old')\n"
        "import_module('.relative', __package__); import_module(name); import_module(name='by.keyword')\n"
        "from importlib import import_module as renamed\nrenamed('by.another'); renamed('....out', __package__)\n"
    )
    found = imported_names("pkg.sub.a", False, str(file))
    assert found.at_once == {
        "__future__", "__future__.annotations", "a.b.c", "os", "pkg.sub", "pkg.sub.near", "pkg.far", "pkg.far.thing",
        "here", "other", "perhaps", "instead", "case", "by.name", "old",
        "pkg.sub.relative", "by.keyword", "by.another", "importlib", "importlib.import_module",
    }  # fmt: skip
    assert found.later == {"deep"}
    assert "pkg.sub.a.near" in imported_names("pkg.sub.a", True, str(file)).at_once
