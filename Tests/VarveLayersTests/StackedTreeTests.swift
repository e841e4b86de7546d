import VarveArchive
import DeltaChecks
import VarveLayers
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// An overlayfs whose layers lie on two file systems: its files have other device numbers than its root, and two of them the
/// same inode number.
@Suite struct StackedTreeTests {
    private final class Stack {
        let base: TestDirectory
        let old: SharedDescriptor
        let tree: SharedDescriptor

        init() throws {
            base = try SharedVolume.directory()
            // Each tmpfs counts inodes on its own.
            try base.shell(
                """
                mkdir one two old tree
                for name in one two; do
                    mount -t tmpfs -o size=1m,mode=755 tmpfs $name
                    mkdir $name/lower; echo $name > $name/lower/$name; ln $name/lower/$name $name/lower/$name-link
                done
                mkdir one/upper one/work two/lower/d; echo x > two/lower/d/x
                mount -t overlay -o xino=off,lowerdir=one/lower:two/lower,upperdir=one/upper,workdir=one/work overlay tree
                cp -a tree/. old
                """)
            old = SharedDescriptor(try base.fd.openDirectory("old"))
            tree = SharedDescriptor(try base.fd.openDirectory("tree"))
        }

        deinit { _ = try? base.shell("umount -l tree; umount -l one; umount -l two") }
    }

    private static func text(_ changes: [Change]) -> [String] { changes.map { "\($0.kind) \($0.path)" } }

    @Test("Every file is part of it, in each kind of comparison")
    func compared() throws {
        let stack = try Stack()
        defer { extendLifetime(stack) }
        let root = try stack.tree.fd.status()
        for name in ["one", "two", "d/x"] as [BytePath] {
            try #require(try stack.tree.fd.status(of: name).device != root.device)
        }
        let record = try RecordedTree.scan(stack.tree.fd)
        #expect(record.count == 7)
        let untouched = try Delta.compareWhole(old: stack.old.fd, new: stack.tree.fd).changes
        #expect(Self.text(untouched) == [])
        #expect(try Delta.compute(old: record, new: stack.tree.fd).changes == [])
        try stack.base.shell("cd tree; rm one-link; echo y > d/x; touch -d @5 d; touch -d @5 .")
        let expected = ["modified .", "modified d", "modified d/x", "deleted one-link"]
        let recorded = Self.text(try Delta.compute(old: record, new: stack.tree.fd).changes)
        #expect(recorded == expected)
        let whole = Self.text(try Delta.compareWhole(old: stack.old.fd, new: stack.tree.fd).changes)
        #expect(whole == expected)
    }

    @Test("Files with one inode number are not taken for one")
    func packed() throws {
        let stack = try Stack()
        defer { extendLifetime(stack) }
        let numbers = try ["one", "two"].map { try stack.tree.fd.status(of: $0).inode }
        try #require(numbers[0] == numbers[1])
        let changes = ["one", "one-link", "two", "two-link"].map {
            Change(kind: .added, path: $0, type: .regular)
        }
        let archive = MemoryArchive()
        try LayerPacker(root: stack.tree.fd).pack(changes, to: TarWriter(archive))
        let reader = archive.reader()
        var entries: [String] = []
        while let entry = try reader.nextEntry() { entries.append("\(entry.path)->\(entry.linkTarget)") }
        #expect(entries == ["one->", "one-link->one", "two->", "two-link->two"])
    }

    @Test("A mount in it hides what is below it, and is refused")
    func mount() throws {
        let stack = try Stack()
        defer { extendLifetime(stack) }
        try stack.base.shell("mount -t tmpfs -o size=1m tmpfs tree/d")
        for read in [
            { _ = try RecordedTree.scan(stack.tree.fd) },
            { _ = try Delta.compareWhole(old: stack.old.fd, new: stack.tree.fd) },
        ] as [() throws -> Void] {
            let error = #expect(throws: LayerError.self, performing: read)
            #expect(error?.description.contains("unmount it") == true)
        }
        try stack.base.shell("umount tree/d")
    }
}
