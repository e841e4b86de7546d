import Glibc
import VarveSystem

/// Writes a tar archive: ustar headers, and a pax header before those whose entry does not fit into one
/// (POSIX.1-2017, pax). The same entries give the same bytes: user names are left out, records have a fixed
/// order.
///
/// Call `write` for an entry, `writeContent` until all its bytes are there, and `finish` after the last one.
/// Sparse maps are not written: the content has all `size` bytes.
@safe
package final class TarWriter {
    private let sink: any ByteSink
    /// One block for a header, then one of zeros for what fills a block up.
    private let blocks: UnsafeMutableRawBufferPointer
    private var records: [UInt8] = []

    private var position: Int64 = 0
    private var entryOffset: Int64 = 0
    private var entryPath: BytePath?
    private var dataLeft: Int64 = 0
    private var padding = 0
    private var isFinished = false

    package init(_ sink: any ByteSink) {
        self.sink = sink
        unsafe blocks = .allocate(byteCount: TarLayout.block * 2, alignment: 16)
        unsafe blocks.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit { unsafe blocks.deallocate() }

    /// Bytes of the archive written so far.
    package var offset: Int64 { position }

    /// Writes the headers of an entry. A slash is added to a directory's name where there is none.
    ///
    /// Throws `TarError` if the last entry's content is not complete or this one cannot be stored exactly, or
    /// what the sink throws.
    package func write(_ entry: TarEntry) throws {
        try endEntry()
        entryOffset = position
        entryPath = entry.path
        let path = try check(entry)
        let split = Self.split(path.bytes)
        try collectRecords(entry, path, nameFits: split != nil)

        if !records.isEmpty {
            var name = Array("PaxHeaders.0/".utf8)
            name.append(contentsOf: path.bytes)
            let size = Int64(records.count)
            // No number of the entry itself, so that the header depends on nothing but name and records.
            putHeader(
                name: Self.shortened(name), prefix: [], link: [], mode: 0o644, uid: 0, gid: 0, size: size,
                modificationTime: 0, type: UInt8(ascii: "x"), deviceMajor: 0, deviceMinor: 0)
            try putBlock()
            try unsafe records.withUnsafeBytes { try unsafe put($0) }
            try putZeros(TarLayout.padding(size))
        }

        // A number or name that does not fit stands in its record; what reads no records gets 0 or a part.
        putHeader(
            name: split?.name ?? Self.shortened(path.bytes), prefix: split?.prefix ?? [],
            link: entry.linkTarget.count <= 100
                ? entry.linkTarget.bytes : Self.shortened(entry.linkTarget.bytes),
            mode: entry.mode, uid: entry.uid <= Self.sevenDigits ? entry.uid : 0,
            gid: entry.gid <= Self.sevenDigits ? entry.gid : 0,
            size: entry.size <= Self.elevenDigits ? entry.size : 0,
            modificationTime: Self.fits(entry.modificationTime.seconds) ? entry.modificationTime.seconds : 0,
            type: Self.typeflag(entry.kind),
            deviceMajor: entry.deviceMajor, deviceMinor: entry.deviceMinor)
        try putBlock()
        dataLeft = entry.size
        padding = TarLayout.padding(entry.size)
    }

    /// Writes the next bytes of the content. Throws `TarError` if they are more than the entry's size, or
    /// what the sink throws.
    package func writeContent(_ bytes: UnsafeRawBufferPointer) throws {
        if unsafe bytes.isEmpty { return }
        guard Int64(bytes.count) <= dataLeft else {
            throw fail("its content is longer than the size in its header; it changed while it was read")
        }
        try unsafe put(bytes)
        dataLeft &-= Int64(bytes.count)
    }

    /// Writes the end of the archive, two blocks of zeros, and finishes the sink. A second call does nothing.
    package func finish() throws {
        if isFinished { return }
        try endEntry()
        entryPath = nil
        try putZeros(TarLayout.block)
        try putZeros(TarLayout.block)
        isFinished = true
        try sink.finish()
    }

    private func endEntry() throws {
        if isFinished { throw fail("the archive has been finished before it") }
        guard dataLeft == 0 else {
            throw fail(
                "its content is \(dataLeft) bytes shorter than the size in its header; "
                    + "it changed while it was read"
            )
        }
        try putZeros(padding)
        padding = 0
    }

    private func fail(_ why: String) -> TarError {
        TarError(offset: entryOffset, entry: entryPath, reason: .unwritable(why))
    }

    // MARK: - What a header can hold

    private static let sevenDigits: UInt32 = 0o7777777
    private static let elevenDigits: Int64 = 0o77777777777
    private static func fits(_ seconds: Int64) -> Bool { (0...elevenDigits).contains(seconds) }

    /// Refuses what no archive, or no reader of this module, can hold; returns the path to write.
    private func check(_ entry: TarEntry) throws(TarError) -> BytePath {
        let limit = TarLimits().path
        var path = entry.path
        guard !path.isEmpty else { throw fail("it has no name") }
        let endsInSlash = path.bytes.last == UInt8(ascii: "/")
        if entry.kind == .directory {
            if !endsInSlash {
                var bytes = Array(path.bytes)
                bytes.append(UInt8(ascii: "/"))
                path = BytePath(bytes) ?? path
            }
        } else if entry.kind == .regular, endsInSlash {
            throw fail("the name of a regular file cannot end in a slash")
        }
        guard path.count <= limit, entry.linkTarget.count <= limit else {
            throw fail("its name or link target is longer than \(limit) bytes")
        }
        switch entry.kind {
        case .hardLink, .symbolicLink:
            guard !entry.linkTarget.isEmpty else { throw fail("the link has no target") }
        default:
            guard entry.linkTarget.isEmpty else { throw fail("it has a link target but is no link") }
        }
        guard entry.size >= 0, entry.kind == .regular || entry.size == 0 else {
            throw fail("it cannot have \(entry.size) bytes of content")
        }
        guard entry.mode <= 0o7777 else { throw fail("its mode has more than permission bits") }
        // Linux has none so large, and readers do not agree on the records that could hold them.
        guard entry.deviceMajor <= Self.sevenDigits, entry.deviceMinor <= Self.sevenDigits else {
            throw fail("its device numbers are larger than a header can hold")
        }
        guard entry.uid != .max, entry.gid != .max else { throw fail("no file can be owned by 4294967295") }
        let nanoseconds = max(
            entry.modificationTime.nanoseconds, entry.accessTime?.nanoseconds ?? 0,
            entry.changeTime?.nanoseconds ?? 0)
        guard nanoseconds < 1_000_000_000 else { throw fail("a time has more than a second of nanoseconds") }
        return path
    }

    /// Name and prefix as ustar splits them, at a slash that is in neither; nil if that is not possible.
    static func split(_ path: ArraySlice<UInt8>) -> (prefix: ArraySlice<UInt8>, name: ArraySlice<UInt8>)? {
        if path.count <= 100 { return ([], path) }
        // The prefix may have 155 bytes, and a name must follow it, be it that of a directory with its slash.
        guard path.count <= 256, let last = path.indices.last else { return nil }
        let earliest = max(path.endIndex - 101, path.startIndex + 1)
        let latest = min(path.startIndex + 155, last - 1)
        guard earliest <= latest else { return nil }
        for index in (earliest...latest).reversed() where path[index] == UInt8(ascii: "/") {
            return (path[..<index], path[(index + 1)...])
        }
        return nil
    }

    /// The first 100 bytes at most, and no slash at the end: that would make a directory of it for some.
    private static func shortened(_ name: some Collection<UInt8>) -> ArraySlice<UInt8> {
        var bytes = Array(name.prefix(100))[...]
        while bytes.count > 1, bytes.last == UInt8(ascii: "/") { bytes.removeLast() }
        return bytes
    }

    private static func typeflag(_ kind: TarKind) -> UInt8 {
        switch kind {
        case .regular: UInt8(ascii: "0")
        case .hardLink: UInt8(ascii: "1")
        case .symbolicLink: UInt8(ascii: "2")
        case .characterDevice: UInt8(ascii: "3")
        case .blockDevice: UInt8(ascii: "4")
        case .directory: UInt8(ascii: "5")
        case .fifo: UInt8(ascii: "6")
        }
    }

    // MARK: - Records

    /// Fills `records` with what the header cannot say, in an order that never changes; empty if it says it
    /// all.
    private func collectRecords(_ entry: TarEntry, _ path: BytePath, nameFits: Bool) throws(TarError) {
        records.removeAll(keepingCapacity: true)
        let linkFits = entry.linkTarget.count <= 100
        let needsText = !nameFits && path.string == nil || !linkFits && entry.linkTarget.string == nil
        // Records are UTF-8 unless this one says that they are what they are.
        if needsText { add("hdrcharset", "BINARY".utf8) }
        if !nameFits { add("path", path.bytes) }
        if !linkFits { add("linkpath", entry.linkTarget.bytes) }
        if entry.size > Self.elevenDigits { add("size", String(entry.size).utf8) }
        if entry.uid > Self.sevenDigits { add("uid", String(entry.uid).utf8) }
        if entry.gid > Self.sevenDigits { add("gid", String(entry.gid).utf8) }
        let modified = entry.modificationTime
        if modified.nanoseconds != 0 || !Self.fits(modified.seconds) { add("mtime", Self.decimal(modified)) }
        if let time = entry.accessTime { add("atime", Self.decimal(time)) }
        if let time = entry.changeTime { add("ctime", Self.decimal(time)) }
        if let text = entry.accessACL, !text.isEmpty { add("SCHILY.acl.access", text) }
        if let text = entry.defaultACL, !text.isEmpty { add("SCHILY.acl.default", text) }
        var last: BytePath?
        let attributes = entry.extendedAttributes
        for attribute in attributes.isEmpty ? [] : attributes.sorted(by: { $0.name < $1.name }) {
            guard !attribute.name.isEmpty, attribute.name != last else {
                throw fail("it has an extended attribute twice, or one without a name")
            }
            last = attribute.name
            add(Array("SCHILY.xattr.".utf8) + Self.encode(attribute.name.bytes), attribute.value)
        }
        let limit = TarLimits().extendedHeader
        guard records.count <= limit else {
            throw fail(
                "its extended attributes have \(records.count) bytes, and \(limit) is the most that is read")
        }
    }

    /// `LENGTH KEY=VALUE\n`, where the length counts its own digits too.
    private func add(_ key: some Collection<UInt8>, _ value: some Collection<UInt8>) {
        let rest = key.count + value.count + 3
        var length = rest + 1
        while length != rest + Self.digits(length) { length = rest + Self.digits(length) }
        Self.append(UInt64(length), Self.digits(length), to: &records)
        records.append(UInt8(ascii: " "))
        records.append(contentsOf: key)
        records.append(UInt8(ascii: "="))
        records.append(contentsOf: value)
        records.append(UInt8(ascii: "\n"))
    }

    private func add(_ key: String, _ value: some Collection<UInt8>) { add(key.utf8, value) }

    private static func digits(_ number: some BinaryInteger) -> Int {
        var count = 1
        var rest = number / 10
        while rest > 0 {
            count += 1
            rest /= 10
        }
        return count
    }

    /// The last `digits` decimal digits of `number`.
    private static func append(_ number: UInt64, _ digits: Int, to bytes: inout [UInt8]) {
        let start = bytes.count
        var rest = number
        for _ in 0..<digits { bytes.append(UInt8(ascii: "0")) }
        for place in (start..<bytes.count).reversed() {
            bytes[place] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
        }
    }

    /// The keyword ends at the first `=`, so GNU tar writes one of the name as `%3D`, and `%` as `%25`. The
    /// latter only where it would be misread: other tools take the name as it stands.
    static func encode(_ name: ArraySlice<UInt8>) -> [UInt8] {
        var result = [UInt8]()
        result.reserveCapacity(name.count)
        for index in name.indices {
            let rest = name[index...]
            if name[index] == UInt8(ascii: "=") {
                result.append(contentsOf: "%3D".utf8)
            } else if rest.starts(with: "%3D".utf8) || rest.starts(with: "%25".utf8) {
                result.append(contentsOf: "%25".utf8)
            } else {
                result.append(name[index])
            }
        }
        return result
    }

    /// Seconds with as many digits of a fraction as there are, minus the whole before the epoch.
    private static func decimal(_ time: Timestamp) -> [UInt8] {
        var seconds = time.seconds.magnitude
        var nanoseconds = time.nanoseconds
        if time.seconds < 0, nanoseconds > 0 {
            seconds -= 1
            nanoseconds = 1_000_000_000 - nanoseconds
        }
        var text = [UInt8]()
        if time.seconds < 0 { text.append(UInt8(ascii: "-")) }
        append(seconds, digits(seconds), to: &text)
        if nanoseconds > 0 {
            text.append(UInt8(ascii: "."))
            append(UInt64(nanoseconds), 9, to: &text)
            while text.last == UInt8(ascii: "0") { text.removeLast() }
        }
        return text
    }

    // MARK: - Bytes

    private func put(_ bytes: UnsafeRawBufferPointer) throws {
        try unsafe sink.write(bytes)
        position &+= Int64(bytes.count)
    }

    private func putBlock() throws {
        try unsafe put(UnsafeRawBufferPointer(rebasing: blocks[..<TarLayout.block]))
    }

    private func putZeros(_ count: Int) throws {
        if count > 0 {
            try unsafe put(
                UnsafeRawBufferPointer(rebasing: blocks[TarLayout.block..<(TarLayout.block + count)]))
        }
    }

    /// Makes the header block. All values fit into their fields.
    private func putHeader(
        name: ArraySlice<UInt8>, prefix: ArraySlice<UInt8>, link: ArraySlice<UInt8>, mode: UInt32,
        uid: UInt32,
        gid: UInt32, size: Int64, modificationTime: Int64, type: UInt8, deviceMajor: UInt32,
        deviceMinor: UInt32
    ) {
        let block = unsafe UnsafeMutableRawBufferPointer(rebasing: blocks[..<TarLayout.block])
        unsafe block.initializeMemory(as: UInt8.self, repeating: 0)
        putText(.name, name)
        putText(.prefix, prefix)
        putText(.linkName, link)
        putNumber(.mode, Int64(mode))
        putNumber(.uid, Int64(uid))
        putNumber(.gid, Int64(gid))
        putNumber(.size, size)
        putNumber(.modificationTime, modificationTime)
        putNumber(.deviceMajor, Int64(deviceMajor))
        putNumber(.deviceMinor, Int64(deviceMinor))
        unsafe block[TarLayout.typeflag] = type
        // Magic "ustar", NUL, version "00".
        for (index, byte) in "ustar\u{0}00".utf8.enumerated() { unsafe block[TarLayout.magic + index] = byte }
        // The checksum's own field counts as spaces; it ends with NUL and space.
        for index in 0..<8 { unsafe block[TarField.checksum.offset + index] = UInt8(ascii: " ") }
        guard let base = block.baseAddress else { return }
        let sum = unsafe TarHeader(base: UnsafeRawPointer(base)).rawSum
        putNumber(TarField(TarField.checksum.offset, 7, TarField.checksum.name), sum)
    }

    private func putText(_ field: TarField, _ bytes: ArraySlice<UInt8>) {
        unsafe bytes.withUnsafeBytes { bytes in
            let place = unsafe UnsafeMutableRawBufferPointer(
                rebasing: blocks[field.offset..<(field.offset + field.length)])
            unsafe place.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes.prefix(field.length)))
        }
    }

    /// Octal digits and a NUL.
    private func putNumber(_ field: TarField, _ number: Int64) {
        var number = number
        for index in (field.offset..<(field.offset + field.length - 1)).reversed() {
            unsafe blocks[index] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: number & 7)
            number >>= 3
        }
        unsafe blocks[field.offset + field.length - 1] = 0
    }
}
