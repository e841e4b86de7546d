"""A real image: a Debian root file system, and layers of real changes on it, with every hard case that layers have.

The layers are taken by comparing what the tree was with what it is; nothing of Varve or of umoci is used.
Needs root, mmdebstrap, and the Debian mirrors that this machine's apt is set up with.
"""

import os
import re
import shutil
import stat
import subprocess
import sys

import oci_image
from oci_image import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, LINK, REGULAR, SYMLINK, LayerWriter

CREATED = 1_700_000_000
PIECE = 1 << 20
MINIMUM_FILES = 10_000
MINIMUM_LAYERS = 6


def run(*command, **options):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, **options)


# --- what is in the tree, and what of it a layer must hold ---------------------------------------------------------

class Entry:
    __slots__ = ("status", "target", "xattrs")

    def __init__(self, path):
        self.status = os.lstat(path)
        self.target = os.readlink(path) if stat.S_ISLNK(self.status.st_mode) else b""
        self.xattrs = {
            os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }

    @property
    def is_directory(self):
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def inode(self):
        return self.status.st_ino

    def same_metadata(self, other):
        a, b = self.status, other.status
        return (
            a.st_mode == b.st_mode and a.st_uid == b.st_uid and a.st_gid == b.st_gid
            and a.st_mtime_ns == b.st_mtime_ns and a.st_rdev == b.st_rdev and self.target == other.target
            and self.xattrs == other.xattrs and (self.is_directory or a.st_size == b.st_size))

    def same(self, other):
        # A file that was replaced is another inode; nothing here writes into one and puts its mtime back.
        return self.same_metadata(other) and (self.is_directory or self.inode == other.inode)


def listing(root):
    """Path, relative and as bytes, to Entry; b"" is the root. Sockets are no part of an image."""
    root = os.fsencode(root)
    entries = {b"": Entry(root)}
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        for name in os.listdir(os.path.join(root, directory)):
            path = directory + b"/" + name if directory else name
            entry = Entry(os.path.join(root, path))
            if stat.S_ISSOCK(entry.status.st_mode):
                continue
            entries[path] = entry
            if entry.is_directory:
                waiting.append(path)
    return entries


def parent(path):
    return path.rpartition(b"/")[0]


def write_layer(layout, root, old, new, opaque=(), whiteouts_first=False):
    """The layer that makes `new`, which is what lies at `root`, of `old`.

    opaque: directories that were deleted and made again; what the lower layers have in them is hidden at once."""
    def hidden(path):
        return any(path.startswith(directory + b"/") for directory in opaque)

    changed = {path for path, entry in new.items()
               if path not in old or hidden(path) or not entry.same(old[path])}
    groups = {}
    for path, entry in new.items():
        if not entry.is_directory and entry.status.st_nlink > 1:
            groups.setdefault(entry.inode, []).append(path)
    first_name = {}
    for names in groups.values():
        names.sort()
        kept = [name for name in names if name not in changed]
        if kept:
            # The file itself is as it was: its new names are links to one of a lower layer.
            first_name.update((name, kept[0]) for name in names if name in changed)
        else:
            first_name.update((name, names[0]) for name in names[1:])

    whiteouts = []
    for path in old:
        above = parent(path)
        if path not in new and not hidden(path) and above in new and new[above].is_directory:
            if above in old and old[above].is_directory:
                whiteouts.append((above + b"/" if above else b"") + b".wh." + path.rpartition(b"/")[2])
    whiteouts += [directory + b"/.wh..wh..opq" for directory in opaque]

    with LayerWriter(layout) as layer:
        if whiteouts_first:
            order = sorted(whiteouts) + sorted(changed)
        else:
            order = sorted(whiteouts + list(changed))
        whiteouts = set(whiteouts)
        for path in order:
            if path in whiteouts:
                layer.entry(path, REGULAR, mtime_ns=CREATED * 10**9)
            elif path in first_name:
                layer.entry(path, LINK, target=first_name[path], mtime_ns=new[path].status.st_mtime_ns)
            else:
                write_entry(layer, root, path, new[path])
    return layer


def write_entry(layer, root, path, entry):
    status = entry.status
    common = {
        "mode": stat.S_IMODE(status.st_mode), "uid": status.st_uid, "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns, "xattrs": entry.xattrs,
    }
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        layer.entry(path + b"/" if path else b"./", DIRECTORY, **common)
    elif kind == stat.S_IFLNK:
        layer.entry(path, SYMLINK, target=entry.target, **common)
    elif kind == stat.S_IFREG:
        with open(os.path.join(os.fsencode(root), path), "rb", buffering=0) as file:
            ranges = data_ranges(file.fileno(), status.st_size)
            if status.st_blocks * 512 < status.st_size and ranges != [(0, status.st_size)]:
                size = sum(length for _, length in ranges)
                layer.entry(path, REGULAR, size=size, data=pieces(file, ranges), sparse=(status.st_size, ranges),
                            **common)
            else:
                layer.entry(path, REGULAR, size=status.st_size, data=pieces(file, [(0, status.st_size)]), **common)
    else:
        kinds = {stat.S_IFCHR: CHARACTER, stat.S_IFBLK: BLOCK_DEVICE, stat.S_IFIFO: FIFO}
        number = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind != stat.S_IFIFO else (0, 0)
        layer.entry(path, kinds[kind], device=number, **common)


def data_ranges(descriptor, size):
    ranges, offset = [], 0
    while offset < size:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole up to the end
            break
        offset = os.lseek(descriptor, start, os.SEEK_HOLE)
        ranges.append((start, min(offset, size) - start))
    if not ranges or sum(ranges[-1]) < size:
        # The real size shows in the map as an empty range at the end, as GNU tar writes it.
        ranges.append((size, 0))
    return ranges


def pieces(file, ranges):
    for offset, length in ranges:
        file.seek(offset)
        while length:
            data = file.read(min(PIECE, length))
            if not data:
                raise EOFError(f"{file.name!r} became shorter while it was read")
            yield data
            length -= len(data)


# --- the layers ----------------------------------------------------------------------------------------------------

def sources(work):
    """The release to install and what mmdebstrap is to take it from: the Debian entries of this machine's apt."""
    codename = identity = None
    for line in open("/etc/os-release"):
        key, _, value = line.strip().partition("=")
        codename = value.strip('"') if key == "VERSION_CODENAME" else codename
        identity = value.strip('"') if key == "ID" else identity
    if identity != "debian" or not codename:
        # Another system's mirrors have no Debian: mmdebstrap knows where Debian is.
        return "bookworm", []
    suite = re.compile(re.escape(codename) + r"(-updates|-security)?$")
    lines, stanzas = [], []
    folder = "/etc/apt/sources.list.d"
    names = [os.path.join(folder, name) for name in sorted(os.listdir(folder))] if os.path.isdir(folder) else []
    for name in ["/etc/apt/sources.list", *names]:
        if not os.path.isfile(name):
            continue
        text = open(name).read()
        if name.endswith(".sources"):
            for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
                match = re.search(r"(?mi)^Suites:(.*)$", stanza)
                if match and all(suite.match(word) for word in match.group(1).split()):
                    stanzas.append(stanza.strip())
        elif name.endswith(".list"):
            for line in text.splitlines():
                match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?\S+\s+(\S+)", line)
                if match and suite.match(match.group(1)):
                    lines.append(line)
    found = []
    for extension, parts, separator in (("list", lines, "\n"), ("sources", stanzas, "\n\n")):
        if parts:
            path = os.path.join(work, "debian." + extension)
            with open(path, "w") as file:
                file.write(separator.join(parts) + "\n")
            found.append(path)
    return codename, found


def apt_options():
    """What of this machine's apt must hold in the image's too, so that it reaches the same mirrors."""
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    wanted = re.compile(r"Acquire::(https?::Proxy|Check-Valid-Until|Check-Date|Retries)\b[^;]*;", re.I)
    return [f"--aptopt={line}" for line in dump.splitlines() if wanted.match(line)]


def in_root(root, script):
    """Runs a script in the root file system, with /proc there meanwhile and the network's names."""
    resolver = os.path.join(root, "etc/resolv.conf")
    kept = os.path.lexists(resolver)
    if not kept:
        shutil.copyfile("/etc/resolv.conf", resolver)
    inside = 'mount -t proc proc "$0/proc" && exec chroot "$0" /bin/sh -euc "$1"'
    environment = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    environment.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8",
                       HOME="/root", DEBCONF_NOWARNINGS="yes")
    try:
        run("unshare", "--mount", "--propagation", "private", "sh", "-c", inside, root, script, env=environment)
    finally:
        if not kept:
            os.unlink(resolver)


# No terminal, and no caches that only apt itself can use.
APT = "apt-get -qq -o Dpkg::Use-Pty=0 -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= "
INSTALL = APT + "install -y --no-install-recommends "


def base(root):
    raise AssertionError("made by mmdebstrap")


def interpreters(root):
    in_root(root, APT + "update; " + INSTALL + "python3 perl >/dev/null")


def tools(root):
    in_root(root, INSTALL + "git vim-runtime libc6-dev >/dev/null")


def deletions(root):
    """Whiteouts: of files, of whole directories, of a symlink, and of one of several links."""
    in_root(root, APT + """ purge -y libc6-dev linux-libc-dev libcrypt-dev >/dev/null
        apt-get clean
        rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /usr/share/doc/perl /usr/share/man
        rm -f /etc/localtime /var/log/*.log /var/log/apt/*
        """)
    for name in sorted(os.listdir(os.path.join(root, "usr/share/doc")))[::3]:
        remove(os.path.join(root, "usr/share/doc", name))


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def put(path, data=b"", mode=0o644, uid=0, gid=0, mtime_ns=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chown(path, uid, gid)
    os.chmod(path, mode)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def hard_cases(root):
    """Everything that a layer can hold and that a hurried implementation forgets."""
    root = os.fsencode(root)
    at = lambda path: os.path.join(root, path)
    second = 10**9
    # Links to files of a lower layer, links within this one, and a link to a symlink.
    os.makedirs(at(b"opt/links/deep/er"))
    os.link(at(b"usr/bin/perl"), at(b"opt/links/perl-of-a-lower-layer"))
    os.link(at(b"etc/passwd"), at(b"opt/links/passwd-of-a-lower-layer"))
    put(at(b"opt/links/zz-first"), b"one file, five names\n", mtime_ns=CREATED * second + 1)
    for name in (b"b", b"a", b"deep/c", b"deep/er/d"):
        os.link(at(b"opt/links/zz-first"), at(b"opt/links/" + name))
    os.symlink(b"zz-first", at(b"opt/links/symlink"))
    os.link(at(b"opt/links/symlink"), at(b"opt/links/symlink-again"), follow_symlinks=False)
    # Extended attributes, a capability, ACLs.
    put(at(b"opt/xattrs/user"), b"x")
    os.setxattr(at(b"opt/xattrs/user"), "user.comment", b"plain")
    os.setxattr(at(b"opt/xattrs/user"), "user.binary", b"\0\n=\xff\0")
    # None that is empty: a pax record without a value means that the attribute is not there.
    os.setxattr(at(b"opt/xattrs/user"), "user.long", bytes(range(256)) * 8)
    os.setxattr(at(b"opt/xattrs"), "user.on-a-directory", b"d")
    shutil.copy2(at(b"usr/bin/true"), at(b"opt/xattrs/capable"))
    run("setcap", "cap_net_raw,cap_net_bind_service+ep", os.fsdecode(at(b"opt/xattrs/capable")))
    # A capability must outlive the chown of its file, which clears it.
    shutil.copy2(at(b"usr/bin/true"), at(b"opt/xattrs/capable-owned"))
    os.chown(at(b"opt/xattrs/capable-owned"), 1234, 1234)
    run("setcap", "cap_net_admin+ep", os.fsdecode(at(b"opt/xattrs/capable-owned")))
    put(at(b"opt/acl/file"), b"acl", mode=0o640)
    run("setfacl", "--modify", "u:1000:rw,g:50:r", os.fsdecode(at(b"opt/acl/file")))
    run("setfacl", "--default", "--modify", "u:1000:rwx", os.fsdecode(at(b"opt/acl")))
    # Modes, devices, FIFOs.
    put(at(b"opt/modes/setuid"), b"#!/bin/true\n", mode=0o4755, uid=1000, gid=1000)
    put(at(b"opt/modes/setgid"), b"#!/bin/true\n", mode=0o2755, gid=50)
    put(at(b"opt/modes/none"), b"nobody reads this\n", mode=0)
    os.makedirs(at(b"opt/modes/sticky"))
    os.chmod(at(b"opt/modes/sticky"), 0o3777)
    os.makedirs(at(b"opt/modes/closed"))
    put(at(b"opt/modes/closed/inside"), b"in a directory without permissions\n")
    os.chmod(at(b"opt/modes/closed"), 0)
    os.makedirs(at(b"opt/devices"))
    os.mknod(at(b"opt/devices/null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chmod(at(b"opt/devices/null"), 0o666)
    os.mknod(at(b"opt/devices/loop"), stat.S_IFBLK | 0o660, os.makedev(7, 300))
    os.chown(at(b"opt/devices/loop"), 0, 6)
    os.mknod(at(b"opt/devices/whiteout-of-overlay"), stat.S_IFCHR | 0o600, os.makedev(0, 0))
    os.mkfifo(at(b"opt/devices/fifo"), 0o620)
    os.chown(at(b"opt/devices/fifo"), 3_000_000_000, 2_097_152)
    # Owners that ustar cannot hold, times that it cannot, names that no text is.
    put(at(b"opt/owners/three-thousand-million"), b"x", uid=3_000_000_000, gid=4_000_000_001)
    put(at(b"opt/owners/last-of-ustar"), b"x", uid=2_097_151, gid=2_097_152)
    os.symlink(b"nowhere", at(b"opt/owners/symlink"))
    os.lchown(at(b"opt/owners/symlink"), 2_500_000, 2_500_001)
    put(at(b"opt/times/last-nanosecond"), b"x", mtime_ns=1_234_567_890 * second + 999_999_999)
    put(at(b"opt/times/epoch"), b"x", mtime_ns=0)
    put(at(b"opt/times/after-2038"), b"x", mtime_ns=5_000_000_000 * second + 1)
    os.symlink(b"nowhere", at(b"opt/times/symlink"))
    os.utime(at(b"opt/times/symlink"), ns=(0, 987_654_321 * second + 123_456_789), follow_symlinks=False)
    for name in (b"latin1-\xe9t\xe9", b"\xff\xfe", b"new\nline", b" spaces ", b"back\\slash", b"tab\t",
                 "häuser-日本".encode(), b"-dash", b"*", b"x" * 255, b"y" * 99, b"z" * 100, b"w" * 101):
        put(at(b"opt/names/" + name), name)
    deep = b"opt/deep/" + b"/".join(b"directory-%03d" % n for n in range(60))
    put(at(deep + b"/file"), b"far below\n")
    os.symlink(b"../" * 80 + b"t" * 200, at(b"opt/names/long-target"))
    # Holes: at the start, in the middle, at the end, and nothing but one.
    for name, size, data in ((b"middle", 9 << 20, [(0, b"start"), (5 << 20, b"middle"), ((9 << 20) - 4, b"last")]),
                             (b"ends", 6 << 20, [(3 << 20, b"m" * 5000)]), (b"nothing", 3 << 20, [])):
        put(at(b"opt/sparse/" + name))
        with open(at(b"opt/sparse/" + name), "r+b") as file:
            file.truncate(size)
            for offset, text in data:
                file.seek(offset)
                file.write(text)
    put(at(b"opt/empty"))


def replacements(root):
    """Types that change, directories that are made anew, one name of several replaced, what was deleted come back."""
    root = os.fsencode(root)
    at = lambda path: os.path.join(root, path)
    # Made again: its layer says so with an opaque whiteout.
    for path in OPAQUE:
        shutil.rmtree(at(path))
        put(at(path + b"/only-this"), b"the rest is gone\n")
    # A directory becomes a file, a file a directory, a symlink a directory, a file a symlink.
    shutil.rmtree(at(b"usr/share/vim/vim90/tutor"))
    put(at(b"usr/share/vim/vim90/tutor"), b"a file where a directory was\n")
    os.unlink(at(b"opt/empty"))
    put(at(b"opt/empty/no-more"), b"a directory where a file was\n")
    os.unlink(at(b"opt/owners/symlink"))
    put(at(b"opt/owners/symlink/now-a-directory"), b"x")
    os.unlink(at(b"opt/times/epoch"))
    os.symlink(b"after-2038", at(b"opt/times/epoch"))
    os.unlink(at(b"opt/devices/fifo"))
    put(at(b"opt/devices/fifo"), b"no FIFO any more\n")
    # One of five links becomes a file of its own; another goes; the rest stay one file.
    os.unlink(at(b"opt/links/a"))
    put(at(b"opt/links/a"), b"a file of its own\n")
    os.unlink(at(b"opt/links/deep/c"))
    # Deleted by a lower layer, here again.
    os.symlink(b"/usr/share/zoneinfo/Etc/UTC", at(b"etc/localtime"))
    put(at(b"usr/share/man/man1/back.1"), b"back again\n")
    # Only metadata: of a file, of a directory, of one that has several names.
    os.chmod(at(b"usr/bin/git"), 0o700)
    os.chown(at(b"opt/names"), 77, 78)
    os.utime(at(b"opt/links/zz-first"), ns=(0, CREATED * 10**9 + 5))
    os.removexattr(at(b"opt/xattrs/user"), "user.comment")
    os.setxattr(at(b"opt/xattrs/user"), "user.binary", b"other")


OPAQUE = (b"usr/share/vim/vim90/doc", b"opt/acl")


def changes(root):
    """What a person does in a container: a configuration edited, packages installed, a log that grew."""
    in_root(root, APT + "update; " + INSTALL + "less >/dev/null; rm -rf /var/lib/apt/lists/*")
    with open(os.path.join(root, "etc/motd"), "a") as file:
        file.write("edited\n")
    shutil.copytree(os.path.join(root, "usr/share/zoneinfo"), os.path.join(root, "srv/zoneinfo"), symlinks=True)


STAGES = [
    (base, "debootstrap", {}),
    (interpreters, "apt-get install python3 perl", {}),
    (tools, "apt-get install git vim-runtime libc6-dev", {}),
    (deletions, "purge and remove", {}),
    (hard_cases, "links, attributes, devices, names, holes", {}),
    (replacements, "replace", {"opaque": OPAQUE, "whiteouts_first": True}),
    (changes, "apt-get install less; edit", {}),
]


def debian(layout, tag, work):
    root = os.path.join(work, "root")
    codename, mirrors = sources(work)
    os.environ.setdefault("SOURCE_DATE_EPOCH", str(CREATED))
    run("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory", *apt_options(), codename,
        root, *mirrors)
    oci_image.create_layout(layout)
    layers = []
    old = {}
    for stage, comment, options in STAGES:
        if stage is not base:
            stage(root)
        new = listing(root)
        layer = write_layer(layout, root, old, new, **options)
        layers.append((layer.digest, layer.blob_size, layer.diff_id, comment))
        print(f"    layer {len(layers)}: {comment}: {len(new)} names, {layer.blob_size >> 10} KiB", file=sys.stderr)
        old = new
    if len(old) < MINIMUM_FILES or len(layers) < MINIMUM_LAYERS:
        sys.exit(f"make-image: the Debian image has {len(old)} files in {len(layers)} layers, which are too few")
    execution = {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
        "Cmd": ["/bin/sh"], "WorkingDir": "/", "Labels": {"org.example.made-by": "Scripts/make-image"},
    }
    oci_image.finish_layout(layout, tag, layers, oci_image.native_architecture(), execution, CREATED)
