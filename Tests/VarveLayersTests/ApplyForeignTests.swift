import VarveArchive
import DeltaChecks
import VarveLayers
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// The trees that other tools make of the same archives.
@Suite struct ApplyForeignTests {
    /// A tree with everything that GNU tar can carry.
    static let source = """
        umask 022
        mkdir -p s/usr/bin s/etc s/var/empty s/tmp 's/odd  name'
        cd s
        head -c 300000 /dev/urandom > usr/bin/tool; chmod 4755 usr/bin/tool
        cp usr/bin/tool usr/bin/other; chown 12:34 usr/bin/other; chmod 6711 usr/bin/other
        setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= usr/bin/tool
        ln usr/bin/tool usr/bin/link; ln -s ../bin/tool usr/bin/sym; ln -s /nowhere etc/dangling
        chown -h 3000000:4000000000 usr/bin/sym
        echo root:x:0:0 > etc/passwd; setfattr -n user.note -v 'a b' etc/passwd; setfattr -n trusted.t -v 0x00ff etc/passwd
        echo secret > etc/shadow; chown 0:42 etc/shadow; chmod 640 etc/shadow; setfacl -m u:5:r,g:3000000:r etc/shadow
        mkdir etc/acl.d; setfacl -d -m u:5:rwx etc/acl.d; setfacl -m u:6:rx etc/acl.d; chown 5:50 etc/acl.d; chmod g+s etc/acl.d
        mknod tmp/null c 1 3; mknod tmp/loop b 7 200; mkfifo tmp/pipe; chmod 1777 tmp
        truncate -s 5000000 tmp/hole; printf x | dd of=tmp/hole bs=1 seek=2000000 conv=notrunc status=none; truncate -s 5000001 tmp/hole
        truncate -s 1000000 tmp/onlyhole
        printf x > "$(printf 'tmp/n\\303\\344\\377\\n')"
        n=$(printf '%0200d' 7); mkdir -p tmp/$n/$n; printf deep > tmp/$n/$n/$n
        : > var/empty/.keep; chmod 0 var/empty; chmod 0500 var
        find . -depth -exec touch -h -d '2021-03-04 05:06:07.123456789' {} +
        touch -d '1901-01-01 00:00:00.5' etc/passwd; touch -h -d '1969-12-31 23:59:59.9' usr/bin/sym; touch -d '2100-01-01' etc
        """

    struct Format: Sendable, CustomTestStringConvertible {
        var testDescription: String { options }
        var options: String
        init(_ options: String) { self.options = options }
    }

    @Test(
        "GNU tar --xattrs --acls --numeric-owner extracts the same tree of",
        arguments: [
            // One for each way in which the format can say a thing.
            Format("--format=pax --xattrs --xattrs-include=* --acls"),
            Format("--format=pax --xattrs --xattrs-include=* --acls --sparse --sparse-version=0.0"),
            Format("--format=pax --xattrs --xattrs-include=* --acls --sparse --sparse-version=0.1"),
            Format("--format=pax --xattrs --xattrs-include=* --acls --sparse --sparse-version=1.0"),
            Format("--format=gnu --sparse"),
        ])
    func gnuTar(_ format: Format) throws {
        let base = try SharedVolume.directory()
        try base.shell(Self.source)
        try base.shell(
            "tar \(format.options) --numeric-owner -cf a.tar -C s .\nmkdir theirs\n"
                + "tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf a.tar -C theirs")
        let bytes = try base.fd.readFile("a.tar", limit: 1 << 28)
        let ours = try base.makeRoot("ours")
        try apply(bytes, to: ours.fd, isBottom: true)
        let theirs = try base.fd.openDirectory("theirs")
        #expect(try TreeCompare.differences(theirs.fd, ours.fd) == [])
        if format.options.contains("pax") {
            // GNU tar is no oracle if it loses something itself.
            let source = try base.fd.openDirectory("s")
            #expect(try TreeCompare.differences(source.fd, ours.fd) == [])
        }
        if format.options.contains("sparse") {
            #expect(try ours.fd.look("tmp/hole").blocks < 1000, "the holes were filled")
        }
    }

    @Test("umoci unpacks the same tree of an image of four layers")
    func umoci() throws {
        let base = try SharedVolume.directory()
        let time = Timestamp(seconds: 1_600_000_000)
        let layers: [[Item]] = [
            [
                .directory("./", time: time), .directory("etc/", time: time), .file("etc/a", "1"),
                .file("etc/b", "2"),
                .hardlink("etc/c", "etc/b"), .directory("opt/", time: time),
                .directory("opt/x/", mode: 0o1777, time: time),
                .file("opt/x/one", "1", mode: 0o4755, uid: 5, gid: 6), .symlink("lib", "usr/lib"),
                .directory("usr/", time: time), .directory("usr/lib/", time: time),
                .file("usr/lib/l.so", "elf"),
                .file("cap", "1", attributes: [ApplyMetadataTests.capability, ApplyMetadataTests.user]),
                .node("pipe", .fifo), .node("null", .characterDevice, 1, 3),
                .directory("gone/", time: time), .directory("gone/deep/", time: time),
                .file("gone/deep/f", "x"),
            ],
            [
                .directory("./", mode: 0o755, time: time), .whiteout(".wh.gone"),
                .file("etc/a", "1 again", uid: 9),
                .whiteout("etc/.wh.c"), .directory("opt/x/", mode: 0o700, time: time),
                .whiteout("opt/x/.wh..wh..opq"),
                .file("opt/x/two", "2"), .file("lib/new.so", "elf 2"), .hardlink("hard", "usr/lib/l.so"),
            ],
            [
                .directory("./", time: time), .file("opt/x", "a file now"),
                .directory("etc/", mode: 0o711, gid: 3, time: time),
                .directory("gone/", time: time), .file("gone/back", "x"), .symlink("cap", "etc/a"),
            ],
            // Everything away again but what this layer has.
            [
                .directory("./", time: time), .file("etc/kept", "k"), .whiteout("etc/.wh..wh..opq"),
                .whiteout(".wh.hard"),
            ],
        ]
        let ours = try base.makeRoot("ours")
        try apply(layers, to: ours.fd)
        try base.shell("umoci init --layout l\numoci new --image l:x")
        for (index, layer) in layers.enumerated() {
            try base.fd.writeFileDurably(BytePath("layer\(index).tar"), try archive(layer))
            try base.shell("umoci raw add-layer --image l:x layer\(index).tar")
        }
        try base.shell("umoci unpack --image l:x bundle")
        let theirs = try base.fd.openDirectory("bundle/rootfs")
        #expect(
            try TreeCompare.differences(theirs.fd, ours.fd, OracleOptions(ignoresSubsecondTimes: true)) == [])
    }
}
