import VarveArchive
import VarveLayers
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// Layers that want out of the root. Whatever comes of them, nothing beside the root may change.
@Suite struct ApplyAttackTests {
    enum Outcome: Sendable {
        /// An error that blames the layer.
        case refused
        /// The tree, as `listing` shows it. `@` stands for the path of the victim.
        case tree([String])
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// `@` in a path or target stands for the absolute path of the victim's directory.
        var layers: [[Item]]
        var outcome: Outcome
        init(_ description: String, _ layers: [[Item]], _ outcome: Outcome) {
            testDescription = description
            self.layers = layers
            self.outcome = outcome
        }
    }

    static let component256 = BytePath(String(repeating: "x", count: 256))
    static let long = BytePath(String(repeating: "y/", count: 2500) + "f")
    static let deep = String(repeating: "d/", count: 300)

    static let cases: [Case] = [
        Case("`..` at the start of a name", [[.file("../victim/new", "x")]], .refused),
        Case(
            "`..` in the middle of a name", [[.directory("d/"), .file("d/../../victim/file", "x")]], .refused),
        Case("`..` as the name", [[.directory("../", mode: 0o777)]], .refused),
        Case("`..` at the end of a name", [[.directory("d/.."), .file("x")]], .refused),
        Case("`..` in a whiteout's directory", [[.whiteout("../victim/.wh.file")]], .refused),
        Case("`..` in a whiteout", [[.directory("d/")], [.whiteout("d/.wh...")]], .refused),
        Case("`.` in a whiteout", [[.directory("d/")], [.whiteout("d/.wh..")]], .refused),
        Case("nothing in a whiteout", [[.directory("d/")], [.whiteout("d/.wh.")]], .refused),
        Case("`..` in an opaque whiteout's directory", [[.whiteout("../victim/.wh..wh..opq")]], .refused),
        Case("`..` in the target of a hard link", [[.hardlink("h", "../victim/file")]], .refused),
        Case("an absolute target of a hard link", [[.hardlink("h", "@/file")]], .refused),
        Case("an absolute name", [[.file("/f", "x")]], .tree(["f=x"])),
        Case(
            "an absolute name of the victim", [[.whiteout("@/.wh.file")], [.whiteout("@/.wh..wh..opq")]],
            .tree([])),
        // Symbolic links to the host, and something through them.
        Case(
            "a write through an absolute link, planted by a lower layer",
            [[.symlink("l", "@")], [.file("l/file", "x")]], .tree(["l->@", "MADE@", "MADE@/file=x"])),
        Case(
            "a write through an absolute link, planted by the same layer",
            [[.symlink("l", "@"), .file("l/file", "x")]], .tree(["l->@", "MADE@", "MADE@/file=x"])),
        Case(
            "a write through a relative link", [[.symlink("l", "../victim"), .file("l/file", "x")]],
            .tree(["l->../victim", "victim/", "victim/file=x"])),
        Case(
            "a write through a relative link, in a lower layer",
            [[.symlink("l", "../../../../victim")], [.file("l/file", "x")]],
            .tree(["l->../../../../victim", "victim/", "victim/file=x"])),
        Case(
            "a write through links in links",
            [
                [
                    .directory("a/"), .symlink("a/b", ".."), .symlink("c", "a/b/.."),
                    .symlink("d", "c/victim"),
                ], [.file("d/file", "x")],
            ],
            .tree(["a/", "a/b->..", "c->a/b/..", "d->c/victim", "victim/", "victim/file=x"])),
        Case(
            "a write through a hard link to a link",
            [[.symlink("l", "../victim"), .hardlink("h", "l")], [.file("h/file", "x")]],
            .tree(["h->../victim", "l==h", "victim/", "victim/file=x"])),
        Case(
            "a file over a link to the victim's file",
            [[.symlink("l", "../victim/file")], [.file("l", "x")]], .tree(["l=x"])),
        Case(
            "a directory over a link to the victim",
            [[.symlink("l", "../victim")], [.directory("l/", mode: 0o777, uid: 1)]], .tree(["l/"])),
        Case(
            "a hard link through a link", [[.symlink("l", "../victim"), .hardlink("h", "l/file")]], .refused),
        Case(
            "a hard link to a link, then over it",
            [[.symlink("l", "../victim/file"), .hardlink("h", "l"), .file("h", "x")]],
            .tree(["h=x", "l->../victim/file"])),
        Case(
            "a hard link put through a link",
            [[.file("f", "x"), .symlink("l", "../victim")], [.hardlink("l/file", "f")]],
            .tree(["f=x", "l->../victim", "victim/", "victim/file==f"])),
        Case(
            "a whiteout through a link", [[.symlink("l", "../victim")], [.whiteout("l/.wh.file")]],
            .tree(["l->../victim"])),
        Case(
            "a whiteout through an absolute link", [[.symlink("l", "@")], [.whiteout("l/.wh.file")]],
            .tree(["l->@"])),
        Case(
            "an opaque whiteout through a link",
            [[.symlink("l", "../victim")], [.whiteout("l/.wh..wh..opq")]], .tree(["l->../victim"])),
        Case(
            "a whiteout of a link to the victim", [[.symlink("l", "../victim")], [.whiteout(".wh.l")]],
            .tree([])),
        Case(
            "a device through a link", [[.symlink("l", "../victim"), .node("l/n", .blockDevice, 8, 0)]],
            .tree(["l->../victim", "victim/", "victim/n%8,0"])),
        Case(
            "links to /proc", [[.symlink("l", "/proc/self/cwd"), .file("l/x", "y")]],
            .tree(["l->/proc/self/cwd", "proc/", "proc/self/", "proc/self/cwd/", "proc/self/cwd/x=y"])),
        // What does not go together.
        Case(
            "a device over a directory",
            [[.directory("d/"), .file("d/f", "x")], [.node("d", .characterDevice, 1, 3)]], .tree(["d%1,3"])),
        // As with umoci since 0.5: what is no directory gives way.
        Case("an entry below a file", [[.file("f", "x"), .file("f/g", "y")]], .tree(["f/", "f/g=y"])),
        Case(
            "an entry far below a file of the layer below", [[.file("f", "x")], [.file("f/g/h", "y")]],
            .tree(["f/", "f/g/", "f/g/h=y"])),
        Case(
            "an entry below a device", [[.node("n", .characterDevice, 1, 5)], [.file("n/g", "y")]],
            .tree(["n/", "n/g=y"])),
        // The link is followed inside the root, and what it leads to gives way.
        Case(
            "an entry below a link to a file", [[.file("f", "x"), .symlink("l", "f")], [.file("l/g", "y")]],
            .tree(["f/", "f/g=y", "l->f"])),
        Case(
            "an entry below a link to a file, with .. behind it",
            [[.file("f", "x"), .symlink("l", "f/../m")], [.file("l/g", "y")]],
            .tree(["f/", "l->f/../m", "m/", "m/g=y"])),
        Case(
            "an entry below one name of a file with two",
            [[.file("f", "x"), .hardlink("g", "f")], [.file("f/h", "y")]],
            .tree(["f/", "f/h=y", "g=x"])),
        Case(
            "a whiteout of what gave way", [[.file("f", "x")], [.file("f/g", "y"), .whiteout(".wh.f")]],
            .tree(["f/", "f/g=y"])),
        Case("a hard link below a file", [[.file("f", "x"), .hardlink("f/g", "f")]], .refused),
        Case("an entry below a whiteout", [[.file(".wh.d/f", "x")]], .refused),
        Case("an entry below an opaque whiteout", [[.file("d/.wh..wh..opq/f", "x")]], .refused),
        Case("an entry far below a whiteout", [[.file("./e//.wh.d/f/g/h", "x")]], .refused),
        // It is the uppermost of them that counts.
        Case("an entry below AUFS's own below a whiteout", [[.file(".wh.d/.wh..wh.plnk/f", "x")]], .refused),
        // No layer could name such a directory, so the tree could not be packed again. Found by the fuzz target `apply`.
        Case(
            "a link to a name of a whiteout that is not there, and a file through it",
            [[.symlink("l", ".wh.d/e"), .file("l/f", "x")]], .refused),
        Case(
            "the same by a layer above, through an absolute link",
            [[.symlink("l", "/d/.wh.d")], [.file("l/f", "x")]], .refused),
        Case(
            "a link to the name of an opaque whiteout, and a directory through it",
            [[.symlink("l", ".wh..wh..opq")], [.directory("l/d/")]], .refused),
        Case("a link to itself on the way", [[.symlink("l", "l"), .file("l/f", "x")]], .refused),
        Case(
            "two links to each other on the way",
            [[.symlink("a", "b/x"), .symlink("b", "a/x")], [.file("a/f", "x")]], .refused),
        Case(
            "a link to itself and nothing on the way", [[.symlink("l", "l/../x"), .file("l/f", "x")]],
            .refused),
        Case("the root as a file", [[.file("./", "x")]], .refused),
        Case("the root as a link", [[.symlink("./", "../victim")]], .refused),
        Case("the root as a device", [[.node("/", .characterDevice, 1, 3)]], .refused),
        Case("a hard link to a directory", [[.directory("d/"), .hardlink("h", "d")]], .refused),
        Case(
            "a hard link in place of the directory that holds its target",
            [[.directory("d/"), .file("d/f", "x"), .hardlink("d", "d/f")]], .refused),
        // Sizes.
        Case("a name of 256 bytes", [[.file(component256, "x")]], .refused),
        Case("a directory's name of 256 bytes", [[.file(component256.appending("f"), "x")]], .refused),
        Case("a whiteout of a name of 256 bytes", [[.whiteout(BytePath(".wh.\(component256)"))]], .refused),
        Case("a hard link to a name of 256 bytes", [[.hardlink("h", component256)]], .refused),
        Case(
            "a link to a name of 256 bytes on the way", [[.symlink("l", component256), .file("l/f", "x")]],
            .refused),
        Case(
            "a way through links longer than any path",
            [
                [
                    .symlink("l", BytePath(String(repeating: "z/", count: 2000))),
                    .symlink("m", BytePath("l/" + String(repeating: "z/", count: 2000))),
                    .file("m/f", "x"),
                ]
            ], .refused),
    ]

    @Test("Beside the root nothing changes by", arguments: cases)
    func attack(_ one: Case) throws {
        let base = try SharedVolume.directory()
        try base.shell(
            """
            mkdir victim victim/dir; echo content > victim/file; echo more > victim/dir/file; ln -s file victim/link
            chmod 640 victim/file; touch -d '2020-01-02 03:04:05.678' victim/file victim/dir victim
            """)
        let root = try base.makeRoot()
        let victim = base.path.appending("victim")
        let before = try Self.everything(base, but: "rootfs")
        let layers = one.layers.map { $0.map { Self.naming(victim, $0) } }
        var failure: (any Error)?
        do {
            try apply(layers, to: root.fd)
        } catch {
            failure = error
        }
        #expect(try Self.everything(base, but: "rootfs") == before)
        switch one.outcome {
        case .refused:
            guard let failure else {
                Issue.record("it was taken: \(try listing(root.fd))")
                return
            }
            #expect(blamesTheLayer(failure), "\(failure)")
        case .tree(let expected):
            if let failure { throw failure }
            var lines: [(BytePath, String)] = []
            for line in expected {
                if line == "MADE@" {
                    // The way to where the link points, inside the root.
                    var path = BytePath.empty
                    for component in victim.components {
                        path = path.appending(component)
                        lines.append((path, "\(path)/"))
                    }
                } else {
                    let text = line.replacingPrefix("MADE@", by: "\(victim.dropFirst(1))").replacingSuffix(
                        "@", by: "\(victim)")
                    lines.append((BytePath(String(text.prefix { $0 != "=" && $0 != ">" })), text))
                }
            }
            #expect(try listing(root.fd).sorted() == lines.map(\.1).sorted())
        }
    }

    @Test("A name of 5,000 bytes is refused")
    func longName() throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        // The writer refuses it too: GNU tar's own long name header, by hand.
        var name = Array(String(repeating: "abcdefg/", count: 625).utf8)
        name.append(0)
        var header = Array(
            try archive([.file("././@LongLink", String(repeating: " ", count: name.count))])[..<512])
        header[156] = UInt8(ascii: "L")
        // The checksum counts its own field as spaces.
        header.replaceSubrange(148..<156, with: Array("        ".utf8))
        let sum = header.reduce(0) { $0 + Int($1) }
        let digits = String(sum + 0o1000000, radix: 8).suffix(6)
        header.replaceSubrange(148..<156, with: Array(digits.utf8) + [0, 32])
        var bytes = header
        bytes += name
        while bytes.count % 512 != 0 { bytes.append(0) }
        bytes += try archive([.file("f", "x")])
        #expect { try apply(bytes, to: root.fd) } throws: { blamesTheLayer($0) }
        #expect(try listing(root.fd) == [])
    }

    @Test("300 directories in each other are made, filled, whited out and replaced")
    func deepTree() throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        let leaf = BytePath(Self.deep + "leaf")
        try apply([[.file(leaf, "x")]], to: root.fd)
        #expect(try root.fd.look(leaf).size == 1)
        try apply([[], [.file(BytePath(Self.deep + "other"), "yy"), .whiteout(".wh.d")]], to: root.fd)
        #expect(try root.fd.look(BytePath(Self.deep + "other")).size == 2)
        #expect(throws: Errno.noSuchFileOrDirectory) { try root.fd.look(leaf) }
        try apply([[.file("d", "z")]], to: root.fd)
        #expect(try listing(root.fd) == ["d=z"])
    }

    @Test("A directory moved by no entry, but a path whose meaning changes in the middle of a layer")
    func changingMeaning() throws {
        let base = try SharedVolume.directory()
        try base.shell("mkdir victim; echo content > victim/file")
        let root = try base.makeRoot()
        let before = try Self.everything(base, but: "rootfs")
        // Each path is used before and after it means something else, so that nothing kept open is used wrongly.
        try apply(
            [
                [
                    .directory("d/"), .file("d/file", "1"), .symlink("d", "../victim"), .file("d/file", "2"),
                    .file("d", "3"), .directory("d/"), .file("d/file", "4"), .directory("e/"),
                    .file("e/file", "5"),
                    .symlink("e", "d"), .file("e/file", "6"),
                ]
            ], to: root.fd)
        #expect(try listing(root.fd) == ["d/", "d/file=6", "e->d", "victim/", "victim/file=2"])
        #expect(try Self.everything(base, but: "rootfs") == before)
    }

    // MARK: Helpers

    /// Everything about everything in `directory` but one name: content, stat (ctime and all, but atime), attributes.
    static func everything(_ directory: TestDirectory, but excluded: BytePath) throws -> [String] {
        var lines: [String] = []
        var pending: [BytePath] = [.empty]
        while let path = pending.popLast() {
            let opened = try directory.fd.openDirectory(path.isEmpty ? .current : path)
            for entry in try opened.fd.entries() where entry.name != excluded {
                let child = path.appending(entry.name)
                var status = try opened.fd.status(of: entry.name)
                status.accessTime = .epoch
                var line = "\(child) \(status) \(try opened.fd.extendedAttributes(of: entry.name))"
                if status.isRegular { line += " \(try opened.fd.readFile(entry.name, limit: 1 << 20))" }
                if status.isSymbolicLink { line += " \(try opened.fd.readSymbolicLink(entry.name))" }
                if status.isDirectory { pending.append(child) }
                lines.append(line)
            }
        }
        let own = try directory.fd.status()
        return lines.sorted() + ["\(own.mode) \(own.uid) \(own.gid) \(own.modificationTime) \(own.inode)"]
    }

    private static func naming(_ victim: BytePath, _ item: Item) -> Item {
        item.with { entry in
            entry.path = BytePath("\(entry.path)".replacingPrefix("@", by: "\(victim)"))
            entry.linkTarget = BytePath("\(entry.linkTarget)".replacingPrefix("@", by: "\(victim)"))
        }
    }
}

extension String {
    fileprivate func replacingPrefix(_ prefix: String, by other: String) -> String {
        hasPrefix(prefix) ? other + dropFirst(prefix.count) : self
    }

    fileprivate func replacingSuffix(_ suffix: String, by other: String) -> String {
        hasSuffix(suffix) ? dropLast(suffix.count) + other : self
    }
}
