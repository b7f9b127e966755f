"""Who imports whom, beyond what `make imports` can say."""

from pathlib import Path

from tests.support.imports import SHIPPED, circle, imports


def test_what_is_shipped_imports_nothing_of_the_tests() -> None:
    wrong = {
        name: tests
        for name, imported in imports().items()
        if name.partition(".")[0] in SHIPPED
        and (tests := {each for each in imported if each.startswith(("tests.", "bench."))})
    }
    assert not wrong


def test_no_package_of_ours_imports_itself_round_a_circle() -> None:
    graph = imports()
    assert graph["server.transport.session"], "they are found"
    assert not circle(graph)


def test_a_circle_is_found_also_one_for_the_type_checker_alone(tmp_path: Path) -> None:
    package = tmp_path / "some"
    package.mkdir()
    (package / "one.py").write_text("from some import two\n")
    (package / "two.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from some.one import One\n"
    )
    (package / "three.py").write_text("import some.one\n")
    assert sorted(set(circle(imports(tmp_path, ["some"])))) == ["some.one", "some.two"]


def test_the_transport_with_the_hub_knows_nothing_of_parley() -> None:
    graph = imports()
    theirs = {name for name in graph if f"{name}.".startswith("server.transport.")}
    assert len(theirs) > 20
    known = set().union(*(graph[name] for name in (*theirs, "fanout.hub"))) - theirs
    assert known == {"fanout.hub", "domain.delivery"}
    assert not graph["domain.delivery"]
