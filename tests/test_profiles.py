"""Profiles: features over prompts, and how they correlate between models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array

from graphs.comparison.profiles import Profile, Profiled, correlations, read_profile, write_profile
from graphs.disk.files import GraphFileError
from tests.test_files import little_space

pytestmark = pytest.mark.usefixtures("either_system")


def profile(cuts: list[tuple[str, ...]], activation: list[list[float]]) -> Profile:
    """One prompt per cut; the text is what its tokens say."""
    count = len(activation)
    return Profile(
        model="m",
        dictionary="d",
        prompts=tuple(Profiled(text="".join(cut), tokens=cut) for cut in cuts),
        layer=np.zeros(count, dtype=np.int64),
        index=np.arange(count),
        activation=csr_array(np.array(activation)),
        promoted=((" a",),) * count,
    )


def test_correlations_are_pearsons_over_places():
    rng = np.random.default_rng(0)
    one, other = rng.random((3, 6)), rng.random((2, 6))
    cuts = [("a", "b", "c"), ("d", "e", "f")]
    found = correlations(
        profile(cuts, one.tolist()),
        profile(cuts[::-1], np.roll(other, 3, axis=1).tolist()),  # the prompts in another order
        np.arange(3),
        np.arange(2),
    )
    np.testing.assert_allclose(found, np.corrcoef(one, other)[:3, 3:], atol=1e-12)


def test_tokens_of_two_vocabularies_meet_in_places():
    first = profile([("ab", "c", "d")], [[1.0, 2.0, 5.0]])
    second = profile([("a", "b", "cd")], [[9.0, 1.0, 5.0]])
    # ab ends with b; c and d are in cd, where the first has the larger of its two.
    found = correlations(first, second, np.array([0]), np.array([0]))
    assert found == pytest.approx(np.array([[1.0]]))


def test_what_never_changes_correlates_with_nothing():
    same = profile([("a", "b")], [[1.0, 1.0], [0.0, 1.0]])
    found = correlations(same, same, np.arange(2), np.arange(2))
    assert np.isnan(found[0]).all()
    assert found[1, 1] == pytest.approx(1.0)
    other = profile([("x", "y")], [[0.0, 1.0]])
    assert np.isnan(correlations(same, other, np.arange(2), np.array([0]))).all()


def test_a_profile_comes_back_as_it_was(tmp_path: Path):
    made = profile([("a", " b")], [[0.0, 1.5], [2.5, 0.0]])
    write_profile(made, tmp_path / "p.safetensors")
    back = read_profile(tmp_path / "p.safetensors")
    assert back.prompts == made.prompts
    assert back.promoted == made.promoted
    assert np.array_equal(back.activation.toarray(), made.activation.toarray())
    assert back.rows(np.array([0, 0, 3]), np.array([1, 7, 0])).tolist() == [1, -1, -1]
    assert back.decoder is None
    decoder = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    write_profile(replace(made, decoder=decoder), tmp_path / "p.safetensors")
    again = read_profile(tmp_path / "p.safetensors").decoder
    assert again is not None
    np.testing.assert_array_equal(again, decoder, strict=True)


def test_without_space_the_old_profile_stays(tmp_path: Path):
    path = tmp_path / "profile.safetensors"
    path.write_text("old")
    large = profile([("a", "b")], np.ones((200, 2)).tolist())
    with little_space(), pytest.raises(GraphFileError, match=r"Cannot write .*File too large"):
        write_profile(large, path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(path.name, "old")]


def test_what_is_no_profile_gets_one_sentence(tmp_path: Path):
    path = tmp_path / "p.safetensors"
    with pytest.raises(GraphFileError, match="Cannot read"):
        read_profile(path)
    path.write_bytes(b"no")
    with pytest.raises(GraphFileError, match="is not a valid profile"):
        read_profile(path)
    save_file({"layer": np.zeros(1)}, path)
    with pytest.raises(GraphFileError, match="is not a profile: create one"):
        read_profile(path)
    save_file({"layer": np.zeros(1)}, path, {"headwater-profile": '{"schema_version": 2}'})
    with pytest.raises(GraphFileError, match="upgrade headwater"):
        read_profile(path)
    save_file({"layer": np.zeros(1)}, path, {"headwater-profile": '{"model": 1}'})
    with pytest.raises(GraphFileError, match="is not a valid profile: model"):
        read_profile(path)
    made = profile([("a", "b")], [[0.0, 1.0]])
    sound = made.activation
    broken = replace(made, activation=csr_array((sound.data, sound.indices, sound.indptr)))
    broken.activation.indices[0] = 9
    write_profile(broken, path)
    with pytest.raises(GraphFileError, match="is not a valid profile"):
        read_profile(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("layer", lambda column: column[:, None]),
        ("index", lambda column: column.astype(np.float64)),
        ("activation.data", lambda column: column.astype(np.float16)),
        ("activation.indices", lambda column: column.astype(np.uint8)),
    ],
)
def test_columns_of_other_kinds_are_refused(tmp_path: Path, name: str, change: Callable):
    path = tmp_path / "a.profile"
    write_profile(profile([("a", "b")], [[0.0, 1.0]]), path)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    arrays = load_file(path)
    save_file({**arrays, name: np.ascontiguousarray(change(arrays[name]))}, path, metadata)
    with pytest.raises(
        GraphFileError, match=f"is not a valid profile: {name} must be a 1D array of"
    ):
        read_profile(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"promoted": ((), ())}, "must have the same length"),
        ({"activation": csr_array((1, 5))}, "must be 1 features × 2 tokens"),
        ({"activation": csr_array([[np.nan, 1.0]])}, "must be finite"),
        ({"decoder": np.ones((2, 3))}, "decoder must have a row for each of 1 features"),
        ({"decoder": np.full((1, 3), np.inf)}, "decoder must be finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        replace(profile([("a", "b")], [[0.0, 1.0]]), **change)
