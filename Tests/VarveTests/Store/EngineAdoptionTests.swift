import VarveBtrfs
import Glibc
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem
import TestSupport
import Testing

/// Where a repack's new chain is a snapshot of the bundle, and where its layer has to be applied.
@Suite struct EngineAdoptionTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// The bundle is a snapshot of the chain, and not what that was published from.
        var isWarm = false
        /// In the volume, after the edit that every case has.
        var script = ""
        var isAdopted = false
        /// The bundle has what the image cannot say, so the two differ.
        var bundleDiffers = false
        var change: @Sendable (inout Repacking.Options) -> Void = { _ in }
    }

    /// Puts a snapshot of the bundle in its place.
    private static let restoring =
        "btrfs -q subvolume snapshot bundle b2; [ ! -e bundle/rootfs/nested ] || btrfs -q subvolume delete bundle/rootfs/nested; btrfs -q subvolume delete bundle; mv b2 bundle"

    @Test(
        "The chain is what the layers give, whichever way it is made",
        arguments: [
            Case(testDescription: "plain", isAdopted: true),
            // What the kernel did by itself when room was reserved says nothing.
            Case(
                testDescription: "a file with room reserved",
                script: "fallocate -l 1M bundle/rootfs/reserved",
                isAdopted: true),
            // The walk is as exact as the search.
            Case(testDescription: "found by a walk", isAdopted: true) { $0.source = .walk },
            // A kernel's stream may be wrong: then the layer alone counts.
            Case(testDescription: "found by the stream") { $0.source = .stream },
            // Flags of an inode are in no layer, so they may be in no chain.
            Case(
                testDescription: "an immutable file of the image",
                script: "chattr +i bundle/rootfs/etc/group || chattr +i bundle/rootfs/bin/bash"),
            Case(
                testDescription: "a new file that is not copied on write",
                script:
                    "touch bundle/rootfs/nocow; chattr +C bundle/rootfs/nocow; echo x > bundle/rootfs/nocow"),
            Case(
                testDescription: "a directory whose files are compressed",
                script: "mkdir bundle/rootfs/zip; btrfs property set bundle/rootfs/zip compression zstd"),
            Case(
                testDescription: "a file that is not compressed",
                script:
                    "echo x > bundle/rootfs/plain; btrfs property set bundle/rootfs/plain compression none"),
            Case(
                testDescription: "a directory whose files are not compressed",
                script: "mkdir bundle/rootfs/plain; chattr +m bundle/rootfs/plain"),
            // An empty directory stands in a snapshot for each.
            Case(
                testDescription: "a nested subvolume",
                script: "btrfs -q subvolume create bundle/rootfs/nested",
                bundleDiffers: true),
            Case(
                testDescription: "a socket",
                script:
                    "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"bundle/rootfs/socket\")'",
                bundleDiffers: true),
            Case(
                testDescription: "a masked path", script: "touch bundle/rootfs/secret", bundleDiffers: true
            ) { $0.maskedPaths = ["secret"] },
            Case(testDescription: "times cut off", bundleDiffers: true) {
                $0.sourceDate = Timestamp(seconds: 1_500_000_000)
            },
            // Files that make it a bundle are taken away; a directory beside them is not understood.
            Case(testDescription: "a file beside rootfs", script: "touch bundle/notes", isAdopted: true),
            Case(testDescription: "a directory beside rootfs", script: "mkdir bundle/notes"),
            Case(
                testDescription: "an attribute on the bundle",
                script: "setfattr -n user.note -v x bundle"),
            // Its inodes came by way of the snapshot: the transaction since which to look is that of the bundle which is gone.
            Case(
                testDescription: "a bundle restored from a snapshot", script: Self.restoring, isAdopted: true),
            Case(
                testDescription: "a flag that came by way of a snapshot",
                script: "chattr +C bundle/rootfs/data; \(Self.restoring)"),
            Case(
                testDescription: "a nested subvolume that was left behind by a snapshot",
                script: "btrfs -q subvolume create bundle/rootfs/nested; \(Self.restoring)",
                bundleDiffers: true),
            Case(
                testDescription: "a bundle that does not say what it was made of",
                isWarm: true, script: "\(Self.restoring); setfattr -x trusted.varve.ancestors bundle"),
            // The chain says whose snapshot it is.
            Case(
                testDescription: "the same of a bundle that the chain was published from",
                script: "\(Self.restoring); setfattr -x trusted.varve.ancestors bundle", isAdopted: true),
            Case(
                testDescription: "the same at a further remove",
                script: "\(Self.restoring); \(Self.restoring); setfattr -x trusted.varve.ancestors bundle"),
            Case(testDescription: "a snapshot of the chain", isWarm: true, isAdopted: true),
            Case(
                testDescription: "a snapshot of the chain, restored from a snapshot", isWarm: true,
                script: Self.restoring, isAdopted: true),
        ])
    func adoption(_ one: Case) throws {
        let world = try EngineRepackTests.world()
        if one.isWarm {
            try world.store().removeBundle(world.bundle())
            try world.unpack("a")
        }
        try world.shell(EngineRepackTests.edit)
        try world.shell(one.script)
        let result = try world.repack("bundle", "b", one.change)
        #expect(result.isPublished)
        let layers = try world.storedLayers("b")
        let name = try #require(try world.chainNames(layers).last)
        let chain = try world.open("store/chains/\(name)")
        #expect(try world.names(in: "store/chains/\(name)") == ["rootfs"])
        #expect(try chain.fd.isReadOnlySubvolume())
        #expect(try chain.fd.extendedAttributeNames() == ["user.varve.published"])
        let rootfs = try world.open("store/chains/\(name)/rootfs")
        let reference = try world.reference(layers)
        #expect(
            try TreeCompare.differences(reference.fd, rootfs.fd) == [], "the chain is what the layers give")
        #expect(
            try world.shell("lsattr -R store/chains/\(name)/rootfs | grep -E '^[^ ]*[iaCc][^ ]* ' || true")
                == "")
        // A new inode bears the time of its making; a snapshot's has that of the bundle.
        let file = "usr/share/f"
        let made = try world.shell("stat -c %z bundle/rootfs/\(file)")
        #expect(try (world.shell("stat -c %z store/chains/\(name)/rootfs/\(file)") == made) == one.isAdopted)
        try world.shell("chattr -R -i bundle/rootfs 2>/dev/null || true")
        if !one.bundleDiffers {
            let bundle = try world.open("bundle/rootfs")
            #expect(try TreeCompare.differences(reference.fd, bundle.fd) == [])
        }
        try world.expectClean()
        // The next bundle is one like any other.
        try world.hideLayers("b")
        try world.unpack("b", "again")
        #expect(try world.diff("again") == [])
        try world.shell("echo more >> again/rootfs/\(file)")
        #expect(try world.diff("again") == ["M \(file)", "M usr/share/g"])
    }
}
