"""Writes a small image that runs: `cat` of this host with its libraries, and three layers, of which the last deletes.

    containerd_image.py DIRECTORY ARCHIVE
    containerd_image.py --of LAYOUT ARCHIVE NAME [--unique]

The layout goes to DIRECTORY with the tag "latest", and, under the name example.org/test:latest, into the tar file ARCHIVE. The second
form writes a layout that is there already, under the name example.org/NAME:latest; with --unique below a layer with one file that
holds NAME, so that no chain of it is one of another image's.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

import oci_image
from oci_image import DIRECTORY, REGULAR, LayerWriter


def host_program(path):
    """The program, and the libraries that it is linked with, by the paths under which they are looked for."""
    files = [path]
    for word in subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout.split():
        if word.startswith("/"):
            files.append(word)
    return files


def add_program(entries, program):
    """A program of this host, and the libraries and directories that it needs, to the entries of a layer."""
    path = subprocess.run(["sh", "-c", 'command -v "$1"', "sh", program], check=True, capture_output=True, text=True).stdout.strip()
    seen = {name for name, _, _ in entries}
    for file in host_program(path):
        parts = file.strip("/").split("/")
        for count in range(1, len(parts)):
            directory = "/".join(parts[:count])
            if directory not in seen:
                seen.add(directory)
                entries.append((directory, None, 0o755))
        with open(file, "rb") as content:
            entries.append(("/".join(parts), content.read(), 0o755))
    return path


def layer(layout, entries, comment):
    with LayerWriter(layout) as writer:
        for name, content, mode in entries:
            if content is None:
                writer.entry(name.encode(), DIRECTORY, mode=mode)
            else:
                writer.entry(name.encode(), REGULAR, mode=mode, size=len(content), data=[content])
    return writer.digest, writer.blob_size, writer.diff_id, comment


def write_archive(layout, archive, name, index=None, more=None):
    """Writes a layout as an archive in which containerd finds the image under the name.

    index: another index than that of the layout. more: blobs beside those of the layout, by their paths.
    """
    with tarfile.open(archive, "w") as file:
        for entry in sorted(os.listdir(layout)):
            if entry != "index.json":
                file.add(os.path.join(layout, entry), entry)
        # containerd takes the name of the image from an annotation of its own.
        index = index or read(layout, "index.json")
        for manifest in index["manifests"]:
            manifest.setdefault("annotations", {})["io.containerd.image.name"] = name
        for path, content in [*(more or {}).items(), ("index.json", json.dumps(index).encode())]:
            member = tarfile.TarInfo(path)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def read(layout, path):
    with open(os.path.join(layout, path), "rb") as file:
        return json.load(file)


def blob_path(digest):
    return "blobs/" + digest.replace(":", "/")


def with_another_bottom(layout, text):
    """The index of the image of a layout above a layer with one file that holds the text, and the blobs that are new."""
    index = read(layout, "index.json")
    blobs = {}

    def add(content):
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        blobs[blob_path(digest)] = content
        return {"digest": digest, "size": len(content)}

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        member = tarfile.TarInfo("bottom")
        member.size = len(text)
        file.addfile(member, io.BytesIO(text.encode()))
    bottom = add(archive.getvalue())
    for descriptor in index["manifests"]:
        manifest = read(layout, blob_path(descriptor["digest"]))
        config = read(layout, blob_path(manifest["config"]["digest"]))
        config["rootfs"]["diff_ids"].insert(0, bottom["digest"])
        config.pop("history", None)
        manifest["config"].update(add(json.dumps(config).encode()))
        manifest["layers"].insert(0, {"mediaType": "application/vnd.oci.image.layer.v1.tar", **bottom})
        descriptor.update(add(json.dumps(manifest).encode()))
    return index, blobs


def make_image(layout):
    oci_image.create_layout(layout)
    base = []
    program = add_program(base, "cat")
    base += [("etc", None, 0o755), ("etc/one", b"one\n", 0o644)]
    layers = [
        layer(layout, base, "base"),
        layer(layout, [("etc/two", b"two\n", 0o644)], "middle"),
        layer(layout, [("etc/.wh.one", b"", 0o644), ("etc/three", b"three\n", 0o644)], "top"),
    ]
    execution = {"Cmd": [program, "/etc/two", "/etc/three"], "Env": ["PATH=/usr/bin:/bin"]}
    oci_image.finish_layout(layout, "latest", layers, oci_image.native_architecture(), execution, 0)


def main():
    if sys.argv[1] == "--of":
        layout, archive, name = sys.argv[2:5]
        if sys.argv[5:] == ["--unique"]:
            return write_archive(layout, archive, f"example.org/{name}:latest", *with_another_bottom(layout, name))
    else:
        layout, archive = sys.argv[1:]
        name = "test"
        make_image(layout)
    write_archive(layout, archive, f"example.org/{name}:latest")


if __name__ == "__main__":
    main()
