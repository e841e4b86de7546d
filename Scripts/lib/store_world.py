"""What the campaigns on stores share: images with a model of their trees, trees read and compared, layouts checked.

It shares no code with Varve.
"""

import hashlib
import json
import os
import stat
import subprocess
import zlib

import oci_image
from oci_image import DIRECTORY, LINK, REGULAR, SYMLINK, LayerWriter

TIME = 1_700_000_000 * 10**9


class Wrong(Exception):
    """Something is not as it must be."""


def read_tree(root):
    """Everything that counts of a tree: name to a tuple."""
    tree = {}
    links = {}
    waiting = [b""]
    root = os.fsencode(root)
    while waiting:
        path = waiting.pop()
        place = os.path.join(root, path) if path else root
        status = os.lstat(place)
        kind = stat.S_IFMT(status.st_mode)
        content = None
        if kind == stat.S_IFREG:
            with open(place, "rb") as file:
                content = hashlib.sha256(file.read()).hexdigest()
        elif kind == stat.S_IFLNK:
            content = os.readlink(place)
        elif kind == stat.S_IFDIR:
            waiting += [path + b"/" + name if path else name for name in os.listdir(place)]
        attributes = tuple(sorted(
            (name, os.getxattr(place, name, follow_symlinks=False))
            for name in os.listxattr(place, follow_symlinks=False) if not name.startswith("btrfs.")))
        mode = 0 if kind == stat.S_IFLNK else stat.S_IMODE(status.st_mode)
        tree[path] = (kind, mode, status.st_uid, status.st_gid, status.st_mtime_ns, content, attributes)
        if kind == stat.S_IFREG and status.st_nlink > 1:
            links.setdefault(status.st_ino, []).append(path)
    for names in links.values():
        for path in names:
            tree[path] += (tuple(sorted(names)),)
    return tree


def read_bundle(root):
    """The same of a bundle, without the lock's file, which a command that was killed leaves, and the time that it gives the directory."""
    tree = read_tree(root)
    tree.pop(b".varve-bundle.lock", None)
    top = tree[b""]
    tree[b""] = top[:4] + (None,) + top[5:]
    return tree


def require_equal(what, found, expected):
    if found == expected:
        return
    for path in sorted(set(found) | set(expected)):
        if found.get(path) != expected.get(path):
            raise Wrong(f"{what}: {path!r} is {found.get(path)}, not {expected.get(path)}")


class ImageModel:
    """An image, and the tree of each prefix of its layers."""

    def __init__(self, layout, tag, script, lowest=None):
        """script: for each layer, a list of ("dir", path), ("file", path, bytes), ("link", path, target),
        ("symlink", path, target), ("gone", path). lowest: an image whose layers lie below these."""
        self.layers = list(lowest.layers) if lowest else []
        self.trees = dict(lowest.trees) if lowest else {}
        self.chain_names = list(lowest.chain_names) if lowest else []
        tree = dict(self.trees[self.chain_names[-1]]) if lowest else {
            b"": (stat.S_IFDIR, 0o755, 0, 0, 0, None, ())}
        for steps in script:
            time = TIME + len(self.layers) * 10**9 + 123
            with LayerWriter(layout) as layer:
                directories = {b""}
                for step in steps:
                    path = step[1]
                    while path:
                        path = path.rpartition(b"/")[0]
                        directories.add(path)
                for path in sorted(directories | {step[1] for step in steps if step[0] == "dir"}):
                    layer.entry(path + b"/" if path else b"./", DIRECTORY, mode=0o755, mtime_ns=time)
                for step in steps:
                    kind, path = step[:2]
                    if kind == "file":
                        layer.entry(path, REGULAR, mode=0o640, uid=3, gid=4, mtime_ns=time, size=len(step[2]),
                                    data=[step[2]], xattrs={b"user.origin": path})
                        tree[path] = (stat.S_IFREG, 0o640, 3, 4, time, hashlib.sha256(step[2]).hexdigest(),
                                      (("user.origin", path),))
                    elif kind == "symlink":
                        layer.entry(path, SYMLINK, mode=0o777, target=step[2], mtime_ns=time)
                        tree[path] = (stat.S_IFLNK, 0, 0, 0, time, step[2], ())
                    elif kind == "link":
                        layer.entry(path, LINK, target=step[2], mtime_ns=time)
                        tree[step[2]] += (tuple(sorted((path, step[2]))),)
                        tree[path] = tree[step[2]]
                    elif kind == "gone":
                        above, _, name = path.rpartition(b"/")
                        layer.entry(above + b"/.wh." + name if above else b".wh." + name, REGULAR, mtime_ns=time)
                        for known in [p for p in tree if p == path or p.startswith(path + b"/")]:
                            del tree[known]
            for path in directories | {step[1] for step in steps if step[0] == "dir"}:
                tree[path] = (stat.S_IFDIR, 0o755, 0, 0, time, None, ())
            self.layers.append((layer.digest, layer.blob_size, layer.diff_id, "a layer"))
            self.chain_names = chain_names([layer[2] for layer in self.layers])
            self.trees[self.chain_names[-1]] = dict(tree)
        self.tag = tag
        self.tree = self.trees[self.chain_names[-1]]


def chain_names(diff_ids):
    """As image-spec config.md, "Layer ChainID", says."""
    names = []
    chain = ""
    for diff_id in diff_ids:
        chain = diff_id if not chain else "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest()
        names.append(chain.replace(":", "-"))
    return names


def make_layout(path):
    """The images "a" and "b", which share two layers; their models."""
    noise = hashlib.shake_128(b"noise").digest(300_000)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    oci_image.create_layout(path)
    lower = ImageModel(path, "lower", [
        [("dir", b"etc"), ("file", b"etc/os", b"lowest\n"), ("file", b"etc/gone", b"x"), ("file", b"large", noise),
         ("symlink", b"link", b"etc/os"), ("dir", b"empty"), ("file", b"sub/deep/file", b"deep" * 999)],
        [("file", b"etc/os", b"second\n"), ("gone", b"etc/gone"), ("file", b"two", noise[:5000]),
         ("link", b"twin", b"two")],
    ])
    a = ImageModel(path, "a", [[("file", b"a", b"a" * 70_000), ("gone", b"sub/deep")],
                               [("file", b"etc/a", b"top"), ("file", b"large", noise[1000:200_000])]], lower)
    b = ImageModel(path, "b", [[("file", b"b", noise[7:90_000]), ("gone", b"link")]], lower)
    index = {"schemaVersion": 2, "manifests": []}
    for model in (a, b):
        oci_image.finish_layout(path, model.tag, model.layers, oci_image.native_architecture(),
                                {"Cmd": ["/bin/sh"]}, TIME // 10**9)
        with open(os.path.join(path, "index.json")) as file:
            index["manifests"] += json.load(file)["manifests"]
    with open(os.path.join(path, "index.json"), "w") as file:
        json.dump(index, file)
    return a, b


def check_layout(path, sound):
    """That every tag leads to an image all of whose blobs are there and what their digests say. Returns tag to DiffIDs.

    sound: digests that were found right before, with size and time; they are not read again."""
    with open(os.path.join(path, "oci-layout")) as file:
        if json.load(file)["imageLayoutVersion"] != "1.0.0":
            raise Wrong("oci-layout is not right")
    with open(os.path.join(path, "index.json")) as file:
        index = json.load(file)

    def blob(descriptor, parse=False):
        place = os.path.join(path, "blobs", *descriptor["digest"].split(":"))
        status = os.stat(place)
        if status.st_size != descriptor["size"]:
            raise Wrong(f"{place} has {status.st_size} bytes, not {descriptor['size']}")
        stamp = status.st_size, status.st_mtime_ns, status.st_ino
        if parse or sound.get(place) != stamp:
            with open(place, "rb") as file:
                data = file.read()
            if "sha256:" + hashlib.sha256(data).hexdigest() != descriptor["digest"]:
                raise Wrong(f"{place} is not what its name says")
            sound[place] = stamp
            return json.loads(data) if parse else data
        return None

    tags = {}
    for entry in index["manifests"]:
        manifest = blob(entry, parse=True)
        config = blob(manifest["config"], parse=True)
        diff_ids = config["rootfs"]["diff_ids"]
        if len(diff_ids) != len(manifest["layers"]):
            raise Wrong("a manifest has not as many layers as its configuration")
        for layer, diff_id in zip(manifest["layers"], diff_ids):
            data = blob(layer)
            if data is not None:
                tar = zlib.decompress(data, 31) if layer["mediaType"].endswith("gzip") else data
                if "sha256:" + hashlib.sha256(tar).hexdigest() != diff_id:
                    raise Wrong(f"the layer {layer['digest']} is not what its DiffID says")
        tags[entry["annotations"]["org.opencontainers.image.ref.name"]] = diff_ids
    return tags


def run(arguments, **options):
    """Runs a command to its end; standard output and error as text."""
    return subprocess.run([os.fspath(word) for word in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors="replace", **options)


def must(arguments, **options):
    result = run(arguments, **options)
    if result.returncode:
        raise Wrong(f"{' '.join(map(str, arguments))} ended with {result.returncode}: {result.stderr}{result.stdout}")
    return result.stdout


def is_subvolume(path):
    return os.lstat(path).st_ino == 256
