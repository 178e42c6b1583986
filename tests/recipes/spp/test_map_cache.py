"""Maps on disk: what went in comes out, the bound holds, and another network finds nothing."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.errors import UsageError
from detzoo.recipes.spp.map_cache import MapCache, fingerprint

MAPS = (np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.ones([5, 4, 4], np.float32))
BYTES = 4 * (24 + 80)


def test_maps_come_back_as_they_went_in(tmp_path):
    cache = MapCache(tmp_path, "a", 1e6)
    assert cache.get(b"dog/1") is None
    assert b"dog/1" not in cache
    assert cache.put(b"dog/1", MAPS)
    found = MapCache(tmp_path, "a", 1e6).get(b"dog/1")
    assert b"dog/1" in cache
    assert len(found) == 2
    for one, other in zip(found, MAPS):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.float32


def test_another_network_finds_nothing_but_counts_the_bytes(tmp_path):
    first = MapCache(tmp_path, "a", 1e6)
    first.put(b"1", MAPS)
    second = MapCache(tmp_path, "b", 1e6)
    assert second.get(b"1") is None
    assert second.num_bytes == first.num_bytes >= BYTES


def test_the_bound_holds_and_is_said_once(tmp_path, caplog):
    file_bytes = MapCache(tmp_path / "size", "a", 1e6)
    file_bytes.put(b"1", MAPS)
    # Two files fit, the third does not.
    cache = MapCache(tmp_path / "bound", "a", 2.5 * file_bytes.num_bytes)
    with caplog.at_level("WARNING", logger="detzoo"):
        assert [cache.put(name, MAPS) for name in (b"1", b"2", b"3", b"4")] == [True, True, False, False]
    assert cache.num_bytes == 2 * file_bytes.num_bytes
    assert len(list((tmp_path / "bound" / "a").iterdir())) == 2
    assert cache.get(b"3") is None
    assert sum("takes no more" in record.message for record in caplog.records) == 1


def test_a_bound_of_nothing_keeps_nothing(tmp_path):
    assert not MapCache(tmp_path, "a", 0).put(b"1", MAPS)


def test_a_damaged_file_is_as_good_as_none(tmp_path):
    cache = MapCache(tmp_path, "a", 1e6)
    cache.put(b"1", MAPS)
    (file,) = (tmp_path / "a").iterdir()
    file.write_bytes(file.read_bytes()[:60])
    assert MapCache(tmp_path, "a", 1e6).get(b"1") is None
    assert not file.exists()


def test_half_written_files_of_a_killed_process_go(tmp_path):
    MapCache(tmp_path, "a", 1e6).put(b"1", MAPS)
    draft = tmp_path / "a" / ".x.npz.123"
    draft.write_bytes(b"half")
    MapCache(tmp_path, "a", 1e6)
    assert not draft.exists()


def test_the_fingerprint_sees_weights_paths_and_facts():
    weights = {"conv/kernel": np.zeros([2, 2], np.float32), "conv/bias": np.zeros(2, np.float32)}
    same = fingerprint(dict(reversed(weights.items())), (688,))
    assert fingerprint(weights, (688,)) == same
    changed = {**weights, "conv/bias": np.array([0, 1e-7], np.float32)}
    others = [fingerprint(weights, (480,)), fingerprint(changed, (688,)), fingerprint({"a": weights["conv/bias"]})]
    assert len({same, *others}) == 4


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="taken cannot be made"):
        MapCache(tmp_path / "taken", "a", 1)
