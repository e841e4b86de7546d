import SystemPackage
import TestSupport
import Testing
import VarveOCI
import VarveStore
import VarveSystem

/// Stores and bundles of the bytes that Docs/on-disk-format.md gives, made by btrfs-progs and setfattr: what any release
/// with this format made.
@Suite struct OnDiskFormatTests {
    /// A store whose chains hold `etc/mark`, which no layer has: who finds it has used these chains.
    private func world() throws -> (world: StoreWorld, names: [String]) {
        let world = try StoreWorld(makesStore: false)
        let layers = [
            try StoreLayer([.directory("etc"), .file("etc/conf", "one\n"), .file("gone", "x")]),
            try StoreLayer([.file("etc/conf", "two, of another length\n"), .file(".wh.gone")]),
        ]
        try world.addImage("image", layers)
        let names = try world.chainNames(layers)
        try world.shell(
            """
            umask 077
            mkdir store store/chains store/snapshots store/refreshed store/work store/locks
            printf '{"formatVersion":1,"uuid":"3f2b8a52-7a0e-4d0b-9a61-0c7f5f3c1f11"}' > store/store.json
            umask 022
            uuid() { btrfs subvolume show "$1" | sed -n 's/^\\tUUID:[ \\t]*//p'; }
            publish() {
                sync -f store
                setfattr -n user.varve.published -v "$2
            $(uuid "$1")
            $3
            " "$1"
                btrfs subvolume snapshot -r "$1" "store/chains/$2"
                btrfs subvolume delete "$1"
            }
            btrfs subvolume create store/work/a
            mkdir -p store/work/a/rootfs/etc
            echo one > store/work/a/rootfs/etc/conf
            echo x > store/work/a/rootfs/gone
            echo here > store/work/a/rootfs/etc/mark
            publish store/work/a \(names[0]) none
            btrfs subvolume snapshot store/chains/\(names[0]) store/work/b
            echo 'two, of another length' > store/work/b/rootfs/etc/conf
            rm store/work/b/rootfs/gone
            publish store/work/b \(names[1]) \(names[0])
            """)
        return (world, names)
    }

    @Test("A store of the documented bytes is whole, and its chains are used")
    func store() throws {
        let (world, names) = try world()
        #expect(try world.chains == names.sorted())
        // No layer can be read.
        try world.shell(
            "for blob in layout/blobs/sha256/*; do head -c 1 $blob | grep -q '{' || truncate -s 0 $blob; done"
        )
        let result = try world.unpack("image")
        #expect(result.layersInPlace == 2)
        #expect(
            try world.shell("cat bundle/rootfs/etc/conf bundle/rootfs/etc/mark; ls bundle/rootfs")
                == "two, of another length\nhere\netc\n")
        #expect(try world.diff("bundle") == [])
        try world.shell("echo three > bundle/rootfs/etc/three")
        #expect(try world.diff("bundle") == ["M etc", "A etc/three"])
        try world.expectClean()
    }

    @Test("A chain whose record is of another name, subvolume or form is not used", arguments: 0..<4)
    func wrongRecords(_ number: Int) throws {
        let (world, names) = try world()
        let right = "$(getfattr --only-values -n user.varve.published store/chains/\(names[1]))"
        let wrong = [
            "$(echo \"\(right)\" | sed 1s/./x/)", "$(echo \"\(right)\" | sed 2s/./x/)",
            "$(echo \"\(right)\" | sed '2s/[0-9a-f]/0/g')", "$(echo \"\(right)\" | head -n 2)",
        ][number]
        try world.shell(
            """
            value="\(wrong)"
            btrfs property set -f store/chains/\(names[1]) ro false
            setfattr -n user.varve.published -v "$value" store/chains/\(names[1])
            btrfs property set store/chains/\(names[1]) ro true
            """)
        let result = try world.unpack("image")
        #expect(result.layersInPlace == 1)
        #expect(try world.shell("cat bundle/rootfs/etc/mark") == "here\n")
    }

    @Test("A bundle of the documented bytes has its delta, and is repacked")
    func bundle() throws {
        let (world, names) = try world()
        let image = try world.image("image")
        // What umoci.json holds beside the manifest is umoci's own; a bundle of this release lends it.
        try world.unpack("image", "other")
        try world.shell(
            """
            btrfs subvolume snapshot store/chains/\(names[1]) bundle
            setfattr -x user.varve.published bundle
            setfattr -n user.varve.chain -v "\(image.manifestDescriptor.digest) \(names[1])
            " bundle
            setfattr -n user.varve.store -v "$PWD/store" bundle
            cp other/config.json other/umoci.json bundle
            rm bundle/rootfs/etc/mark
            """)
        #expect(try world.diff("bundle") == ["M etc", "D etc/mark"])
        try world.repack("bundle", "new")
        try world.unpack("new", "again")
        #expect(try world.shell("ls again/rootfs/etc") == "conf\n")
    }
}
