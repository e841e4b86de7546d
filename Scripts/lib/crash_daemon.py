"""The rounds of Scripts/crash --daemon: crash_daemon.py VARVE SCRATCH DAEMON CONTAINERD_TREE [--rounds N] [--seed S] [--no-points] [--verbose]"""

import hashlib
import os
import re
import subprocess
import sys
import time

sys.dont_write_bytecode = True

from campaign import PowerCutCampaign
from daemon_world import LONGEST_REMOVAL, Daemons, Mounted, archive_image, with_layer
from store_world import Wrong, chain_names, make_layout, must, read_tree, require_equal, run

# Seconds for a client to end once the daemons serve again.
LONGEST_CALL = 90
# Bytes by which the volume may be fuller than in the beginning once all is removed: containerd's database, and btrfs's own trees.
SLACK = 12 << 20

# BuildKit does not know of a commit that containerd has made and written down, as containerd was killed before it answered. Until its cache
# is pruned it tries it again, and containerd, which says this and has not the store's word for it, refuses.
UNHEARD_COMMIT = re.compile(r"failed to stat active key during commit: snapshot \w+ does not exist")


class Step:
    """A client's process, and what follows once it was answered."""

    def __init__(self, command, then=None, must_succeed=False):
        self.command = command
        self.then = then or (lambda output: None)
        # It is none of the clients that may fail when a daemon is killed.
        self.must_succeed = must_succeed


class Track:
    """Steps one after the other. The first that fails ends it."""

    def __init__(self, *steps):
        self.waiting = list(steps)
        self.process = None
        self.failure = None

    def poll(self, environment):
        """Whether it goes on."""
        if self.process is None:
            if not self.waiting:
                return False
            self.step = self.waiting.pop(0)
            self.output = os.memfd_create("output")
            self.errors = os.memfd_create("errors")
            self.process = subprocess.Popen(
                self.step.command, env=environment, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.errors)
            return True
        if self.process.poll() is None:
            return True
        output, errors = self._take(self.output), self._take(self.errors)
        if self.process.returncode == 0:
            self.step.then(output)
        else:
            self.failure = f"{' '.join(self.step.command)} ended with {self.process.returncode}: {errors.decode(errors='replace')}"
            if self.step.must_succeed:
                raise Wrong(self.failure)
            self.waiting = []
        self.process = None
        return bool(self.waiting)

    @staticmethod
    def _take(descriptor):
        os.lseek(descriptor, 0, os.SEEK_SET)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._take(self.output)
            self._take(self.errors)
            self.process = None
        self.waiting = []


class CrashDaemon(PowerCutCampaign):
    name = "crash --daemon"

    @classmethod
    def add_options(cls, parser):
        super().add_options(parser)
        parser.add_argument("daemon")
        parser.add_argument("containerd")

    def __init__(self, options):
        super().__init__(options)
        self.daemons = None
        self.layout = f"{self.scratch}/layout"
        self.bundle = f"{self.world}/bundle"
        # What containerd was asked for and has answered: images by name; names of committed snapshots to their trees.
        self.there = set()
        self.committed = {}
        # What has ever been committed under a name. containerd removes it some time after it was told to.
        self.made = {}
        # Snapshots that can be written to, and what is in them.
        self.active = {}
        # Images and snapshots that are being made or removed: they may be there or not.
        self.open = set()
        # Images of Docker's, and whether a tree is theirs; what is being made (or, with None, removed).
        self.in_docker = {}
        self.open_in_docker = {}
        self.sound = {}
        self.slowest = 0

    # --- the world

    def make(self):
        self.make_disk(1 << 30)
        must([self.varve, "store", "init", self.store])
        os.mkdir(f"{self.world}/containerd")
        models = make_layout(self.layout)
        self.models = {f"example.org/{model.tag}:latest": model for model in models}
        for name, model in self.models.items():
            self.chains.update(model.trees)
            archive_image(self.layout, model.tag, name, self.archive(name))
        self.daemons = Daemons(self.scratch, self.world, self.store, self.options.containerd, self.options.daemon)
        self.restart()
        self.environment = {**self.daemons.environment, **self.environment_of(self.store)}
        must(["sync", "-f", self.world])
        self.used_before = self.used()

    def archive(self, image):
        return f"{self.scratch}/{self.models[image].tag}.tar"

    def restart(self):
        """Starts what does not run, and waits until it serves."""
        start = time.monotonic()
        if self.daemons.daemon is None or self.daemons.daemon.poll() is not None:
            self.daemons.start_daemon()
        if self.daemons.containerd is None or self.daemons.containerd.poll() is not None:
            self.daemons.start_containerd()
        self.daemons.wait_until_serving()
        self.slowest = max(self.slowest, time.monotonic() - start)

    def used(self):
        # This sync wakes btrfs's cleaner, which sync(1) leaves asleep for up to 30 seconds.
        must(["btrfs", "-q", "filesystem", "sync", self.world])
        must(["btrfs", "-q", "subvolume", "sync", self.world])
        must(["btrfs", "-q", "filesystem", "sync", self.world])
        status = os.statvfs(self.world)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    # --- what is being done when it ends

    def operations(self):
        return {
            "import": 4, "import-two": 3, "import-and-unpack": 2, "remove": 3, "remove-and-collect": 2, "prepare": 1, "view": 1,
            "commit": 4, "diff": 3, "remove-snapshot": 2, "docker-load": 2, "docker-build": 3, "docker-remove": 1,
        }

    def ensure(self, image, is_there):
        if is_there and image not in self.there:
            must(self.daemons.import_command(self.archive(image)))
            self.there.add(image)
        if not is_there and image in self.there:
            self.daemons.ctr("images", "rm", "--sync", image)
            self.there.remove(image)

    def importing(self, image):
        self.open.add(image)
        return Step(self.daemons.import_command(self.archive(image)), lambda _: self.answered(image, True))

    def answered(self, image, is_there):
        self.open.remove(image)
        (self.there.add if is_there else self.there.discard)(image)

    def ctr_step(self, *words, then=None):
        return Step(self.daemons.ctr_command(*words), then)

    def parent(self):
        """A committed snapshot that nothing is open of, and its tree; nothing if there is none."""
        names = {model.chain_names[-1].replace("-", ":", 1): model.tree
                 for name, model in self.models.items() if name in self.there - self.open}
        names.update((name, tree) for name, tree in self.committed.items() if name not in self.open)
        if not names:
            return None, None
        name = self.random.choice(sorted(names))
        return name, names[name]

    def written(self):
        """An active snapshot with changes that are not on disk yet: its name, its parent, and the trees of both."""
        self.ensure(self.random.choice(sorted(self.models)), True)
        parent, below = self.parent()
        name = f"k{self.serial}"
        self.daemons.ctr("snapshots", "prepare", name, parent)
        must(["sync", "-f", self.world])
        with Mounted(self.daemons, name) as root:
            require_equal("a new snapshot", read_tree(root), below)
            self.edit(root, b"of a container")
            tree = read_tree(root)
        self.active[name] = tree
        return name, parent, tree, below

    def prepare(self, operation):
        """What is to run when the daemons end, as tracks."""
        images = sorted(self.models)
        self.random.shuffle(images)
        ctr = self.ctr_step
        self.is_new = None
        if operation.startswith("docker"):
            return self.prepare_docker(operation, images[0])
        if operation.startswith("import"):
            if self.random.random() < 0.5:
                self.empty()
            for image in images if operation == "import-two" else images[:1]:
                self.ensure(image, False)
            if self.random.random() < 0.5:
                self.must("store", "gc", "-q")
            must(["sync", "-f", self.world])
            tracks = [Track(self.importing(image)) for image in (images if operation == "import-two" else images[:1])]
            if operation == "import-and-unpack":
                image = f"{self.layout}:{self.models[self.random.choice(images)].tag}"
                tracks.append(Track(*(
                    Step([self.varve, "--log", "warn", *words], must_succeed=True)
                    for words in (["unpack", "--image", image, self.bundle], ["bundle", "rm", self.bundle]))))
            return tracks
        if operation.startswith("remove") and operation != "remove-snapshot":
            self.ensure(images[0], True)
            must(["sync", "-f", self.world])
            self.open.add(images[0])
            tracks = [Track(ctr("images", "rm", "--sync", images[0], then=lambda _: self.answered(images[0], False)))]
            if operation == "remove-and-collect":
                tracks.append(Track(*[Step([self.varve, "--log", "warn", "store", "gc", "-q"], must_succeed=True)] * 3))
            return tracks
        if operation in ("prepare", "view"):
            self.ensure(images[0], True)
            must(["sync", "-f", self.world])
            parent, tree = self.parent()
            self.open.add("new")

            def is_made(_):
                # ctr gives a view no label that keeps containerd from collecting it.
                if operation == "prepare":
                    self.open.remove("new")
                    self.active["new"] = tree
            return [Track(ctr("snapshots", operation, "new", parent, then=is_made))]
        name, parent, tree, below = self.written()
        committed = f"c{self.serial}"
        if operation == "diff":
            self.is_new = tree.__eq__

            def compare(layer):
                path = f"{self.scratch}/layer.tar"
                with open(path, "wb") as file:
                    file.write(layer)
                require_equal("what the layer of a diff makes of its parent", with_layer(below, path), tree)
                self.counts["layers compared"] += 1

            words = ["--media-type", "application/vnd.oci.image.layer.v1.tar", parent, name]
            return [Track(ctr("snapshots", "diff", *words, then=compare))]

        def is_committed(_):
            self.open.discard(committed)
            self.committed[committed] = tree
            del self.active[name]
        self.made[committed] = tree
        if operation == "commit":
            # Where the daemon has made it and containerd has not heard of that, containerd removes what it does not know.
            self.open |= {committed, name}
            return [Track(ctr("snapshots", "commit", committed, name, then=is_committed))]
        self.daemons.ctr("snapshots", "commit", committed, name)
        is_committed(None)
        self.open.add(committed)

        def is_removed(_):
            self.open.remove(committed)
            del self.committed[committed]
        return [Track(ctr("snapshots", "rm", committed, then=is_removed))]

    # --- Docker

    def prepare_docker(self, operation, image):
        self.daemons.start_docker()
        is_loaded = operation != "docker-load"
        self.ensure_in_docker(image, is_loaded)
        must(["sync", "-f", self.world])
        if operation == "docker-load":
            return [Track(self.docker_step(image, self.models[image].tree.__eq__, *self.load_words(image)))]
        if operation == "docker-remove":
            self.open_in_docker = {image: None}

            def is_removed(_):
                self.open_in_docker = {}
                del self.in_docker[image]
            return [Track(Step(self.daemons.docker_command("rmi", "--force", image), is_removed))]
        self.serial += 1
        self.is_new = self.builds(image)
        return [Track(self.docker_step(f"docker.io/library/built{self.serial}:latest", self.is_new, *self.build_words()))]

    def docker_step(self, image, is_right, *words):
        """A call that makes an image. is_right: whether a tree is that of the image."""
        self.open_in_docker = {image: is_right}

        def is_made(_):
            self.in_docker.update(self.open_in_docker)
            self.open_in_docker = {}
        self.docker_words = words
        return Step(self.daemons.docker_command(*words), is_made)

    def load_words(self, image):
        return "load", "--quiet", "--input", self.archive(image)

    def build_words(self):
        return "build", "--quiet", "--network", "none", "--tag", f"built{self.serial}:latest", f"{self.scratch}/context"

    def builds(self, image):
        """Writes a Dockerfile on an image; returns whether a tree is what it builds."""
        below = self.models[image].tree
        text = b"text %d\n" % self.serial
        os.makedirs(f"{self.scratch}/context", exist_ok=True)
        with open(f"{self.scratch}/context/text", "wb") as file:
            file.write(text)
        with open(f"{self.scratch}/context/Dockerfile", "w") as file:
            file.write(f"FROM {image}\nCOPY text /text\n")

        def is_built(tree):
            # The time of the root directory is that of the build.
            rest = {path: entry for path, entry in tree.items() if path not in (b"", b"text")}
            return b"text" in tree and tree[b"text"][5] == hashlib.sha256(text).hexdigest() and rest == {
                path: entry for path, entry in below.items() if path}
        return is_built

    def ensure_in_docker(self, image, is_there):
        if is_there and image not in self.in_docker:
            self.daemons.docker(*self.load_words(image))
            self.in_docker[image] = self.models[image].tree.__eq__
        if not is_there and image in self.in_docker:
            self.daemons.docker("rmi", "--force", image)
            del self.in_docker[image]

    def check_docker(self):
        images = self.daemons.images("moby")
        for image, is_right in self.in_docker.items():
            if image in self.open_in_docker:
                continue
            if image not in images:
                raise Wrong(f"Docker's {image} is lost")
            chain = chain_names(self.daemons.diff_ids(image, "moby"))[-1].replace("-", ":", 1)
            tree = self.tree_in_docker(image, chain)
            if not is_right(tree):
                raise Wrong(f"Docker's {image} is not what it must be; {chain} is {sorted(tree.items())}, not on one of "
                            f"{[sorted(model.tree.items()) for model in self.models.values()]}")
            self.counts["images of Docker compared"] += 1

    def tree_in_docker(self, image, chain):
        try:
            return self.daemons.tree_of(chain, "moby")
        except Wrong as error:
            # In containerd's words: it never heard of that. The store's would be others.
            if f"ctr: parent snapshot {chain} does not exist" not in str(error):
                raise
        # A load that cannot ask containerd whether the image is unpacked ends well. Docker unpacks it for the first container then.
        self.daemons.start_docker()
        self.daemons.docker("create", "--name", "look", "--network", "none", image, "/none")
        self.daemons.docker("rm", "look")
        self.counts["images that Docker unpacked late"] += 1
        return self.daemons.tree_of(chain, "moby")

    def settle_docker(self):
        """What was in the middle works when it is asked for again."""
        if not self.open_in_docker:
            return
        (image, is_right), = self.open_in_docker.items()
        words = self.docker_words if is_right else ("rmi", "--force", image)
        end = time.monotonic() + LONGEST_CALL
        self.daemons.start_docker()
        while (result := run(self.daemons.docker_command(*words), env=self.environment)).returncode:
            if time.monotonic() > end:
                raise Wrong(f"docker {' '.join(words)} fails afterwards: {result.stderr}")
            if UNHEARD_COMMIT.search(result.stderr):
                self.daemons.docker("builder", "prune", "--all", "--force")
                self.counts["commits that BuildKit had not heard of"] += 1
            time.sleep(0.2)
        if is_right:
            self.in_docker[image] = is_right
        else:
            self.in_docker.pop(image, None)
        self.open_in_docker = {}
        self.check_docker()
        self.check_chains(self.is_new)

    # --- one round

    def round(self):
        operation = self.random.choices(list(self.operations()), list(self.operations().values()))[0]
        at_point = self.draw_point()
        victims = self.random.choice((("daemon",), ("containerd",), ("daemon", "containerd"), "power", "power", "power"))
        if at_point and "daemon" not in victims and victims != "power":
            victims = ("daemon",)
        power = victims == "power"
        self.what = f"{operation}, {'point ' + str(self.point[operation]) if at_point else 'any moment'}, " \
                    f"{'power cut' if power else 'kill -9 of ' + ' and '.join(victims)}"
        self.open = set()
        self.open_in_docker = {}
        tracks = self.prepare(operation)
        was_ended = self.play(tracks, operation, at_point)
        if power:
            self.clone()
        else:
            for victim in victims:
                self.daemons.kill(getattr(self.daemons, victim))
        if at_point:
            self.end_point(operation, was_ended, self.random.randint(1, 3))
        self.count(was_ended, power, at_point)
        if power:
            for track in tracks:
                track.kill()
            self.daemons.lose_power()
            self.cut()
        self.restart()
        # The clients that live go on, and end.
        end = time.monotonic() + LONGEST_CALL
        while any([track.poll(self.environment) for track in tracks]):
            if time.monotonic() > end:
                raise Wrong(f"a client does not end: {[track.step.command for track in tracks if track.process]}")
            time.sleep(0.005)
        self.check(power)
        self.settle(operation)

    def play(self, tracks, operation, at_point):
        """Runs them until they are to be ended. Returns whether they were in the middle."""
        daemons = self.daemons
        if at_point:
            daemons.daemon.terminate()
            daemons.daemon.wait()
            daemons.start_daemon(self.point[operation])
        start = time.monotonic()
        moment = self.random.uniform(0, self.durations[operation] * 1.1)
        while True:
            # All of them, not only the first that goes on.
            goes_on = any([track.poll(self.environment) for track in tracks])
            if at_point and daemons.is_stopped():
                return True
            if not at_point and time.monotonic() - start > moment:
                return goes_on
            if not goes_on:
                break
            if time.monotonic() - start > LONGEST_CALL:
                raise Wrong(f"it takes longer than {LONGEST_CALL} s")
            time.sleep(0.002)
        for track in tracks:
            if track.failure:
                raise Wrong(f"it failed by itself: {track.failure}")
        self.took(operation, time.monotonic() - start)
        return False

    # --- what is there

    def check(self, power):
        daemons = self.daemons
        self.check_chains(self.is_new)
        if found := self.must("store", "check"):
            raise Wrong(f"store check: {found}")
        images, snapshots = daemons.images(), daemons.snapshots()
        for image in self.models:
            if image not in self.open and (image in images) != (image in self.there):
                raise Wrong(f"{image} is {'there again' if image in images else 'lost'}")
            if image in self.there - self.open:
                for chain in self.models[image].chain_names:
                    if snapshots.get(chain.replace("-", ":", 1)) != "Committed":
                        raise Wrong(f"{image} is there, and its snapshot {chain} is not")
        for name in set(self.committed) - self.open:
            if snapshots.get(name) != "Committed":
                raise Wrong(f"the snapshot {name} was committed and is lost")
        for name, tree in self.active.items():
            if name in self.open:
                continue
            if snapshots.get(name) != "Active":
                raise Wrong(f"the snapshot {name} was made and is lost")
            if not power:
                with Mounted(daemons, name) as root:
                    require_equal(f"the snapshot {name}", read_tree(root), tree)
        self.check_records()
        self.check_blobs()
        self.check_docker()
        # One of them as a container would see it.
        name, tree = self.parent()
        if name:
            require_equal(f"a snapshot of {name}", daemons.tree_of(name), tree)

    def check_records(self):
        """That all that is committed is what it must be."""
        records = self.daemons.records()
        trees = {**{name.replace("-", ":", 1): tree for name, tree in self.chains.items()}, **self.made}
        for record in records:
            name = record["key"].split("/", 2)[-1]
            try:
                found = read_tree(f"{self.daemons.place}/trees/{record['tree']}/rootfs")
            except FileNotFoundError:
                # containerd removes what it was told to when it starts.
                if record["key"] in [left["key"] for left in self.daemons.records()]:
                    raise Wrong(f"the tree of {name} is lost") from None
                continue
            if record["kind"] == "committed":
                if name not in trees and record["key"].startswith("moby/"):
                    # BuildKit's names say nothing.
                    continue
                if name not in trees:
                    raise Wrong(f"there is a snapshot {name} that nobody made")
                require_equal(f"the snapshot {name}", found, trees[name])
                self.counts["snapshots compared"] += 1
        # What was half done is deleted behind the start.
        end = time.monotonic() + LONGEST_REMOVAL
        while True:
            expected = {str(record["tree"]) for record in self.daemons.records()} | {"0"}
            found = self.daemons.trees()
            left = [f"{place}/{name}" for place in ("work", "locks") for name in os.listdir(f"{self.store}/{place}")]
            if found == expected and not left:
                return
            if time.monotonic() > end:
                raise Wrong(f"the trees are {sorted(found)}, not {sorted(expected)}; left over: {left}")
            time.sleep(0.02)

    def check_blobs(self):
        """That containerd's blobs are what they are called."""
        for name in self.daemons.blob_names():
            path = f"{self.daemons.blobs}/{name}"
            try:
                status = os.stat(path)
                stamp = status.st_size, status.st_mtime_ns, status.st_ino
                if self.sound.get(name) == stamp:
                    continue
                with open(path, "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
            except FileNotFoundError:
                # containerd collects.
                continue
            if digest != name:
                raise Wrong(f"the blob {name} is not what it is called: it has {status.st_size} bytes")
            self.sound[name] = stamp

    def settle(self, operation):
        """The start of the next round, by calls that must work whatever the last one left."""
        daemons = self.daemons
        self.settle_docker()
        if os.path.exists(self.bundle):
            self.must("bundle", "rm", self.bundle)
        images = daemons.images()
        for image in sorted(self.open & set(self.models)):
            # It can be made again whatever is there of it, and removed.
            if operation.startswith("import"):
                must(daemons.import_command(self.archive(image)))
                self.there.add(image)
            else:
                if image in images:
                    daemons.ctr("images", "rm", "--sync", image)
                self.there.discard(image)
        for name in {"new", *self.active, *self.open} - set(self.models) - set(self.made):
            # containerd does not list what it has and the daemon has not.
            daemons.try_ctr("snapshots", "rm", name)
        self.open, self.active = set(), {}
        for name, kind in daemons.snapshots().items():
            if kind == "Committed":
                if name in self.made:
                    self.committed[name] = self.made[name]
            elif not name.startswith("extract-"):
                # Of a client: `ctr snapshots diff` leaves a view when it is killed. containerd may collect it first.
                daemons.try_ctr("snapshots", "rm", name)
        self.committed = {name: tree for name, tree in self.committed.items() if name in daemons.snapshots()}
        if self.random.random() < 0.1 or len(self.committed) > 8:
            self.empty()

    def empty(self):
        """Everything is removed, and its space comes back."""
        daemons = self.daemons
        daemons.end_docker()
        daemons.forget_all()
        self.in_docker = {}
        self.there, self.committed, self.made = set(), {}, {}
        daemons.require_empty(lambda: self.must("store", "gc", "-q"))
        if (used := self.used()) > self.used_before + SLACK:
            raise Wrong(f"{used >> 10} KiB are in use after all was removed, {self.used_before >> 10} in the beginning")
        self.chains = {name: tree for model in self.models.values() for name, tree in model.trees.items()}
        self.counts["times everything was removed"] += 1

    def deep(self):
        self.must("store", "check", "--deep", "--layout", self.layout)
        self.empty()

    def clean(self):
        if self.daemons is not None:
            self.daemons.end()

    def summary(self):
        return f"{super().summary()}; the slowest start took {self.slowest:.1f} s"


if __name__ == "__main__":
    CrashDaemon.main()
