import VarveBtrfs
import DeltaChecks
import Glibc
import VarveLayers
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// Sides that were made read-only before what was written to them had left the page cache, and such as are still written to.
@Suite struct DeltaUnsettledTests {
    /// Every source is asked first once, and so about data that is in memory alone.
    struct Case: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// Makes `old` and `new`, and changes the content of the file f alone.
        var script: String
    }

    static let cases = [
        Case(
            testDescription: "written just before the new side was made read-only",
            script: """
                btrfs -q subvolume create a; head -c 20000 /dev/urandom > a/f; sync
                btrfs -q subvolume snapshot -r a old; btrfs -q subvolume snapshot old new; t=$(stat -c %y new/f)
                printf x | dd of=new/f conv=notrunc status=none; touch -d "$t" new/f; btrfs property set new ro true
                """),
        Case(
            testDescription: "the old side edited after the new one was made of it",
            script: """
                btrfs -q subvolume create e; head -c 20000 /dev/urandom > e/f
                btrfs -q subvolume snapshot -r e old; btrfs -q subvolume snapshot -r old new; sync; t=$(stat -c %y old/f)
                btrfs property set -f old ro false; printf zz | dd of=old/f conv=notrunc status=none; touch -d "$t" old/f
                btrfs property set old ro true
                """),
        Case(
            testDescription: "written in place, to a file without copy-on-write",
            script: """
                btrfs -q subvolume create a; touch a/f; chattr +C a/f; head -c 20000 /dev/urandom > a/f; sync
                cp -a a/f f.0; btrfs -q subvolume snapshot a old; btrfs property set old ro true
                btrfs -q subvolume snapshot old new; printf x | dd of=new/f conv=notrunc,fsync status=none
                t=$(stat -c %y old/f); printf y | dd of=new/f conv=notrunc status=none; touch -d "$t" new/f; btrfs property set new ro true
                """),
        Case(
            testDescription: "received",
            script: """
                btrfs -q subvolume create c; head -c 200000 /dev/urandom > c/f; sync; mkdir rcv
                btrfs -q subvolume snapshot -r c old; btrfs -q subvolume snapshot old w; t=$(stat -c %y w/f)
                head -c 50 /dev/urandom | dd of=w/f conv=notrunc status=none; touch -d "$t" w/f
                btrfs -q subvolume snapshot -r w new; sync; btrfs -q send -f s1 old; btrfs -q send -p old -f s2 new
                btrfs -q subvolume delete old; btrfs -q subvolume delete new; btrfs -q receive -f s1 .; sync
                btrfs -q receive -f s2 .
                """),
    ]

    @Test("What was written before is in the delta", arguments: cases, DeltaSource.allCases)
    func unsettled(_ one: Case, _ source: DeltaSource) throws {
        let base = try SharedVolume.directory()
        try base.shell("exec >/dev/null; \(one.script)")
        let old = try base.fd.openDirectory("old")
        let new = try base.fd.openDirectory("new")
        do {
            let result = try Delta.compute(
                old: DeltaTree(subvolume: old.fd, root: old.fd),
                new: DeltaTree(subvolume: new.fd, root: new.fd),
                source: source)
            #expect(result.changes.map { "\($0.kind.rawValue) \($0.path)" } == ["modified f"])
        } catch LayerError.sourceUnusable {
            // Only an old side that was changed since cannot be searched.
            #expect(one.testDescription.hasPrefix("the old side") && [.search, .stream].contains(source))
        }
    }

    @Test("A side that is written to meanwhile is noticed, whichever it is", arguments: [true, false])
    func writtenMeanwhile(isOld: Bool) throws {
        let base = try SharedVolume.directory()
        try base.fd.createSubvolume("old")
        let old = try base.fd.openDirectory("old")
        try old.fd.writeFileDurably("f", Array(repeating: 1, count: 20_000))
        try old.fd.writeFileDurably("g", [1])
        try old.fd.snapshot(to: base.fd, "new", readOnly: false)
        let new = try base.fd.openDirectory("new")
        try new.fd.writeFileDurably("g", [2])
        let side = isOld ? old.fd : new.fd
        let writer = SharedDescriptor(try side.open("f", [.writeOnly]))
        try old.fd.setSubvolumeReadOnly(true)
        try new.fd.setSubvolumeReadOnly(true)
        #expect {
            try Delta.compute(
                old: DeltaTree(subvolume: old.fd, root: old.fd),
                new: DeltaTree(subvolume: new.fd, root: new.fd)
            ) { [writer = writer.fd] in
                // Called first for what is looked at first, so after the search.
                try unsafe [UInt8](repeating: 2, count: 100).withUnsafeBytes {
                    try unsafe writer.writeFull($0, at: 0)
                }
            }
        } throws: {
            if case LayerError.treeChanged = $0 { true } else { false }
        }
        // Snapshots cannot be written to.
        try old.fd.snapshot(to: base.fd, "old.2", readOnly: true)
        try new.fd.snapshot(to: base.fd, "new.2", readOnly: true)
        let oldSnapshot = try base.fd.openDirectory("old.2")
        let newSnapshot = try base.fd.openDirectory("new.2")
        let result = try Delta.compute(
            old: DeltaTree(subvolume: oldSnapshot.fd, root: oldSnapshot.fd, state: .snapshot),
            new: DeltaTree(subvolume: newSnapshot.fd, root: newSnapshot.fd, state: .snapshot))
        #expect(result.changes.map(\.path).contains("f"))
        extendLifetime(writer)
    }

    /// A page of a mapped file that is written to while a snapshot is made leaves the file there with its new change time and its old content,
    /// and no later write to the page changes that time. That takes a flush of more than a second; here the content of one side is changed on the
    /// disk itself: the file has no checksums, and defragmentation, which changes no time, has given each side its own copy.
    @Test("A change time that a mapped file can have kept says nothing of its content")
    func keptChangeTime() throws {
        let base = try SharedVolume.directory()
        try base.shell(
            """
            exec >/dev/null; truncate -s 256M img; mkfs.btrfs -q -d single img; mkdir m; mount -o loop,noatime img m; cd m
            btrfs subvolume create a; touch a/f; chattr +C a/f
            for i in 1 2; do
                python3 -c 'print(end="kept change time".ljust(65536, "."))' | dd of=a/f oflag=append conv=notrunc,fsync bs=64K iflag=fullblock
                head -c 64K /dev/urandom | dd of=a/g$i conv=fsync
            done
            sleep 2.1; btrfs subvolume snapshot -r a old; btrfs filesystem defragment -f a/f; sync; btrfs subvolume snapshot -r a new
            cd ..; umount m
            python3 -c 'import mmap
            with open("img", "r+b") as file:
                disk = mmap.mmap(file.fileno(), 0); place = disk.find(b"kept change time"); disk[place] = ord("K"); disk.flush()'
            mount -o loop,noatime img m
            """)
        defer { _ = try? base.shell("umount -l m") }
        let old = SharedDescriptor(try base.fd.openDirectory("m/old"))
        let new = SharedDescriptor(try base.fd.openDirectory("m/new"))
        func changes(isUndisturbed: Bool) throws -> [String] {
            try Delta.compute(
                old: DeltaTree(subvolume: old.fd, root: old.fd, isUndisturbed: isUndisturbed),
                new: DeltaTree(subvolume: new.fd, root: new.fd), source: .walk
            ).changes.map { "\($0.kind.rawValue) \($0.path)" }
        }
        #expect(try changes(isUndisturbed: false) == ["modified f"])
        // Its time is the same, and older than the snapshot.
        #expect(try changes(isUndisturbed: true) == [])
    }

    /// 20,000 names of one file would be 400 million look-ups if each were looked at for each.
    @Test("Names that fell apart into equal copies are looked at once each", arguments: DeltaSource.allCases)
    func partedNames(_ source: DeltaSource) throws {
        func cost(_ names: Int) throws -> (changes: Int, seconds: Double) {
            let volume = try LoopVolume(size: 1 << 30)
            _ = try runCommand([
                "bash", "-c",
                """
                cd "$1"; exec >/dev/null; btrfs subvolume create old; echo x > old/0; cd old
                python3 -c 'import os,sys
                for i in range(1,int(sys.argv[1])): os.link("0",str(i))' \(names)
                cd ..; btrfs subvolume snapshot old new; btrfs property set old ro true; cd new
                python3 -c 'import os,sys
                t=os.stat("0")
                for i in range(1,int(sys.argv[1])):
                    os.unlink(str(i)); open(str(i),"w").write("x\\n"); os.utime(str(i),ns=(t.st_atime_ns,t.st_mtime_ns))' \(names)
                cd ..; btrfs property set new ro true
                """, "bash", volume.path.description,
            ])
            let old = try volume.root.openDirectory("old")
            let new = try volume.root.openDirectory("new")
            let start = ContinuousClock.now
            let result = try Delta.compute(
                old: DeltaTree(subvolume: old.fd, root: old.fd),
                new: DeltaTree(subvolume: new.fd, root: new.fd),
                source: source)
            let duration = ContinuousClock.now - start
            extendLifetime(volume)
            return (
                result.changes.count,
                Double(duration.components.seconds) + Double(duration.components.attoseconds) / 1e18
            )
        }
        let few = try cost(500)
        let many = try cost(4_000)
        // All names, and the root.
        #expect(few.changes == 501)
        #expect(many.changes == 4_001)
        // Eight times as many; 64 times as long if it were the square.
        #expect(many.seconds < 24 * max(few.seconds, 0.02), "\(few.seconds) s, then \(many.seconds) s")
    }
}
