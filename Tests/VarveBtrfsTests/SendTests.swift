import VarveBtrfs
import BtrfsSendStream
import Glibc
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// Everything that the kernel writes.
private func readAll(_ reader: consuming SendReader) throws -> [UInt8] {
    var bytes = [UInt8]()
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
        let outcome: Result<Int, BtrfsError> = unsafe chunk.withUnsafeMutableBytes { buffer in
            do throws(BtrfsError) { return .success(try unsafe reader.read(into: buffer)) } catch {
                return .failure(error)
            }
        }
        let count = try outcome.get()
        if count == 0 { break }
        bytes.append(contentsOf: chunk[..<count])
    }
    try reader.finish()
    return bytes
}

private func parse(_ bytes: [UInt8]) throws -> [SendCommand] {
    var parser = SendStreamParser()
    var commands = [SendCommand]()
    parser.feed(bytes)
    while let command = try parser.next() { commands.append(command) }
    try parser.finish()
    return commands
}

/// The line of `btrfs receive --dump` for a command, times left out; it shows no end.
private func dumpLine(_ command: SendCommand, _ subvolume: inout String) -> String? {
    func line(_ path: ArraySlice<UInt8>, _ rest: String = "") -> String {
        let name = path.isEmpty ? "" : escape(path)
        let full = "./" + subvolume + "/" + name
        return [command.name, full, rest].filter { !$0.isEmpty }.joined(separator: " ")
    }
    func full(_ path: ArraySlice<UInt8>) -> String { "./" + subvolume + "/" + escape(path) }
    func text(_ bytes: ArraySlice<UInt8>) -> String { escape(bytes) }
    switch command {
    case .subvol(let path, let uuid, let transid):
        subvolume = escape(path)
        return "subvol ./\(subvolume) uuid=\(uuid) transid=\(transid)"
    case .snapshot(let path, let uuid, let transid, let parent, let parentTransid):
        subvolume = escape(path)
        return
            "snapshot ./\(subvolume) uuid=\(uuid) transid=\(transid) parent_uuid=\(parent) parent_transid=\(parentTransid)"
    case .mkfile(let path, _), .mkdir(let path, _), .unlink(let path), .rmdir(let path): return line(path)
    case .mkfifo(let path, _, _, _), .mksock(let path, _, _, _): return line(path)
    case .mknod(let path, _, let mode, let device):
        return line(path, "mode=\(String(mode, radix: 8)) dev=0x\(String(device, radix: 16))")
    case .symlink(let path, _, let target): return line(path, "dest=\(text(target))")
    case .rename(let path, let to): return line(path, "dest=\(full(to))")
    case .link(let path, let existing): return line(path, "dest=\(text(existing))")
    case .setXattr(let path, let name, let value):
        return line(
            path,
            "name=\(String(decoding: name, as: UTF8.self)) data=\(String(decoding: value, as: UTF8.self)) len=\(value.count)"
        )
    case .removeXattr(let path, let name): return line(path, "name=\(String(decoding: name, as: UTF8.self))")
    case .write(let path, let offset, let data): return line(path, "offset=\(offset) len=\(data.count)")
    case .clone(let path, let offset, let length, _, _, let from, let fromOffset):
        return line(path, "offset=\(offset) len=\(length) from=\(full(from)) clone_offset=\(fromOffset)")
    case .truncate(let path, let size): return line(path, "size=\(size)")
    case .chmod(let path, let mode): return line(path, "mode=\(String(mode, radix: 8))")
    case .chown(let path, let uid, let gid): return line(path, "gid=\(gid) uid=\(uid)")
    case .utimes(let path, _, _, _, _): return line(path)
    case .end: return nil
    case .updateExtent(let path, let offset, let length): return line(path, "offset=\(offset) len=\(length)")
    case .fallocate(let path, let mode, let offset, let length):
        return line(path, "mode=\(mode) offset=\(offset) len=\(length)")
    case .fileattr(let path, let attributes): return line(path, "fileattr=0x\(String(attributes, radix: 16))")
    case .encodedWrite(
        let path, let offset, let fileLength, let length, let unencodedOffset, let compression,
        let encryption, let data):
        return line(
            path,
            "offset=\(offset) len=\(data.count), unencoded_file_len=\(fileLength), unencoded_len=\(length), "
                + "unencoded_offset=\(unencodedOffset), compression=\(compression.number), encryption=\(encryption)"
        )
    case .enableVerity: return line([])
    }
}

private func escape(_ bytes: ArraySlice<UInt8>) -> String {
    let text = SendStreamPrinter.text(.unlink(path: bytes))
    return String(text.dropFirst("unlink          path=".count))
}

/// The lines of a dump with single spaces, and without times.
private func normalised(_ dump: [UInt8]) -> [String] {
    dump.split(separator: UInt8(ascii: "\n")).map { line in
        // An escaped space is no separator.
        var words = [String]()
        var word = [UInt8]()
        var escaped = false
        for byte in line {
            if byte == UInt8(ascii: " "), !escaped {
                if !word.isEmpty { words.append(String(decoding: word, as: UTF8.self)) }
                word = []
            } else {
                word.append(byte)
            }
            escaped = byte == UInt8(ascii: "\\") && !escaped
        }
        if !word.isEmpty { words.append(String(decoding: word, as: UTF8.self)) }
        return words.filter { !$0.hasPrefix("atime=") && !$0.hasPrefix("mtime=") && !$0.hasPrefix("ctime=") }
            .joined(separator: " ")
    }
}

@Suite struct SendTests {
    struct Way: Sendable, CustomTestStringConvertible {
        var options: SendOptions
        var isDifference: Bool
        var mountOptions = ""
        var testDescription: String {
            "version \(options.version), data \(options.fileData), packed \(options.compressed), difference \(isDifference)"
        }
    }

    @Test(arguments: [
        // What the delta uses.
        Way(options: SendOptions(), isDifference: true),
        Way(options: SendOptions(), isDifference: false),
        // What `btrfs send` does.
        Way(options: SendOptions(fileData: true), isDifference: true),
        // Data without a length, and otime.
        Way(options: SendOptions(fileData: true, version: 2), isDifference: true),
        // encoded_write needs packed extents.
        Way(
            options: SendOptions(fileData: true, version: 2, compressed: true), isDifference: true,
            mountOptions: "compress-force=zstd"),
    ])
    func agreesWithReceive(_ way: Way) throws {
        let volume = try LoopVolume(options: way.mountOptions)
        let root = volume.root
        try makeHistory(in: root)
        let old = try root.openDirectory("old")
        let new = try root.openDirectory("new")
        let reader = try SendReader(new.fd, parent: way.isDifference ? old.fd : nil, options: way.options)
        let bytes = try readAll(reader)
        let commands = try parse(bytes)
        #expect(commands.count > 20 && commands.last == .end)
        var subvolume = ""
        let mine = commands.compactMap { dumpLine($0, &subvolume) }
        let dump = try runSuccessfully(["btrfs", "receive", "--dump"], input: bytes)
        #expect(mine == normalised(dump.output))

        // The same through the parser's own loop.
        var count = 0
        let again = try SendReader(new.fd, parent: way.isDifference ? old.fd : nil, options: way.options)
        try again.forEachCommand { _ in count += 1 }
        #expect(count == commands.count)

        let names = Set(commands.map(\.name))
        if way.options.fileData {
            #expect(
                names.contains(way.options.compressed ? "encoded_write" : "write")
                    && !names.contains("update_extent"))
        } else {
            #expect(names.contains("update_extent") && !names.contains("write"))
        }
        if way.isDifference {
            #expect(
                names.isSuperset(of: [
                    "snapshot", "rename", "link", "unlink", "rmdir", "truncate", "chown", "mkdir", "mkfile",
                    "symlink", "mknod",
                    "mkfifo", "mksock", "set_xattr", "utimes",
                ]))
        }
    }

    @Test func errors() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try root.createSubvolume("a")
        let a = try root.openDirectory("a")
        let writable = #expect(throws: BtrfsError.self) { try readAll(try SendReader(a.fd)) }
        #expect(writable?.errno == .notPermitted && writable?.operation == .send)

        try a.fd.setSubvolumeReadOnly(true)
        let tooHigh = #expect(throws: BtrfsError.self) {
            try readAll(try SendReader(a.fd, options: SendOptions(version: 99)))
        }
        #expect(tooHigh?.errno == Errno(rawValue: EPROTO))
        #expect(tooHigh?.description.contains("ask the sender for version 1") == true)

        // The error of the kernel wins over that of the parser, which sees an empty stream.
        #expect(throws: BtrfsError.self) {
            try SendReader(a.fd, options: SendOptions(version: 99)).forEachCommand { _ in }
        }
    }

    @Test func closedEarly() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try root.createSubvolume("a")
        let a = try root.openDirectory("a")
        // Far more than the pipe holds.
        for index in 0..<6000 {
            try a.fd.makeNode(BytePath("file-\(index)"), mode: 0o100644, major: 0, minor: 0)
        }
        try a.fd.setSubvolumeReadOnly(true)
        let before = openDescriptors(of: volume.path)

        struct Enough: Error {}
        for _ in 0..<5 {
            var count = 0
            #expect(throws: Enough.self) {
                try SendReader(a.fd).forEachCommand { _ in
                    count += 1
                    if count == 100 { throw Enough() }
                }
            }
        }
        let error = #expect(throws: BtrfsError.self) { try SendReader(a.fd).finish() }
        #expect(error?.errno == .brokenPipe)
        do { _ = try SendReader(a.fd) }

        // No thread is left that would hold the subvolume: both would be refused with EPERM during a send.
        try a.fd.setSubvolumeReadOnly(false)
        try root.deleteSubvolume("a")
        #expect(openDescriptors(of: volume.path) == before)
    }

    @Test func leaksNoDescriptor() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try makeHistory(in: root)
        let new = try root.openDirectory("new")
        // The counter works: one more is seen.
        let before = openDescriptors(of: volume.path)
        let extra = try root.openDirectory("new")
        #expect(openDescriptors(of: volume.path) == before + 1)
        try extra.close()
        for _ in 0..<20 {
            try SendReader(new.fd).forEachCommand { _ in }
            _ = try? readAll(try SendReader(root))
        }
        #expect(openDescriptors(of: volume.path) == before)
    }

    @Test func subvolumeIsHeldDuringTheSend() throws {
        let volume = try LoopVolume()
        let root = volume.root
        try makeHistory(in: root)
        var reader: SendReader?
        do {
            let new = try root.openDirectory("new")
            reader = try SendReader(new.fd)
        }
        // The caller's descriptor is closed; the send has one of its own.
        var count = 0
        if let reader = reader.take() { try reader.forEachCommand { _ in count += 1 } }
        #expect(count > 20)
    }
}

private func openDescriptors() -> Set<String> {
    guard let directory = try? FileDescriptor.workingDirectory.openDirectory("/proc/self/fd"),
        let entries = try? directory.fd.entries()
    else { return [] }
    return Set(
        entries.compactMap { entry in
            (try? directory.fd.readSymbolicLink(entry.name)).map { "\(entry.name) \($0)" }
        })
}

/// How many descriptors of this process lie below `path`: other tests run meanwhile, and open their own.
private func openDescriptors(of path: BytePath) -> Int {
    openDescriptors().filter { $0.contains(path.description) }.count
}
