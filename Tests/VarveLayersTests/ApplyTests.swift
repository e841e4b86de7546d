import DeltaChecks
import VarveArchive
import Glibc
import VarveLayers
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// What becomes of a tree when layers are applied to it: names, types and content.
@Suite struct ApplyTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var layers: [[Item]]
        var options: ApplyOptions
        var expected: [String]

        init(
            _ description: String, _ layers: [[Item]], _ expected: [String],
            options: ApplyOptions = ApplyOptions()
        ) {
            testDescription = description
            self.layers = layers
            self.expected = expected
            self.options = options
        }
    }

    @Test("Layers give", arguments: kinds + replacements + whiteouts + paths)
    func tree(_ one: Case) throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        try apply(one.layers, to: root.fd, options: one.options)
        #expect(try listing(root.fd) == one.expected)
    }

    static let long = String(repeating: "n", count: 255)

    static let kinds: [Case] = [
        Case(
            "every kind of file",
            [
                [
                    .directory("d/"), .file("d/f", "text"), .symlink("l", "d/f"), .hardlink("h", "d/f"),
                    .node("c", .characterDevice, 1, 3), .node("b", .blockDevice, 7, 9), .node("p", .fifo),
                ]
            ],
            ["b%7,9", "c%1,3", "d/", "d/f=text", "h==d/f", "l->d/f", "p|"]),
        // The second layer's hard link is to a file that only the first has.
        Case(
            "a hard link to a lower layer", [[.file("a", "1")], [.hardlink("b", "a")]], ["a=1", "b==a"]),
        Case(
            "a hard link to a symbolic link links the link", [[.symlink("s", "t"), .hardlink("h", "s")]],
            ["h->t", "s==h"]),
        Case(
            "a hard link to a device", [[.node("c", .characterDevice, 5, 0), .hardlink("h", "/c")]],
            ["c%5,0", "h==c"]),
        Case("a hard link to itself changes nothing", [[.file("a", "1")], [.hardlink("a", "a")]], ["a=1"]),
        Case(
            "a hard link to itself in other words",
            [[.directory("d/"), .file("d/a", "1"), .hardlink("./d//a", "/d/./a")]],
            ["d/", "d/a=1"]),
        Case(
            "a hard link that is there already",
            [[.file("a", "1"), .hardlink("b", "a"), .hardlink("b", "a")]],
            ["a=1", "b==a"]),
        Case(
            "a hard link in place of another file",
            [[.file("a", "1"), .file("b", "2")], [.hardlink("b", "a")]],
            ["a=1", "b==a"]),
        Case("an empty file, and a layer with nothing in it", [[.file("e")], []], ["e="]),
        Case(
            "names that are no text, and the longest",
            [[.file(BytePath([0xff, 0x0a, 0x5c]) ?? .empty, "x"), .file(BytePath(long), "y")]],
            ["\(long)=y", "\\xff\\x0a\\x5c=x"]),
        Case(
            "a file with a space, a tab and a colon in its name", [[.file("a b\tc:d", "x")]],
            ["a b\\x09c:d=x"]),
    ]

    static let replacements: [Case] = [
        Case(
            "a file by a file, so that other names keep the old one",
            [[.file("a", "1"), .hardlink("b", "a")], [.file("a", "2")]], ["a=2", "b=1"]),
        Case(
            "a directory by a file, with all in it",
            [[.directory("d/"), .directory("d/e/"), .file("d/e/f", "x")], [.file("d", "y")]], ["d=y"]),
        Case(
            "a file by a directory", [[.file("d", "y")], [.directory("d/"), .file("d/f", "x")]],
            ["d/", "d/f=x"]),
        Case(
            "a directory by a symbolic link", [[.directory("d/"), .file("d/f", "x")], [.symlink("d", "e")]],
            ["d->e"]),
        Case(
            "a symbolic link to a directory by a directory",
            [
                [.directory("t/"), .file("t/f", "x"), .symlink("l", "t")],
                [.directory("l/"), .file("l/g", "y")],
            ],
            ["l/", "l/g=y", "t/", "t/f=x"]),
        Case(
            "no symbolic link to a directory, when such links are kept",
            [
                [.directory("t/"), .file("t/f", "x"), .symlink("l", "t")],
                [.directory("l/"), .file("l/g", "y")],
            ],
            ["l->t", "t/", "t/f=x", "t/g=y"], options: ApplyOptions(keepDirlinks: true)),
        // Only links to directories are kept.
        Case(
            "a symbolic link to a file by a directory, also when links to directories are kept",
            [[.file("t", "x"), .symlink("l", "t")], [.directory("l/")]], ["l/", "t=x"],
            options: ApplyOptions(keepDirlinks: true)),
        Case(
            "a symbolic link to nothing by a directory, also when links to directories are kept",
            [[.symlink("l", "t")], [.directory("l/")]], ["l/"], options: ApplyOptions(keepDirlinks: true)),
        Case(
            "a symbolic link to itself by a directory, also when links to directories are kept",
            [[.symlink("l", "l")], [.directory("l/")]], ["l/"], options: ApplyOptions(keepDirlinks: true)),
        Case(
            "a symbolic link by a file, never what it points to",
            [[.file("t", "x"), .symlink("l", "t")], [.file("l", "y")]], ["l=y", "t=x"]),
        Case("a device by a FIFO", [[.node("n", .blockDevice, 1, 1)], [.node("n", .fifo)]], ["n|"]),
        Case(
            "an entry by a later one of the same layer",
            [[.file("a", "1"), .directory("a/"), .file("a/b", "2"), .file("a", "3")]],
            ["a=3"]),
        Case(
            "a directory's entry twice, with what is in it kept",
            [[.directory("d/"), .file("d/f", "x"), .directory("d/", mode: 0o700)]], ["d/", "d/f=x"]),
        Case(
            "a directory that held the target of a link, in the layer itself",
            [[.directory("d/"), .file("d/f", "x"), .hardlink("g", "d/f"), .file("d", "y")]], ["d=y", "g=x"]),
    ]

    static let whiteouts: [Case] = [
        Case(
            "a whiteout deletes a file", [[.file("a", "1"), .file("b", "2")], [.whiteout(".wh.a")]], ["b=2"]),
        Case(
            "a whiteout deletes a directory with all in it",
            [[.directory("d/"), .directory("d/e/"), .file("d/e/f", "x")], [.whiteout(".wh.d")]], []),
        Case(
            "a whiteout of nothing does nothing",
            [[.file("a", "1")], [.whiteout(".wh.b"), .whiteout("x/y/.wh.z")]], ["a=1"]),
        Case(
            "a whiteout deletes a link, not what it points to",
            [[.directory("t/"), .symlink("l", "t")], [.whiteout(".wh.l")]], ["t/"]),
        Case(
            "a whiteout deletes one name of a file",
            [[.file("a", "1"), .hardlink("b", "a")], [.whiteout(".wh.a")]], ["b=1"]),
        // A layer's whiteouts are for what lies below it, wherever in the layer they stand.
        Case(
            "a whiteout before an entry of its name",
            [[.file("a", "1")], [.whiteout(".wh.a"), .file("a", "2")]], ["a=2"]),
        Case(
            "a whiteout behind an entry of its name",
            [[.file("a", "1")], [.file("a", "2"), .whiteout(".wh.a")]], ["a=2"]),
        Case(
            "a whiteout behind a hard link of its name",
            [[.file("a", "1")], [.hardlink("b", "a"), .whiteout(".wh.b")]],
            ["a=1", "b==a"]),
        Case(
            "a whiteout behind a hard link that was there already",
            [[.file("a", "1"), .hardlink("b", "a")], [.hardlink("b", "a"), .whiteout(".wh.b")]],
            ["a=1", "b==a"]),
        Case(
            "a whiteout of a directory behind what the layer put below it",
            [
                [.directory("d/"), .file("d/old", "1"), .directory("d/e/"), .file("d/e/old", "1")],
                [.file("d/e/new", "2"), .whiteout(".wh.d")],
            ], ["d/", "d/e/", "d/e/new=2"]),
        Case(
            "a whiteout of a directory before what the layer puts below it",
            [[.directory("d/"), .file("d/old", "1")], [.whiteout(".wh.d"), .file("d/new", "2")]],
            ["d/", "d/new=2"]),
        Case(
            "a whiteout of a directory behind the directory's own entry",
            [[.directory("d/"), .file("d/old", "1")], [.directory("d/"), .whiteout(".wh.d")]], ["d/"]),
        Case(
            "a whiteout below a directory that the layer replaced by a file",
            [[.directory("d/"), .file("d/x", "1")], [.file("d", "2"), .whiteout("d/.wh.x")]], ["d=2"]),
        Case(
            "a whiteout below a file that the layer replaces by a directory",
            [
                [.file("d", "1")],
                [.whiteout("d/.wh.x"), .whiteout("d/.wh..wh..opq"), .directory("d/"), .file("d/y", "2")],
            ],
            ["d/", "d/y=2"]),
        Case(
            "an opaque directory before its entries",
            [
                [.directory("d/"), .file("d/old", "1"), .directory("d/e/"), .file("d/e/old", "1")],
                [.directory("d/"), .whiteout("d/.wh..wh..opq"), .file("d/new", "2")],
            ], ["d/", "d/new=2"]),
        Case(
            "an opaque directory behind its entries",
            [
                [.directory("d/"), .file("d/old", "1"), .directory("d/e/"), .file("d/e/old", "1")],
                [.directory("d/"), .file("d/new", "2"), .file("d/e/new", "2"), .whiteout("d/.wh..wh..opq")],
            ], ["d/", "d/e/", "d/e/new=2", "d/new=2"]),
        Case(
            "an opaque directory that the layer wrote into by way of a symbolic link",
            [
                [.directory("d/"), .file("d/old", "1"), .symlink("l", "d")],
                [.file("l/new", "2"), .whiteout("d/.wh..wh..opq")],
            ], ["d/", "d/new=2", "l->d"]),
        Case(
            "an opaque directory named by way of a symbolic link",
            [
                [.directory("d/"), .file("d/old", "1"), .symlink("l", "/d")],
                [.file("d/new", "2"), .whiteout("l/.wh..wh..opq")],
            ], ["d/", "d/new=2", "l->/d"]),
        Case(
            "a whiteout of a directory that the layer wrote into by way of a symbolic link",
            [
                [.directory("d/"), .file("d/old", "1"), .symlink("l", "d")],
                [.file("l/new", "2"), .whiteout(".wh.d"), .whiteout(".wh.l")],
            ], ["d/", "d/new=2"]),
        Case(
            "an opaque root",
            [[.file("a", "1"), .directory("d/")], [.file("b", "2"), .whiteout(".wh..wh..opq")]], ["b=2"]),
        Case(
            "an opaque directory that is not there", [[.file("a", "1")], [.whiteout("x/.wh..wh..opq")]],
            ["a=1"]),
        // In the bottom layer there is nothing to delete.
        Case(
            "whiteouts in the bottom layer",
            [[.directory("d/"), .file("d/f", "1"), .whiteout("d/.wh..wh..opq"), .whiteout("d/.wh.f")]],
            ["d/", "d/f=1"]),
        // Bookkeeping of AUFS, found in images of old Docker versions.
        Case(
            "nothing of AUFS's own names",
            [
                [
                    .file(".wh..wh.aufs"), .directory(".wh..wh.orph/"), .directory(".wh..wh.plnk/"),
                    .file(".wh..wh.plnk/1.2", "x"), .file("./.wh..wh.plnk//.wh.d/f", "x"), .file("a", "1"),
                ]
            ], ["a=1"]),
        Case(
            "a whiteout of the longest name",
            [[.file(BytePath(long), "1")], [.whiteout(BytePath(".wh." + long))]], []),
        Case(
            "a file that the layer replaced is not what it whites out",
            [[.file("a", "1")], [.file("a", "2"), .whiteout(".wh.a"), .file("a", "3")]], ["a=3"]),
    ]

    static let paths: [Case] = [
        Case(
            "names with `./`, `/` and double slashes",
            [[.file("./a", "1"), .file("/b", "2"), .file("x//y/./c", "3")]],
            ["a=1", "b=2", "x/", "x/y/", "x/y/c=3"]),
        Case("missing directories made", [[.file("a/b/c", "1")]], ["a/", "a/b/", "a/b/c=1"]),
        Case(
            "an entry by way of a symbolic link goes where that points",
            [
                [.directory("usr/"), .directory("usr/lib/"), .symlink("lib", "usr/lib")],
                [.file("lib/x", "1")],
            ],
            ["lib->usr/lib", "usr/", "usr/lib/", "usr/lib/x=1"]),
        Case(
            "a symbolic link to nothing on the way: the directory that it points to is made",
            [[.symlink("l", "t/u")], [.file("l/x", "1")]], ["l->t/u", "t/", "t/u/", "t/u/x=1"]),
        Case(
            "a chain of symbolic links to nothing on the way",
            [[.symlink("a", "/b/c"), .symlink("b", "d")], [.file("a/x", "1")]],
            ["a->/b/c", "b->d", "d/", "d/c/", "d/c/x=1"]),
        Case(
            "a hard link by way of symbolic links on both sides",
            [[.directory("d/"), .file("d/f", "1"), .symlink("l", "/d")], [.hardlink("l/g", "l/f")]],
            ["d/", "d/f=1", "d/g==d/f", "l->/d"]),
        Case(
            "a link replaced by a directory while its target is in use",
            [
                [.directory("t/"), .symlink("l", "t")],
                [.file("l/one", "1"), .directory("l/"), .file("l/two", "2"), .file("t/three", "3")],
            ], ["l/", "l/two=2", "t/", "t/one=1", "t/three=3"]),
        Case("an entry for the root", [[.directory("./", mode: 0o755), .file("a", "1")]], ["a=1"]),
    ]
}

/// Owners, modes, attributes and times.
@Suite struct ApplyMetadataTests {
    static let capability = ExtendedAttribute(
        name: "security.capability", value: [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    /// user::rw-, user:5:r--, group::r--, mask::r--, other::r--
    static let acl: [UInt8] =
        [2, 0, 0, 0] + [1, 0, 6, 0, 255, 255, 255, 255] + [2, 0, 4, 0, 5, 0, 0, 0]
        + [4, 0, 4, 0, 255, 255, 255, 255] + [16, 0, 4, 0, 255, 255, 255, 255] + [
            32, 0, 4, 0, 255, 255, 255, 255,
        ]
    static let user = ExtendedAttribute(name: "user.x", value: Array("value".utf8))

    struct Case: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var item: Item
        init(_ description: String, _ item: Item) {
            testDescription = description
            self.item = item
        }
    }

    /// Where something is made: what a directory hands down must have no influence on what an archive says.
    enum Parent: String, CaseIterable, Sendable {
        case plain, setGroupID, defaultACL
    }

    static let cases: [Case] = [
        Case("a plain file", .file("p/x", "1")),
        Case("a file of an owner above 2 million", .file("p/x", "1", uid: 3_000_000, gid: 4_000_000_000)),
        // chown clears set-ID bits: it must come before chmod.
        Case("a set-user-ID file of somebody", .file("p/x", "1", mode: 0o6755, uid: 7, gid: 8)),
        // Writing and chown drop capabilities: they come last.
        Case("a file with a capability", .file("p/x", "1", mode: 0o4755, uid: 7, attributes: [capability])),
        Case(
            "a file with user and trusted attributes",
            .file(
                "p/x", "1",
                attributes: [
                    ExtendedAttribute(name: "trusted.y", value: []), user,
                ])),
        Case(
            "a file with an ACL",
            .file(
                "p/x", "1",
                attributes: [
                    ExtendedAttribute(name: "system.posix_acl_access", value: acl)
                ])),
        Case("a file with no permission at all", .file("p/x", "1", mode: 0, uid: 1)),
        Case("a file with every permission", .file("p/x", "1", mode: 0o7777)),
        Case(
            "nanoseconds",
            .file("p/x", "1", time: Timestamp(seconds: 1_600_000_000, nanoseconds: 123_456_789))),
        Case("a time before 1970", .file("p/x", "1", time: Timestamp(seconds: -2, nanoseconds: 1))),
        Case("a directory", .directory("p/x/", mode: 0o1777, uid: 9, gid: 10)),
        Case("a set-group-ID directory", .directory("p/x/", mode: 0o2750, gid: 10)),
        Case(
            "a directory with a default ACL",
            .directory(
                "p/x/",
                attributes: [
                    ExtendedAttribute(name: "system.posix_acl_default", value: acl)
                ])),
        Case("a symbolic link of somebody", .symlink("p/x", "target", uid: 4_000_000_000)),
        Case("a device", .node("p/x", .characterDevice, 1, 3, mode: 0o666)),
        Case(
            "a device with a trusted attribute",
            .node("p/x", .blockDevice, 1, 3, mode: 0o666).with {
                $0.extendedAttributes = [ExtendedAttribute(name: "trusted.y", value: [1])]
            }),
        Case("a FIFO with a set-user-ID bit", .node("p/x", .fifo, mode: 0o4600)),
    ]

    @Test(
        "Metadata as the archive has it, whatever the directory hands down", arguments: cases, Parent.allCases
    )
    func metadata(_ one: Case, _ parent: Parent) throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        try Self.prepare(root.fd, parent)
        // The clock and the process's umask must have no influence either.
        let bytes = try archive([one.item])
        try onThread { [root] in
            _ = try rawSystemCall(SystemCallNumber.unshare, 0x200)
            umask(0o077)
            try apply(bytes, to: root.fd)
        }
        try Self.check(one.item.entry, in: root.fd, at: "p/x")
    }

    @Test(
        "An existing directory gets what a new one would have",
        arguments: cases.filter { $0.item.entry.kind == .directory })
    func existingDirectory(_ one: Case) throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        let lower = Item.directory(
            "p/x/", mode: 0o7700, uid: 5, gid: 5,
            attributes: [
                ExtendedAttribute(name: "system.posix_acl_default", value: Self.acl),
                ExtendedAttribute(name: "user.old", value: [1]),
            ])
        try apply([[lower], [one.item]], to: root.fd)
        try Self.check(one.item.entry, in: root.fd, at: "p/x")
    }

    @Test("The root gets the metadata of its entry")
    func rootEntry() throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        let item = Item.directory(
            "./", mode: 0o2751, uid: 3, gid: 4, time: Timestamp(seconds: 5, nanoseconds: 6),
            attributes: [Self.user])
        try apply([[.file("a"), item, .file("b")]], to: root.fd)
        try Self.check(item.entry, in: root.fd, at: .current)
        // The root hands its group down from the moment on that its entry is there, but not to what says its own.
        #expect(try root.fd.look("b").gid == 0)
    }

    @Test(
        "A directory that becomes set-group-ID under way hands nothing down, by whatever path it is reached")
    func lateSetGroupID() throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        try apply(
            [
                [
                    .directory("d/"), .symlink("l", "d"), .file("l/one", "1"),
                    .directory(
                        "d/", mode: 0o2755, gid: 50,
                        attributes: [
                            ExtendedAttribute(name: "system.posix_acl_default", value: Self.acl)
                        ]),
                    .file("l/two", "2"), .directory("l/three/"), .node("l/four", .fifo),
                ]
            ], to: root.fd)
        for name in ["two", "three", "four"] {
            let path = BytePath("d/\(name)")
            #expect(try root.fd.look(path).gid == 0, "\(path)")
            #expect(try root.fd.attributes(at: path) == [], "\(path)")
            #expect(try root.fd.look(path).permissions == (name == "three" ? 0o755 : 0o644), "\(path)")
        }
    }

    @Test(
        "Missing directories are 0755, root's and dated at the epoch, and leave their directory's time",
        arguments: Parent.allCases)
    func missingParents(_ parent: Parent) throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        try Self.prepare(root.fd, parent)
        let before = try root.fd.look("p")
        let bytes = try archive([.file("p/a/b/c", "1")])
        try onThread { [root] in
            _ = try rawSystemCall(SystemCallNumber.unshare, 0x200)
            umask(0o077)
            try apply(bytes, to: root.fd)
        }
        for path: BytePath in ["p/a", "p/a/b"] {
            let status = try root.fd.look(path)
            #expect(status.permissions == 0o755 && status.uid == 0 && status.gid == 0, "\(path)")
            #expect(status.modificationTime == .epoch, "\(path)")
            #expect(try root.fd.attributes(at: path) == [], "\(path)")
        }
        #expect(try root.fd.look("p").modificationTime == before.modificationTime)
    }

    struct TimeCase: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var layer: [Item]
        init(_ description: String, _ layer: [Item]) {
            testDescription = description
            self.layer = layer
        }
    }

    /// Each changes what is in `d` (and in `d/e`), which have the time 77.
    static let timeCases: [TimeCase] = [
        TimeCase("an added file", [.file("d/new")]),
        TimeCase("a replaced file", [.file("d/f", "2")]),
        TimeCase("a file replaced by a directory", [.directory("d/f/")]),
        TimeCase("a hard link", [.hardlink("d/h", "d/f")]),
        TimeCase("a whiteout", [.whiteout("d/.wh.f")]),
        TimeCase("a whiteout of a directory", [.whiteout("d/.wh.e")]),
        TimeCase("a whiteout that leaves what the layer wrote", [.file("d/e/new"), .whiteout("d/.wh.e")]),
        TimeCase("an opaque whiteout", [.whiteout("d/.wh..wh..opq")]),
        TimeCase(
            "an opaque whiteout above what the layer wrote", [.file("d/e/new"), .whiteout("d/.wh..wh..opq")]),
        TimeCase("a missing directory made", [.file("d/x/y/z")]),
        TimeCase("a way through a symbolic link", [.file("l/new")]),
        // The path by which the directory was found leads elsewhere when the layer is done.
        TimeCase("a way through a symbolic link that becomes a file", [.file("l/new"), .file("l", "2")]),
        TimeCase(
            "a way through a symbolic link that becomes a directory", [.file("l/new"), .directory("l/")]),
        TimeCase("a way through a symbolic link that is whited out", [.file("l/new"), .whiteout(".wh.l")]),
        TimeCase(
            "a way through a symbolic link that comes to point elsewhere",
            [.file("l/new"), .symlink("l", "o")]),
        TimeCase("a symbolic link to nothing on the way", [.file("dangling/new")]),
    ]

    @Test("A directory whose content changes keeps its time", arguments: timeCases)
    func parentTimes(_ one: TimeCase) throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        let time = Timestamp(seconds: 77, nanoseconds: 7)
        try apply(
            [
                [
                    .directory("./", time: time), .directory("d/", time: time), .file("d/f", "1"),
                    .directory("d/e/", time: time),
                    .file("d/e/old", "1"), .directory("o/", time: time), .symlink("l", "d"),
                    .symlink("dangling", "d/q"),
                ], one.layer,
            ], to: root.fd)
        for path: BytePath in [.current, "d", "d/e", "o"] {
            guard let status = try? root.fd.look(path), status.isDirectory else {
                #expect(path == "d/e")
                continue
            }
            #expect(status.modificationTime == time, "\(path)")
        }
        if let made = try? root.fd.look("d/q") { #expect(made.modificationTime == .epoch) }
    }

    @Test("A directory's own time stands, wherever in the layer its entry is")
    func ownTimes() throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        let time = Timestamp(seconds: 99, nanoseconds: 9)
        try apply(
            [
                [
                    .directory("a/", time: time), .file("a/f"), .file("b/f"), .directory("b/", time: time),
                    .file("b/g"),
                    .symlink("l", "b"), .file("l/h"), .directory("./", time: time), .file("c"),
                ]
            ],
            to: root.fd)
        for path: BytePath in [.current, "a", "b"] {
            #expect(try root.fd.look(path).modificationTime == time, "\(path)")
        }
    }

    struct ACLCase: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// SCHILY.acl.access
        var text: String
        /// As getfacl -cn shows it; nil if it is refused.
        var shown: String?
        init(_ description: String, _ text: String, _ shown: String?) {
            testDescription = description
            self.text = text
            self.shown = shown
        }
    }

    static let aclCases: [ACLCase] = [
        ACLCase(
            "GNU tar's form", "user::rw-,user:5:r--,group::r--,mask::r--,other::---",
            "user::rw-\nuser:5:r--\ngroup::r--\nmask::r--\nother::---\n\n"),
        // star adds the number behind the name.
        ACLCase(
            "star's form",
            "user::rw-\nuser:lisa:rwx:502\ngroup::r--\ngroup:toolies:rw-:102\nmask::rwx\nother::---\n",
            "user::rw-\nuser:502:rwx\ngroup::r--\ngroup:102:rw-\nmask::rwx\nother::---\n\n"),
        ACLCase(
            "letters left out, and a comment", "u::rw,u:5:r,g::r,m::r,o::#x",
            "user::rw-\nuser:5:r--\ngroup::r--\nmask::r--\nother::---\n\n"),
        // The image does not have her.
        ACLCase(
            "a name without a number", "user::rw-,user:lisa:r--,group::r--,mask::r--,other::---",
            "user::rw-\ngroup::r--\nmask::r--\nother::---\n\n"),
        ACLCase("no mask where one is needed", "user::rw-,user:5:r--,group::r--,other::---", nil),
        ACLCase("a letter that means nothing", "user::rwX,group::r--,other::---", nil),
        ACLCase("no ACL", "hello", nil),
        ACLCase(
            "a number that is too large", "user::rw-,user:4294967296:r--,group::r--,mask::r--,other::---", nil
        ),
    ]

    @Test("ACLs in text", arguments: aclCases)
    func acls(_ one: ACLCase) throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        let item = Item.file("f", "1", mode: 0o640).with { $0.accessACL = Array(one.text.utf8) }
        guard let shown = one.shown else {
            #expect { try apply([[item]], to: root.fd) } throws: { blamesTheLayer($0) }
            return
        }
        try apply([[item]], to: root.fd)
        #expect(try base.shell("getfacl -cn rootfs/f") == shown)
    }

    @Test("A default ACL in text")
    func defaultACL() throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        let text = "user::rwx,user:5:r-x,group::r-x,mask::r-x,other::---"
        try apply([[Item.directory("d/").with { $0.defaultACL = Array(text.utf8) }]], to: root.fd)
        #expect(
            try base.shell("getfacl -cnd rootfs/d")
                == "user::rwx\nuser:5:r-x\ngroup::r-x\nmask::r-x\nother::---\n\n")
        #expect(try root.fd.look("d").permissions == 0o755)
    }

    struct RefusedCase: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var item: Item
        init(_ description: String, _ item: Item) {
            testDescription = description
            self.item = item
        }
    }

    static let odd: [RefusedCase] = [
        RefusedCase(
            "a user attribute of a symbolic link",
            Item.symlink("x", "t").with { $0.extendedAttributes = [user] }),
        RefusedCase(
            "a user attribute of a device",
            Item.node("x", .characterDevice, 1, 3).with { $0.extendedAttributes = [user] }),
        RefusedCase(
            "an attribute of no known namespace",
            .file("x", attributes: [ExtendedAttribute(name: "foo.x", value: [])])),
        RefusedCase(
            "an attribute with a name that is too long",
            .file(
                "x",
                attributes: [
                    ExtendedAttribute(name: BytePath("user." + String(repeating: "x", count: 256)), value: [])
                ])),
        RefusedCase(
            "an attribute larger than any file can have",
            .file(
                "x",
                attributes: [ExtendedAttribute(name: "user.x", value: Array(repeating: 1, count: 70_000))])),
        RefusedCase(
            "a capability that is none",
            .file("x", attributes: [ExtendedAttribute(name: "security.capability", value: [1])])),
        RefusedCase(
            "a default ACL of a file",
            .file("x", attributes: [ExtendedAttribute(name: "system.posix_acl_default", value: acl)])),
        RefusedCase(
            "what macOS and NFS have",
            .file(
                "x",
                attributes: [
                    ExtendedAttribute(name: "com.apple.provenance", value: [1]),
                    ExtendedAttribute(name: "system.nfs4_acl", value: [1]),
                ])),
        RefusedCase(
            "an attribute larger than a leaf of btrfs",
            .file(
                "x",
                attributes: [ExtendedAttribute(name: "user.x", value: Array(repeating: 1, count: 20_000))])),
        RefusedCase(
            "an attribute of a directory in no known namespace",
            .directory("x/", attributes: [ExtendedAttribute(name: "foo.x", value: [])])),
    ]

    @Test(
        "Who asks to stop is heard in a deletion, and at what is done behind the last entry",
        arguments: [Item.whiteout(".wh.d"), .whiteout("d/.wh..wh..opq"), .file("d", "x"), .directory("e/")])
    func cancelled(_ item: Item) throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        try apply(try archive([.directory("d/"), .file("d/a", "1")]), to: root.fd, isBottom: true)
        let cancellation = Cancellation()
        let applier = LayerApplier(root: root.fd, isBottom: false, cancellation: cancellation)
        let reader = TarReader(MemorySource(try archive([item])))
        #expect {
            try applier.apply(reader) { cancellation.cancel() }
        } throws: {
            if case LayerError.cancelled = $0 { true } else { false }
        }
        #expect(try listing(root.fd).contains("d/a=1"))
    }

    @Test(
        "An attribute that no file can have here is left out, and told of; or refused",
        arguments: odd)
    func oddAttributes(_ one: RefusedCase) throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        let bytes = try archive([one.item.with { $0.extendedAttributes.append(Self.trusted) }])
        let applier = LayerApplier(root: root.fd, isBottom: true)
        try applier.apply(TarReader(MemorySource(bytes)))
        #expect(try root.fd.attributes(at: "x") == [Self.trusted])
        let count = one.item.entry.extendedAttributes.count
        #expect(applier.omissions.count == 1)
        #expect(
            applier.omissions.first?.hasPrefix(
                count == 1 ? "1 extended attribute is" : "\(count) extended attributes are") == true)
        let strict = try base.makeRoot("strict")
        #expect {
            try apply(bytes, to: strict.fd, isBottom: true, options: ApplyOptions(refusesOddAttributes: true))
        } throws: {
            blamesTheLayer($0)
        }
    }

    @Test("Attributes by which a store knows its trees, and those of this file system, are in no tree")
    func attributesOfStores() throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        let names: [BytePath] = ["user.varve.chain", "trusted.varve.ancestors", "btrfs.compression"]
        let forged = names.map { ExtendedAttribute(name: $0, value: [1]) } + [Self.trusted]
        try apply(try archive([.directory("d/", attributes: forged)]), to: root.fd, isBottom: true)
        #expect(try root.fd.attributes(at: "d") == [Self.trusted])
    }

    static let trusted = ExtendedAttribute(name: "trusted.kept", value: [7])

    static let impossible: [RefusedCase] = [
        RefusedCase(
            "an ACL that is none",
            .file("x", attributes: [ExtendedAttribute(name: "system.posix_acl_access", value: [9])])),
        RefusedCase("a device number that no kernel has", .node("x", .characterDevice, 5000, 3)),
        RefusedCase("a symbolic link with no target", .symlink("x", "")),
        RefusedCase("a hard link with no target", .hardlink("x", "")),
        RefusedCase("a hard link to what is not there", .hardlink("x", "y")),
        RefusedCase("a hard link to the root", .hardlink("x", "./")),
    ]

    @Test("What no file can be is the layer's fault", arguments: impossible)
    func refused(_ one: RefusedCase) throws {
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        #expect { try apply([[one.item]], to: root.fd) } throws: { error in
            // Where already the writer refuses, no archive of ours can hold it.
            blamesTheLayer(error)
        }
    }

    // MARK: Helpers

    static func prepare(_ root: FileDescriptor, _ parent: Parent) throws {
        try root.makeDirectory("p", mode: 0o755)
        let opened = try root.openDirectory("p")
        switch parent {
        case .plain: break
        case .setGroupID:
            try opened.fd.changeOwner(uid: 0, gid: 77)
            try opened.fd.changeMode(to: 0o2775)
        case .defaultACL:
            try opened.fd.setExtendedAttribute(
                ExtendedAttribute(name: "system.posix_acl_default", value: acl))
        }
        try opened.fd.setTimes(access: .epoch, modification: Timestamp(seconds: 55, nanoseconds: 5))
    }

    /// Whether what lies at `path` is exactly what `entry` says.
    static func check(_ entry: TarEntry, in root: FileDescriptor, at path: BytePath) throws {
        let status = try root.look(path)
        if entry.kind != .symbolicLink {
            #expect(status.permissions == entry.mode, "\(String(status.permissions, radix: 8))")
        }
        #expect(status.uid == entry.uid && status.gid == entry.gid)
        #expect(status.modificationTime == entry.modificationTime)
        #expect(try root.attributes(at: path) == entry.extendedAttributes)
        if entry.kind == .regular { #expect(status.size == entry.size) }
        if entry.kind == .characterDevice || entry.kind == .blockDevice {
            #expect(status.deviceMajor == entry.deviceMajor && status.deviceMinor == entry.deviceMinor)
        }
    }
}
