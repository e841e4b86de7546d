import TestSupport
import Testing
import VarveSystem

/// Commands that are at work on one thing at the same time, and what another has changed since it was looked at.
@Suite struct TogetherTests {
    /// `stop POINT COMMAND…` begins a command that stops itself at a `racePoint`, and `go NAME` lets it go on to its end and prints its status.
    static let stops = """
        stop() {
            VARVE_STOP_AT=$1 "${@:2}" & process=$!
            while state=$(cut -d' ' -f3 /proc/$process/stat) && [ "$state" != T ] && [ "$state" != Z ]; do sleep 0.01; done
        }
        go() { while [ "$(cut -d' ' -f3 /proc/$process/stat)" != Z ] && kill -CONT $process; do sleep 0.01; done; wait $process; echo "$1 $?"; }
        """

    /// Runs a script in a world with a store, a layout `L` with the images `empty`, `one` and `two`, and the command as `$V`.
    ///
    /// - Returns: what it printed, on both.
    private static func play(_ script: String, in market: TransferTests.Market) throws -> String {
        try runCommand(
            [
                "env", "VARVE_STORE=\(market.store)", "V=\(try builtProgram("varve"))", "HOME=\(market.path)",
            ] + market.registry.variables + [
                "/bin/bash", "-c", "cd '\(market.path)'; exec 2>&1\n\(stops)\n\(script)",
            ]
        ).outputText
    }

    struct Case: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var script: String
        /// Lines, each of which is in what the script prints.
        var wanted: [String]
        /// What is not.
        var unwanted: [String] = []
    }

    static let cases = [
        Case(
            testDescription: "a refresh waits for nobody, and nobody looks at a bundle that is refreshed",
            script: """
                $V unpack --image L:one B; echo new > B/rootfs/new
                lock=B/.varve-bundle.lock
                flock -s $lock $V repack --refresh-bundle --image L:n B; echo "refresh $?"
                flock -x $lock $V repack --image L:n B; echo "repack $?"
                flock -x $lock $V diff B; echo "diff $?"
                flock -s $lock $V repack --image L:n B; echo "beside $?"
                """,
            wanted: [
                "another command is at work in the bundle", "refresh 1", "repack 1", "diff 1", "beside 0",
            ]),
        Case(
            testDescription: "two subvolumes are not compared while a command runs in one that is a bundle",
            script: """
                $V unpack --image L:one B; $V snapshot create B s; mkdir B/rootfs/proc
                lock=B/.varve-bundle.lock
                flock -x $lock $V diff s B; echo "run $?"; flock -s $lock $V diff s B; echo "others $?"
                """,
            wanted: ["a command runs in the bundle", "run 1", "others 0"]),
        Case(
            testDescription: "a bundle of hooks gives nothing back that is not deleted then",
            script: """
                printf '#!/bin/sh\\ncat > request; echo "$1" >> log; rm -rf "$2/rootfs/work"; echo "{}"\\n' > hook; chmod +x hook
                printf '[hooks]\\n"bundle.pre-remove" = { command = ["%s/hook"] }\\n' "$PWD" > hooks.toml; export VARVE_HOOKS=$PWD/hooks.toml
                $V unpack --driver hooks --image L:one H; mkdir H/rootfs/work; ln -s H link; mkdir p
                flock -x H/.varve-bundle.lock $V bundle rm H; echo "run $?"; $V bundle rm link; echo "link $?"
                (cd H; $V bundle rm .; echo "dot $?"); test -d H/rootfs/work && test ! -e log && echo kept
                $V unpack --driver hooks --keep-dirlinks --image L:one p/H; chattr +a p; $V bundle rm p/H; echo "flag $?"; chattr -a p
                test ! -e log && echo not asked; $V bundle rm H; echo "gone $?"; cat log; grep -o '"variant": *"[^"]*"' request
                """,
            wanted: ["run 1", "kept", "flag ", "not asked", "gone 0", "bundle.pre-remove", #""variant""#],
            unwanted: ["flag 0", "link 0", "dot 0"]),
        Case(
            testDescription: "an unpack by hooks that fails takes away nothing that another has made there",
            script: """
                printf '#!/bin/sh\\ncat > /dev/null; if [ -n "$SLOW" ]; then rm -f free; while [ ! -e free ]; do sleep 0.05; done; fi; echo "{\\\\"layers\\\\":0}"\\n' > hook
                chmod +x hook; printf '[hooks]\\n"unpack.ociv1.layer.try-skip" = { command = ["%s/hook"] }\\n' "$PWD" > hooks.toml
                export VARVE_HOOKS=$PWD/hooks.toml; touch free
                SLOW=1 $V unpack --driver hooks --image L:one H & while [ -e free ]; do sleep 0.05; done
                $V unpack --driver hooks --image L:one H; echo "first $?"; echo work > H/rootfs/work; touch free; wait $!; echo "second $?"
                cat H/rootfs/work
                """,
            wanted: ["first 0", "work"], unwanted: ["second 0"]),
        Case(
            testDescription: "a failed unpack by hooks gives an empty directory back as it was",
            script: """
                printf '#!/bin/sh\\nexit 1\\n' > hook; chmod +x hook
                printf '[hooks]\\n"unpack.ociv1.layer.try-skip" = { command = ["%s/hook"] }\\n' "$PWD" > hooks.toml
                export VARVE_HOOKS=$PWD/hooks.toml; mkdir -m 2751 D; setfattr -n user.a -v b D; before=$(stat -c '%i %a %u' D)
                $V unpack --driver hooks --image L:one D; echo "failed $?"; test "$before" = "$(stat -c '%i %a %u' D)" && echo same
                getfattr --only-values -n user.a D; ls -A D | wc -l
                """,
            wanted: ["failed 6", "same", "b0"]),
        Case(
            testDescription: "who makes no loopback store deletes nobody's image",
            script: """
                touch s.btrfs.new; flock -x s.btrfs.new $V store init --loopback 256M s; echo "locked $?"; test -e s.btrfs.new && echo there
                rm s.btrfs.new; mkfifo s.btrfs.new; $V store init --loopback 256M s; echo "fifo $?"; test -p s.btrfs.new && echo kept
                """,
            wanted: ["another command makes the store", "there", "is not an image that varve began", "kept"]),
        Case(
            testDescription: "what others put into a directory makes no store of it",
            script: """
                mkdir -m 1777 t; mkdir t/chains t/own; echo '{}' > t/store.json; chown 1234 t/chains t/store.json
                $V unpack --image L:one t/own/B; echo "unpack $?"; $V diff t/own/B; echo "diff $?"
                """,
            wanted: ["unpack 0", "diff 0"]),
        Case(
            testDescription: "a change of an image that another command has changed meanwhile is not lost",
            script: """
                for i in $(seq 40); do $V config --image L:one --config.env A$i=1 || echo refused & $V config --image L:one --config.env B$i=1 || echo refused & wait; done > out 2>&1
                refused=$(grep -c '^refused' out); made=$($V stat --image L:one --format json | grep -o '"[AB][0-9]*=1"' | sort -u | wc -l)
                test $((refused + made)) = 80 && echo all told; grep -q 'has changed the tag' out || [ "$refused" = 0 ] && echo said
                """,
            wanted: ["all told", "said"]),
        Case(
            testDescription: "what a layer gives is limited where it is only looked at",
            script: """
                $V layer ls --max-entries 1 L:two; echo "entries $?"; $V layer ls --max-size 10 L:two 1; echo "size $?"; $V layer ls L:two; echo "all $?"
                """,
            wanted: ["entries 3", "size 3", "all 0"]),
        Case(
            testDescription: "archives of one name in two directories are two images",
            script: """
                mkdir x y; $V push L:one oci-archive:$PWD/x/web.tar; $V push L:two oci-archive:$PWD/y/web.tar
                a=$(cd x; $V pull web.tar); b=$(cd y; $V pull web.tar); [ "$a" != "$b" ] && echo two
                [ "$(cd x; $V pull web.tar)" = "$a" ] && echo again
                """,
            wanted: ["two", "again"]),
        Case(
            testDescription: "the image of a plain directory stays, which a collection does not see",
            script: """
                $V push L:one oci-archive:$PWD/a.tar; $V unpack --driver directory --image oci-archive:a.tar D; echo "unpack $?"
                echo work > D/rootfs/work; $V store gc > /dev/null; $V push L:two oci-archive:$PWD/b.tar; mv b.tar a.tar
                $V pull oci-archive:$PWD/a.tar > /dev/null; $V store gc > /dev/null
                $V repack --image $VARVE_STORE/images:mine D; echo "repack $?"; $V raw unpack --image $VARVE_STORE/images:mine r; cat r/work
                """,
            wanted: ["unpack 0", "repack 0", "work"]),
        Case(
            testDescription:
                "no image gets a name whose layers were not fetched, also when its own name has moved",
            script: """
                $V unpack --image L:one warm; $V push L:one oci-archive:$PWD/a.tar; $V unpack --image oci-archive:a.tar B; echo work > B/rootfs/work
                $V repack --image $VARVE_STORE/images:mine B; echo "before $?"
                echo x > x; $V insert --image L:empty --tag other x /x > /dev/null; $V push L:other oci-archive:$PWD/b.tar; mv b.tar a.tar
                $V pull oci-archive:$PWD/a.tar > /dev/null; $V repack --image $VARVE_STORE/images:mine B; echo "after $?"
                $V ls --layout $VARVE_STORE/images | grep -c mine
                """,
            wanted: ["before 4", "which were never fetched", "after 4"], unwanted: ["after 0"]),
        Case(
            testDescription:
                "a bundle of an image that was converted when it was fetched is repacked into that form",
            script: """
                $V unpack --image L:one warm; $V push L:one docker-archive:$PWD/a.tar:web:1
                $V unpack --image docker-archive:a.tar:web:1 B; echo work > B/rootfs/work
                $V repack --image $VARVE_STORE/images:mine B; echo "before $?"; $V pull docker-archive:a.tar:web:1 > /dev/null
                $V repack --image $VARVE_STORE/images:mine B; echo "after $?"; $V raw unpack --image $VARVE_STORE/images:mine r; cat r/work
                diff -r --no-dereference r B/rootfs && echo same
                """,
            wanted: ["before 4", "after 0", "work", "same"]),
    ]

    /// What an eighth reading found.
    static let later = [
        Case(
            testDescription: "what a removal deletes just now is no change of the bundle",
            script: """
                $V unpack --driver directory --image L:two D; echo new > D/rootfs/new
                stop enter-directory $V repack --image L:n D; $V bundle rm D; echo "rm $?"; go repack
                $V raw unpack --image L:n r && diff -r r D/rootfs && echo same; $V bundle rm D; echo "then $?"
                """,
            wanted: ["another command is at work in the bundle", "rm 1", "repack 0", "same", "then 0"]),
        Case(
            testDescription:
                "nothing of the image of a bundle is collected while a command makes another of it",
            script: """
                $V unpack --driver directory --image L:two D; echo new > D/rootfs/new
                stop enter-directory $V repack --image L:n D; $V rm --image L:two; $V gc --layout L; echo "gc $?"; go repack
                $V raw unpack --image L:n r; echo "whole $?"; cat r/new
                """,
            wanted: ["another process writes into", "gc 1", "repack 0", "whole 0", "new"]),
        Case(
            testDescription:
                "nothing of an image is collected while it is unpacked, or copied to another layout",
            script: """
                stop work-directory $V unpack --driver directory --image L:two D; $V rm --image L:two; $V gc --layout L; echo "unpacked $?"; go unpack
                stop adopt-blob $V push L:one oci:$PWD/M:one; $V rm --image L:one; $V gc --layout L; echo "copied $?"; go push
                $V raw unpack --image M:one r; echo "whole $?"
                """,
            wanted: ["unpacked 1", "unpack 0", "copied 1", "push 0", "whole 0"]),
        Case(
            testDescription: "a copy in which something is missing gets no name",
            script: """
                stop adopt-blob $V push L:two oci:$PWD/M:two; rm L/blobs/sha256/*; go push; $V ls --layout M
                """,
            wanted: ["(any more)", "push 4"], unwanted: ["push 0"]),
        Case(
            testDescription: "a refresh counts from what it froze, also if all that had changed was masked",
            script: """
                for driver in btrfs directory; do
                    $V unpack --driver $driver --image L:one $driver; mkdir -p $driver/rootfs/srv/secret; echo password > $driver/rootfs/srv/secret/key
                    $V repack --refresh-bundle --mask-path /srv --image L:a $driver; echo "masked $?: $($V diff $driver)"
                    echo work > $driver/rootfs/work; $V repack --image L:b $driver; $V layer ls L:b 2
                done
                """,
            wanted: ["masked 0: \n", "work"], unwanted: ["secret"]),
        Case(
            testDescription: "whoever a bundle was given to, what is made of it is the caller's",
            script: """
                $V unpack --image L:one B; chown 1234:1234 B; echo new > B/rootfs/new; $V --log debug repack --image L:n B
                stat -c 'chain of %u:%g' $VARVE_STORE/chains/*; $V unpack --image L:n C; stat -c 'bundle of %u:%g %a' C
                setfacl -m u:1234:rwx B; $V snapshot create B s; $V snapshot restore --bundle-mode 750 s R; stat -c 'restored %u:%g' R; getfacl -c R
                """,
            wanted: ["published the chain", "chain of 0:0", "bundle of 0:0 700", "restored 0:0"],
            unwanted: ["of 1234", "user:1234"]),
        Case(
            testDescription: "no access control list of the host gets into a tree",
            script: """
                mkdir p; setfacl -d -m u:1234:rwx p; $V unpack --driver directory --image L:one p/D; $V raw unpack --image L:one p/r
                $V unpack --image L:one p/B; getfacl -c p/D p/D/rootfs p/r p/B p/B/rootfs; mkdir p/D/rootfs/made; getfacl -c p/D/rootfs/made; echo "looked $?"
                """,
            wanted: ["looked 0"], unwanted: ["1234"]),
        Case(
            testDescription: "nothing of a user's lies in a store's own directories",
            script: """
                for name in chains snapshots work locks refreshed; do $V unpack --image L:one $VARVE_STORE/$name/B; echo "$name $?"; done
                $V raw unpack --image L:one $VARVE_STORE/work/r; echo "raw $?"; mkdir -p work; $V unpack --image L:one work/B; echo "other $?"
                $V unpack --image L:one $VARVE_STORE/bundles/B; echo "bundles $?"
                """,
            wanted: [
                "chains 2", "snapshots 2", "work 2", "locks 2", "refreshed 2", "raw 2", "other 0",
                "bundles 0",
            ]),
        Case(
            testDescription:
                "what others can write to a bundle's directory does not say what its delta counts from",
            script: """
                $V unpack --image L:one B; $V snapshot create B s; $V snapshot restore s R; $V bundle rm B; echo new > R/rootfs/new
                said=$(getfattr --only-values -n trusted.varve.ancestors R || getfattr --only-values -n user.varve.ancestors R)
                setfattr -n user.varve.ancestors -v "$(sed 's/ [0-9]*$/ 99999999/' <<< "$said")" R; $V --log debug diff R
                $V --log debug repack --image L:n R; $V store check --deep --image L:n; echo "check $?"
                """,
            wanted: ["delta source: search", "A new", "published the chain", "check 0"]),
        Case(
            testDescription:
                "a bundle that has got another owner map since it was looked at is not packed by the old one",
            script: """
                $V unpack --image L:one B; echo new > B/rootfs/new; stop bundle-metadata $V repack --image L:n B; $V bundle rm B
                $V unpack --uid-map 0:100000:65536 --gid-map 0:100000:65536 --image L:one B; go repack; $V repack --image L:n B; echo "then $?"
                """,
            wanted: ["meanwhile; nothing was written", "repack 1", "then 0"]),
        Case(
            testDescription: "what is written to a mapped file after a refresh is a change",
            script: """
                d=$(mktemp -d /dev/shm/varve-mapped-XXXXXX); $V unpack --driver directory --image L:one $d/D; mkfifo go on
                python3 -c '
                import mmap, sys
                with open(sys.argv[1], "w+b") as f:
                    f.write(bytes(4096)); f.flush(); m = mmap.mmap(f.fileno(), 4096); m[0] = 1
                    open("go", "w").close(); open("on").close(); m[0] = 2
                ' $d/D/rootfs/mapped & cat go; $V repack --refresh-bundle --image L:n $d/D; echo "refreshed: $($V diff $d/D)"; : > on; wait
                $V diff $d/D; rm -rf $d
                """,
            wanted: ["refreshed: \n", "M mapped"]),
        Case(
            testDescription: "a hole in another user's archive costs as little here",
            script: """
                d=$(mktemp -d /dev/shm/varve-hole-XXXXXX); $V push L:one oci-archive:$PWD/a.tar; cp a.tar $d; truncate -s 4T $d/a.tar; chown -R 1234 $d
                TMPDIR=$PWD timeout 60 $V pull oci-archive:$d/a.tar P:one; echo "pull $?"; rm -rf $d
                """,
            wanted: ["pull 0"]),
    ]

    /// What was known to be open after it.
    static let known = [
        Case(
            testDescription: "who may only read a bundle keeps nobody out of it",
            script: """
                for driver in btrfs directory; do
                    $V unpack --driver $driver --bundle-mode 755 --image L:one $driver; echo new > $driver/rootfs/new
                    flock -x $driver $V diff $driver; echo "$driver diff $?"
                    flock -s $driver $V repack --refresh-bundle --image L:$driver $driver; echo "$driver refresh $?"
                done
                stop enter-directory $V repack --image L:n directory; $V bundle rm directory; echo "rm $?"
                stat -c 'lock of %u %a' directory/.varve-bundle.lock; go repack; ls -A btrfs directory | grep -c lock
                flock -x directory $V bundle rm directory; echo "then $?"
                """,
            wanted: [
                "btrfs diff 0", "btrfs refresh 0", "directory diff 0", "directory refresh 0", "rm 1",
                "lock of 0 600", "repack 0\n0\n", "then 0",
            ]),
        Case(
            testDescription: "who may only read a layout keeps nobody from writing to it",
            script: """
                stat -c 'layout %a' L; flock -x L timeout 60 $V tag --image L:one again; echo "tag $?"; ls -A L | grep -c lock
                $V push L:one oci:$PWD/M:one; for blob in M/blobs/sha256/*; do exec {fd}< $blob; flock -x $fd; done
                timeout 100 $V push L:one oci:$PWD/M:two; echo "push $?"; $V raw unpack --image M:two r; echo "whole $?"
                mkdir P; flock -x P timeout 60 $V init --layout P; echo "init $?"
                flock -s L sh -c 'echo $$ > holder; exec sleep 60' & while [ ! -s holder ]; do sleep 0.05; done
                $V gc --layout L; echo "gc $?"; kill $(cat holder); wait; rm holder
                flock -s L/.varve-layout.lock sh -c 'echo $$ > holder; exec sleep 60' & while [ ! -s holder ]; do sleep 0.05; done
                $V gc --layout L; echo "writer $?"; kill $(cat holder); wait
                """,
            wanted: [
                "layout 755", "tag 0\n0\n", "push 0", "whole 0", "init 0", "gc 0", "held by process",
                "writer 1",
            ]),
        Case(
            testDescription: "what a killed command of root's leaves of a lock locks nobody out",
            script: """
                d=$(mktemp -d /dev/shm/varve-locks-XXXXXX); $V push L:one oci:$d/M:one; chown -R 1234:1234 $d
                stop 1 $V tag --image $d/M:one a; kill -9 $process; wait $process; stat -c 'left for %u %a' $d/M/.varve*
                setpriv --reuid 1234 --regid 1234 --clear-groups $V tag --image $d/M:one b; echo "tag $?"; rm -rf $d
                """,
            wanted: ["left for 1234 600", "tag 0"]),
        Case(
            testDescription: "nothing at all of a user's lies in a store's own directories",
            script: """
                for name in chains work locks images/blobs pins; do
                    $V init --layout $VARVE_STORE/$name/M; echo "init $name $?"; $V push L:one oci:$VARVE_STORE/$name/M:x; echo "push $name $?"
                    $V unpack --image L:one $VARVE_STORE/$name/a/b/B; echo "unpack $name $?"; $V store init $VARVE_STORE/$name/s; echo "store $name $?"
                done
                $V unpack --image L:one $VARVE_STORE/pins; echo "itself $?"; find $VARVE_STORE -name a -o -name pins -o -name M -o -name s | wc -l
                $V init --layout $VARVE_STORE/bundles/M; echo "bundles $?"; $V init --layout $VARVE_STORE/images; echo "images $?"
                """,
            wanted: ["chains", "work", "locks", "images/blobs", "pins"].flatMap { name in
                ["init", "push", "unpack", "store"].map { "\($0) \(name) 2" }
            } + ["itself 2\n0\n", "bundles 0", "images 0"]),
        Case(
            testDescription:
                "whoever may write to a bundle's directory does not say which chain it came from",
            script: """
                $V unpack --image L:two C; echo secret > C/rootfs/secret; $V repack --image L:secret C; $V unpack --image L:secret S
                $V unpack --image L:one B; $V snapshot create B s; $V snapshot restore --bundle-mode 770 s R; chgrp 1234 R; echo new > R/rootfs/new
                $V diff R; echo "own $?"; chain=$(getfattr --only-values -n user.varve.chain S | cut -d' ' -f2)
                manifest=$(getfattr --only-values -n user.varve.chain R | cut -d' ' -f1); setfattr -n user.varve.chain -v "$manifest $chain" R
                $V diff R; echo "open $?"; cp -a R K; $V diff K; echo "copy $?"; chmod 700 R; $V diff R > /dev/null; echo "closed $?"
                """,
            wanted: ["A new\nown 0", "others may write to the bundle", "open 1", "copy 1", "closed 0"],
            unwanted: ["D secret"]),
        Case(
            testDescription: "two commands that make one store make one",
            script: """
                stop 1 $V store init s; (timeout 60 $V store init s; echo "other $?") & sleep 0.5; go first; wait
                timeout 60 $V --store s store check; echo "check $?"; ls -A s | tr '\\n' ' '
                """,
            wanted: ["first 0", "other 0", "check 0", "chains locks refreshed snapshots store.json work"]),
        Case(
            testDescription: "a chain that a collection deletes is no fault of the store",
            script: """
                $V unpack --image L:one B; $V bundle rm B; for chain in $VARVE_STORE/chains/*; do
                    btrfs property set -f $chain ro false; touch $chain/rootfs/changed; btrfs property set $chain ro true; done
                stop repair-chain $V store check --repair; $V store gc > /dev/null; echo "gc $?"; go check; $V store check; echo "then $?"
                """,
            wanted: ["deleted it", "gc 0", "check 0", "then 0"]),
        Case(
            testDescription:
                "a collection deletes nothing in a directory of root's that got the name of the blobs",
            script: """
                d=$(mktemp -d /dev/shm/varve-blobs-XXXXXX); $V push L:one oci:$d/M:one; chown -R 1234:1234 $d; $V tag --image $d/M:one b; $V rm --image $d/M:b
                $V gc --layout $d/M; echo "before $?"; name=$(printf 'a%.0s' {1..64}); mkdir -p $d/box/sha256; echo kept > $d/box/sha256/$name
                $V rm --image $d/M:one; mv $d/M/blobs $d/old; mv $d/box $d/M/blobs; $V gc --layout $d/M; echo "gc $?"; cat $d/M/blobs/sha256/$name
                chown -R --reference=$d/M $d/M/blobs/sha256; $V gc --layout $d/M; echo "then $?"; rm -rf $d
                """,
            wanted: ["before 0", "does not belong to the owner of the layout", "gc 1", "kept", "then 0"]),
    ]

    /// `hold DIRECTORY COMMAND…` runs a command in a mount name space of its own, in which the directory is mounted at `/mnt`, as a runtime
    /// does it for a container, and `release` ends it.
    private static let holds = """
        wait_for() { until [ -e up ]; do sleep 0.02; kill -0 $held || return; done; rm -f up; }
        hold() { unshare --mount --propagation private sh -c 'mount --bind "$1" /mnt && echo > up && exec sleep 60' sh "$1" & held=$!; wait_for; }
        release() { kill $held; wait $held; }
        S=$VARVE_STORE; mkdir -p $S/bundles
        """

    /// What a ninth reading found: somebody works in what is to be deleted.
    static let deletions = [
        Case(
            testDescription:
                "a store is not destroyed while a command runs in a bundle, however deep it lies",
            script: """
                \(holds)
                mkdir -p $S/bundles/team/more; $V unpack --image L:one $S/bundles/team/more/a; $V unpack --driver directory --image L:one $S/bundles/team/d
                btrfs -q subvolume create $S/bundles/vol; $V unpack --image L:one $S/bundles/vol/b
                btrfs -q subvolume create $S/bundles/team/d/rootfs/s; mkdir $S/bundles/team/d/rootfs/s/rootfs
                for b in team/more/a team/d vol/b team/d/rootfs/s; do
                    flock -x $S/bundles/$b/.varve-bundle.lock $V store destroy --yes $S; echo "$b $?"
                done
                btrfs property set $S/bundles/team/d/rootfs/s ro true
                test -e $S/bundles/team/more/a/rootfs && test -e $S/bundles/team/d/rootfs/s && test -e $S/bundles/vol/b/rootfs && echo whole
                $V store destroy --yes $S; echo "then $?"; test ! -e $S && echo gone
                """,
            wanted: [
                "another command is at work in the bundle", "more/a 1", "team/d 1", "vol/b 1",
                "rootfs/s 1", "whole", "then 0", "gone",
            ]),
        Case(
            testDescription:
                "a store is not destroyed while a container has a bundle or a snapshot of it mounted",
            script: """
                \(holds)
                $V unpack --image L:one $S/bundles/a; $V snapshot create $S/bundles/a s; $V unpack --driver directory --image L:one $S/bundles/d
                for tree in bundles/a/rootfs bundles/d/rootfs snapshots/s; do
                    hold $S/$tree; $V store destroy --yes $S; echo "$tree $?"; release
                done
                python3 -c 'import os, sys, time; open("up", "w"); os.chroot(sys.argv[1]); time.sleep(60)' $S/bundles/a/rootfs & held=$!
                wait_for; sleep 0.2; $V store destroy --yes $S; echo "root $?"; release
                test -e $S/bundles/a/rootfs && test -e $S/bundles/d/rootfs && test -e $S/snapshots/s && echo whole
                $V store destroy --yes $S; echo "then $?"; test ! -e $S && echo gone
                """,
            wanted: [
                "in another mount name space", "end that process", "a/rootfs 1", "d/rootfs 1",
                "snapshots/s 1",
                "has its root directory there", "root 1", "whole", "then 0", "gone",
            ]),
        Case(
            testDescription: "nobody begins to work in a bundle of a store that is being destroyed",
            script: """
                \(holds)
                for b in aa zz; do $V unpack --image L:one $S/bundles/$b; done; mkdir -p $S/containerd/x/records $S/containerd/x/trees
                stop destroy-bundle $V store destroy --yes $S
                flock -n -s $S/bundles/zz true; echo "bundle $?"; flock -n -x $S/containerd/x true; echo "daemon $?"
                flock -n -s $S/locks true; echo "store $?"; $V diff $S/bundles/zz; echo "diff $?"
                go destroy; test ! -e $S && echo gone
                """,
            wanted: ["bundle 1", "daemon 1", "store 1", "diff 1", "destroy 0", "gone"]),
        Case(
            testDescription: "a bundle goes only with no container in it, of whatever kind it is",
            script: """
                \(holds)
                $V unpack --image L:one B; $V unpack --driver directory --image L:one D
                for bundle in B D; do
                    for tree in $bundle/rootfs $bundle; do hold $tree; $V bundle rm $bundle; echo "$tree $?"; release; done
                    unshare --mount --propagation private sh -c 'mount --bind "$1/rootfs" /mnt; "$V" bundle rm "$1"; echo "here $1 $?"' sh $bundle
                    python3 -c 'import os, sys, time; open("up", "w"); os.chroot(sys.argv[1]); time.sleep(60)' $bundle/rootfs & held=$!
                    wait_for; sleep 0.2; $V bundle rm $bundle; echo "root $bundle $?"; release
                    test -e $bundle/rootfs && echo "whole $bundle"; $V bundle rm $bundle; echo "then $bundle $?"
                done
                """,
            wanted: [
                "in another mount name space", "B/rootfs 5", "B 5", "D/rootfs 5", "D 5", "here B 5",
                "here D 5",
                "umount /mnt", "root B 5", "root D 5", "whole B", "whole D", "then B 0", "then D 0",
            ]),
        Case(
            testDescription:
                "what a containerd has is not forgotten while a container has a tree of it mounted",
            script: """
                \(holds)
                mkdir -p $S/containerd/x/records $S/containerd/x/trees; btrfs -q subvolume create $S/containerd/x/trees/1
                mkdir $S/containerd/x/trees/1/rootfs; echo precious > $S/containerd/x/trees/1/rootfs/work
                hold $S/containerd/x/trees/1/rootfs; $V containerd forget --yes x; echo "forget $?"; $V store destroy --yes $S; echo "destroy $?"; release
                cat $S/containerd/x/trees/1/rootfs/work; $V containerd forget --yes x; echo "then $?"; test ! -e $S/containerd/x && echo gone
                """,
            wanted: ["in another mount name space", "forget 1", "destroy 1", "precious", "then 0", "gone"]),
        Case(
            testDescription: "snapshots and chains go only with no container in them",
            script: """
                \(holds)
                $V unpack --image L:one B; $V snapshot create B s; $V bundle rm B; chain=$(ls $S/chains | head -n 1)
                for tree in snapshots/s/rootfs snapshots/s; do
                    hold $S/$tree; $V snapshot rm s; echo "$tree $?"; release
                done
                test -e $S/snapshots/s/rootfs && echo whole; $V snapshot rm s; echo "then $?"
                hold $S/chains/$chain/rootfs; $V store rm $chain; echo "rm $?"; $V --log info store gc; echo "gc $?"; test -e $S/chains/$chain/rootfs && echo kept by gc
                $V store gc --free 1T > /dev/null; test -e $S/chains/$chain/rootfs && echo kept by --free; release
                python3 -c 'import os, sys, time; open("up", "w"); os.chroot(sys.argv[1]); time.sleep(60)' $S/chains/$chain/rootfs & held=$!
                wait_for; sleep 0.2; $V store gc; test -e $S/chains/$chain/rootfs && echo kept for a root; release
                $V store gc; echo "last $?"; ls $S/chains | wc -l
                """,
            wanted: [
                "s/rootfs 1", "snapshots/s 1", "whole\nthen 0", "rm 1", "is in use, and was kept",
                "gc 0\nkept by gc",
                "kept by --free", "kept for a root", "last 0\n0\n",
            ]),
        Case(
            testDescription: "what cannot be found out about who uses a tree is not taken for nobody",
            script: """
                \(holds)
                $V unpack --image L:one B; mkdir -p $S/containerd/x/records $S/containerd/x/trees; btrfs -q subvolume create $S/containerd/x/trees/1
                mkdir $S/containerd/x/trees/1/rootfs; echo precious > $S/containerd/x/trees/1/rootfs/work
                # Reading it at its beginning is EIO.
                hide='mount --bind /proc/$1/mem /proc/$1/mountinfo; shift; exec "$@"'; own='mount -t tmpfs none "$1/rootfs"; mount --bind /proc/$$/mem /proc/$$/mountinfo; shift; exec "$@"'
                hold B/rootfs; unshare --mount --propagation private sh -c "$hide" sh $held $V bundle rm B; echo "theirs $?"; release
                unshare --mount --propagation private sh -c "$own" sh B $V bundle rm B; echo "own $?"
                hold $S/containerd/x/trees/1/rootfs; unshare --mount --propagation private sh -c "$hide" sh $held $V containerd forget --yes x; echo "forget $?"; release
                test -e B/rootfs && cat $S/containerd/x/trees/1/rootfs/work; $V bundle rm B; echo "then $?"
                """,
            wanted: ["theirs 1", "own 1", "forget 1", "precious\nthen 0"]),
        Case(
            testDescription: "nothing is deleted as a bundle that was not made as one",
            script: """
                S=$VARVE_STORE; $V unpack --image L:one B; chain=$(ls -d $S/chains/* | head -n 1); mkdir -p $S/containerd/x/trees theirs/chains
                for tree in $S/containerd/x/trees/1 theirs/chains/c C; do btrfs -q subvolume snapshot $chain $tree; echo '{}' > $tree/umoci.json; done
                echo '{}' > theirs/store.json; chown -R 1234 theirs
                $V bundle rm $S/containerd/x/trees/1; echo "tree $?"; (cd $S/containerd/x/trees; $V bundle rm ./1; echo "below $?")
                $V bundle rm theirs/chains/c; echo "theirs $?"; test -e $S/containerd/x/trees/1/rootfs && test -e theirs/chains/c/rootfs && echo whole
                btrfs -q subvolume create vm; mkdir vm/rootfs; echo precious > vm/rootfs/work; $V bundle rm vm; echo "vm $?"; cat vm/rootfs/work
                rm B/umoci.json; $V bundle rm B; echo "bundle $?"; $V bundle rm C; echo "snapshot $?"
                mkdir -m 1777 t; mkdir t/chains t/work; echo '{}' > t/store.json; chown 1234 t/chains t/store.json
                $V unpack --image L:one t/work/B; $V bundle rm t/work/B; echo "no store $?"
                """,
            wanted: [
                "is part of a store, not a bundle", "tree 2", "below 2", "theirs 2", "whole",
                "vm 4\nprecious",
                "nor an attribute of Varve's; delete it with: btrfs subvolume delete vm", "bundle 0",
                "snapshot 0", "no store 0",
            ]),
    ]

    /// What a tenth reading found.
    static let afterwards = [
        Case(
            testDescription: "a bundle or a layout that is opened to others stays locked",
            script: """
                $V unpack --driver directory --image L:two D; echo new > D/rootfs/new
                stop enter-directory $V repack --image L:n D; stat -c 'lock of %u %a' D/.varve-bundle.lock; chmod 755 D
                $V bundle rm D; echo "rm $?"; go repack; ls -A D | grep -c lock; $V bundle rm D; echo "then $?"
                mkdir -m 700 M; $V init --layout M; $V push L:two oci:$PWD/M:two; stop 1 $V tag --image M:two again; chmod 755 M
                $V gc --layout M; echo "gc $?"; go tag; $V raw unpack --image M:again r; echo "whole $?"; ls -A M | grep -c lock
                """,
            wanted: ["lock of 0 600", "rm 1", "repack 0\n0\n", "then 0", "gc 1", "tag 0", "whole 0\n0\n"]),
        Case(
            testDescription:
                "where the file of a lock cannot be made, no reader keeps root out, and two of root's commands exclude each other",
            script: """
                for driver in btrfs directory; do
                    $V unpack --driver $driver --bundle-mode 755 --image L:two $driver; echo new > $driver/rootfs/new; chattr +i $driver
                    flock -x $driver $V diff $driver; echo "$driver diff $?"
                done
                stop enter-directory $V repack --image L:n directory; $V bundle rm directory; echo "rm $?"
                chattr -i directory; $V bundle rm directory; echo "file $?"; go repack; chattr +i directory
                flock -x directory $V bundle rm directory; echo "then $?"
                mkdir -m 755 O; $V unpack --driver directory --bundle-mode 755 --image L:two O; chown 1234 O; chattr +i O
                flock -x O $V diff O; echo "owner $?"; chattr -i O btrfs; ls /run/varve-locks | grep -c -- "-$(stat -c %i O)$"
                """,
            wanted: [
                "A new\nbtrfs diff 0", "A new\ndirectory diff 0", "another command is at work in the bundle",
                "rm 1",
                "file 1", "repack 0", "then 0", "owner 1\n0\n",
            ]),
        Case(
            testDescription: "the file of a lock gets into no bundle that is restored, no layer and no chain",
            script: """
                $V unpack --image L:one B; $V snapshot create B s; $V snapshot restore s R; echo "restored with $(ls -A R | grep -c lock)"; touch R/.varve-bundle.lock
                echo new > R/rootfs/new; $V diff R; $V --log debug repack --image L:n R; $V layer ls L:n 2; echo "left: $(ls -A R $VARVE_STORE/chains/* | grep -c lock)"
                $V diff s R; $V store check --deep --image L:n; echo "check $?"
                """,
            wanted: ["restored with 0", "A new", "published the chain", "left: 0", "check 0"],
            unwanted: ["varve-bundle.lock"]),
        Case(
            testDescription: "a place becomes a store of root's, or one of another user's",
            script: """
                mount -o remount,user_subvol_rm_allowed $(findmnt -n -o TARGET -T .); owners() { echo "$1: $(stat -c %U $1 $1/* | sort -u | tr '\\n' ' ')"; }
                stop hand-over $V store init --for nobody a; (timeout 60 $V store init a; echo "root $?") & sleep 1; go user; wait; owners a
                stop 1 $V store init b; (timeout 60 $V store init --for nobody b; echo "user $?") & sleep 1; go root; wait; owners b
                stop hand-over $V store init --for nobody c; (timeout 60 $V store init --for nobody c; echo "other $?") & sleep 1; go first; wait; owners c
                """,
            wanted: [
                "user 0", "belongs to another user", "root 1", "a: nobody \n", "root 0",
                "is a store of root's",
                "user 1",
                "b: root \n", "first 0", "other 0", "c: nobody \n",
            ]),
    ]

    /// What an eleventh reading found.
    static let leftovers = [
        Case(
            testDescription: "no mount table of another user's is too long",
            script: """
                $V unpack --image L:one B; $V snapshot create B s
                # 8192 mounts, each of which takes 15 KB of the table.
                setpriv --reuid=1234 --regid=1234 --clear-groups unshare --user --map-root-user --mount sh -ec '
                    mount -t tmpfs none /mnt; cd /mnt; name=$(printf "\\n%.0s" $(seq 250))x
                    for level in $(seq 15); do mkdir "$name"; cd "$name"; done; mkdir m; mount -t tmpfs none m; cd m
                    for level in $(seq 13); do mkdir $level; mount --rbind . $level; done; echo >&3; exec sleep 600' 3> up & held=$!
                until [ -s up ] || ! kill -0 $held; do sleep 0.02; done; wc -c < /proc/$held/mountinfo
                $V snapshot rm s; echo "snapshot $?"; $V bundle rm B; echo "bundle $?"; $V store gc; echo "gc $?"; kill $held
                """,
            wanted: ["snapshot 0", "bundle 0", "gc 0"], unwanted: ["No such file"]),
        Case(
            testDescription: "what an attribute names as a manifest is none for that",
            script: """
                blobs=L/blobs/sha256; layer=$(ls -S $blobs | head -n 1); names() { btrfs -q subvolume create $1; setfattr -n user.varve.chain -v "sha256:$2 empty" $1; }
                printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%d}]}' \
                    $layer $(stat -c %s $blobs/$layer) > index; index=$(sha256sum index | cut -d' ' -f1); cp index $blobs/$index
                $V unpack --image L:two B; $V rm --image L:two; names F $layer; names G $index; names H $(printf 'a%.0s' {1..64})
                $V gc --layout L; echo "gc $?"; test -e $blobs/$layer && test -e $blobs/$index && echo kept
                echo new > B/rootfs/new; $V repack --image L:n B; echo "repack $?"; rm L/blobs/sha256/$layer; btrfs -q subvolume delete F G
                $V gc --layout L; echo "then $?"; test ! -e $blobs/$index && echo gone
                """,
            wanted: ["gc 0\nkept", "repack 0", "then 0\ngone"]),
        Case(
            testDescription:
                "a snapshot that was replaced by a command that was killed goes, unless it is in use",
            script: """
                \(holds)
                replace() { stop snapshot-replaced $V snapshot create --replace B s; "$@"; kill -9 $process; wait $process; }
                $V unpack --image L:one B; mkdir -p $S/snapshots/s/rootfs/a; btrfs -q subvolume create $S/snapshots/s/rootfs/b
                replace true; ls -A $S/snapshots | wc -l; $V store check; echo "plain $?"; ls -A $S/snapshots $S/locks | wc -w
                hidden() { hold $S/snapshots/.[a-z0-9]*; }; replace hidden; $V store check; echo "used $?"; ls -A $S/snapshots | wc -l; release
                $V store check; echo "then $?"; ls -A $S/snapshots; btrfs -q subvolume create $S/snapshots/.other; $V store check; echo "other $?"
                """,
            wanted: [
                "\n2\n", "plain 0\n3\n", "is in use: the process", "snapshots/.", "used 1\n2\n",
                "then 0\ns\n",
                "snapshots/.other: an interrupted command left it", "other 1",
            ]),
        Case(
            testDescription: "a chain that is not to be trusted is not deleted under who has it in use",
            script: """
                \(holds)
                $V unpack --image L:one B; chain=$(ls -d $S/chains/* | head -n 1); btrfs property set -f $chain ro false; touch $chain/rootfs/changed
                btrfs property set $chain ro true; mkdir $S/chains/sha256:x; hold $chain; $V store check --repair; echo "repair $?"
                $V unpack --image L:one C; echo "unpack $?"; test ! -e C && test -e $chain/rootfs/changed && echo kept; release; rmdir $S/chains/sha256:x
                $V unpack --image L:one C; echo "then $?"; $V store check; echo "check $?"; test ! -e C/rootfs/changed && echo right
                """,
            wanted: [
                "it cannot be mended: the chain", "is not named as a chain", "repair 1", "unpack 1\nkept",
                "then 0",
                "check 0\nright",
            ]),
        Case(
            testDescription: "an image that cannot be unmounted is not deleted",
            script: """
                stop finish-image $V store init --loopback 300M s; touch s.btrfs; (cd s; exec sleep 600) & held=$!; sleep 0.2; go init; ls
                mountpoint s; kill $held; wait $held; rm s.btrfs; $V store init --loopback 300M s; echo "then $?"; test ! -e s.btrfs.new && test -e s.btrfs && echo whole
                $V --store s store check; echo "check $?"; $V --store s store destroy --yes; echo "destroy $?"; ls
                """,
            wanted: [
                "stays, since it is mounted", "init 1", "s is a mountpoint", "then 0\nwhole", "check 0",
                "destroy 0",
            ]),
        Case(
            testDescription: "subvolumes that lie deeper than a path leads are listed by their numbers",
            script: """
                $V unpack --image L:one B; name=$(printf 'n%.0s' {1..250}); chain=$(getfattr --only-values -n user.varve.chain B); (for level in {1..20}; do
                    btrfs -q subvolume create $name; setfattr -n user.varve.chain -v "$chain" $name; cd $name; done)
                $V bundle ls > list; echo "ls $?"; wc -l < list; grep -q 'not mounted' list && echo deep; $V store ls > /dev/null; echo "store $?"; $V store stat | grep -i bundles
                """,
            wanted: ["ls 0\n22\ndeep\n", "store 0", "21 bundles"]),
        Case(
            testDescription: "no path is kept that is too long for a layer",
            script: """
                cat > deep.py << 'END'
                import os, sys
                top = directory = os.open(".", os.O_RDONLY)
                for level in range(2500):
                    if sys.argv[1] == "make": os.mkdir("n" * 250, dir_fd=directory)
                    directory = os.open("n" * 250, os.O_RDONLY, dir_fd=directory)
                    if level % 100: os.close(previous)
                    previous = directory
                if sys.argv[1] == "make":
                    open("near", "w").close(); os.link("near", "far", src_dir_fd=top, dst_dir_fd=directory)
                else:
                    for number in range(1000): os.mknod(str(number), dir_fd=directory)
                END
                deep() { (cd B/rootfs; python3 ../../deep.py $1); }; limited() { prlimit --data=$((400 << 20)) $V "$@"; }
                $V unpack --image L:one B; deep make; limited diff B; echo "diff $?"; limited repack --image L:n B; echo "repack $?"
                $V snapshot create B s; deep fill; limited diff s B; echo "both $?"
                """,
            wanted: ["and 4094 is the most that tools read", "diff 1", "repack 1", "both 1"]),
        Case(
            testDescription:
                "a link of root's in another user's directory counts as theirs, and nothing counts where all may write",
            script: """
                # A link or a file that an image has is root's, and whoever may write to both directories moves it (rename(2)).
                S=$VARVE_STORE; mkdir -p $S/bundles E place; touch place/file; $V unpack --image L:one $S/bundles/B; tar cf secret files 2> /dev/null; chmod 600 secret
                ln -s $PWD/secret E/archive; ln -s $S/bundles E/bundles; ln -s $PWD/L E/layout; ln -s $PWD/place E/place; chown 1234 E
                $V raw add-layer --image L:one --tag none E/archive; echo "archive $?"; $V bundle rm E/bundles/B; echo "bundle $?"
                $V rm --image E/layout:one; echo "tag $?"; $V unpack --driver directory --image L:one E/place/new; echo "unpack $?"; ls place
                $V push L:one oci-archive:$PWD/E/place/a.tar; echo "push $?"; $V insert --image L:one --tag none E/place/file /x; echo "insert $?"
                test -e $S/bundles/B/rootfs && $V stat --image L:one > /dev/null && echo kept; mkdir -m 1777 t; cp /bin/true t/crun; ln -s $PWD/L t/layout
                $V run --runtime $PWD/t/crun $S/bundles/B -- true; echo "run $?"; $V ls --layout t/layout; echo "ls $?"; ln -s $PWD/L place/layout; $V ls --layout place/layout > /dev/null; echo "own $?"
                """,
            wanted: [
                "archive 1", "bundle 1", "tag 1", "unpack 1\nfile\n", "push 1", "insert 1", "kept",
                "who can have put it there", "run 1", "ls 1", "own 0",
            ]),
        Case(
            testDescription:
                "root of a container puts nothing in the way of skopeo, and no device in that of an archive",
            script: """
                $V unpack --image L:one B; mkdir B/rootfs/out tmp; echo precious > precious; touch go
                (while [ -e go ]; do for work in B/rootfs/out/.varve-work*; do ln -s $PWD/precious $work/image; done; done) 2> /dev/null &
                for try in 1 2 3; do $V push L:one oci-archive:$PWD/B/rootfs/out/$try.tar; done; rm go; wait; cat precious
                $V push L:one oci-archive:$PWD/B/rootfs/out/4.tar; echo "push $?"; $V pull oci-archive:$PWD/B/rootfs/out/4.tar L:four; echo "pull $?"
                mknod B/rootfs/device c 1 3; $V raw add-layer --image L:one --tag none B/rootfs/device; echo "device $?"
                skopeo copy -q oci:L:one dir:d; truncate -s 0 d/big; head -c 8M /dev/urandom > d/big; for name in {1..40}; do ln d/big d/link$name; done
                chown -R 1234 d; mount -t tmpfs -o size=40M none tmp; TMPDIR=$PWD/tmp $V pull dir:$PWD/d L:five; echo "links $?"; umount tmp
                """,
            wanted: ["\nprecious\n", "push 0", "pull 0", "device 1", "links 0"]),
        Case(
            testDescription: "the owner of a bundle says nothing in the name of who takes a snapshot",
            script: """
                S=$VARVE_STORE; forge() { setfattr -n user.varve.labels -v '{"run":"1"}' B; }
                $V unpack --image L:one B; stop take-snapshot $V snapshot create --label run=2 B s; forge; go create; ls -A $S/snapshots | wc -l
                $V snapshot create --label run=2 B s; stop take-snapshot $V snapshot create --replace B s; forge; go replace; ls -A $S/snapshots
                $V snapshot ls --format json | grep -o '"run": *"[^"]*"'; $V store check; echo "check $?"
                """,
            wanted: [
                "somebody else changed the labels", "create 1\n0\n", "replace 1\ns\n", #""run""#, "check 0",
            ],
            unwanted: [#""run": "1""#]),
        Case(
            testDescription: "what a containerd had is forgotten, whatever an earlier call left",
            script: """
                S=$VARVE_STORE; mkdir -p $S/containerd/x/{records,trees,forgotten}; touch $S/containerd/x/forgotten/old
                $V containerd forget --yes x; echo "forget $?"; test ! -e $S/containerd/x && echo gone
                """,
            wanted: ["forget 0\ngone"]),
    ]

    @Test(arguments: cases + later + known + deletions + afterwards + leftovers) func together(_ wanted: Case)
        throws
    {
        let market = try TransferTests.Market()
        let said = try Self.play(wanted.script, in: market)
        for text in wanted.wanted { #expect(said.contains(text), "\(text): \(said)") }
        for text in wanted.unwanted { #expect(!said.contains(text), "\(text): \(said)") }
    }
}
