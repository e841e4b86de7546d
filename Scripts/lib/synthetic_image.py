"""Images that are made up: small ones, large ones, ones of many layers. The same arguments make the same bytes."""

import multiprocessing
import os
import random

import oci_image
from oci_image import DIRECTORY, LINK, REGULAR, SYMLINK, LayerWriter

CREATED = 1_700_000_000
NANOSECOND = 10**9


def _execution():
    return {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/"}


def _described(layer, comment):
    return layer.digest, layer.blob_size, layer.diff_id, comment


def small(layout, tag, layer_count=3):
    """Layers of a few files each: new, changed, deleted and linked ones."""
    oci_image.create_layout(layout)
    layers = []
    for number in range(layer_count):
        time = (CREATED + number) * NANOSECOND + 123_456_789
        with LayerWriter(layout) as layer:
            layer.entry(b"./", DIRECTORY, mode=0o755, mtime_ns=time)
            layer.entry(b"etc/", DIRECTORY, mode=0o755, mtime_ns=time)
            if number == 1:
                layer.entry(b"etc/.wh.gone", REGULAR, mtime_ns=time)
                layer.entry(b"etc/again", LINK, target=b"etc/kept", mtime_ns=CREATED * NANOSECOND)
            for name in (b"kept", b"gone") if number == 0 else ():
                _text(layer, b"etc/" + name, b"in the lowest layer\n", CREATED * NANOSECOND)
            if number == 0:
                _text(layer, b"etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", time)
                layer.entry(b"etc/link", SYMLINK, mode=0o777, target=b"kept", mtime_ns=time)
            _text(layer, b"etc/changed", b"of layer %d\n" % number, time)
            _text(layer, b"etc/layer-%03d" % number, b"%d\n" % number, time)
        layers.append(_described(layer, f"layer {number}"))
    oci_image.finish_layout(layout, tag, layers, oci_image.native_architecture(), _execution(), CREATED)


def _text(layer, name, data, time):
    layer.entry(name, REGULAR, mtime_ns=time, size=len(data), data=[data])


def one_file(layout, tag, size):
    """One layer with one file of `size` bytes, a third of which compresses."""
    oci_image.create_layout(layout)
    pools = Pools(7)
    with LayerWriter(layout, level=1) as layer:
        layer.entry(b"./", DIRECTORY, mode=0o755, mtime_ns=CREATED * NANOSECOND)
        layer.entry(b"large", REGULAR, mtime_ns=CREATED * NANOSECOND, size=size,
                    data=pools.content(random.Random(7), size, 0.3))
    oci_image.finish_layout(
        layout, tag, [_described(layer, "one large file")], oci_image.native_architecture(), _execution(), CREATED)


def many_files(layout, tag, count):
    """One layer of `count` files of 128 bytes, 100 in a directory, 100 directories in a directory."""
    oci_image.create_layout(layout)
    pools, source = Pools(9), random.Random(9)
    time = CREATED * NANOSECOND
    with LayerWriter(layout) as layer:
        layer.entry(b"./", DIRECTORY, mode=0o755, mtime_ns=time)
        for number in range(count):
            directory = number // 100
            if number % 10_000 == 0:
                layer.entry(b"top%03d/" % (directory // 100), DIRECTORY, mode=0o755, mtime_ns=time)
            if number % 100 == 0:
                layer.entry(b"top%03d/sub%02d/" % (directory // 100, directory % 100), DIRECTORY, mode=0o755, mtime_ns=time)
            place = source.randrange(len(pools.text) - 128)
            _text(layer, b"top%03d/sub%02d/file%07d" % (directory // 100, directory % 100, number), pools.text[place:place + 128], time)
    oci_image.finish_layout(
        layout, tag, [_described(layer, f"{count} small files")], oci_image.native_architecture(), _execution(), CREATED)


class Pools:
    """Material for files. Pieces from random places in it look new to deflate, whose window is 32 KiB."""

    SIZE = 12 << 20

    def __init__(self, seed):
        source = random.Random(seed)
        words = []
        for _ in range(2500):
            words.append(bytes(source.choices(b"etaoinshrdlucmfwypvbgkjqxz_", k=source.randint(2, 10))))
        marks = [b" "] * 12 + [b", ", b".\n", b" = ", b";\n    ", b"\n"]
        # Few words are common and most are rare, as in any language.
        weights = [1 / (rank + 1.5) for rank in range(len(words))]
        count = self.SIZE // 6
        chosen = source.choices(words, weights, k=count)
        between = source.choices(marks, k=count)
        self.text = b"".join(part for pair in zip(chosen, between) for part in pair)
        # Machine code and tables: runs that come again soon after, with something new between them.
        pieces, length = [b"\0" * 64], 64
        while length < self.SIZE:
            recent = source.choice(pieces[-300:])
            if source.random() < 0.62:
                pieces.append(recent[:source.randint(6, 40)])
            else:
                pieces.append(source.randbytes(source.randint(3, 14)) + b"\0\0" + recent[:8])
            length += len(pieces[-1])
        self.binary = b"".join(pieces)
        self.noise = source.randbytes(self.SIZE // 2)

    def content(self, source, size, noisy=0.0):
        """Pieces of `size` bytes in all; the part `noisy` of them cannot be compressed."""
        kind = self.text if source.random() < 0.6 else self.binary
        while size > 0:
            pool = self.noise if noisy and source.random() < noisy else kind
            length = min(size, 96 << 10)
            place = source.randrange(len(pool) - length)
            yield pool[place:place + length]
            size -= length


# How many files each layer of the image for benchmarks brings, and how many large ones.
BENCH_FILES = [12_000, 7_000, 5_000, 4_000, 3_000, 2_500, 1_600, 1_000, 700, 500]
BENCH_LARGE = [6, 3, 4, 2, 2, 2, 2, 1, 1, 1]
FILES_PER_DIRECTORY = 18


def _bench_name(layer, number):
    directory = number // FILES_PER_DIRECTORY
    kind = ("so", "py", "txt", "h", "conf", "json", "mo")[number % 7]
    return b"usr/lib/part%02d/group%02d/module%03d/file%05d.%s" % (
        layer, directory // 40, directory % 40, number, kind.encode())


def _bench_layer(arguments):
    layout, number, scale, variant = arguments
    source = random.Random(1000 + number + 100 * variant)
    pools = _pools
    files = max(FILES_PER_DIRECTORY, int(BENCH_FILES[number] * scale))
    time = (CREATED + 3600 * number) * NANOSECOND
    with LayerWriter(layout) as layer:
        made = set()

        def parents(name):
            parts = name.split(b"/")[:-1]
            for depth in range(1, len(parts) + 1):
                directory = b"/".join(parts[:depth]) + b"/"
                if directory not in made:
                    made.add(directory)
                    layer.entry(directory, DIRECTORY, mode=0o755, mtime_ns=CREATED * NANOSECOND)

        def put(name, size, noisy=0.0):
            parents(name)
            # No two files are equal: each starts with its name.
            head = b"# %s of layer %d\n" % (name, number)
            size = max(size, len(head))
            body = pools.content(source, size - len(head), noisy)
            layer.entry(
                name, REGULAR, mode=0o755 if source.random() < 0.08 else 0o644,
                uid=1000 if source.random() < 0.02 else 0, mtime_ns=time + source.randrange(NANOSECOND),
                size=size, data=_chain(head, body),
                xattrs={b"user.origin": b"layer %d" % number} if source.random() < 0.01 else None)

        layer.entry(b"./", DIRECTORY, mode=0o755, mtime_ns=CREATED * NANOSECOND)
        for index in range(files):
            name = _bench_name(number, index)
            chance = source.random()
            if chance < 0.03 and index:
                parents(name)
                layer.entry(name, SYMLINK, mode=0o777, target=_bench_name(number, index - 1).rsplit(b"/", 1)[1],
                            mtime_ns=time)
            elif chance < 0.04 and index % FILES_PER_DIRECTORY > 1:
                linked = _bench_name(number, index - index % FILES_PER_DIRECTORY)
                if (number, linked) in made:
                    layer.entry(name, LINK, target=linked, mtime_ns=time)
                else:
                    put(name, 2000)
            else:
                put(name, min(2 << 20, int(source.lognormvariate(8.1, 1.5))))
                if index % FILES_PER_DIRECTORY == 0:
                    made.add((number, name))
        for index in range(BENCH_LARGE[number]):
            size = int(source.uniform(8, 42) * scale * (1 << 20))
            put(b"usr/share/large/part%02d-%02d.bin" % (number, index), size, noisy=0.1)
        if number:
            # Files of the lowest layer are replaced and deleted; each layer takes those of its own residue.
            lowest = max(FILES_PER_DIRECTORY, int(BENCH_FILES[0] * scale))
            for index in range(number, lowest, 97):
                put(_bench_name(0, index), int(source.lognormvariate(8.1, 1.2)))
            for index in range(number + 20, lowest, 331):
                directory, base = _bench_name(0, index).rsplit(b"/", 1)
                parents(directory + b"/")
                layer.entry(directory + b"/.wh." + base, REGULAR, mtime_ns=time)
    return _described(layer, f"part {number}")


def _chain(head, body):
    yield head
    yield from body


_pools = None


def bench(layout, tag, scale=1.0, variant=0):
    """Ten layers, at least 35,000 files, 1 GB; mostly small files, some large ones. scale: of both, for a quick look.
    variant: other content and sizes under the same names."""
    global _pools
    oci_image.create_layout(layout)
    _pools = Pools(42)
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        work = [(layout, number, scale, variant) for number in range(len(BENCH_FILES))]
        layers = list(pool.imap(_bench_layer, work, chunksize=1))
    oci_image.finish_layout(layout, tag, layers, oci_image.native_architecture(), _execution(), CREATED)
