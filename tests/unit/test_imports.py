"""Who imports whom, beyond what `make imports` can say."""

from tests.support.imports import SHIPPED, imports


def test_what_is_shipped_imports_nothing_of_the_tests() -> None:
    wrong = {
        name: tests
        for name, imported in imports().items()
        if name.partition(".")[0] in SHIPPED
        and (tests := {each for each in imported if each.startswith(("tests.", "bench."))})
    }
    assert not wrong
