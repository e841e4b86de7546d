"""What a campaign on stores is: rounds, or processes for a time, that try to make a command do something wrong.

It shares no code with Varve.
"""

import argparse
import collections
import os
import random
import sys
import time

from store_world import Wrong, must, run


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
