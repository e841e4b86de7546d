"""What a campaign on stores is: rounds, or processes for a time, that try to make a command do something wrong.

It shares no code with Varve.
"""

import argparse
import collections
import fcntl
import os
import random
import shutil
import signal
import sys
import time

from store_world import Wrong, is_subvolume, must, read_tree, require_equal, run

FICLONE = 0x40049409
# More points than this in one command are a loop that never ends.
MOST_POINTS = 400


class Campaign:
    """One kind of campaign is a subclass: it says its `name` and options, makes its world, runs, and sums up."""

    name = ""

    @classmethod
    def add_options(cls, parser):
        """Options beside the binary, the scratch directory and the seed."""

    def __init__(self, options):
        self.options = options
        self.varve = options.varve
        self.scratch = options.scratch
        self.random = random.Random(options.seed)
        self.counts = collections.Counter()
        # What is being done, for the sentence of a failure.
        self.what = "making the world"

    def make(self):
        """Makes the world."""

    def run(self):
        """Does it all. Raises Wrong where something is."""

    def clean(self):
        """Unmounts what was mounted, however it ended."""

    def summary(self):
        """What was done, for the last line."""
        return self.counted(self.counts)

    # --- what they share

    def environment_of(self, store):
        """Of commands that work on a store."""
        return {**os.environ, "VARVE_STORE": store, "XDG_CONFIG_HOME": self.scratch}

    def mount(self, disk, place):
        mount = ["mount", "-o", "loop,noatime,user_subvol_rm_allowed", disk, place]
        # Of two processes that take a loop device at the same moment, one may find the other's behind it.
        for pause in (1, 2):
            if run(mount).returncode == 0:
                return
            time.sleep(pause)
        must(mount)

    def unmount(self, place):
        """Processes that were killed may still be on their way out."""
        for _ in range(100):
            result = run(["umount", place])
            if result.returncode == 0:
                return
            time.sleep(0.05)
        raise Wrong(f"cannot unmount {place}: {result.stderr}")

    def unmount_all(self, *places):
        for place in places:
            while os.path.ismount(place):
                if run(["umount", place]).returncode:
                    break

    @staticmethod
    def counted(counts):
        return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))

    @classmethod
    def main(cls):
        parser = argparse.ArgumentParser(prog=cls.name, add_help=False)
        parser.add_argument("varve")
        parser.add_argument("scratch")
        parser.add_argument("--seed", type=int, default=None)
        parser.add_argument("--verbose", action="store_true")
        cls.add_options(parser)
        options = parser.parse_args()
        if options.seed is None:
            options.seed = random.SystemRandom().randrange(10**9)
        print(f"{cls.name}: seed {options.seed}", file=sys.stderr, flush=True)
        campaign = cls(options)
        # So that what it started and mounted goes with it.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        start = time.monotonic()
        try:
            campaign.make()
            campaign.run()
        except (Wrong, OSError) as error:
            print(f"failed: seed {options.seed}, {campaign.what}: {error}", flush=True)
            sys.exit(1)
        finally:
            campaign.clean()
        print(f"ok: seed {options.seed}, {time.monotonic() - start:.0f} s: {campaign.summary()}")


class PowerCutCampaign(Campaign):
    """One with a store in a btrfs whose power can be cut: the file behind the loop device lies in another one, `outer` in the scratch
    directory, where it can be cloned."""

    @classmethod
    def add_options(cls, parser):
        parser.add_argument("--rounds", type=int, default=100)
        parser.add_argument("--no-points", action="store_true", help="at random moments alone: for release builds")

    def __init__(self, options):
        super().__init__(options)
        self.disk = f"{self.scratch}/outer/disk"
        self.world = f"{self.scratch}/world"
        self.store = f"{self.world}/store"
        self.environment = self.environment_of(self.store)
        self.environment.pop("VARVE_STOP_AT", None)
        # Chain name to tree, of all that may be visible.
        self.chains = {}
        # The next durability point of each operation, and how many it was found to have.
        self.point = collections.defaultdict(lambda: 1)
        self.points = collections.Counter()
        self.durations = collections.defaultdict(lambda: 0.3)
        self.serial = 0

    def make_disk(self, size):
        os.mkdir(self.world)
        with open(self.disk, "wb") as file:
            file.truncate(size)
        must(["mkfs.btrfs", "--quiet", self.disk])
        self.mount(self.disk, self.world)

    def must(self, *arguments):
        return must([self.varve, "--log", "warn", *arguments], env=self.environment)

    def edit(self, root, what):
        """Changes of a tree that a diff finds: something new, changed, deleted and renamed."""
        self.serial += 1
        with open(f"{root}/etc/edited", "ab") as file:
            file.write(what + b" %d\n" % self.serial)
        os.makedirs(f"{root}/d{self.serial % 5}/below", exist_ok=True)
        with open(f"{root}/d{self.serial % 5}/below/file", "wb") as file:
            file.write(self.random.randbytes(self.random.choice((10, 5000, 100_000))))
        old = f"{root}/d{(self.serial + 2) % 5}"
        if os.path.isdir(old):
            if self.random.random() < 0.5:
                shutil.rmtree(old)
            else:
                os.rename(old, f"{root}/moved{self.serial}")
                if self.serial > 6:
                    shutil.rmtree(f"{root}/moved{self.serial}")

    # --- the power

    def clone(self):
        """The disk at this instant: what was written to it so far, and nothing of what the kernel still holds back."""
        with open(self.disk, "rb") as source, open(self.disk + ".clone", "wb") as target:
            fcntl.ioctl(target, FICLONE, source.fileno())

    def cut(self):
        """What was cloned is all that is left."""
        self.unmount(self.world)
        os.rename(self.disk + ".clone", self.disk)
        self.mount(self.disk, self.world)

    # --- durability points

    def draw_point(self):
        """Whether the next round ends at one."""
        return self.random.random() < 0.5 and not self.options.no_points

    def end_point(self, operation, was_reached, stride=1):
        """After a try at the next point of an operation."""
        if not was_reached:
            self.point[operation] = 1
            return
        self.points[operation] = max(self.points[operation], self.point[operation])
        self.point[operation] += stride
        if self.point[operation] > MOST_POINTS:
            raise Wrong("it has more durability points than can be")

    def took(self, operation, seconds):
        """How long an operation took that nobody ended."""
        self.durations[operation] = 0.5 * self.durations[operation] + 0.5 * seconds

    def count(self, was_ended, power, at_point):
        self.counts["ended in the middle" if was_ended else "ended by themselves"] += 1
        self.counts["power cuts" if power else "kills"] += 1
        self.counts["at a durability point" if at_point and was_ended else "at a random moment"] += 1

    # --- what is there

    def check_chains(self, is_new=None):
        """That each chain is what its name says. is_new: whether the tree of one whose name no model has may be there."""
        for name in os.listdir(f"{self.store}/chains"):
            place = f"{self.store}/chains/{name}"
            if os.listdir(place) != ["rootfs"] or not is_subvolume(place):
                raise Wrong(f"the chain {name} holds {os.listdir(place)}")
            tree = read_tree(f"{place}/rootfs")
            if name not in self.chains:
                if is_new is None or not is_new(tree):
                    raise Wrong(f"there is a chain {name} that nobody made")
                self.chains[name] = tree
            require_equal(f"the chain {name}", tree, self.chains[name])
            self.counts["chains compared"] += 1

    def run(self):
        for done in range(self.options.rounds):
            self.round()
            if self.options.verbose:
                print(f"{done}: {self.what}", file=sys.stderr, flush=True)
            if done % 50 == 49:
                self.deep()
        self.deep()

    def round(self):
        """One crash, and a look at what it left."""

    def deep(self):
        """Looks at all that there is, now and then and in the end."""

    def summary(self):
        text = f"{self.options.rounds} rounds, {super().summary()}"
        if self.points:
            text += f"; durability points at which it was stopped, the last of each: {self.counted(self.points)}"
        return text
