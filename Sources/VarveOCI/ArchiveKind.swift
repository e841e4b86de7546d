internal import SystemPackage
internal import VarveSystem

/// What a file is that was given in place of an image layout, as its bytes tell.
enum ArchiveKind: Equatable {
    /// A tar archive with `oci-layout` in it (containers-transports(5), `oci-archive:`).
    case imageLayout
    /// A tar archive with `manifest.json` or, as Docker before 1.10 wrote it, `repositories`.
    case dockerSave
    case otherTar
    /// With the name of the format. What is in it is not looked at.
    case compressed(String)
    case none

    /// How the formats begin.
    private static let magic: [(String, [UInt8])] = [
        ("gzip", [0x1f, 0x8b]), ("zstd", [0x28, 0xb5, 0x2f, 0xfd]), ("bzip2", Array("BZh".utf8)),
        ("xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]),
    ]
    private static let blockSize: Int64 = 512
    /// Images have a few entries for each layer.
    private static let entryLimit = 10_000

    /// - Parameter file: a regular file, open for reading.
    init(of file: FileDescriptor) {
        guard let start = Self.block(of: file, at: 0) else {
            self = .none
            return
        }
        if let (format, _) = Self.magic.first(where: { start.starts(with: $0.1) }) {
            self = .compressed(format)
            return
        }
        self = Self.tar(file)
    }

    /// The transport by which an archive, or a directory in the form of `dir:`, is read; nil for anything else.
    static func archive(_ path: BytePath) -> TransportReference.Transport? {
        guard let place = try? FileDescriptor.workingDirectory.open(path, [.path]),
            let status = try? place.fd.status()
        else { return nil }
        if status.isDirectory { return ForeignReference.isDirectoryTransport(path) ? .dir : nil }
        guard status.isRegular, let opened = try? place.fd.reopened([.readOnly, .nonBlocking]) else {
            return nil
        }
        switch ArchiveKind(of: opened.fd) {
        case .imageLayout: return .ociArchive
        case .dockerSave: return .dockerArchive
        case .otherTar, .compressed, .none: return nil
        }
    }

    private static func tar(_ file: FileDescriptor) -> ArchiveKind {
        var found = ArchiveKind.none
        var offset: Int64 = 0
        for _ in 0..<entryLimit {
            guard let header = block(of: file, at: offset), isHeader(header) else { break }
            if found == .none { found = .otherTar }
            var name = header.prefix(100).prefix { $0 != 0 }
            while name.starts(with: "./".utf8) { name = name.dropFirst(2) }
            switch String(decoding: name, as: UTF8.self) {
            // Docker since 25 writes both, and either tool reads them.
            case "oci-layout": return .imageLayout
            case "manifest.json", "repositories": found = .dockerSave
            default: break
            }
            guard let size = number(header[124..<136]) else { break }
            let (end, overflows) = offset.addingReportingOverflow(
                blockSize + (size / blockSize + (size % blockSize == 0 ? 0 : 1)) * blockSize)
            if overflows { break }
            offset = end
        }
        return found
    }

    /// 512 bytes, or those up to the end of the file, filled up with zeros; nil behind the end, and for an empty file.
    private static func block(of file: FileDescriptor, at offset: Int64) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: Int(blockSize))
        let count = try? unsafe bytes.withUnsafeMutableBytes { buffer in
            try unsafe file.readFull(into: buffer, at: offset)
        }
        return count.map { $0 > 0 } == true ? bytes : nil
    }

    /// Whether the checksum is right: the sum of all bytes, those of its own field taken as spaces (ustar).
    private static func isHeader(_ block: [UInt8]) -> Bool {
        guard let checksum = number(block[148..<156]) else { return false }
        var sum: Int64 = 8 * 0x20
        for (index, byte) in block.enumerated() where !(148..<156).contains(index) { sum += Int64(byte) }
        return sum == checksum
    }

    /// Octal digits, or base 256 (GNU tar); nil for anything else and for what is below 0 or above 2^62.
    private static func number(_ field: ArraySlice<UInt8>) -> Int64? {
        guard let first = field.first else { return nil }
        var value: Int64 = 0
        if first & 0x80 != 0 {
            for (index, byte) in field.enumerated() {
                let digit = Int64(index == 0 ? byte & 0x7f : byte)
                guard value < 1 << 54 else { return nil }
                value = value << 8 | digit
            }
            return value
        }
        let digits = field.drop { $0 == 0x20 || $0 == 0 }.prefix { (0x30...0x37).contains($0) }
        for digit in digits { value = value << 3 | Int64(digit - 0x30) }
        return digits.isEmpty ? nil : value
    }
}
