import VarveArchive
import VarveSystem
import Testing

/// What GNU tar and Python's tarfile write is read, and what is written here they read. Needs root, as layers
/// do.
@Suite struct TarForeignTests {
    // MARK: - Reading

    /// A tree of every kind of file; names that fit into no header unless `$short`, numbers likewise.
    static let tree = """
        mkdir tree; cd tree
        mkdir -m 1777 d; echo content > d/f; chown 1000:2000 d/f; chmod 4711 d/f
        ln -s ../target d/s; ln d/f d/h; mkfifo -m 600 d/p
        mknod -m 640 d/c c 1 3; mknod -m 640 d/b b 8 17
        printf x > $'d/\\xe9\\n'
        touch -h -d @1700000000 d/f d/s d/p d/c d/b $'d/\\xe9\\n' d

        """

    static func expected(_ more: [TarFile] = []) throws -> [TarFile] {
        let time = Timestamp(seconds: 1_700_000_000)
        func entry(_ path: String, _ kind: TarKind, _ mode: UInt32, _ link: String = "") -> TarEntry {
            TarEntry(
                path: BytePath(path), kind: kind, linkTarget: BytePath(link), mode: mode,
                modificationTime: time)
        }
        var file = entry("d/f", .regular, 0o4711)
        (file.uid, file.gid, file.size) = (1000, 2000, 8)
        var link = entry("d/h", .hardLink, 0o4711, "d/f")
        (link.uid, link.gid) = (1000, 2000)
        var null = entry("d/c", .characterDevice, 0o640)
        (null.deviceMajor, null.deviceMinor) = (1, 3)
        var disk = entry("d/b", .blockDevice, 0o640)
        (disk.deviceMajor, disk.deviceMinor) = (8, 17)
        var odd = entry("", .regular, 0o644)
        odd.path = try #require(BytePath(Array("d/".utf8) + [0xe9, 0x0a]))
        odd.size = 1
        return [
            TarFile(entry: entry("d/", .directory, 0o1777)), TarFile(entry: disk), TarFile(entry: null),
            TarFile(entry: file, content: Array("content\n".utf8)), TarFile(entry: link),
            TarFile(entry: entry("d/p", .fifo, 0o600)),
            TarFile(entry: entry("d/s", .symbolicLink, 0o777, "../target")),
            TarFile(entry: odd, content: Array("x".utf8)),
        ] + more
    }

    static func withoutOtherTimes(_ files: [TarFile]) -> [TarFile] {
        files.map {
            var file = $0
            (file.entry.accessTime, file.entry.changeTime) = (nil, nil)
            return file
        }
    }

    @Test(arguments: ["v7", "ustar", "oldgnu", "gnu", "posix"]) func gnuTar(_ format: String) throws {
        // v7 has no devices and FIFOs.
        let left = format == "v7" ? "rm d/p d/c d/b; touch -d @1700000000 d;" : ""
        let archive = try runScript(Self.tree + left + "tar --sort=name --format=\(format) -cf - d")
        let expected = try Self.expected().filter {
            format != "v7" || ![.fifo, .characterDevice, .blockDevice].contains($0.entry.kind)
        }
        let files = Self.withoutOtherTimes(try readTar(archive))
        #expect(files == expected, "\(files)")
    }

    @Test(arguments: ["gnu", "posix"]) func gnuTarLongNames(_ format: String) throws {
        let archive = try runScript(
            """
            long=$(printf 'directory-%03d/' {1..60}); mkdir -p $long
            cd $long; echo content > file; ln file link; ln -s $T/$long symlink
            chown 3000000:4294967294 file; touch -d '1955-11-12 22:04:00.125' file
            cd $T; tar --sort=name --format=\(format) -cf - $long/file $long/link $long/symlink
            """)
        let files = try readTar(archive)
        let directory = (1...60).map {
            "directory-" + String(repeating: "0", count: $0 < 10 ? 2 : 1) + "\($0)/"
        }.joined()
        // Double slash: the script's own.
        #expect(
            files.map(\.entry.path) == ["file", "link", "symlink"].map { BytePath(directory + "/" + $0) })
        #expect(files.map(\.entry.kind) == [.regular, .hardLink, .symbolicLink])
        #expect(files[1].entry.linkTarget == files[0].entry.path)
        #expect(files[2].entry.linkTarget.string?.hasSuffix(directory) == true)
        #expect(files[0].entry.uid == 3_000_000 && files[0].entry.gid == 4_294_967_294)
        // The GNU format has whole seconds.
        let time = files[0].entry.modificationTime
        #expect(time.seconds == -446_090_160 && time.nanoseconds == (format == "gnu" ? 0 : 125_000_000))
    }

    @Test(
        arguments: [
            "--format=gnu", "--format=posix --sparse-version=0.0", "--format=posix --sparse-version=0.1",
            "--format=posix --sparse-version=1.0",
        ], [1, 4, 5, 30, 200])
    func gnuTarSparse(_ format: String, _ segments: Int) throws {
        let archive = try runScript(
            """
            python3 - <<END
            with open('file', 'wb') as f:
                f.truncate(\(segments) * 20480 + 12345)
                for i in range(\(segments)):
                    f.seek(i * 20480 + 4096); f.write(b'%04d' % i * 1024)
            END
            echo next > next
            tar --sparse --hole-detection=raw \(format) -cf - file next
            """)
        var content = [UInt8](repeating: 0, count: segments * 20_480 + 12_345)
        for index in 0..<segments {
            let four = Array((String(repeating: "0", count: 4 - "\(index)".count) + "\(index)").utf8)
            for place in 0..<4096 { content[index * 20_480 + 4096 + place] = four[place % 4] }
        }
        let files = try readTar(archive)
        #expect(files.map(\.entry.path) == [BytePath("file"), BytePath("next")])
        #expect(files[0].entry.sparse?.count == segments)
        #expect(files[0].content == content)
        #expect(files[1].content == Array("next\n".utf8) && !files[1].entry.isSparse)
    }

    @Test func gnuTarAttributes() throws {
        let archive = try runScript(
            """
            echo content > file
            python3 - <<END
            import os
            os.setxattr('file', b'user.a', bytes(range(256)))
            os.setxattr('file', b'user.empty', b'')
            os.setxattr('file', b'user.b=c%25', b'x=y\\n')
            END
            tar --xattrs --xattrs-include='user.*' --format=posix -cf - file
            """)
        let expected = [("user.a", Array(0...255)), ("user.b=c%25", Array("x=y\n".utf8)), ("user.empty", [])]
            .map {
                ExtendedAttribute(name: BytePath($0.0), value: $0.1)
            }
        #expect(try readTar(archive).map(\.entry.extendedAttributes) == [expected])
    }

    @Test(arguments: ["USTAR", "GNU", "PAX"]) func pythonTarfile(_ format: String) throws {
        let archive = try runScript(
            """
            python3 - <<END
            import tarfile, io, sys
            t = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.\(format)_FORMAT, encoding='utf-8',
                             pax_headers={'comment': 'global'})
            i = tarfile.TarInfo('d/' * 60 + 'caf\\u00e9'); i.size = 5; i.uid = 7; i.mode = 0o4755
            if '\(format)' != 'USTAR': i.mtime = -2; i.uid = 3000000
            if '\(format)' == 'PAX': i.pax_headers = {'mtime': '-1.5', 'SCHILY.xattr.user.a': 'b\\u00e9'}
            t.addfile(i, io.BytesIO(b'hello'))
            t.close()
            END
            """)
        let isPax = format == "PAX"
        let expected = TarReaderTests.file(String(repeating: "d/", count: 60) + "caf\u{e9}", "hello") {
            $0.mode = 0o4755
            $0.uid = format == "USTAR" ? 7 : 3_000_000
            if format == "GNU" { $0.modificationTime.seconds = -2 }
            if isPax { $0.modificationTime = Timestamp(seconds: -2, nanoseconds: 500_000_000) }
            if isPax {
                $0.extendedAttributes = [
                    ExtendedAttribute(name: BytePath("user.a"), value: Array("b\u{e9}".utf8))
                ]
            }
        }
        #expect(try readTar(archive) == [expected])
    }

    // MARK: - Writing

    /// Files of every kind and every reason for a record. GNU tar restores them, and writes again what was
    /// here.
    static func written() -> [TarFile] {
        let long = TarReaderTests.long
        var files = [
            TarReaderTests.other(.directory, "d/"),
            TarReaderTests.file("d/file", "content") { $0.mode = 0o4711 },
            TarReaderTests.other(.hardLink, "d/link", "d/file"),
            TarReaderTests.other(.symbolicLink, "d/symlink", long),
            TarReaderTests.other(.fifo, "d/fifo"),
            TarReaderTests.other(.characterDevice, "d/null", device: (1, 3)),
            TarReaderTests.other(.blockDevice, "d/disk", device: (259, 300_000)),
            TarReaderTests.file("d/" + long, "long") { $0.modificationTime.nanoseconds = 123_456_789 },
            TarReaderTests.file("d/owners") { ($0.uid, $0.gid) = (3_000_000, 4_294_967_294) },
            TarReaderTests.file("d/old") {
                $0.modificationTime = Timestamp(seconds: -2, nanoseconds: 250_000_000)
            },
            TarReaderTests.file("d/attributes") {
                $0.extendedAttributes = [
                    ExtendedAttribute(name: BytePath("user.%"), value: []),
                    ExtendedAttribute(name: BytePath("user.%3D=%25"), value: Array(0...255)),
                    ExtendedAttribute(name: BytePath("user.a"), value: Array("b\n".utf8)),
                ]
            },
        ]
        for name in [[0xe9, 0x0a], [UInt8](repeating: 0xe9, count: 150)] {
            files.append(TarReaderTests.file("") { $0.path = BytePath(Array("d/".utf8) + name) ?? .empty })
        }
        return files
    }

    @Test func gnuTarRestoresWhatIsWritten() throws {
        let files = Self.written()
        // Sorting makes the first name of the hard links the one that holds the content.
        let back = try runScript(
            """
            mkdir out; tar --xattrs --xattrs-include='*' --numeric-owner --delay-directory-restore -xpf in -C out
            cd out; tar --sort=name --xattrs --xattrs-include='user.*' --numeric-owner --format=posix -cf - d
            """, input: try writeTar(files))
        var restored = Self.withoutOtherTimes(try readTar(back))
        // Directories on the way were not in the archive.
        restored.removeAll { $0.entry.path.string?.hasSuffix("directory/") == true }
        func sorted(_ files: [TarFile]) -> [TarFile] {
            files.filter { $0.entry.kind != .symbolicLink && $0.entry.kind != .hardLink }
                .sorted { $0.entry.path < $1.entry.path }
        }
        #expect(sorted(restored) == sorted(files))
        let links = restored.filter { $0.entry.kind == .symbolicLink || $0.entry.kind == .hardLink }
        #expect(links.map(\.entry.path) == [BytePath("d/link"), BytePath("d/symlink")])
        #expect(links.map(\.entry.linkTarget) == [BytePath("d/file"), BytePath(TarReaderTests.long)])
    }

    @Test func pythonReadsWhatIsWritten() throws {
        let files = Self.written()
        let output = try runScript(
            """
            python3 - <<END
            import tarfile, os
            for m in tarfile.open('in', errorlevel=2):
                name = m.name.encode('utf-8', 'surrogateescape').hex()
                print(name, m.type.decode(), oct(m.mode), m.uid, m.gid, m.size, m.devmajor, m.devminor, sep=',')
            END
            """, input: try writeTar(files))
        let digits = Array("0123456789abcdef")
        let types: [TarKind: Int] = [
            .regular: 0, .hardLink: 1, .symbolicLink: 2, .characterDevice: 3, .blockDevice: 4, .directory: 5,
            .fifo: 6,
        ]
        let expected = files.map { file in
            let entry = file.entry
            var bytes = Array(entry.path.bytes)
            if bytes.last == UInt8(ascii: "/") { bytes.removeLast() }
            let name = bytes.map { "\(digits[Int($0 >> 4)])\(digits[Int($0 & 15)])" }.joined()
            return
                "\(name),\(types[entry.kind] ?? 9),0o\(String(entry.mode, radix: 8)),\(entry.uid),\(entry.gid),"
                + "\(entry.size),\(entry.deviceMajor),\(entry.deviceMinor)\n"
        }
        #expect(String(decoding: output, as: UTF8.self) == expected.joined())
    }
}
