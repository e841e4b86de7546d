import VarveArchive
import VarveSystem
import TestSupport

extension FuzzTarget {
    /// Tar archives. The first byte says in runs of which length they come, and whether checksums are made right first.
    ///
    /// Entries or a `TarError`; never more entries or content than the bytes can hold; each entry one that its docs
    /// allow; and what was read is the same after it was written and read again.
    package static let tar = FuzzTarget(
        name: "tar",
        seeds: { TarSeeds.all.flatMap { [[0x80] + $0, [0x83] + $0] } },
        run: { bytes in
            var input = FuzzInput(bytes)
            let choice = input.byte()
            let run = [1 << 16, 512, 100, 7][Int(choice & 3)]
            var archive = input.all()
            if choice & 0x80 != 0 { mendChecksums(&archive) }
            do {
                let files = try readTar(archive, run: run)
                try roundTrip(files)
                return .taken
            } catch let error as TarError {
                try require(error.offset <= Int64(archive.count), "it blames byte \(error.offset)")
                try require(
                    error.description.utf8.count < 1000,
                    "its message is \(error.description.utf8.count) bytes")
                return .refused
            }
        })
}

private struct ReadFile {
    var entry: TarEntry
    /// Nil if it is too large to be written again.
    var content: [UInt8]?
}

private func readTar(_ archive: [UInt8], run: Int) throws -> [ReadFile] {
    let source = FuzzSource(archive, run: run)
    let reader = TarReader(source)
    var files: [ReadFile] = []
    var total = 0
    while let entry = try reader.nextEntry() {
        try check(entry)
        var content = [UInt8](repeating: 0, count: entry.size <= 1 << 16 ? Int(entry.size) : 0)
        var end: Int64 = 0
        while let (offset, piece) = try unsafe reader.nextContent() {
            try require(unsafe offset >= end && !piece.isEmpty, "content at \(offset) after \(end)")
            try require(offset <= entry.size - Int64(piece.count), "content behind the end of \(entry.path)")
            end = offset + Int64(piece.count)
            total += piece.count
            if !content.isEmpty { unsafe content.replaceSubrange(Int(offset)..<Int(end), with: piece) }
        }
        files.append(ReadFile(entry: entry, content: Int64(content.count) == entry.size ? content : nil))
    }
    try require(files.count <= archive.count / 512, "\(files.count) entries in \(archive.count) bytes")
    try require(total <= archive.count, "\(total) bytes of content in \(archive.count) bytes")
    try require(source.isAtEnd, "the source was not read to its end")
    return files
}

private func check(_ entry: TarEntry) throws(FuzzFinding) {
    try require(!entry.path.isEmpty && entry.path.count <= 4095, "a path of \(entry.path.count) bytes")
    try require(entry.linkTarget.count <= 4095, "a target of \(entry.linkTarget.count) bytes")
    try require(!entry.path.bytes.contains(0) && !entry.linkTarget.bytes.contains(0), "a NUL in a name")
    let isLink = entry.kind == .symbolicLink || entry.kind == .hardLink
    try require(isLink == !entry.linkTarget.isEmpty, "\(entry.kind) to \"\(entry.linkTarget)\"")
    try require(
        entry.size >= 0 && (entry.size == 0 || entry.kind == .regular), "\(entry.kind) of \(entry.size) bytes"
    )
    try require(entry.mode <= 0o7777 && entry.uid != .max && entry.gid != .max, "mode or owner out of range")
    let names = entry.extendedAttributes.map(\.name)
    for (one, other) in zip(names, names.dropFirst()) {
        try require(one < other, "attributes out of order")
    }
    var end: Int64 = 0
    for segment in entry.sparse ?? [] {
        try require(
            segment.length > 0 && segment.offset >= end, "a segment at \(segment.offset) after \(end)")
        end = segment.offset + segment.length
    }
    try require(end <= entry.size, "a segment behind the end")
}

/// Written and read again, every entry is what it was, but for its holes and the slash of a directory.
private func roundTrip(_ files: [ReadFile]) throws {
    let sink = FuzzSink()
    let writer = TarWriter(sink)
    var written: [ReadFile] = []
    for var file in files {
        guard let content = file.content else { continue }
        file.entry.sparse = nil
        if file.entry.kind == .directory, file.entry.path.bytes.last != UInt8(ascii: "/") {
            guard file.entry.path.count < 4095, let path = BytePath(Array(file.entry.path.bytes) + [0x2f])
            else {
                continue
            }
            file.entry.path = path
        }
        // A reader takes an attribute's name as libarchive writes it, a writer writes it as GNU tar does; together with
        // many long values that can be more than an extended header may hold.
        if file.entry.extendedAttributes.reduce(0, { $0 + $1.value.count + $1.name.count * 3 }) > 7 << 20 {
            continue
        }
        try writer.write(file.entry)
        try unsafe content.withUnsafeBytes { try unsafe writer.writeContent($0) }
        written.append(file)
    }
    try writer.finish()
    let again = try readTar(sink.bytes, run: 1 << 16)
    try require(again.count == written.count, "\(written.count) entries became \(again.count)")
    for (one, other) in zip(written, again) {
        try require(
            one.entry == other.entry && one.content == other.content, "\(one.entry) became \(other.entry)")
    }
}

/// Writes the right checksum into every block that looks like a header, so that what lies behind it is reached.
func mendChecksums(_ archive: inout [UInt8]) {
    for block in stride(from: 0, to: archive.count - 511, by: 512)
    where archive[block + 155] == 0x20 || archive[(block + 257)..<(block + 262)].elementsEqual("ustar".utf8) {
        var sum = 256
        for index in block..<(block + 148) { sum += Int(archive[index]) }
        for index in (block + 156)..<(block + 512) { sum += Int(archive[index]) }
        archive.replaceSubrange((block + 148)..<(block + 156), with: octal(sum, 6).suffix(6) + [0, 0x20])
    }
}

/// Small archives with everything that a reader knows.
enum TarSeeds {
    static let all: [[UInt8]] = [
        tarEntry("f", "0", "content") + endOfTar,
        tarEntry("d/", "5") + tarEntry("d/f", "0", String(repeating: "x", count: 600)) + endOfTar,
        tarEntry("l", "2", link: "../f") + tarEntry("h", "1", link: "d/f") + endOfTar,
        tarHeader("n", "3", [Patch(329, octal(1, 7)), Patch(337, octal(3, 7))]) + tarHeader("p", "6")
            + endOfTar,
        gnuLong("L", String(repeating: "long/", count: 40)) + gnuLong("K", "target")
            + tarHeader("x", "2", link: "y"),
        paxHeader([
            ("path", "päth"), ("linkpath", "t"), ("mtime", "-1.5"), ("atime", "1.000000001"),
            ("uid", "70000"),
            ("gid", "3000000000"), ("SCHILY.xattr.user.a", "v"), ("SCHILY.xattr.user.%3D", "w"),
            ("SCHILY.acl.access", "user::rwx,group::r--,other::---"), ("LIBARCHIVE.xattr.user.b%20", "eHl6"),
        ]) + tarEntry("a", "2", link: "b") + endOfTar,
        paxHeader([("uid", "7"), ("comment", "c")], "g") + tarEntry("a", "0", "abc") + tarEntry("b")
            + endOfTar,
        paxHeader([("GNU.sparse.size", "2000"), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "10,5")])
            + tarEntry("a", "0", "abcde"),
        paxHeader([
            ("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "s"),
            ("GNU.sparse.realsize", "2000"),
        ]) + tarHeader("a", size: 517) + padded("1\n10\n5\n") + padded("abcde"),
        tarHeader(
            "a", "S", size: 3, magic: gnuMagic,
            [
                Patch(386, octal(0, 11)), Patch(398, octal(3, 11)), Patch(482, [0]),
                Patch(483, octal(1000, 11)),
            ])
            + padded("abc"),
        tarHeader(
            "b", "0",
            [Patch(124, [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]), Patch(108, [0x80, 0, 0, 0, 0, 0, 1, 0])])
            + padded("abc") + endOfTar,
        tarHeader("star", "0", [Patch(476, octal(9, 11)), Patch(488, octal(8, 11)), Patch(508, "tar\u{0}")])
            + endOfTar,
        tarEntry(".wh.f") + tarEntry("d/.wh..wh..opq") + tarEntry(".wh..wh.plnk/x") + endOfTar,
        tarHeader("old", "\u{0}", magic: "") + tarHeader("label", "V", magic: gnuMagic) + endOfTar,
    ]
}
