"""Writes a small image that runs: `cat` of this host with its libraries, and three layers, of which the last deletes.

    containerd_image.py DIRECTORY ARCHIVE

The layout goes to DIRECTORY with the tag "latest", and, under the name example.org/test:latest, into the tar file ARCHIVE.
"""

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


def layer(layout, entries, comment):
    with LayerWriter(layout) as writer:
        for name, content, mode in entries:
            if content is None:
                writer.entry(name.encode(), DIRECTORY, mode=mode)
            else:
                writer.entry(name.encode(), REGULAR, mode=mode, size=len(content), data=[content])
    return writer.digest, writer.blob_size, writer.diff_id, comment


def main():
    layout, archive = sys.argv[1:]
    oci_image.create_layout(layout)
    program = subprocess.run(["sh", "-c", "command -v cat"], check=True, capture_output=True, text=True).stdout.strip()
    base, seen = [], set()
    for path in host_program(program):
        parts = path.strip("/").split("/")
        for count in range(1, len(parts)):
            directory = "/".join(parts[:count])
            if directory not in seen:
                seen.add(directory)
                base.append((directory, None, 0o755))
        with open(path, "rb") as file:
            base.append(("/".join(parts), file.read(), 0o755))
    base += [("etc", None, 0o755), ("etc/one", b"one\n", 0o644)]
    layers = [
        layer(layout, base, "base"),
        layer(layout, [("etc/two", b"two\n", 0o644)], "middle"),
        layer(layout, [("etc/.wh.one", b"", 0o644), ("etc/three", b"three\n", 0o644)], "top"),
    ]
    execution = {"Cmd": [program, "/etc/two", "/etc/three"], "Env": ["PATH=/usr/bin:/bin"]}
    oci_image.finish_layout(layout, "latest", layers, oci_image.native_architecture(), execution, 0)
    with tarfile.open(archive, "w") as file:
        for name in sorted(os.listdir(layout)):
            if name != "index.json":
                file.add(os.path.join(layout, name), name)
        # containerd takes the name of the image from an annotation of its own.
        with open(os.path.join(layout, "index.json")) as index:
            text = index.read().replace(
                '"org.opencontainers.image.ref.name":"latest"',
                '"io.containerd.image.name":"example.org/test:latest","org.opencontainers.image.ref.name":"latest"')
        path = archive + ".index"
        with open(path, "w") as index:
            index.write(text)
        file.add(path, "index.json")
        os.unlink(path)


main()
