import VarveArchive
import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

extension FuzzTarget {
    /// mtree files, and names encoded by vis(3).
    ///
    /// A tree or a `RecordError`; a tree is the same when it is written and read again, also as a record.
    package static let mtree = FuzzTarget(
        name: "mtree",
        seeds: { mtreeSeeds.map { Array($0.utf8) } },
        run: { bytes in
            try require(VisEncoding.decode(VisEncoding.encode(bytes)) == bytes, "a name is another one")
            let plain = VisEncoding.encode(bytes)
            try require(
                plain.allSatisfy { $0 > 0x20 && $0 < 0x7f }, "a name is encoded with something to encode")
            if let name = VisEncoding.decode(bytes) {
                try require(name.count <= bytes.count, "a name of \(name.count) bytes")
            }
            do {
                let tree = try read(bytes)
                try require(tree.count <= 1 + bytes.count / 2, "\(tree.count) files in \(bytes.count) bytes")
                let text = tree.mtree
                let again = try read(text)
                try require(
                    again.mtree == text && again.count == tree.count, "it became \(quoted(again.mtree))")
                let record = try RecordedTree(decoding: tree.encoded)
                try require(record.mtree == text, "as a record it became \(quoted(record.mtree))")
                return .taken
            } catch let error as RecordError {
                return try refused(error)
            }
        })

    /// Records of trees. The checksum is made right first.
    ///
    /// A tree or a `RecordError`; a tree is the same when it is written and read again, also as an mtree file, but for what
    /// such a file does not tell.
    package static let record = FuzzTarget(
        name: "record",
        seeds: { recordSeeds() },
        run: { bytes in
            let body = Array("varve-tree 1\n".utf8) + bytes
            do {
                let tree = try RecordedTree(decoding: body + Digest(of: body).bytes)
                try require(tree.count <= bytes.count, "\(tree.count) files in \(bytes.count) bytes")
                let text = tree.encoded
                let again = try RecordedTree(decoding: text)
                try require(again.encoded == text && again.count == tree.count, "it became another tree")
                // Sizes of what is no regular file are not read.
                let told = try read(tree.mtree)
                let once = told.mtree
                try require(
                    try read(once).mtree == once && told.count == tree.count,
                    "it cannot be told by \(quoted(tree.mtree))")
                return .taken
            } catch let error as RecordError {
                return try refused(error)
            }
        })
}

/// Where no linked file is as it was recorded.
private func read(_ text: [UInt8]) throws -> RecordedTree {
    let place = try emptyDirectory.get()
    return try RecordedTree(mtree: text, written: .epoch, root: place.directory.fd)
}
private let emptyDirectory = Result { try FuzzScratch.make("empty") }

private func refused(_ error: RecordError) throws -> FuzzTarget.Outcome {
    try require(error.description.utf8.count < 2000, "a message of \(error.description.utf8.count) bytes")
    return .refused
}

private func quoted(_ text: [UInt8]) -> String { BytePath.excerpt(text, limit: 4000) }

private let sha = String(repeating: "0a", count: 32)
private let mtreeSeeds = [
    """
    #mtree
    /set type=file nlink=1 uid=0 gid=0
    . size=10 type=dir mode=0755 nlink=4 tar_time=1.000000000
        a\\040b size=3 mode=0644 tar_time=-5.250000000 sha256digest=\(sha) xattr.user.a=dg== xattr.user.b\\075=
        l size=2 type=link link=\\052x mode=0777 tar_time=0.0
        n type=char mode=0 tar_time=0 uid=7 gid=4294967294
        d size=0 type=dir mode=01755 tar_time=7.0 xattr.trusted.x=eQ==
            f size=0 mode=04755 nlink=2 tar_time=7.0 sha256digest=\(sha)
        ..
        e type=dir mode=0 tar_time=9.0
            g size=0 mode=04755 nlink=2 tar_time=7.0 sha256digest=\(sha)
        ..
    ..

    """,
    """
    . type=dir mode=0755 uid=0 gid=0 nlink=1 time=1.5
    /set type=dir uid=1 gid=2 nlink=1 mode=0700 time=1.0
    ./d
    ./d/e \\
      mode=0755 sha256=x
    /unset
    # a comment
    d/p type=fifo mode=0 uid=0 gid=0 nlink=3 time=1
    s type=socket mode=0 uid=0 gid=0 nlink=1 time=1
    """,
]

/// The body of records: without the line at their head and the checksum.
private func recordSeeds() -> [[UInt8]] {
    mtreeSeeds.compactMap { (try? read(Array($0.utf8)))?.encoded }.map {
        Array($0.dropFirst("varve-tree 1\n".utf8.count).dropLast(32))
    }
}
