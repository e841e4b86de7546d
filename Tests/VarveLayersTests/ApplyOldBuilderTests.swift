import DeltaChecks
import Glibc
import TestSupport
import Testing
import VarveArchive
import VarveSystem
import SystemPackage

@testable import VarveLayers

/// What tar and old engines write and nobody writes any more, or nobody means: the links of AUFS, ACLs with names.
@Suite struct ApplyOldBuilderTests {
    /// The ways in which a layer can come to a tree.
    enum Way: String, CaseIterable, Sendable {
        /// On top of the others, in one directory.
        case onTop
        /// Into directories of their own, with whiteouts as files, as overlayfs would have it.
        case standalone
    }

    /// Applies layers and gives a directory with the whole tree.
    private static func tree(
        _ layers: [[UInt8]], _ way: Way, _ base: TestDirectory, isBottom: Bool = true
    ) throws -> (root: SharedDescriptor, omissions: [[String]]) {
        var omissions: [[String]] = []
        switch way {
        case .onTop:
            let root = try base.makeRoot()
            for (index, layer) in layers.enumerated() {
                let applier = LayerApplier(root: root.fd, isBottom: index == 0)
                try applier.apply(TarReader(MemorySource(layer)))
                omissions.append(applier.omissions)
            }
            return (root, omissions)
        case .standalone:
            var roots: [LowerLayer] = []
            for (index, layer) in layers.enumerated() {
                let root = try base.makeRoot(BytePath("layer\(index)"))
                let below = roots
                let applier = LayerApplier(
                    root: root.fd, isBottom: index == 0, standalone: StandaloneLayer(whiteouts: .overlayfs)
                ) { LowerTree(below) }
                try applier.apply(TarReader(MemorySource(layer)))
                try applier.finishAboveLower()
                omissions.append(applier.omissions)
                roots.append(LowerLayer(root: root, whiteouts: .overlayfs))
            }
            let names = layers.indices.reversed().map { "layer\($0)" }.joined(separator: ":")
            try base.shell(
                """
                mkdir merged rootfs empty; mount -t overlay overlay -o lowerdir=\(names):empty merged
                cp -a merged/. rootfs; umount merged
                """)
            return (SharedDescriptor(try base.fd.openDirectory("rootfs")), omissions)
        }
    }

    @Test(
        "Hard links of AUFS lead to the file that it keeps, which itself is not in the tree",
        arguments: Way.allCases)
    func plinks(_ way: Way) throws {
        let base = try SharedVolume.directory()
        let time = Timestamp(seconds: 500)
        let below = try archive([
            .directory("./", time: time), .directory("bin/", time: time), .file("bin/old", "old"),
        ])
        let layer = try archive([
            .directory(".wh..wh.plnk/", mode: 0o700), .file(".wh..wh.aufs"), .directory(".wh..wh.orph/"),
            .file(".wh..wh.plnk/1032.4567", "shared", mode: 0o4755, uid: 3),
            .file(".wh..wh.plnk/7.8", "unused"),
            .symlink(".wh..wh.plnk/9.1", "old"), .hardlink("bin/a", ".wh..wh.plnk/1032.4567"),
            .hardlink("bin/b", "./.wh..wh.plnk/1032.4567"), .hardlink("c", "bin/a"),
            .hardlink("s", ".wh..wh.plnk/9.1"),
        ])
        let (root, _) = try Self.tree([below, layer], way, base)
        #expect(
            try listing(root.fd) == [
                "bin/", "bin/a=shared", "bin/b==bin/a", "bin/old=old", "c==bin/a", "s->old",
            ])
        let status = try root.fd.look("bin/a")
        #expect(status.linkCount == 3 && status.permissions == 0o4755 && status.uid == 3)
        #expect(try root.fd.look("s").linkCount == 1)
        // That of a layer in a directory of its own is for its store to say.
        if way == .onTop { #expect(try root.fd.look(.current).modificationTime == time) }
        #expect(try root.fd.look("bin").modificationTime == time)
    }

    @Test("A link of AUFS to what is not kept in its layer is refused, and so is what is odd there")
    func brokenPlinks() throws {
        for (_, layers) in [
            ("no such file", [[Item.hardlink("a", ".wh..wh.plnk/1.2")]]),
            (
                "it is kept in the layer below",
                [[.file(".wh..wh.plnk/1.2", "x")], [.hardlink("a", ".wh..wh.plnk/1.2")]]
            ),
            (
                "a path out of it",
                [[.file(".wh..wh.plnk/1.2", "x"), .hardlink("a", ".wh..wh.plnk/../etc/passwd")]]
            ),
        ] as [(String, [[Item]])] {
            let base = try SharedVolume.directory()
            let root = try base.makeRoot()
            #expect { try apply(layers, to: root.fd) } throws: { blamesTheLayer($0) }
        }
        // What lies deeper, and whiteouts there, mean nothing.
        let base = try SharedVolume.directory()
        let root = try base.makeRoot()
        try apply(
            [
                [
                    .file(".wh..wh.plnk/d/x", "x"), .whiteout(".wh..wh.plnk/.wh.x"),
                    .file("d/.wh..wh.plnk/x", "x"), .file("f", "1"),
                ]
            ],
            to: root.fd)
        #expect(try listing(root.fd) == ["f=1"])
    }

    private static func acl(_ path: String, _ text: String, _ key: String = "access", type: Character = "0")
        -> [UInt8]
    {
        paxHeader([("SCHILY.acl.\(key)", text)]) + tarHeader(path, type)
    }

    private static let passwd = "root:x:0:0::/:/bin/sh\nlisa:x:1234:1234::/:\n"
    private static let group = "root:x:0:\nstaff:x:50:lisa\n"
    private static let text =
        "user::rw-\nuser:lisa:r--\ngroup::r--\ngroup:staff:rw-\nuser:5:rw-\nmask::rw-\nother::---\n"
    private static let shown =
        "user::rw-\nuser:5:rw-\nuser:1234:r--\ngroup::r--\ngroup:50:rw-\nmask::rw-\nother::---\n\n"

    @Test("Names in ACLs are those of the image, when the layer is there", arguments: Way.allCases)
    func names(_ way: Way) throws {
        let base = try SharedVolume.directory()
        // Below, lisa is somebody else, by way of a link; and the entry of the directory that comes last says nothing of an ACL.
        let below = try archive([
            .directory("etc/"), .symlink("etc/passwd", "../usr/passwd"), .directory("usr/"),
            .file("usr/passwd", "lisa:x:77:77::/:\n"), .file("etc/group", Self.group),
        ])
        let early = Self.acl("early", Self.text) + endOfTar
        let late =
            Self.acl("late", Self.text) + tarHeader("other", "1", link: "late") + Self.acl("gone", Self.text)
            + tarEntry("gone", "0", "new") + Self.acl("moved", Self.text)
            + tarHeader("kept", "1", link: "moved")
            + tarEntry("moved", "0", "new")
            + Self.acl("d/", "user::rwx,user:lisa:r-x,group::r-x,mask::r-x,other::---", "default", type: "5")
            + tarEntry("d/f") + Self.acl("e/", Self.text, type: "5") + tarHeader("e/", "5")
            + Self.acl("p", Self.text, type: "6")
            + tarEntry("etc/passwd", "0", Self.passwd) + endOfTar
        let (root, omissions) = try Self.tree([below, early, late], way, base)
        #expect(omissions == [[], [], []])
        func shown(_ name: String, _ options: String = "") throws -> String {
            try base.shell("getfacl -cn\(options) rootfs/\(name)")
        }
        #expect(try shown("early") == Self.shown.replacing("1234", with: "77"))
        for name in ["late", "other", "kept", "p"] { #expect(try shown(name) == Self.shown, "\(name)") }
        for name in ["gone", "moved", "e", "d/f"] { #expect(try !shown(name).contains("1234"), "\(name)") }
        #expect(try shown("d", "d") == "user::rwx\nuser:1234:r-x\ngroup::r-x\nmask::r-x\nother::---\n\n")
        #expect(try root.fd.look("late").modificationTime == .epoch)
    }

    @Test("Two names that Unicode takes for the same text are two users", arguments: Way.allCases)
    func namesAreBytes(_ way: Way) throws {
        let base = try SharedVolume.directory()
        let text =
            "user::rw-\nuser:e\u{301}:rwx\nuser:\u{e9}:r--\ngroup::---\ngroup:e\u{301}:r--\nmask::rwx\nother::---\n"
        let layer =
            Self.acl("f", text)
            + tarEntry("etc/passwd", "0", "\u{e9}:x:1000:1000::/:\ne\u{301}:x:2000:2000::/:\n")
            + tarEntry("etc/group", "0", "\u{e9}:x:3000:\ne\u{301}:x:4000:\n") + endOfTar
        let (_, omissions) = try Self.tree([layer], way, base)
        #expect(omissions == [[]])
        #expect(
            try base.shell("getfacl -cn rootfs/f")
                == "user::rw-\nuser:1000:r--\nuser:2000:rwx\ngroup::---\ngroup:4000:r--\nmask::rwx\nother::---\n\n"
        )
    }

    @Test("Whom the image does not have is left out of an ACL, and told of", arguments: Way.allCases)
    func unknownNames(_ way: Way) throws {
        let base = try SharedVolume.directory()
        let layer =
            Self.acl("f", Self.text) + Self.acl("g", Self.text) + tarEntry("etc/group", "0", "staff:x:50:\n")
            + endOfTar
        let (_, omissions) = try Self.tree([layer], way, base)
        #expect(try base.shell("getfacl -cn rootfs/f") == Self.shown.replacing("user:1234:r--\n", with: ""))
        #expect(omissions.count == 1)
        let sentence = try #require(omissions.first?.first)
        #expect(omissions.first?.count == 1)
        #expect(sentence.hasPrefix("2 entries of ACLs are left out") && sentence.hasSuffix(": lisa"))
    }

    @Test("What GNU tar packs with --acls comes back")
    func gnuTar() throws {
        let base = try SharedVolume.directory()
        try base.shell(
            """
            mkdir s s/etc; cp /etc/passwd /etc/group s/etc; touch s/f; mkdir s/d
            setfacl -m u:bin:r,g:games:rw,u:5:x s/f; setfacl -m u:bin:rx -d -m g:games:rwx,u:daemon:r s/d
            tar --xattrs --acls --format=posix -cf a.tar -C s .
            grep -aq user:bin a.tar
            """)
        let root = try base.makeRoot()
        try apply(base.fd.readFile("a.tar", limit: 1 << 24), to: root.fd, isBottom: true)
        let source = try base.fd.openDirectory("s")
        #expect(try TreeCompare.differences(source.fd, root.fd) == [])
    }
}
