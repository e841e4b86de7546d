import Glibc
import VarveSystem

/// Reads a tar archive from its first byte to its last: v7, ustar, star, pax and GNU, as POSIX.1-2017 (pax),
/// star(4) and the GNU tar manual describe them.
///
/// What Go's archive/tar, GNU tar and libarchive all read in the same way is read as they do; what they read in
/// different ways is refused, so that no tool sees another archive (Docs/limits.md has the table).
///
/// Call `nextEntry`, then `nextContent` until it gives nil or as often as wanted, then `nextEntry` again.
/// Content is lent where it lies in the source. What was wrong once stays wrong: after an error every call
/// throws it again.
@safe
package final class TarReader {
    private let source: any ByteSource
    private let limits: TarLimits
    private let allowance: TarAllowance?

    /// What is left of the source's last run.
    private var cursor: UnsafeRawPointer
    private var left = 0
    private var sourceEnded = false
    /// Bytes taken so far: the offset in the archive.
    private var position: Int64 = 0

    /// Memory for what lies across two runs of the source; also what `cursor` points at before the first run.
    private var assembly: UnsafeMutableRawBufferPointer

    private var ended = false
    private var failure: (any Error)?

    /// Records of `g` headers, which hold until they are replaced.
    private var global = PaxRecords()
    private var hasGlobal = false
    private var globalBytes = 0
    /// Whether libarchive takes the archive for a pax archive by now, in which hard links have data.
    private var isPax = false
    /// Set where some readers have seen the end: nothing but zeros may follow.
    private var endsHere = false

    // The entry in hand.
    private var entryOffset: Int64 = 0
    private var entryPath: BytePath?
    /// Bytes of its data still to come, and of the zeros after them.
    private var dataLeft: Int64 = 0
    private var padding = 0
    /// True while the data is content of a file; false for data that is only passed over.
    private var hasContent = false
    private var fileOffset: Int64 = 0
    private var segmentLeft: Int64 = 0
    private var segments: [TarSegment] = []
    private var nextSegment = 0
    /// Where the content must be zeros.
    private var holes: [Range<Int64>] = []
    private var nextHole = 0

    /// - Parameter allowance: takes what is read from it, and may be shared with other readers; nil: there is no end to it.
    package init(
        _ source: any ByteSource, limits: TarLimits = TarLimits(), allowance: TarAllowance? = nil
    ) {
        self.source = source
        self.limits = limits
        self.allowance = allowance
        unsafe assembly = .allocate(byteCount: 4096, alignment: 16)
        // Never read before the first run is there: nothing is left.
        unsafe cursor = UnsafeRawPointer(bitPattern: 1).unsafelyUnwrapped
    }

    deinit { unsafe assembly.deallocate() }

    /// Bytes of the archive taken so far.
    package var offset: Int64 { position }

    /// The next entry, or nil at the end of the archive; the source has then been read to its end too, so
    /// that who hashes it on the way has seen every byte. What was not read of the last entry's content is
    /// passed over.
    ///
    /// Throws `TarError`, or what the source throws.
    package func nextEntry() throws -> TarEntry? {
        if let failure { throw failure }
        if ended { return nil }
        do {
            return try advance()
        } catch {
            failure = error
            throw error
        }
    }

    /// The next run of the current entry's content and where in the file it belongs; nil when there is no
    /// more. Runs come in rising order and are never empty; what no run covers is a hole. Valid until the
    /// next call.
    ///
    /// Throws `TarError`, or what the source throws.
    package func nextContent() throws -> (offset: Int64, bytes: UnsafeRawBufferPointer)? {
        if let failure { throw failure }
        guard hasContent, dataLeft > 0 else { return nil }
        if segmentLeft == 0 {
            // The lengths of the segments add up to the data, and none is empty.
            guard nextSegment < segments.count else { return nil }
            fileOffset = segments[nextSegment].offset
            segmentLeft = segments[nextSegment].length
            nextSegment += 1
        }
        if left == 0 {
            do {
                guard try refill() else { throw endsEarly() }
            } catch {
                failure = error
                throw error
            }
        }
        let count = Int(min(Int64(left), segmentLeft, dataLeft))
        let run = unsafe (offset: fileOffset, bytes: UnsafeRawBufferPointer(start: cursor, count: count))
        if nextHole < holes.count { try unsafe checkHoles(run.bytes, at: fileOffset) }
        consume(count)
        fileOffset &+= Int64(count)
        segmentLeft &-= Int64(count)
        dataLeft &-= Int64(count)
        return unsafe run
    }

    /// Throws if content that is said to be a hole is none.
    private func checkHoles(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws {
        let end = offset &+ Int64(bytes.count)
        while nextHole < holes.count, holes[nextHole].lowerBound < end {
            let part = holes[nextHole].clamped(to: offset..<end)
            let isZero = unsafe bytes[Int(part.lowerBound &- offset)..<Int(part.upperBound &- offset)]
                .allSatisfy { $0 == 0 }
            guard isZero else {
                let error = fail(.ambiguousData("the record SUN.holesdata has a hole where there is data"))
                failure = error
                throw error
            }
            if holes[nextHole].upperBound > end { return }
            nextHole &+= 1
        }
    }

    /// Counts a file that an entry makes and that the archive does not list, such as a directory on the way to it: against
    /// the allowance, as an entry with a header and `content` bytes of data.
    ///
    /// Throws `TarError`.
    package func countUnlisted(content: Int64 = 0) throws {
        do throws(TarError.Reason) {
            try allowance?.takeEntry()
            try allowance?.take(bytes: Int64(TarLayout.block))
            try allowance?.take(bytes: content)
        } catch {
            throw fail(error)
        }
    }

    // MARK: - Bytes

    @inline(__always)
    private func consume(_ count: Int) {
        unsafe cursor += count
        left &-= count
        position &+= Int64(count)
    }

    /// Pulls the next run; false at the end of the source. Only when nothing is left of the last one.
    private func refill() throws -> Bool {
        if sourceEnded { return false }
        let run = try unsafe source.next()
        guard let base = run.baseAddress, unsafe !run.isEmpty else {
            sourceEnded = true
            return false
        }
        unsafe cursor = base
        left = run.count
        // Here, and not only at an entry: labels, records and what follows the end may never end either.
        do throws(TarError.Reason) { try allowance?.take(bytes: Int64(left)) } catch { throw fail(error) }
        return true
    }

    /// The next `count` bytes in one piece, where they lie if they do; fewer if the source ends before. Valid
    /// until the next call.
    private func take(_ count: Int) throws -> UnsafeRawBufferPointer {
        if left >= count {
            let bytes = unsafe UnsafeRawBufferPointer(start: cursor, count: count)
            consume(count)
            return unsafe bytes
        }
        var filled = 0
        while filled < count {
            if left == 0, try !refill() { break }
            let part = min(left, count &- filled)
            // Grows with what has come, not with what a header promises.
            if unsafe filled &+ part > assembly.count {
                let larger = unsafe UnsafeMutableRawBufferPointer.allocate(
                    byteCount: max(filled &+ part, min(count, assembly.count &* 2)), alignment: 16)
                unsafe larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: assembly[..<filled]))
                unsafe assembly.deallocate()
                unsafe assembly = larger
            }
            if let target = unsafe assembly.baseAddress {
                unsafe (target + filled).copyMemory(from: cursor, byteCount: part)
            }
            consume(part)
            filled &+= part
        }
        return unsafe UnsafeRawBufferPointer(rebasing: assembly[..<filled])
    }

    /// The next block; nil if the source ends right here.
    private func takeBlock() throws -> TarHeader? {
        let block = try unsafe take(TarLayout.block)
        guard let base = block.baseAddress, block.count == TarLayout.block else {
            if unsafe block.isEmpty { return nil }
            throw endsEarly()
        }
        return unsafe TarHeader(base: base)
    }

    private func skip(_ count: Int64) throws {
        var count = count
        while count > 0 {
            if left == 0, try !refill() { throw endsEarly() }
            let part = Int(min(Int64(left), count))
            consume(part)
            count &-= Int64(part)
        }
    }

    /// The body of an extended header in one piece, without what fills its last block.
    private func takeBody(_ size: Int64) throws -> UnsafeRawBufferPointer {
        guard size <= limits.extendedHeader else {
            throw fail(.headerTooLarge(bytes: size, limit: limits.extendedHeader))
        }
        let padded = Int(size) &+ TarLayout.padding(size)
        let body = try unsafe take(padded)
        guard body.count == padded else { throw endsEarly() }
        return unsafe UnsafeRawBufferPointer(rebasing: body[..<Int(size)])
    }

    /// To the end of the source, whatever follows the end of the archive: GNU tar ignores it as well.
    private func drain() throws {
        repeat { consume(left) } while try refill()
    }

    private func fail(_ reason: TarError.Reason) -> TarError {
        TarError(offset: entryOffset, entry: entryPath, reason: reason)
    }

    private func endsEarly() -> TarError { fail(.endsEarly) }

    // MARK: - Entries

    private func passOverRest() throws {
        if dataLeft > 0 { try skip(dataLeft) }
        if padding > 0 {
            // Layers that umoci inserts files with end here: without padding and without the blocks of the end.
            if left == 0, try !refill() {
                padding = 0
            } else {
                try skip(Int64(padding))
            }
        }
        dataLeft = 0
        padding = 0
        hasContent = false
    }

    private func advance() throws -> TarEntry? {
        try passOverRest()
        entryPath = nil
        var longName: BytePath?
        var longLink: BytePath?
        var pax: PaxRecords?

        while true {
            entryOffset = position
            let isPending = longName != nil || longLink != nil || pax != nil
            guard let header = try unsafe takeBlock() else {
                if isPending { throw endsEarly() }
                ended = true
                return nil
            }
            let sum = unsafe header.rawSum
            if sum == 0 {
                if isPending { throw endsEarly() }
                if let second = try unsafe takeBlock(), unsafe second.rawSum != 0 {
                    throw fail(.loneZeroBlock)
                }
                try drain()
                ended = true
                return nil
            }
            if endsHere {
                throw fail(.ambiguousData("it follows a sparse file that goes on after the end of its map"))
            }
            if let reason = unsafe header.checksumFailure(rawSum: sum) { throw fail(reason) }
            if let field = unsafe header.fieldThatGoRefuses { throw unsafe fail(Self.invalid(header, field)) }

            switch unsafe header.typeflag {
            case UInt8(ascii: "x"):
                if pax != nil { throw fail(.misplacedHeader("two pax headers stand before one entry")) }
                pax = try unsafe records(header, isGlobal: false, startingWith: PaxRecords())
                isPax = true
            case UInt8(ascii: "g"):
                if isPending {
                    throw fail(
                        .misplacedHeader("a global pax header stands between an entry and its own header"))
                }
                global = try unsafe records(header, isGlobal: true, startingWith: global)
                hasGlobal = true
                isPax = true
            // Of several the last counts.
            case UInt8(ascii: "L"): longName = try unsafe longText(header, "path")
            case UInt8(ascii: "K"): longLink = try unsafe longText(header, "link target")
            case UInt8(ascii: "V"):
                // The label of a GNU tar volume is no file.
                if isPending {
                    throw fail(.misplacedHeader("a volume label stands between an entry and its own header"))
                }
                let size = try unsafe size(header)
                try skip(size)
                try skip(Int64(TarLayout.padding(size)))
            default:
                do throws(TarError.Reason) { try allowance?.takeEntry() } catch { throw fail(error) }
                return try unsafe entry(header, pax, longName, longLink)
            }
        }
    }

    /// The size field of `header`: bytes of data that follow.
    private func size(_ header: TarHeader) throws(TarError) -> Int64 {
        guard let size = unsafe header.number(.size), size >= 0 else {
            throw fail(unsafe Self.invalid(header, .size))
        }
        return size
    }

    private func records(
        _ header: TarHeader, isGlobal: Bool, startingWith start: PaxRecords
    ) throws -> PaxRecords {
        var records = start
        let body = try unsafe takeBody(size(header))
        do throws(TarError.Reason) {
            let kept = try unsafe PaxParser(limits: limits, isGlobal: isGlobal).parse(body, into: &records)
            if isGlobal {
                globalBytes &+= kept
                guard globalBytes <= limits.globalRecords else {
                    throw .headerTooLarge(bytes: Int64(globalBytes), limit: limits.globalRecords)
                }
            }
        } catch {
            throw fail(error)
        }
        return records
    }

    /// The body of a GNU `L` or `K` entry up to its first NUL.
    private func longText(_ header: TarHeader, _ what: String) throws -> BytePath {
        let body = try unsafe takeBody(size(header))
        let text = unsafe body.prefix { $0 != 0 }
        guard unsafe !text.isEmpty else { throw fail(.name("a GNU long name is empty")) }
        guard unsafe text.count <= limits.path else {
            throw unsafe fail(.nameTooLong(what, bytes: text.count, limit: limits.path))
        }
        return unsafe Self.path(UnsafeRawBufferPointer(rebasing: text))
    }

    private static func invalid(_ header: TarHeader, _ field: TarField) -> TarError.Reason {
        unsafe .field(field.name.description, value: header.bytes(field))
    }

    /// What chown(2) can set: 4294967295 means "leave it" there.
    static func owner(_ number: Int64) -> UInt32? {
        guard let id = UInt32(exactly: number), id != .max else { return nil }
        return id
    }

    /// The bytes of a field cut at its first NUL, so that there is none.
    private static func path(_ text: UnsafeRawBufferPointer) -> BytePath { unsafe BytePath(text) ?? .empty }

    private func number(_ header: TarHeader, _ field: TarField) throws(TarError) -> Int64 {
        guard let number = unsafe header.number(field) else { throw fail(unsafe Self.invalid(header, field)) }
        return number
    }

    private func owner(_ header: TarHeader, _ field: TarField) throws(TarError) -> UInt32 {
        guard let id = try unsafe Self.owner(number(header, field)) else {
            throw fail(unsafe Self.invalid(header, field))
        }
        return id
    }

    private func device(_ header: TarHeader, _ field: TarField) throws(TarError) -> UInt32 {
        guard let number = try unsafe UInt32(exactly: number(header, field)) else {
            throw fail(unsafe Self.invalid(header, field))
        }
        return number
    }

    /// Prefix, slash and name.
    private func join(_ prefix: UnsafeRawBufferPointer, _ name: UnsafeRawBufferPointer) -> BytePath {
        if unsafe prefix.isEmpty { return unsafe Self.path(name) }
        let count = prefix.count &+ 1 &+ name.count
        return unsafe withUnsafeTemporaryAllocation(byteCount: count, alignment: 1) { joined in
            unsafe joined.copyMemory(from: prefix)
            unsafe joined[prefix.count] = UInt8(ascii: "/")
            unsafe UnsafeMutableRawBufferPointer(rebasing: joined[(prefix.count &+ 1)...]).copyMemory(
                from: name)
            return unsafe Self.path(UnsafeRawBufferPointer(joined))
        }
    }

    /// The name in the header itself, with the times that two dialects keep in the prefix's place.
    private func headerName(
        _ header: TarHeader, _ access: inout Timestamp?, _ change: inout Timestamp?
    ) throws(TarError) -> BytePath {
        let name = unsafe header.text(.name)
        switch unsafe header.dialect {
        case .v7: return unsafe Self.path(name)
        case .unknown:
            guard unsafe header.text(.prefix).isEmpty else {
                throw fail(.ambiguousName("its header is of no known kind and has a prefix"))
            }
            return unsafe Self.path(name)
        case .ustar: return unsafe join(header.text(.prefix), name)
        case .star:
            guard unsafe header.text(.starPrefix).count < TarField.starPrefix.length else {
                throw fail(.ambiguousName("its prefix fills the field that star has for it"))
            }
            access = Timestamp(seconds: try unsafe number(header, .starAccessTime))
            change = Timestamp(seconds: try unsafe number(header, .starChangeTime))
            return unsafe join(header.text(.starPrefix), name)
        case .gnu:
            // Only incremental archives have these. Go before 1.8 wrote a prefix here when a number needed base 256, and
            // Go reads it so to this day; nobody else does.
            func time(_ field: TarField) throws(TarError) -> Timestamp? {
                if unsafe header.byte(field.offset) == 0 { return nil }
                if let seconds = unsafe header.number(field) { return Timestamp(seconds: seconds) }
                guard unsafe header.text(.prefix).allSatisfy({ $0 < 0x80 }) else { return nil }
                throw fail(.ambiguousName("its header of GNU tar has a prefix, which GNU tar does not have"))
            }
            access = try time(.gnuAccessTime)
            change = try time(.gnuChangeTime)
            return unsafe Self.path(name)
        }
    }

    /// Puts the entry together. `header` is valid until the first byte after it is taken.
    private func entry(
        _ header: TarHeader, _ pax: PaxRecords?, _ longName: BytePath?, _ longLink: BytePath?
    ) throws -> TarEntry {
        // pax before GNU before the header's own.
        var access: Timestamp?
        var change: Timestamp?
        let ownName = try unsafe headerName(header, &access, &change)
        let paxName = pax?.sparse?.name ?? pax?.path
        if let longName, let paxName, longName != paxName {
            throw fail(.ambiguousName("a GNU long name and a pax record give it two names"))
        }
        if let longLink, let paxLink = pax?.linkPath, longLink != paxLink {
            throw fail(.ambiguousName("a GNU long link and a pax record give it two targets"))
        }
        let path = paxName ?? longName ?? ownName
        guard !path.isEmpty else { throw fail(.name("the entry has no name")) }
        entryPath = path

        var entry = TarEntry(path: path, kind: .regular)
        var isStoredSparse = false
        switch unsafe header.typeflag {
        case UInt8(ascii: "0"), 0, UInt8(ascii: "7"): break
        case UInt8(ascii: "1"): entry.kind = .hardLink
        case UInt8(ascii: "2"): entry.kind = .symbolicLink
        case UInt8(ascii: "3"): entry.kind = .characterDevice
        case UInt8(ascii: "4"): entry.kind = .blockDevice
        case UInt8(ascii: "5"): entry.kind = .directory
        case UInt8(ascii: "6"): entry.kind = .fifo
        case UInt8(ascii: "S"):
            // star marks its own sparse files so too, but keeps the map elsewhere.
            guard unsafe header.dialect == .gnu else { throw fail(.unknownType(UInt8(ascii: "S"))) }
            isStoredSparse = true
        case let other: throw fail(.unknownType(other))
        }

        entry.mode = UInt32(truncatingIfNeeded: try unsafe number(header, .mode)) & 0o7777
        entry.uid = try unsafe pax?.uid ?? owner(header, .uid)
        entry.gid = try unsafe pax?.gid ?? owner(header, .gid)
        entry.modificationTime =
            try unsafe pax?.modificationTime ?? Timestamp(seconds: number(header, .modificationTime))
        entry.accessTime = pax?.accessTime ?? access
        entry.changeTime = pax?.changeTime ?? change
        if let pax {
            entry.extendedAttributes = Self.unique(pax.extendedAttributes)
            entry.accessACL = pax.accessACL
            entry.defaultACL = pax.defaultACL
        }

        switch entry.kind {
        case .hardLink, .symbolicLink:
            entry.linkTarget = unsafe pax?.linkPath ?? longLink ?? Self.path(header.text(.linkName))
            guard !entry.linkTarget.isEmpty else { throw fail(.name("the link has no target")) }
        case .characterDevice, .blockDevice:
            // v7 had no field for them.
            switch unsafe header.dialect {
            case .v7: break
            case .unknown: throw fail(.ambiguousData("it is a device, and its header is of no known kind"))
            case .ustar, .star, .gnu:
                entry.deviceMajor = try unsafe device(header, .deviceMajor)
                entry.deviceMinor = try unsafe device(header, .deviceMinor)
            }
            // libarchive alone reads the records.
            if pax?.deviceMajor ?? entry.deviceMajor != entry.deviceMajor
                || pax?.deviceMinor ?? entry.deviceMinor != entry.deviceMinor
            {
                throw fail(.ambiguousData("a pax record gives it other device numbers than its header"))
            }
        default: break
        }

        if hasGlobal { try checkGlobal(pax, entry) }
        let dialect = unsafe header.dialect
        let size = try unsafe size(header)
        if entry.kind == .regular {
            try unsafe content(header, pax, pax?.size ?? size, isStoredSparse, &entry)
        }
        if entry.kind != .regular {
            if pax?.sparse != nil { throw fail(.sparse("it is given for an entry that is no regular file")) }
            // What a header says is nothing to all of them but for libarchive at a hard link, which POSIX lets have its
            // file's data in a pax archive. What a record says is bytes to pass over for some.
            if let recorded = pax?.size, recorded != 0 {
                throw fail(.ambiguousData("a pax record gives a size to an entry that has no data"))
            }
            if entry.kind == .hardLink, pax?.size == nil, size != 0, isPax, dialect != .v7, dialect != .gnu {
                throw fail(.ambiguousData("a hard link has a size, which in a pax archive may mean data"))
            }
        }
        if let recorded = pax?.schilyRealSize, recorded != entry.size {
            throw fail(.ambiguousData("the pax record SCHILY.realsize gives it another size"))
        }
        if dialect == .v7 || dialect == .gnu { isPax = false }
        return entry
    }

    /// Refuses records of a global header that would change `entry`: GNU tar obeys them, Go and libarchive do not.
    private func checkGlobal(_ pax: PaxRecords?, _ entry: TarEntry) throws(TarError) {
        func check<Value: Equatable>(
            _ key: String, _ global: Value?, _ own: Value?, _ value: Value
        ) throws(TarError) {
            if let global, own == nil, global != value { throw fail(.globalRecord(key)) }
        }
        try check("uid", global.uid, pax?.uid, entry.uid)
        try check("gid", global.gid, pax?.gid, entry.gid)
        try check("mtime", global.modificationTime, pax?.modificationTime, entry.modificationTime)
        // No reader sets attributes from a global header, and GNU tar tries to and fails.
        if global.accessACL != nil, pax?.accessACL == nil { throw fail(.globalRecord("SCHILY.acl.access")) }
        if global.defaultACL != nil, pax?.defaultACL == nil {
            throw fail(.globalRecord("SCHILY.acl.default"))
        }
    }

    /// Size, sparse map and place of the content of a regular file that has `stored` bytes of data.
    private func content(
        _ header: TarHeader, _ pax: PaxRecords?, _ stored: Int64, _ isStoredSparse: Bool,
        _ entry: inout TarEntry
    ) throws {
        if entry.path.bytes.last == UInt8(ascii: "/") {
            // As v7 told a directory from a file; Go does so for its type alone.
            guard unsafe header.typeflag == 0, pax?.sparse == nil else {
                throw fail(
                    .ambiguousData("it is a file whose name ends in a slash, which some take for a directory")
                )
            }
            entry.kind = .directory
            return
        }
        if unsafe header.dialect == .gnu, !isStoredSparse {
            // libarchive believes these fields of any file.
            let hasMap = unsafe header.byte(TarLayout.gnuSparse) != 0
            let hasSize = unsafe header.byte(TarField.gnuRealSize.offset) != 0
            if hasMap || hasSize, unsafe hasMap || header.number(.gnuRealSize) != stored {
                throw fail(
                    .ambiguousData("its header has the fields of a sparse file, and its type is another"))
            }
        }
        dataLeft = stored
        padding = TarLayout.padding(stored)
        holes = pax?.solarisHoles?.holes ?? []
        nextHole = 0
        if pax?.solarisHoles != nil, isStoredSparse || pax?.sparse != nil {
            throw fail(.sparse("there are two of them"))
        }
        if isStoredSparse {
            if pax?.sparse != nil { throw fail(.sparse("there are two of them")) }
            let realSize = try unsafe number(header, .gnuRealSize)
            try unsafe setSparse(readOldMap(unsafe header), realSize, &entry)
        } else if let sparse = pax?.sparse {
            guard unsafe header.typeflag == UInt8(ascii: "0") else {
                throw fail(.sparse("it is given for an entry that is no regular file"))
            }
            try setSparse(map(sparse), realSize(sparse, stored: stored), &entry)
        } else {
            // To libarchive the file ends with the record's last number.
            if let solaris = pax?.solarisHoles, solaris.end < stored {
                throw fail(.ambiguousData("the record SUN.holesdata ends before the data"))
            }
            entry.size = stored
            segments.removeAll(keepingCapacity: false)
            nextSegment = 0
            fileOffset = 0
            segmentLeft = stored
        }
        hasContent = true
    }

    /// Attributes in byte order of their names; of several with one name the last counts.
    private static func unique(_ attributes: [ExtendedAttribute]) -> [ExtendedAttribute] {
        if attributes.count < 2 { return attributes }
        // The order of equal names is kept by their places, so that "the last" means the archive's last.
        let order = attributes.indices.sorted {
            let (left, right) = (attributes[$0].name, attributes[$1].name)
            return left == right ? $0 < $1 : left < right
        }
        var result = [ExtendedAttribute]()
        result.reserveCapacity(attributes.count)
        for index in order {
            if result.last?.name == attributes[index].name { result.removeLast() }
            result.append(attributes[index])
        }
        return result
    }

    // MARK: - Sparse files

    /// Checks a map against the file and the data that is left, and lets the content follow it.
    private func setSparse(_ map: [TarSegment], _ realSize: Int64, _ entry: inout TarEntry) throws(TarError) {
        guard realSize >= 0 else { throw fail(.sparse("the size of the file is missing or negative")) }
        var end: Int64 = 0
        var total: Int64 = 0
        var isAligned = true
        for segment in map {
            guard segment.offset >= 0, segment.length >= 0 else {
                throw fail(.sparse("a number is negative"))
            }
            guard segment.offset >= end else { throw fail(.sparse("segments overlap or are not in order")) }
            let (next, overflow) = segment.offset.addingReportingOverflow(segment.length)
            guard !overflow, next <= realSize else { throw fail(.sparse("a segment ends after the file")) }
            // GNU tar takes the data of each from a new block.
            guard isAligned || segment.length == 0 else {
                throw fail(.sparse("a segment that is no whole number of blocks stands before another"))
            }
            if segment.length % Int64(TarLayout.block) != 0 { isAligned = false }
            end = next
            // At most `end` by now: segments do not overlap.
            total &+= segment.length
        }
        guard total == dataLeft else {
            throw fail(.sparse("its segments have \(total) bytes, but \(dataLeft) bytes of data are stored"))
        }
        // GNU tar makes the file end there.
        guard end == realSize else {
            throw fail(.sparse("it ends at byte \(end), and the file at byte \(realSize)"))
        }
        // Its holes.
        do throws(TarError.Reason) {
            try allowance?.take(bytes: realSize &- total)
        } catch {
            throw fail(error)
        }
        // GNU tar marks a hole at the end by an empty segment.
        segments = map.filter { $0.length > 0 }
        nextSegment = 0
        segmentLeft = 0
        entry.size = realSize
        entry.sparse = segments
    }

    private func checkCount(_ count: Int) throws(TarError) {
        guard count < limits.sparseSegments else {
            throw fail(.tooManySegments(limit: limits.sparseSegments))
        }
    }

    /// The map of a GNU `S` entry: four segments in the header, twenty-one in each block that follows while
    /// the last one says so. The size field counts the data alone.
    private func readOldMap(_ header: TarHeader) throws -> [TarSegment] {
        var map = [TarSegment]()
        var block = unsafe header
        var place = TarLayout.gnuSparse
        var count = TarLayout.gnuSparseCount
        var flag = TarLayout.gnuIsExtended
        while true {
            var isClosed = false
            for index in 0..<count {
                let at = place &+ index &* 24
                // The first NUL of either ends it, for some readers of the one and for some of the other.
                if unsafe block.byte(at) == 0, unsafe block.byte(at &+ 12) == 0 {
                    isClosed = true
                    break
                }
                guard unsafe block.byte(at) != 0, unsafe block.byte(at &+ 12) != 0,
                    let offset = unsafe block.number(at: at, 12),
                    let length = unsafe block.number(at: at &+ 12, 12)
                else { throw fail(.sparse("an offset or a length is no number")) }
                try checkCount(map.count)
                map.append(TarSegment(offset: offset, length: length))
            }
            if unsafe block.byte(flag) == 0 { return map }
            guard let next = try unsafe takeBlock() else { throw endsEarly() }
            if isClosed {
                // GNU tar takes the block for what follows the file, and nothing of it for the end of the archive.
                guard dataLeft == 0, unsafe next.rawSum == 0 else {
                    throw fail(.sparse("it goes on after its end"))
                }
                endsHere = true
                return map
            }
            unsafe block = next
            place = 0
            count = TarLayout.gnuExtensionCount
            flag = TarLayout.gnuExtensionIsExtended
        }
    }

    /// The size that pax records give to a sparse file of `stored` bytes of data.
    private func realSize(_ sparse: PaxSparse, stored: Int64) throws(TarError) -> Int64 {
        if sparse.major == 1 {
            // What `GNU.sparse.size` is there, readers do not agree on.
            guard let size = sparse.realSize, sparse.size == nil else {
                throw fail(.sparse("the size of the file is missing or given twice"))
            }
            return size
        }
        if let size = sparse.size, let realSize = sparse.realSize, size != realSize {
            throw fail(.sparse("there are two sizes of the file"))
        }
        return sparse.size ?? sparse.realSize ?? stored
    }

    /// The map that pax records give, or that the first blocks of the data hold.
    private func map(_ sparse: PaxSparse) throws -> [TarSegment] {
        switch (sparse.major, sparse.minor) {
        case (1, 0): return try readMapInData()
        case (nil, nil), (0, 0), (0, 1): break
        default: throw fail(.sparse("its format is none of 0.0, 0.1 and 1.0"))
        }
        let numbers = sparse.numbers
        guard !numbers.isEmpty, numbers.count % 2 == 0 else {
            throw fail(.sparse("it is missing, or a length in it"))
        }
        let count = numbers.count / 2
        guard sparse.segmentCount == Int64(count) else {
            throw fail(.sparse("it has another number of segments than it says"))
        }
        return (0..<count).map { TarSegment(offset: numbers[$0 * 2], length: numbers[$0 * 2 + 1]) }
    }

    /// Format 1.0: decimal numbers, a newline after each, their count first; filled up to a whole block, and
    /// counted as data.
    private func readMapInData() throws -> [TarSegment] {
        var expected: Int64?
        var numbers = [Int64]()
        var value: Int64 = 0
        var digits = 0
        while true {
            guard dataLeft >= TarLayout.block else {
                throw fail(.sparse("it is longer than the stored data"))
            }
            guard let block = try unsafe takeBlock() else { throw endsEarly() }
            dataLeft &-= Int64(TarLayout.block)
            for index in 0..<TarLayout.block {
                let byte = unsafe block.byte(index)
                if byte != UInt8(ascii: "\n") {
                    let digit = byte &- UInt8(ascii: "0")
                    // Eighteen digits fit; a file of 10^18 bytes does not exist.
                    guard digit <= 9, digits < 18 else { throw fail(.sparse("it holds what is no number")) }
                    value = value &* 10 &+ Int64(digit)
                    digits += 1
                    continue
                }
                guard digits > 0 else { throw fail(.sparse("it holds what is no number")) }
                if let expected {
                    numbers.append(value)
                    if numbers.count == expected { return pairs(numbers) }
                } else {
                    guard value <= limits.sparseSegments else {
                        throw fail(.tooManySegments(limit: limits.sparseSegments))
                    }
                    if value == 0 { return [] }
                    expected = value &* 2
                }
                value = 0
                digits = 0
            }
        }
    }

    private func pairs(_ numbers: [Int64]) -> [TarSegment] {
        (0..<(numbers.count / 2)).map { TarSegment(offset: numbers[$0 * 2], length: numbers[$0 * 2 + 1]) }
    }
}
