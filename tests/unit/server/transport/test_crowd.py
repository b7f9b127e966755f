"""Who has most, against a plain count."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.transport.crowd import Crowd

MOVES = st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.integers(0, 5)))


@given(MOVES)
def test_it_knows_who_has_most(moves: list[tuple[bool, str, int]]) -> None:
    crowd: Crowd[tuple[str, int]] = Crowd()
    there: dict[tuple[str, int], None] = {}
    for comes, party, number in moves:
        member = (party, number)
        if not comes:
            crowd.remove(party, member)
            there.pop(member, None)
        elif member not in there:
            crowd.add(party, member)
            there[member] = None
        counts = Counter(party for party, _ in there)
        for each in "abc":
            assert crowd.count(each) == counts[each]
            assert list(crowd.of(each)) == [one for one in there if one[0] == each]
        order = [counts[party] for party in crowd.descending()]
        assert order == sorted(counts.values(), reverse=True)
        largest = crowd.largest()
        assert (largest is None) == (not there)
        if largest is not None:
            assert counts[largest] == max(counts.values())
