import VarveArchive
import DeltaChecks
import VarveLayers
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// What is in a layer that is packed from a delta. That it gives the new tree is what `DeltaCheck` shows for every pair.
@Suite struct PackTests {
    static let old = """
        umask 022; mkdir -p d/e gone/deep keep; echo 1 > d/f; echo 2 > d/e/g; ln d/f d/h; echo 3 > gone/deep/x; echo 4 > file; ln -s a link; echo 5 > keep/k
        """
    static let new = """
        umask 022; echo more >> d/f; rm -r gone; rm file; mkdir file; echo 6 > file/in; rm link; mkfifo link; mknod null c 1 3; chmod 4711 keep/k
        echo 7 > a.b; echo 8 > a-b; mkdir a; echo 9 > a/b; setfattr -n user.x -v y a/b; truncate -s 3000000 big; ln a/b z; chown 3000000:7 z
        """

    /// The changes, and the new tree's root.
    private func changes(_ old: String = Self.old, _ new: String = Self.new) throws -> (
        TestDirectory, SharedDescriptor, [Change]
    ) {
        let base = try SharedVolume.directory()
        try base.shell("mkdir old; cd old\n\(old)\ncd ..; cp -a old new; cd new\n\(new)")
        let before = SharedDescriptor(try base.fd.openDirectory("old"))
        let after = SharedDescriptor(try base.fd.openDirectory("new"))
        // Plain directories of one subvolume: nothing but the walk.
        let delta = try Delta.compute(
            old: DeltaTree(subvolume: before.fd, root: before.fd, state: .snapshot),
            new: DeltaTree(subvolume: after.fd, root: after.fd, state: .snapshot),
            source: .walk)
        return (base, after, delta.changes)
    }

    private func pack(_ root: FileDescriptor, _ changes: [Change], latest: Timestamp? = nil) throws -> [UInt8]
    {
        let memory = MemoryArchive()
        try LayerPacker(root: root, options: PackOptions(latestTime: latest)).pack(
            changes, to: TarWriter(memory))
        return memory.bytes
    }

    private func entries(_ bytes: [UInt8]) throws -> [TarEntry] {
        let reader = TarReader(MemorySource(bytes))
        var result: [TarEntry] = []
        while let entry = try reader.nextEntry() { result.append(entry) }
        return result
    }

    @Test("Entries in the order of a tree, whiteouts for what is gone, none for what is of another type now")
    func order() throws {
        let (base, root, changes) = try changes()
        let bytes = try pack(root.fd, changes)
        let lines = try entries(bytes).filter { $0.path != "./" && $0.path != "." }.map { entry in
            "\(entry.path) \(entry.kind)\(entry.linkTarget.isEmpty ? "" : " \(entry.linkTarget)")"
        }
        #expect(
            lines == [
                "a/ directory", "a/b regular", "a-b regular", "a.b regular", "big regular", "d/f regular",
                "d/h hardLink d/f",
                "file/ directory", "file/in regular", ".wh.gone regular", "keep/k regular", "link fifo",
                "null characterDevice",
                "z hardLink a/b",
            ])
        // No name stands in it both as itself and as deleted.
        #expect(!lines.contains { $0.hasPrefix(".wh.file") || $0.hasPrefix(".wh.link") })
        extendLifetime(base)
    }

    @Test(
        "The same delta gives the same bytes, whatever the order in which the file system lists and whoever reads"
    )
    func deterministic() throws {
        let (base, root, changes) = try changes()
        let bytes = try pack(root.fd, changes)
        try base.shell("cat new/a/b > /dev/null; cp -a new copy")
        let copy = try base.fd.openDirectory("copy")
        #expect(try pack(copy.fd, changes) == bytes)
        let whiteout = try #require(try entries(bytes).first { $0.path == ".wh.gone" })
        #expect(whiteout.modificationTime == .epoch && whiteout.uid == 0 && whiteout.size == 0)
        #expect(try entries(bytes).allSatisfy { $0.accessTime == nil && $0.changeTime == nil })
    }

    @Test("GNU tar lists and extracts it")
    func gnuTar() throws {
        let (base, root, changes) = try changes()
        try base.fd.writeFileDurably("layer.tar", try pack(root.fd, changes))
        let listed = try base.shell("tar -tf layer.tar").split(separator: "\n").map(String.init)
        #expect(listed.contains("z") && listed.contains(".wh.gone") && listed.contains("a/"))
        // As a whole tree, nothing lies below it that it could be wrong on top of.
        let everything = try self.changes("", Self.old + "\n" + Self.new)
        try everything.0.fd.writeFileDurably("layer.tar", try pack(everything.1.fd, everything.2))
        try everything.0.shell(
            "mkdir out; tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf layer.tar -C out; touch -r new out"
        )
        let out = try everything.0.fd.openDirectory("out")
        let differences = try TreeCompare.differences(everything.1.fd, out.fd)
        #expect(differences == [])
    }

    @Test("No time is later than SOURCE_DATE_EPOCH; earlier ones stay")
    func clamp() throws {
        let (base, root, changes) = try changes(
            "", "echo 1 > late; echo 2 > early; touch -d @5 early; mkdir d; touch -d @4000000000 d")
        let limit = Timestamp(seconds: 1000)
        let entries = try entries(try pack(root.fd, changes, latest: limit))
        #expect(entries.count >= 3 && entries.allSatisfy { $0.modificationTime <= limit })
        #expect(entries.first { $0.path == "early" }?.modificationTime == Timestamp(seconds: 5))
        #expect(entries.first { $0.path == "late" }?.modificationTime == limit)
        extendLifetime(base)
    }

    @Test("A group's first name in the layer is the file, also when an earlier one is left out")
    func masked() throws {
        let (base, root, changes) = try changes("", "echo 1 > a; ln a b; ln a c")
        let bytes = try pack(root.fd, changes.filter { $0.path != "a" && $0.path != "." })
        #expect(try entries(bytes).map { "\($0.path) \($0.kind)" } == ["b regular", "c hardLink"])
        extendLifetime(base)
    }

    @Test("A socket is in no layer")
    func socket() throws {
        let (base, root, changes) = try changes(
            "",
            "mkdir d; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"d/s\")'; echo 1 > d/f")
        #expect(
            try entries(try pack(root.fd, changes)).map(\.path.description).filter { $0 != "./" && $0 != "." }
                == ["d/", "d/f"])
        extendLifetime(base)
    }

    @Test(
        "What a layer cannot hold is refused, with what to do",
        arguments: [
            "echo 1 > .wh.x", "mkdir .wh.d", "mkdir -p a/.wh..wh..opq",
        ])
    func refused(_ script: String) throws {
        let (base, root, changes) = try changes("", script)
        #expect {
            try pack(root.fd, changes)
        } throws: { error in
            if case LayerError.unrepresentable = error {
                return "\(error)".contains("leave it out of the layer")
            }
            return false
        }
        extendLifetime(base)
    }

    @Test("A file that is not there any more is an error")
    func vanished() throws {
        let (base, root, changes) = try changes("", "echo 1 > f")
        try base.shell("rm new/f")
        #expect(throws: LayerError.self) { try pack(root.fd, changes) }
    }
}
