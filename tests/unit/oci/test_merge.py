"""The two ways of merging agree with each other and with the image specification."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalmark.model import LayerRefused
from metalmark.oci import Bounds, EntryKind, OutOfOrder
from metalmark.testing.layers import END, entry, folder, hardlink, symlink
from metalmark.testing.trees import Tree, merge_in_one_pass, merge_in_two_passes

_PART = st.sampled_from([b"a", b"a", b"b", b"link"])
_FOLDERS = st.lists(_PART, max_size=2)
_LEAVES = st.sampled_from([b"f", b"f", b"g", b"link", b"a"])
_NAMES = st.tuples(_FOLDERS, _LEAVES).map(lambda pair: b"/".join([*pair[0], pair[1]]))
_FOLDER_NAMES = st.one_of(_NAMES, st.lists(_PART, min_size=1, max_size=2).map(b"/".join))


@st.composite
def _entries(draw: st.DrawFn) -> bytes:
    name = draw(_NAMES)
    where = draw(_FOLDER_NAMES)
    parent, _, base = where.rpartition(b"/")
    mode = draw(st.sampled_from([0o600, 0o640, 0o755]))
    match draw(st.sampled_from(["file", "file", "folder", "folder", "symlink", "hardlink", "whiteout", "opaque"])):
        case "file":
            return entry(name, draw(st.binary(max_size=3)), mode=mode)
        case "folder":
            return folder(where, mode=mode)
        case "symlink":
            return symlink(name, draw(st.one_of(_FOLDER_NAMES, st.sampled_from([b"/a", b"..", b"../b", b"."]))))
        case "hardlink":
            return hardlink(name, draw(_NAMES))
        case "whiteout":
            return entry((parent + b"/" if parent else b"") + b".wh." + base)
        case _:
            return entry(where + b"/.wh..wh..opq")


_LAYERS = st.lists(st.lists(_entries(), max_size=6).map(lambda parts: b"".join(parts) + END), min_size=1, max_size=4)


@settings(max_examples=300, deadline=None)
@given(_LAYERS)
def test_one_pass_gives_what_two_passes_give_or_says_that_it_cannot(layers: list[bytes]) -> None:
    try:
        quick: Tree | None = merge_in_one_pass(layers)
    except OutOfOrder:
        quick = None
    try:
        exact: Tree | None = merge_in_two_passes(layers)
    except LayerRefused:
        # What shows is well formed even if something that does not show is not.
        return
    if quick is not None:
        assert quick == exact


def _kinds(tree: Tree) -> dict[bytes, str]:
    return {name: seen.kind.value for name, seen in tree.items()}


def _both(*layers: bytes) -> Tree:
    whole = [layer + END for layer in layers]
    exact = merge_in_two_passes(whole)
    assert merge_in_one_pass(whole) == exact
    return exact


def test_upper_file_hides_lower_one_and_owner_and_time_go_with_it() -> None:
    tree = _both(entry(b"a", b"old", uid=1, mtime=5), entry(b"a", b"new", uid=2, mtime=6))
    assert (tree[b"a"].content, tree[b"a"].uid, tree[b"a"].mtime_s) == (b"new", 2, 6)


def test_folder_keeps_what_the_layer_that_describes_it_says() -> None:
    tree = _both(folder(b"a", mode=0o700, uid=7) + entry(b"a/old"), entry(b"a/new"))
    assert (tree[b"a"].mode, tree[b"a"].uid) == (0o700, 7)
    assert set(tree) == {b"a", b"a/old", b"a/new"}


def test_folder_of_an_upper_layer_takes_over_the_attributes() -> None:
    tree = _both(folder(b"a", mode=0o700) + entry(b"a/old"), folder(b"a", mode=0o711))
    assert tree[b"a"].mode == 0o711
    assert b"a/old" in tree


def test_whiteout_counts_for_lower_layers_only_wherever_it_stands() -> None:
    tree = merge_in_two_passes([entry(b"a/old") + END, entry(b"a/new") + entry(b".wh.a") + END])
    assert set(tree) == {b"a", b"a/new"}


def test_opaque_folder_keeps_its_own_layer() -> None:
    tree = _both(folder(b"a") + entry(b"a/old"), folder(b"a") + entry(b"a/.wh..wh..opq") + entry(b"a/new"))
    assert set(tree) == {b"a", b"a/new"}


def test_whiteout_does_not_reach_layers_above() -> None:
    assert _kinds(_both(entry(b"a"), entry(b".wh.a"), entry(b"a"))) == {b"a": "file"}


def test_what_a_file_replaced_does_not_come_back_with_a_folder() -> None:
    assert set(_both(entry(b"a/x"), entry(b"a"), folder(b"a") + entry(b"a/y"))) == {b"a", b"a/y"}


def test_folder_replaces_symbolic_link() -> None:
    tree = _both(folder(b"usr/lib") + symlink(b"lib", b"usr/lib"), folder(b"lib") + entry(b"lib/x"))
    assert tree[b"lib"].kind is EntryKind.DIRECTORY
    assert b"usr/lib/x" not in tree


def test_name_under_a_link_of_a_lower_layer_follows_it() -> None:
    layers = [folder(b"usr/lib") + symlink(b"lib", b"/usr/lib") + END, entry(b"lib/x", b"1") + END]
    with pytest.raises(OutOfOrder):
        merge_in_one_pass(layers)
    tree = merge_in_two_passes(layers)
    assert tree[b"lib"].kind is EntryKind.SYMLINK
    assert tree[b"usr/lib/x"].content == b"1"


def test_link_that_leads_upwards_ends_at_the_root() -> None:
    tree = merge_in_two_passes([symlink(b"a", b"../../../b") + END, entry(b"a/x") + END])
    assert _kinds(tree) == {b"a": "symbolic link", b"b": "folder", b"b/x": "file"}


def test_hard_links_within_a_layer_share_and_chain() -> None:
    tree = _both(entry(b"a", b"1") + hardlink(b"b", b"a", mode=0) + hardlink(b"c", b"b"))
    assert tree[b"c"].names == (b"a", b"b", b"c")
    assert tree[b"b"].mode == 0o644


def test_hard_link_into_a_lower_layer_outlives_the_name_it_was_made_from() -> None:
    layers = [entry(b"a", b"1") + END, hardlink(b"b", b"a") + END, entry(b".wh.a") + END]
    with pytest.raises(OutOfOrder):
        merge_in_one_pass(layers)
    tree = merge_in_two_passes(layers)
    assert {name: seen.content for name, seen in tree.items()} == {b"b": b"1"}
    assert tree[b"b"].names == ()


def test_content_hidden_above_still_serves_a_link_beside_it() -> None:
    layers = [entry(b"a", b"1") + hardlink(b"b", b"a") + END, entry(b"a", b"2") + END]
    tree = merge_in_two_passes(layers)
    assert (tree[b"a"].content, tree[b"b"].content) == (b"2", b"1")
    with pytest.raises(OutOfOrder):
        merge_in_one_pass(layers)


def test_file_twice_in_a_layer_is_the_later_one_but_links_keep_the_earlier() -> None:
    layer = entry(b"a", b"1") + hardlink(b"b", b"a") + entry(b"a", b"2") + END
    with pytest.raises(OutOfOrder):
        merge_in_one_pass([layer])
    tree = merge_in_two_passes([layer])
    assert (tree[b"a"].content, tree[b"b"].content) == (b"2", b"1")


def test_a_path_through_many_folders_counts_each_of_them() -> None:
    layer = b"".join(entry(b"/".join([b"%d" % n] * 40)) for n in range(10)) + END
    for merge in (merge_in_one_pass, merge_in_two_passes):
        with pytest.raises(LayerRefused, match="more than 200 entries") as caught:
            merge([layer], bounds=Bounds(entries=200))
        assert caught.value.layer == "layer-0"


def test_links_in_circles_are_refused_and_named() -> None:
    with pytest.raises(LayerRefused, match="too many symbolic links") as caught:
        merge_in_two_passes([symlink(b"a", b"b") + symlink(b"b", b"a") + END, entry(b"a/x") + END])
    assert (caught.value.layer, caught.value.entry) == ("layer-1", "a/x")
