"""The store against a simple model of it."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from inferd_server.cache.key import Owner
from inferd_server.cache.store import OVERHEAD, CachedAnswer, Store

OWNERS = [Owner("a", 1, "x"), Owner("a", 1, "y"), Owner("b", 2, "z")]
KEYS = [(owner, bytes([number])) for owner in OWNERS for number in range(5)]
MAX_BYTES = 4 * OVERHEAD + 600
MAX_OF = {OWNERS[0]: 2 * OVERHEAD + 200, OWNERS[1]: None, OWNERS[2]: 10 * MAX_BYTES}


class StoreMachine(RuleBasedStateMachine):
    """Entries in the order of use, dropped by the book."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(MAX_BYTES)
        self.now = 0.0
        self.owners = set(OWNERS)
        self.store.retain(OWNERS)
        self.known: OrderedDict[bytes, tuple[Owner, bytes, float]] = OrderedDict()
        self.serial = 0

    @rule(place=st.sampled_from(KEYS), size=st.integers(0, 700), ttl=st.floats(0.1, 10.0))
    def put(self, place: tuple[Owner, bytes], size: int, ttl: float) -> None:
        owner, key = place[0], name(*place)
        self.serial += 1
        value = self.serial.to_bytes(4) * (size // 4)
        self.store.put(key, CachedAnswer(owner, value, self.now + ttl), MAX_OF[owner])
        self.known.pop(key, None)
        most = min(MAX_OF[owner] or MAX_BYTES, MAX_BYTES)
        if owner not in self.owners or len(value) + OVERHEAD > most:
            return
        self.known[key] = (owner, value, self.now + ttl)
        while self.weight(owner) > most:
            self.known.pop(next(k for k, (o, _, _) in self.known.items() if o == owner))
        while self.weight() > MAX_BYTES:
            self.known.popitem(last=False)

    @rule(place=st.sampled_from(KEYS))
    def get(self, place: tuple[Owner, bytes]) -> None:
        key = name(*place)
        _, value, until = self.known.get(key, (None, None, 0.0))
        if value is not None and self.now >= until:
            del self.known[key]
            value = None
        assert self.store.get(key, self.now) == value
        if value is not None:
            self.known.move_to_end(key)

    @rule(seconds=st.floats(0.0, 6.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(owners=st.sets(st.sampled_from(OWNERS)))
    def retain(self, owners: set[Owner]) -> None:
        self.store.retain(owners)
        self.owners = owners
        for key in [key for key, (owner, _, _) in self.known.items() if owner not in owners]:
            del self.known[key]

    @invariant()
    def holds_what_it_should_within_its_budget(self) -> None:
        assert self.store.nbytes == self.weight() <= MAX_BYTES
        assert len(self.store) == len(self.known)
        # In the order of use, of which random sizes alone show too little.
        assert list(self.store._entries) == list(self.known)
        for owner in self.owners:
            keys = [key for key, (whose, _, _) in self.known.items() if whose == owner]
            assert list(self.store._shelves[owner].keys) == keys

    def weight(self, owner: Owner | None = None) -> int:
        return sum(len(v) + OVERHEAD for o, v, _ in self.known.values() if owner in (None, o))


def name(owner: Owner, key: bytes) -> bytes:
    return repr(owner).encode() + key


TestStore = StoreMachine.TestCase
