"""Writes OCI image layouts and the tar archives of their layers, with nothing but Python.

It shares no code with Varve, nor with the tools that Varve is compared with: what both make of an image written here
can be held against what it was written from. The same calls write the same bytes.
"""

import hashlib
import json
import os
import time
import zlib

BLOCK = 512
PIECE = 1 << 20
REGULAR, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"


class LayerWriter:
    """One layer: tar, compressed while it is written, with the digests of both forms. Use as a context manager."""

    def __init__(self, layout, level=6):
        self.layout = layout
        self.temporary = os.path.join(layout, "blobs", "sha256", f".tmp-{os.getpid()}-{id(self):x}")
        self.file = open(self.temporary, "wb")
        # gzip(1) -n: no name and no time in the header (RFC 1952), so the same content gives the same bytes.
        self.deflate = zlib.compressobj(level, zlib.DEFLATED, 31)
        self.tar_hash = hashlib.sha256()
        self.blob_hash = hashlib.sha256()
        self.blob_size = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self._finish()
        else:
            self.file.close()
            os.unlink(self.temporary)

    def write(self, data):
        self.tar_hash.update(data)
        self._put(self.deflate.compress(data))

    def _put(self, data):
        if data:
            self.blob_hash.update(data)
            self.blob_size += len(data)
            self.file.write(data)

    def _finish(self):
        self.write(b"\0" * (2 * BLOCK))
        self._put(self.deflate.flush())
        self.file.close()
        self.digest = "sha256:" + self.blob_hash.hexdigest()
        self.diff_id = "sha256:" + self.tar_hash.hexdigest()
        os.rename(self.temporary, os.path.join(self.layout, "blobs", "sha256", self.blob_hash.hexdigest()))

    def entry(self, name, kind, *, mode=0o644, uid=0, gid=0, mtime_ns=0, target=b"", device=(0, 0), xattrs=None,
              size=0, data=(), sparse=None):
        """One entry: ustar, and pax records (POSIX.1-2017) for what does not fit into it.

        data: pieces of bytes, `size` in all. sparse: (real size, [(offset, length)…]): format GNU.sparse 1.0; the
        pieces hold the data of the ranges, one after the other.
        """
        records = []
        stored_size = size
        header_name = name
        prelude = b""
        if sparse:
            real_size, ranges = sparse
            records += [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name),
                        (b"GNU.sparse.realsize", b"%d" % real_size)]
            header_name = b"GNUSparseFile.0/" + name.rsplit(b"/", 1)[-1][:60]
            prelude = b"%d\n" % len(ranges) + b"".join(b"%d\n%d\n" % r for r in ranges)
            prelude += b"\0" * (-len(prelude) % BLOCK)
            stored_size += len(prelude)
        if len(header_name) > 100:
            records.append((b"path", name))
        if len(target) > 100:
            records.append((b"linkpath", target))
        for key, number, limit in ((b"uid", uid, 0o7777777), (b"gid", gid, 0o7777777),
                                   (b"size", stored_size, 0o77777777777)):
            if number > limit:
                records.append((key, b"%d" % number))
        seconds, nanoseconds = divmod(mtime_ns, 10**9)
        if nanoseconds or not 0 <= seconds <= 0o77777777777:
            records.append((b"mtime", (b"%d.%09d" % (seconds, nanoseconds)).rstrip(b"0").rstrip(b".")))
        for key in sorted(xattrs or {}):
            records.append((b"SCHILY.xattr." + key, xattrs[key]))
        if records:
            body = b"".join(_pax_record(key, value) for key, value in sorted(records))
            self.write(_header(b"PaxHeaders/" + header_name[-80:], b"x", 0o644, 0, 0, 0, len(body), b"", (0, 0)))
            self._padded([body], len(body))
        self.write(_header(header_name, kind, mode, uid, gid, seconds, stored_size, target, device))
        if prelude:
            self.write(prelude)
        self._padded(data, size)

    def _padded(self, pieces, size):
        written = 0
        for piece in pieces:
            self.write(piece)
            written += len(piece)
        assert written == size, "the data of an entry is as long as it says"
        if size % BLOCK:
            self.write(b"\0" * (BLOCK - size % BLOCK))


def _pax_record(key, value):
    """"LENGTH KEY=VALUE\\n", where LENGTH counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _header(name, kind, mode, uid, gid, seconds, size, target, device):
    def octal(value, width):
        limit = 8 ** (width - 1) - 1
        return b"%0*o\0" % (width - 1, value if 0 <= value <= limit else 0)

    def text(value, width):
        return value[:width].ljust(width, b"\0")

    fields = [
        text(name, 100), octal(mode, 8), octal(uid, 8), octal(gid, 8), octal(size, 12), octal(seconds, 12), b" " * 8,
        kind, text(target, 100), b"ustar\x0000", text(b"", 32), text(b"", 32), octal(device[0], 8),
        octal(device[1], 8), text(b"", 155), b"\0" * 12,
    ]
    header = b"".join(fields)
    checksum = b"%06o\0 " % sum(header)
    return header[:148] + checksum + header[156:]


def create_layout(path):
    os.makedirs(os.path.join(path, "blobs", "sha256"))
    with open(os.path.join(path, "oci-layout"), "w") as file:
        file.write('{"imageLayoutVersion":"1.0.0"}\n')


def _put_json(layout, document):
    data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(layout, "blobs", "sha256", digest), "wb") as file:
        file.write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def finish_layout(path, tag, layers, architecture, execution, created):
    """Writes config, manifest and index. layers: (digest, size, diff_id, comment) from the lowest up.

    created: seconds since the epoch, of every date in the image."""
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
    config = {
        "created": date, "architecture": architecture, "os": "linux", "config": execution,
        "rootfs": {"type": "layers", "diff_ids": [layer[2] for layer in layers]},
        "history": [{"created": date, "created_by": layer[3]} for layer in layers],
    }
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **_put_json(path, config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size}
                   for digest, size, _, _ in layers],
    }
    index = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", **_put_json(path, manifest),
            "platform": {"architecture": architecture, "os": "linux"},
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }],
    }
    with open(os.path.join(path, "index.json"), "w") as file:
        json.dump(index, file, separators=(",", ":"), sort_keys=True)


def native_architecture():
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le"}.get(machine, machine)
