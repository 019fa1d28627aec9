"""Lists and tables as people and tools leave them: rows of other splits, hidden files, odd columns."""

import pytest

from sysds_resnet.errors import UserError
from sysds_resnet.images.sources.layouts import open_source


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def tables(train, val="i9.jpg,0\n", head="path,label"):
    return {"train.csv": f"{head}\n{train}", "val.csv": f"{head}\n{val}"}


def lists(train, val="i9.jpg 0\n"):
    return {"train_list.txt": train, "val_list.txt": val}


def one_table(*rows):
    return {"all.csv": "path,label,split\n" + "".join(f"{row}\n" for row in rows)}


def opened(root, files, split="train"):
    write(root, files)
    return open_source(root / "all.csv" if "all.csv" in files else root, split)


def names(source):
    return [source.relative_name(i) for i in range(len(source.labels))]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (tables("i0.jpg,0,cat\n", head="path,Label,label"), "more than one column called 'label'"),
        (tables("i0.jpg,0,cat\n", head="path,label,label"), "more than one column called 'label'"),
        (tables("i0.jpg,x.jpg,0\n", head="path, Path ,label"), "more than one column called 'path'"),
        (one_table() | {"all.csv": "path,label,split,Split\na,0,train,val\n"}, "column called 'split'"),
        (
            tables("i0.jpg,0,val\n", "i9.jpg,0,val\n", "path,label,split"),
            "train.csv: found no rows that are train",
        ),
        (tables("i0.jpg,0\n\n\n,1\n"), "train.csv: found row 4 without path or label"),
        (tables(".i0.jpg,0\n"), "train.csv: found hidden files alone"),
        (one_table("a,0,train", "b,,val"), "all.csv: found row 2 without path or label"),
        (one_table("a,0,train", "b,,test"), "all.csv: found a test split without labels, and no val"),
        (
            {"train.csv": "path,label\na,0\n", "test.csv": "path\nb\n"},
            "test.csv: found a test split without labels",
        ),
        (
            {"train.csv": "path,label\na,0\n", "test.csv": "path,label\nb,\n"},
            "found a test split without labels",
        ),
        (tables("a/1.jpg,0\nb/1.jpg,1\n", "a/2.jpg,1\nb/2.jpg,0\n"), "for all training images in "),
        (tables("a/1.jpg,a\nb/1.jpg,b\n", "a/2.jpg,b\nb/2.jpg,a\n"), "for all training images in "),
        (lists("my dir/i0.jpg,0\n"), "train_list.txt, line 1: found 'my dir/i0.jpg,0'"),
        (lists(".i0.jpg 0\n"), "train_list.txt: found no lines"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path, files, found):
    with pytest.raises(UserError) as caught:
        opened(tmp_path, files)
    assert found in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "kept", "note"),
    [
        (
            tables("a.jpg,0,train\nb.jpg,0,test\nc.jpg,0,val\n", "i9.jpg,0,val\n", "path,label,split"),
            ["a.jpg"],
            "train.csv: left out 2 rows that are not train by the column 'split'",
        ),
        (tables("a.jpg,0,1\nb.jpg,0,2\n", "i9.jpg,0,1\n", "path,label,split"), ["a.jpg", "b.jpg"], None),
        (
            tables("a.jpg,0\n.ipynb_checkpoints/a.jpg,0\nb/._a.jpg,1\n"),
            ["a.jpg"],
            "train.csv: left out 2 files that are hidden or of tools, the first: .ipynb_checkpoints/a.jpg",
        ),
        (
            lists("./a.jpg 0\n.ipynb_checkpoints/a.jpg 0\n../b.jpg 0\n"),
            ["./a.jpg", "../b.jpg"],
            "left out 1 files that are hidden or of tools, the first: .ipynb_checkpoints/a.jpg",
        ),
        (
            tables("a.jpg,0,x\n", "i9.jpg,0,x\n", "path,label,class"),
            ["a.jpg"],
            "from the column 'label', not from 'class'",
        ),
        (tables("a.jpg,0\n,\n\nb.jpg,0\n"), ["a.jpg", "b.jpg"], None),
        (
            one_table("a.jpg,0,train", "b.jpg,0,val", "c.jpg,,test"),
            ["a.jpg"],
            "the test split (1 rows) is not used",
        ),
        (
            one_table("a.jpg,0,train", "b.jpg,0,train", "./a.jpg,0,val"),
            ["a.jpg", "b.jpg"],
            "1 images are in both training and validation, the first: a.jpg",
        ),
        (lists("a.jpg 0\nb.jpg 0\n", "b.jpg 0\na.jpg 0\n"), ["a.jpg", "b.jpg"], "2 images are in both"),
        (lists("a.jpg 0\n./a.jpg 0\n"), ["a.jpg", "./a.jpg"], "1 images are listed again, the first: a.jpg"),
        (lists("a.jpg 0\n" + "x" * 300 + ".jpg 0\n"), ["a.jpg", "x" * 300 + ".jpg"], None),
        (lists("x" * 300 + ".jpg 0\n"), ["x" * 300 + ".jpg"], None),
        (lists("a.jpg\tgolden retriever\n", "b.jpg\tgolden retriever\n"), ["a.jpg"], None),
        (lists("my dir/a\t b.jpg 0\n"), ["my dir/a\t b.jpg"], None),
        (lists("d/a.jpg 0\nb.jpg 1\n", "i9.jpg 1\n"), ["d/a.jpg", "b.jpg"], None),
        (
            tables("p1/a.jpg,cat\np2/b.jpg,dog\n", "p1/c.jpg,dog\np2/d.jpg,cat\n"),
            ["p1/a.jpg", "p2/b.jpg"],
            "all training images in p",
        ),
    ],
)
def test_the_rest_is_taken_and_noted(tmp_path, files, kept, note):
    source = opened(tmp_path, files)
    assert names(source) == kept
    usual = ("validation images: ", "all images are of one class")
    found = [line for line in source.notes if not any(text in line for text in usual)]
    assert len(found) == (note is not None) or "column" in note
    assert note is None or note in found[0]


@pytest.mark.parametrize("form", [tables, lists])
@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("b\\a.jpg", "b/a.jpg"),
        ("a", "a.jpg"),
        ("/a.jpg", "a.jpg"),
        ("b/a.jpg", None),
    ],
)
def test_a_first_image_under_another_path_is_noted(tmp_path, form, listed, there):
    write(tmp_path, {there: "image"} if there else {})
    sep = "," if form is tables else " "
    source = opened(tmp_path, form(f"{listed}{sep}0\n"))
    found = [note for note in source.notes if "is not there, but" in note]
    assert len(found) == (there is not None)
    assert there is None or f"{there!r} is: correct the paths" in found[0]


def test_a_name_with_spaces_after_a_tab_is_one_class(tmp_path):
    source = opened(
        tmp_path, lists("a.jpg\tgolden retriever\nb.jpg cat\n", "c.jpg\tgolden retriever\n"), "val"
    )
    assert source.classes == ["cat", "golden retriever"] and source.labels.tolist() == [1]
