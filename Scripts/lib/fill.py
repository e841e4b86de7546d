"""The rounds of Scripts/fill: fill.py VARVE SCRATCH [--rounds N] [--seed S] [--verbose]"""

import collections
import errno
import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import sys

sys.dont_write_bytecode = True

import oci_image
from campaign import Campaign
from store_world import TIME, ImageModel, Wrong, chain_names, check_layout, must, read_tree, require_equal, run

# linux/btrfs.h: BTRFS_IOC_QUOTA_CTL with BTRFS_QUOTA_CTL_ENABLE and, of Linux 6.7, with ..._ENABLE_SIMPLE_QUOTA.
QUOTA_CTL, ENABLE, ENABLE_SIMPLE = 0xC0109428, 1, 4

PIECE = 256 << 10


class Command:
    """What is run, and what must be so afterwards."""

    def __init__(self, *words, makes=(), expected=None, must_succeed=False, deletes=False):
        self.words = words
        # Names in the world that it makes, and the tree of the first of them.
        self.makes = makes
        self.expected = expected
        # It reads, or deletes: it needs no room that btrfs does not keep for it.
        self.must_succeed = must_succeed or deletes


class Fill(Campaign):
    name = "fill"

    @classmethod
    def add_options(cls, parser):
        parser.add_argument("--rounds", type=int, default=200)
        parser.add_argument("--only", default="", help="commands whose name has this in it")
        parser.add_argument("--keep-going", action="store_true")

    def __init__(self, options):
        super().__init__(options)
        self.base = f"{self.scratch}/base"
        self.disk = f"{self.scratch}/disk"
        self.mountpoint = f"{self.scratch}/volume"
        # A subvolume, so that a quota can be on it.
        self.world = f"{self.mountpoint}/world"
        self.store = f"{self.world}/store"
        self.layout = f"{self.world}/layout"
        self.filling = f"{self.mountpoint}/filling"
        self.environment = self.environment_of(self.store)
        self.failures = collections.Counter()
        # How much each command takes of each kind, found by running it with room enough.
        self.needs = {}

    # --- the world

    def make(self):
        os.mkdir(self.mountpoint)
        with open(self.base, "wb") as file:
            file.truncate(300 << 20)
        must(["mkfs.btrfs", "--quiet", self.base])
        self.mount(self.base, self.mountpoint)
        must(["btrfs", "-q", "subvolume", "create", self.world])
        must([self.varve, "store", "init", self.store])
        oci_image.create_layout(self.layout)
        layers = []
        for layer in range(3):
            steps = []
            for number in range(6):
                noise = hashlib.shake_128(b"%d %d" % (layer, number)).digest(PIECE + number)
                steps.append(("file", b"large/%d-%d" % (layer, number), noise))
                steps += [("file", b"tiny/%d/%d-%d" % (number, layer, i), noise[i:i * 40]) for i in range(40)]
            layers.append(steps)
        layers[2].append(("gone", b"large/0-1"))
        self.image = ImageModel(self.layout, "image", layers)
        oci_image.finish_layout(self.layout, "image", self.image.layers, oci_image.native_architecture(),
                                {"Cmd": ["/bin/sh"]}, TIME // 10**9)
        self.must("unpack", "--image", f"{self.layout}:image", f"{self.world}/user")
        self.edit(f"{self.world}/user")
        self.user_tree = read_tree(f"{self.world}/user/rootfs")
        self.must("snapshot", "create", f"{self.world}/user", "kept")
        self.must("unpack", "--driver", "directory", "--image", f"{self.layout}:image", f"{self.world}/plain")
        self.edit(f"{self.world}/plain")
        # A second image and bundle, for what deletes.
        self.must("config", "--image", f"{self.layout}:image", "--tag", "other", "--author", "somebody")
        self.must("insert", "--image", f"{self.layout}:other", f"{self.world}/user/rootfs/edited", "/added")
        self.must("unpack", "--image", f"{self.layout}:other", f"{self.world}/other")
        must(["btrfs", "-q", "subvolume", "create", f"{self.world}/other/rootfs/nested"])
        self.must("unpack", "--image", f"{self.layout}:other", f"{self.world}/gone")
        self.must("bundle", "rm", f"{self.world}/gone")
        with open(f"{self.scratch}/layer.tar", "wb") as tar:
            subprocess.run(["tar", "-cC", f"{self.world}/user/rootfs", "tiny", "edited"], stdout=tar, check=True)
        self.unmount(self.mountpoint)

    def edit(self, bundle):
        for number in range(8):
            with open(f"{bundle}/rootfs/edit-{number}", "wb") as file:
                file.write(self.random.randbytes(PIECE))
        os.mkdir(f"{bundle}/rootfs/edits")
        for number in range(300):
            with open(f"{bundle}/rootfs/edits/{number}", "wb") as file:
                file.write(self.random.randbytes(number * 6))
        with open(f"{bundle}/rootfs/edited", "wb") as file:
            file.write(self.random.randbytes(4 * PIECE))
        shutil.rmtree(f"{bundle}/rootfs/tiny/3")
        must(["sync", "-f", bundle])

    def fresh(self):
        """The volume as it was made."""
        must(["cp", "--sparse=always", self.base, self.disk])
        self.mount(self.disk, self.mountpoint)

    def must(self, *arguments):
        return must([self.varve, *arguments], env=self.environment)

    # --- what is run

    def commands(self):
        image, other, new = f"{self.layout}:image", f"{self.layout}:other", f"{self.world}/new"
        user, plain = f"{self.world}/user", f"{self.world}/plain"
        tree = self.image.tree
        unpack = ["unpack", "--image", image]
        return {
            "unpack, cold": Command(*unpack, new, makes=["new"], expected=tree),
            "unpack, warm": Command(*unpack, new, makes=["new"], expected=tree),
            "unpack, plain": Command(*unpack, "--driver", "directory", new, makes=["new"], expected=tree),
            "raw unpack": Command("raw", "unpack", "--image", image, new, makes=["new"], expected=tree),
            "repack": Command("repack", "--image", f"{self.layout}:new", user),
            "repack, refreshing": Command("repack", "--refresh-bundle", "--image", f"{self.layout}:new", user),
            "repack, plain": Command("repack", "--image", f"{self.layout}:new", plain),
            "repack, uncompressed": Command("repack", "--compress", "none", "--image", f"{self.layout}:new", user),
            "diff": Command("diff", user),
            "snapshot create": Command("snapshot", "create", user, "new"),
            "snapshot restore": Command("snapshot", "restore", "kept", new, makes=["new"], expected=self.user_tree),
            "insert": Command("insert", "--image", image, "--tag", "new", f"{user}/rootfs/edits", "/inserted"),
            "raw add-layer": Command("raw", "add-layer", "--image", image, "--tag", "new",
                                     f"{self.scratch}/layer.tar"),
            "config": Command("config", "--image", image, "--tag", "new", "--author", "x" * 100_000),
            "new": Command("new", "--image", f"{self.layout}:new"),
            "tag": Command("tag", "--image", image, "new"),
            "init": Command("init", "--layout", new, makes=["new"]),
            "store init": Command("store", "init", new, makes=["new"]),
            "store init, loopback": Command("store", "init", new, "--loopback", "256M", makes=["new", "new.btrfs"]),
            "raw runtime-config": Command("raw", "runtime-config", "--image", image, f"{self.world}/config.json",
                                          makes=["config.json"]),
            "store ls": Command("store", "ls", must_succeed=True),
            "store du": Command("store", "du", must_succeed=True),
            "store check": Command("store", "check", must_succeed=True),
            "stat": Command("stat", "--image", image, must_succeed=True),
            "bundle rm": Command("bundle", "rm", f"{self.world}/other", deletes=True),
            "bundle rm, plain": Command("bundle", "rm", plain, deletes=True),
            "snapshot rm": Command("snapshot", "rm", "kept", deletes=True),
            "store gc": Command("store", "gc", "--sync", deletes=True),
            "gc": Command("gc", "--layout", self.layout, deletes=True),
        }

    def prepare(self, name):
        if name == "unpack, cold":
            # The user's bundle stays; it needs none of its chains.
            for chain in self.must("store", "ls", "-q").split():
                self.must("store", "rm", chain)
        elif name == "store gc":
            self.must("bundle", "rm", f"{self.world}/other")
        elif name == "gc":
            self.must("rm", "--image", f"{self.layout}:other")

    # --- filling

    def fill_data(self):
        """Until nothing more fits; returns the pieces."""
        pieces = []
        for size in (16 << 20, 2 << 20, PIECE, 4096):
            while True:
                place = f"{self.filling}/{len(pieces)}"
                file = os.open(place, os.O_CREAT | os.O_WRONLY)
                try:
                    os.posix_fallocate(file, 0, size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    os.close(file)
                    os.unlink(place)
                    break
                os.close(file)
                pieces.append((place, size))
            must(["sync", "-f", self.filling])
        return pieces

    def fill(self, kind, needed):
        """Leaves less than the command needs, or a little more."""
        os.mkdir(self.filling)
        share = self.random.choice((0, 0, 0.05, self.random.random(), self.random.random() * 1.3))
        room = int(needed[kind] * share)
        if kind == "quota":
            usage = int(self.quota_usage())
            must(["btrfs", "qgroup", "limit", str(usage + room), self.group, self.mountpoint])
            return f"{room} bytes"
        pieces = self.fill_data()
        if kind == "data":
            freed = 0
            while pieces and freed < room:
                place, size = pieces.pop()
                if size > room - freed + PIECE:
                    os.truncate(place, max(size - (room - freed), 0) // 4096 * 4096)
                    freed = room
                else:
                    os.unlink(place)
                    freed += size
            must(["sync", "-f", self.filling])
            return f"{freed} bytes of data"
        # Metadata: no chunk can be had for more of it, and data has room.
        os.truncate(pieces[0][0], 1 << 20)
        must(["sync", "-f", self.filling])
        made = []
        # Attributes that take a leaf of 16 KiB a file, then what fits beside them.
        for count, size in ((3, 3900), (1, 3900), (1, 100)):
            while True:
                folder = f"{self.filling}/m{len(made) // 500}"
                place = f"{folder}/{len(made)}"
                try:
                    if len(made) % 500 == 0:
                        os.makedirs(folder, exist_ok=True)
                    with open(place, "wb"):
                        made.append((place, count * size + 500))
                        for number in range(count):
                            os.setxattr(place, f"user.{number}", b"x" * size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
        freed = 0
        while made and freed < room:
            place, size = made.pop()
            os.unlink(place)
            freed += size
        run(["sync", "-f", self.filling])
        return f"{freed} bytes of metadata"

    def unfill(self, kind):
        if kind == "quota":
            must(["btrfs", "qgroup", "limit", "none", self.group, self.mountpoint])
        must(["rm", "-rf", self.filling])
        must(["sync", "-f", self.mountpoint])

    def turn_quota_on(self):
        """Simple quotas, where the kernel has them, hold for all subvolumes made in the world; of others only what is
        in the world itself counts."""
        descriptor = os.open(self.mountpoint, os.O_RDONLY)
        simple = self.random.random() < 0.7
        try:
            try:
                fcntl.ioctl(descriptor, QUOTA_CTL, struct.pack("QQ", ENABLE_SIMPLE if simple else ENABLE, 0))
            except OSError:
                simple = False
                fcntl.ioctl(descriptor, QUOTA_CTL, struct.pack("QQ", ENABLE, 0))
        finally:
            os.close(descriptor)
        number = must(["btrfs", "inspect-internal", "rootid", self.world]).strip()
        self.group = f"0/{number}"
        if simple:
            # What is there is not counted by simple quotas: the limit is on what comes.
            self.group = "1/100"
            must(["btrfs", "qgroup", "create", self.group, self.mountpoint])
            must(["btrfs", "qgroup", "assign", f"0/{number}", self.group, self.mountpoint])
        else:
            must(["btrfs", "quota", "rescan", "-w", self.mountpoint])

    def quota_usage(self):
        must(["sync", "-f", self.mountpoint])
        for line in must(["btrfs", "qgroup", "show", "--raw", self.mountpoint]).splitlines():
            words = line.split()
            if words and words[0] == self.group:
                return words[1]
        raise Wrong(f"there is no quota group {self.group}")

    # --- what must be so

    def state(self):
        """What a command that fails may not change: all but whole chains."""
        entries = {}
        for folder, names, files in os.walk(self.world):
            inside = os.path.relpath(folder, self.world)
            if folder == f"{self.store}/chains":
                names.clear()
                continue
            if inside.split("/")[-1] == "rootfs":
                entries[inside] = hashlib.sha256(repr(sorted(read_tree(folder).items())).encode()).hexdigest()
                names.clear()
                continue
            for name in files:
                with open(f"{folder}/{name}", "rb") as file:
                    entries[f"{inside}/{name}"] = hashlib.sha256(file.read()).hexdigest()
            for name in names:
                entries[f"{inside}/{name}"] = "directory"
        # A lock file that is there for good.
        entries.pop("layout/.varve-index.lock", None)
        return entries

    def check_chains(self):
        for name in os.listdir(f"{self.store}/chains"):
            tree = read_tree(f"{self.store}/chains/{name}/rootfs")
            if name in self.image.trees:
                require_equal(f"the chain {name}", tree, self.image.trees[name])
            elif name not in self.known and tree != self.user_tree:
                raise Wrong(f"there is a chain {name} of no image")

    def check_result(self, name, command):
        """After the command came to its end."""
        for made in command.makes:
            if not os.path.lexists(f"{self.world}/{made}"):
                raise Wrong(f"{made} is missing though the command ended well")
        if command.expected:
            place = f"{self.world}/{command.makes[0]}"
            require_equal("what it made", read_tree(place if name == "raw unpack" else f"{place}/rootfs"),
                          command.expected)
        tags = check_layout(self.layout, {})
        if name.startswith("repack") and "plain" not in name:
            top = chain_names(tags["new"])[-1]
            place = f"{self.store}/chains/{top}/rootfs"
            if os.path.exists(place):
                require_equal("the chain of the new image", read_tree(place), self.user_tree)
        if "--tag" in command.words or name.startswith("repack") or name in ("new", "tag"):
            if "new" not in tags:
                raise Wrong("the tag is missing though the command ended well")

    def run_command(self, command):
        """The result, without the warning that is right here: a loopback store may grow beyond this volume."""
        result = run([self.varve, *command.words], env=self.environment)
        if "--loopback" in command.words:
            result.stderr = "".join(line for line in result.stderr.splitlines(keepends=True)
                                    if not line.startswith("varve: warning: the store may grow to "))
        return result

    def measure(self, name):
        """Bytes of data, of metadata and of quota that the command takes."""
        def used():
            must(["sync", "-f", self.mountpoint])
            found = {}
            for line in must(["btrfs", "filesystem", "df", "--raw", self.mountpoint]).splitlines():
                kind, _, rest = line.partition(",")
                found[kind] = int(rest.rpartition("used=")[2])
            return found
        self.fresh()
        self.prepare(name)
        before = used()
        result = self.run_command(self.commands()[name])
        if result.returncode or result.stderr:
            raise Wrong(f"{name} with room enough ended with {result.returncode}: {result.stderr}")
        after = used()
        if name == "store init, loopback":
            must([self.varve, "store", "unmount", f"{self.world}/new"], env=self.environment)
        self.unmount(self.mountpoint)
        data = max(after["Data"] - before["Data"], 0)
        metadata = max(after["Metadata"] - before["Metadata"], 0)
        self.needs[name] = {"data": data + (64 << 10), "metadata": metadata * 2 + (1 << 20),
                            "quota": data + metadata + (128 << 10)}

    # --- all rounds

    def run(self):
        names = [n for n in self.commands() if self.options.only in n]
        pairs = [(name, kind) for name in names for kind in ("data", "metadata", "quota")]
        # In another order each time, and each pair as often as any other.
        order = []
        while len(order) < self.options.rounds:
            order += self.random.sample(pairs, len(pairs))
        wrong = 0
        for done, (name, kind) in enumerate(order[:self.options.rounds]):
            try:
                self.round(name, kind)
                if self.options.verbose:
                    print(f"{done}: {self.what}: {self.outcome}", file=sys.stderr, flush=True)
            except Wrong as error:
                if not self.options.keep_going:
                    raise
                wrong += 1
                print(f"{done}: WRONG {self.what}: {error}", file=sys.stderr, flush=True)
                self.clean()
        if wrong:
            raise Wrong(f"{wrong} rounds went wrong")

    def clean(self):
        self.unmount_all(f"{self.world}/new", self.mountpoint)

    def summary(self):
        return (f"{self.options.rounds} rounds, {super().summary()}; failed as they must: "
                + ", ".join(f"{name} {count}" for name, count in sorted(self.failures.items())))

    # --- one round

    def round(self, name, kind):
        command = self.commands()[name]
        self.what = f"{name}, no {kind}"
        if name not in self.needs:
            self.measure(name)
        self.fresh()
        self.prepare(name)
        if kind == "quota":
            self.turn_quota_on()
        self.known = set(os.listdir(f"{self.store}/chains"))
        before = self.state()
        left = self.fill(kind, self.needs[name])
        self.what = f"{name}, no {kind}, {left} left"
        result = self.run_command(command)
        self.counts[f"no {kind}"] += 1
        errors = result.stderr
        self.outcome = f"{result.returncode} {errors.strip()}"
        if result.returncode not in (0, 7):
            raise Wrong(f"it ended with {result.returncode}: {errors}")
        if result.returncode == 0:
            self.counts["had room enough"] += 1
            if errors:
                raise Wrong(f"it ended well and says: {errors}")
        else:
            self.counts["ended with 7"] += 1
            self.failures[name] += 1
            if errors.count("\n") != 1 or not errors.startswith("varve: ") or result.stdout:
                raise Wrong(f"it does not say one sentence: {errors!r} {result.stdout!r}")
            # Btrfs deletes no subvolume in one whose quota is reached.
            is_kept = kind == "quota" and name in ("snapshot rm", "store gc", "bundle rm")
            if command.must_succeed and not is_kept:
                raise Wrong(f"it failed, though it only reads or deletes: {errors}")
            after = self.state()
            if name == "bundle rm" and not os.path.exists(f"{self.world}/other"):
                # Moved out of sight, and deleted by the next command.
                before, after = ({k: v for k, v in state.items() if not k.startswith(("./other", "other", "store/work/"))}
                                 for state in (before, after))
            if after != before:
                changed = sorted(k for k in set(before) | set(after) if before.get(k) != after.get(k))
                raise Wrong(f"it failed ({errors.strip()}) and left {changed}")
        self.check_chains()
        self.unfill(kind)
        if result.returncode and not (name == "bundle rm" and not os.path.exists(f"{self.world}/other")):
            result = self.run_command(command)
            if result.returncode or result.stderr:
                raise Wrong(f"with room enough it ended with {result.returncode}: {result.stderr}")
        self.check_result(name, command)
        if not name.startswith("bundle rm"):
            require_equal("the user's bundle", read_tree(f"{self.world}/user/rootfs"), self.user_tree)
        found = self.must("store", "check")
        if found:
            raise Wrong(f"store check: {found}")
        for place in ("work", "locks"):
            if names := os.listdir(f"{self.store}/{place}"):
                raise Wrong(f"{place}/ has {names} left over")
        self.must("gc", "--layout", self.layout)
        if name == "store init, loopback":
            must([self.varve, "store", "unmount", f"{self.world}/new"], env=self.environment)
        self.unmount(self.mountpoint)


Fill.main()
