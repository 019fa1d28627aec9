"""Tar files of a few members, and which images, or which error, are read from them."""

import io
import tarfile

from refusals import refusal

from sysds_resnet.images.sources.layouts import open_source


def write(path, *members):
    """A tar file of (name, bytes)."""
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def named(source):
    return {source.relative_name(i): source.classes[source.labels[i]] for i in range(len(source.labels))}


def error_of(root, split="val"):
    return refusal(open_source, root, split)


def pairs(names, ending="jpg"):
    return [
        pair
        for name in names
        for pair in ((f"{name}.{ending}", b"image"), (f"{name}.cls", name[:1].encode()))
    ]
