/// Reads send streams of version 1, 2 and 3, with or without file data, from bytes that come in pieces of any size.
///
/// ``SendStreamReader`` reads from a descriptor and ``SendCommands`` from an `AsyncSequence`; this is what both work with.
///
/// ```swift
/// while try parser.fill(with: { try readSome(into: $0) }) > 0 {
///     while let command = try parser.next() { … }
/// }
/// try parser.finish()
/// ```
///
/// Several streams may follow one another, and several subvolumes may share a stream (`btrfs send -e`). Every command's
/// checksum is verified before anything of it is used. Memory is bounded by `bufferSize` and the longest command.
/// After an error every further call throws the same error.
public struct SendStreamParser: ~Copyable, Sendable {
    /// The longest command that is read in version 1, in bytes with its header: the kernel writes at most 64 KiB
    /// (`BTRFS_SEND_BUF_SIZE_V1` in fs/btrfs/send.h).
    public static let longestCommandOfVersion1 = 64 << 10
    /// The longest command that is read from version 2 on, in bytes with its header. The kernel writes at most 144 KiB
    /// (`BTRFS_SEND_BUF_SIZE_V2` in fs/btrfs/send.h); the format has no limit, so this one is ours.
    public static let longestCommand = 4 << 20

    private static let magic: [UInt8] = Array("btrfs-stream".utf8) + [0]
    private static let streamHeaderSize = 17
    private static let commandHeaderSize = 10
    private static let longestPath = 4095

    private enum State { case beforeStream, beforeSubvolume, inSubvolume }
    private struct Place {
        var start: UInt32
        var count: UInt32
    }

    /// Filled in `start ..< end`.
    private var buffer: [UInt8]
    private var start = 0
    private var end = 0
    /// Bytes of input before `buffer[0]`.
    private var consumed: UInt64 = 0
    /// How many bytes from `start` the header or command there needs, as far as known.
    private var needed = streamHeaderSize
    private var state = State.beforeStream
    private var failure: SendStreamError?
    private var attributes = [Place](repeating: Place(start: 0, count: 0), count: AttributeNumber.count)
    private var present: UInt64 = 0

    /// The version of the stream that is being read; 0 before the first header.
    public private(set) var version: UInt32 = 0
    /// How many streams have ended.
    public private(set) var finishedStreams = 0
    /// Bytes from the start of the input to the next command.
    public var offset: UInt64 { consumed &+ UInt64(start) }

    /// - Parameter bufferSize: bytes, at least 4,096. The buffer grows to hold a longer command.
    public init(bufferSize: Int = 256 << 10) {
        buffer = [UInt8](repeating: 0, count: max(bufferSize, 4096))
    }

    // MARK: Input

    /// Lets `source` write to free memory of the buffer; it returns how many bytes it wrote. Returns that number: 0
    /// means the end of the input. Call it when `next` has returned nil.
    public mutating func fill<E: Error>(
        with source: (UnsafeMutableRawBufferPointer) throws(E) -> Int
    ) throws(E) -> Int {
        makeRoom(1)
        let end = end
        let count = try unsafe buffer.withUnsafeMutableBufferPointer {
            (bytes: inout UnsafeMutableBufferPointer<UInt8>) throws(E) -> Int in
            let free = unsafe UnsafeMutableRawBufferPointer(
                rebasing: UnsafeMutableRawBufferPointer(bytes)[end...])
            let count = try unsafe source(free)
            return (0...free.count).contains(count) ? count : -1
        }
        guard count >= 0 else {
            if failure == nil { failure = SendStreamError(.sourceFailed, offset: consumed &+ UInt64(end)) }
            return 0
        }
        self.end += count
        return count
    }

    /// Adds bytes to the input. Call `next` until it returns nil before adding more, or the buffer grows with them.
    public mutating func feed(_ bytes: some Collection<UInt8>) {
        let count = bytes.count
        guard count > 0 else { return }
        makeRoom(count)
        buffer.replaceSubrange(end..<(end + count), with: bytes)
        end += count
    }

    /// Moves what is left to the front when the room behind it is short, and grows the buffer if that is not enough.
    private mutating func makeRoom(_ count: Int) {
        let pending = end - start
        let wanted = max(pending + count, needed)
        if start == end || buffer.count - start < wanted {
            if start > 0 {
                let (from, to) = (start, end)
                unsafe buffer.withUnsafeMutableBytes { bytes in
                    unsafe bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[from..<to]))
                }
                consumed &+= UInt64(start)
                start = 0
                end = pending
            }
            if buffer.count < wanted {
                buffer.append(contentsOf: repeatElement(0, count: wanted - buffer.count))
            }
        }
    }

    // MARK: Output

    /// The next command; nil when more input is needed.
    /// - Throws: ``SendStreamError`` when the stream is wrong, and the same error at every call after that.
    public mutating func next() throws(SendStreamError) -> SendCommand? {
        if let failure { throw failure }
        do throws(SendStreamError) {
            return try parse()
        } catch {
            failure = error
            throw error
        }
    }

    /// To be called at the end of the input, after `next` has returned nil: throws unless a stream has ended there.
    public mutating func finish() throws(SendStreamError) {
        if let failure { throw failure }
        let reason: SendStreamError.Reason
        if start < end {
            reason = .truncated
        } else if state == .beforeStream {
            if finishedStreams > 0 { return }
            reason = .empty
        } else {
            reason = .missingEnd
        }
        throw fail(reason)
    }

    /// Makes every further call throw this error: something is wrong at the end of what was read so far.
    mutating func fail(_ reason: SendStreamError.Reason) -> SendStreamError {
        let error = SendStreamError(reason, offset: consumed &+ UInt64(end))
        failure = error
        return error
    }

    private func error(_ reason: SendStreamError.Reason) -> SendStreamError {
        SendStreamError(reason, offset: offset)
    }

    private mutating func parse() throws(SendStreamError) -> SendCommand? {
        if state == .beforeStream {
            guard try parseStreamHeader() else { return nil }
        }
        let available = end - start
        needed = Self.commandHeaderSize
        guard available >= needed else { return nil }
        let length = load(start, as: UInt32.self)
        let limit =
            (version == 1 ? Self.longestCommandOfVersion1 : Self.longestCommand) - Self.commandHeaderSize
        guard length <= limit else { throw error(.commandTooLong(length: length, limit: limit)) }
        needed = Self.commandHeaderSize + Int(length)
        guard available >= needed else { return nil }

        let stored = load(start + 6, as: UInt32.self)
        let computed = checksum(start..<(start + needed))
        guard stored == computed else { throw error(.checksumMismatch(stored: stored, computed: computed)) }

        let number = load(start + 4, as: UInt16.self)
        guard number <= CommandNumber.highest(version: version), let kind = CommandNumber(rawValue: number)
        else {
            throw error(.unknownCommand(number))
        }
        if state == .beforeSubvolume, kind != .subvol, kind != .snapshot {
            throw error(.commandBeforeSubvolume(kind.name))
        }
        try findAttributes(start + Self.commandHeaderSize, end: start + needed, kind)
        let command = try build(kind)

        start += needed
        if kind == .end {
            state = .beforeStream
            needed = Self.streamHeaderSize
            finishedStreams += 1
        } else {
            state = .inSubvolume
            needed = Self.commandHeaderSize
        }
        return command
    }

    /// False when more input is needed.
    private mutating func parseStreamHeader() throws(SendStreamError) -> Bool {
        needed = Self.streamHeaderSize
        let available = min(end - start, Self.streamHeaderSize)
        guard
            buffer[start..<(start + min(available, Self.magic.count))].elementsEqual(
                Self.magic.prefix(available))
        else {
            throw error(finishedStreams == 0 ? .notASendStream : .trailingData)
        }
        guard available == needed else { return false }
        let version = load(start + Self.magic.count, as: UInt32.self)
        guard (1...3).contains(version) else { throw error(.unsupportedVersion(version)) }
        self.version = version
        start += needed
        state = .beforeSubvolume
        return true
    }

    /// Over the header with its checksum field zero, and the payload.
    private func checksum(_ range: Range<Int>) -> UInt32 {
        let bytes = unsafe buffer.span.bytes.extracting(range)
        // Length and number, then four zero bytes, as one step of the table method each.
        var crc = CRC32C.update(0, bytes.extracting(0..<6))
        crc = CRC32C.updateWithFourZeros(crc)
        return CRC32C.update(crc, bytes.extracting(Self.commandHeaderSize..<bytes.byteCount))
    }

    private mutating func findAttributes(_ first: Int, end: Int, _ command: CommandNumber)
        throws(SendStreamError)
    {
        present = 0
        let highest = AttributeNumber.highest(version: version)
        var position = first
        while position < end {
            guard end - position >= 2 else { throw error(.truncatedAttribute(command: command.name)) }
            let number = load(position, as: UInt16.self)
            guard number >= 1, number <= highest else {
                throw error(.unknownAttribute(number, command: command.name))
            }
            let valueStart: Int
            let valueCount: Int
            if number == AttributeNumber.data.rawValue, version >= 2 {
                // From version 2 the data has no length: it takes the rest of the command.
                valueStart = position + 2
                valueCount = end - valueStart
            } else {
                guard end - position >= 4 else { throw error(.truncatedAttribute(command: command.name)) }
                valueStart = position + 4
                valueCount = Int(load(position + 2, as: UInt16.self))
                guard end - valueStart >= valueCount else {
                    throw error(.truncatedAttribute(command: command.name))
                }
            }
            let bit = UInt64(1) << UInt64(number)
            guard present & bit == 0 else {
                throw error(.duplicateAttribute(attributeName(number), command: command.name))
            }
            present |= bit
            attributes[Int(number)] = Place(start: UInt32(valueStart), count: UInt32(valueCount))
            position = valueStart + valueCount
        }
    }

    private func attributeName(_ number: UInt16) -> String {
        AttributeNumber(rawValue: number).map { "\($0)" } ?? "\(number)"
    }

    // MARK: Values

    @inline(__always)
    private func load<T: FixedWidthInteger & BitwiseCopyable>(_ position: Int, as type: T.Type) -> T {
        // Checks that the value lies in the buffer.
        T(littleEndian: unsafe buffer.span.bytes.unsafeLoadUnaligned(fromByteOffset: position, as: type))
    }

    private func has(_ attribute: AttributeNumber) -> Bool {
        present & UInt64(1) << UInt64(attribute.rawValue) != 0
    }

    @inline(__always)
    private func range(_ attribute: AttributeNumber, _ command: CommandNumber) throws(SendStreamError)
        -> Range<Int>
    {
        guard has(attribute) else { throw error(.missingAttribute("\(attribute)", command: command.name)) }
        let place = attributes[Int(attribute.rawValue)]
        return Int(place.start)..<(Int(place.start) + Int(place.count))
    }

    private func bytes(_ attribute: AttributeNumber, _ command: CommandNumber) throws(SendStreamError)
        -> ArraySlice<UInt8>
    {
        buffer[try range(attribute, command)]
    }

    @inline(__always)
    private func integer<T: FixedWidthInteger & BitwiseCopyable>(
        _ attribute: AttributeNumber, _ command: CommandNumber, as type: T.Type = T.self
    ) throws(SendStreamError) -> T {
        let range = try range(attribute, command)
        guard range.count == MemoryLayout<T>.size else {
            throw error(.wrongLength(range.count, attribute: "\(attribute)", command: command.name))
        }
        return load(range.lowerBound, as: type)
    }

    private func uuid(_ attribute: AttributeNumber, _ command: CommandNumber) throws(SendStreamError)
        -> SubvolumeUUID
    {
        let range = try range(attribute, command)
        guard range.count == 16 else {
            throw error(.wrongLength(range.count, attribute: "\(attribute)", command: command.name))
        }
        return SubvolumeUUID(
            high: load(range.lowerBound, as: UInt64.self).byteSwapped,
            low: load(range.lowerBound + 8, as: UInt64.self).byteSwapped)
    }

    /// `struct btrfs_timespec`: i64 seconds, u32 nanoseconds.
    private func time(_ attribute: AttributeNumber, _ command: CommandNumber) throws(SendStreamError)
        -> SendTime
    {
        let range = try range(attribute, command)
        guard range.count == 12 else {
            throw error(.wrongLength(range.count, attribute: "\(attribute)", command: command.name))
        }
        let nanoseconds = load(range.lowerBound + 8, as: UInt32.self)
        guard nanoseconds < 1_000_000_000 else {
            throw error(.invalidTime(attribute: "\(attribute)", command: command.name))
        }
        return SendTime(seconds: load(range.lowerBound, as: Int64.self), nanoseconds: nanoseconds)
    }

    private func path(_ attribute: AttributeNumber, _ command: CommandNumber) throws(SendStreamError)
        -> ArraySlice<UInt8>
    {
        let range = try range(attribute, command)
        guard range.count <= Self.longestPath, isPath(range) else {
            throw error(.invalidPath(attribute: "\(attribute)", command: command.name))
        }
        return buffer[range]
    }

    private func linkTarget(_ command: CommandNumber) throws(SendStreamError) -> ArraySlice<UInt8> {
        let range = try range(.pathLink, command)
        guard !buffer[range].contains(0) else {
            throw error(.invalidPath(attribute: "\(AttributeNumber.pathLink)", command: command.name))
        }
        return buffer[range]
    }

    /// Parts of names between single slashes, none of them `.` or `..`; or nothing.
    private func isPath(_ range: Range<Int>) -> Bool {
        if range.isEmpty { return true }
        let slash = UInt8(ascii: "/")
        let bytes = buffer.span.extracting(range)
        var partStart = 0
        var dots = 0
        for index in 0...bytes.count {
            let byte = index < bytes.count ? bytes[index] : slash
            if byte == slash {
                let length = index - partStart
                if length == 0 || (length <= 2 && dots == length) { return false }
                partStart = index + 1
                dots = 0
            } else if byte == UInt8(ascii: ".") {
                dots += 1
            } else if byte == 0 {
                return false
            }
        }
        return true
    }

    private func inode(_ command: CommandNumber) throws(SendStreamError) -> UInt64? {
        has(.ino) ? try integer(.ino, command) : nil
    }

    private func build(_ kind: CommandNumber) throws(SendStreamError) -> SendCommand {
        switch kind {
        case .subvol:
            return .subvol(
                path: try path(.path, kind), uuid: try uuid(.uuid, kind),
                ctransid: try integer(.ctransid, kind))
        case .snapshot:
            return .snapshot(
                path: try path(.path, kind), uuid: try uuid(.uuid, kind),
                ctransid: try integer(.ctransid, kind),
                cloneUUID: try uuid(.cloneUUID, kind), cloneCtransid: try integer(.cloneCtransid, kind))
        case .mkfile:
            return .mkfile(path: try path(.path, kind), inode: try inode(kind))
        case .mkdir:
            return .mkdir(path: try path(.path, kind), inode: try inode(kind))
        case .mknod:
            return .mknod(
                path: try path(.path, kind), inode: try inode(kind), mode: try integer(.mode, kind),
                device: try integer(.rdev, kind))
        case .mkfifo:
            return .mkfifo(
                path: try path(.path, kind), inode: try inode(kind), mode: try optionalInteger(.mode, kind),
                device: try optionalInteger(.rdev, kind))
        case .mksock:
            return .mksock(
                path: try path(.path, kind), inode: try inode(kind), mode: try optionalInteger(.mode, kind),
                device: try optionalInteger(.rdev, kind))
        case .symlink:
            return .symlink(path: try path(.path, kind), inode: try inode(kind), target: try linkTarget(kind))
        case .rename:
            return .rename(path: try path(.path, kind), to: try path(.pathTo, kind))
        case .link:
            return .link(path: try path(.path, kind), existing: try path(.pathLink, kind))
        case .unlink:
            return .unlink(path: try path(.path, kind))
        case .rmdir:
            return .rmdir(path: try path(.path, kind))
        case .setXattr:
            return .setXattr(
                path: try path(.path, kind), name: try xattrName(kind), value: try bytes(.xattrData, kind))
        case .removeXattr:
            return .removeXattr(path: try path(.path, kind), name: try xattrName(kind))
        case .write:
            return .write(
                path: try path(.path, kind), offset: try integer(.fileOffset, kind),
                data: try bytes(.data, kind))
        case .clone:
            return .clone(
                path: try path(.path, kind), offset: try integer(.fileOffset, kind),
                length: try integer(.cloneLength, kind), cloneUUID: try uuid(.cloneUUID, kind),
                cloneCtransid: try integer(.cloneCtransid, kind), clonePath: try path(.clonePath, kind),
                cloneOffset: try integer(.cloneOffset, kind))
        case .truncate:
            return .truncate(path: try path(.path, kind), size: try integer(.size, kind))
        case .chmod:
            return .chmod(path: try path(.path, kind), mode: try integer(.mode, kind))
        case .chown:
            return .chown(
                path: try path(.path, kind), uid: try integer(.uid, kind), gid: try integer(.gid, kind))
        case .utimes:
            return .utimes(
                path: try path(.path, kind), atime: try time(.atime, kind), mtime: try time(.mtime, kind),
                ctime: try time(.ctime, kind), otime: has(.otime) ? try time(.otime, kind) : nil)
        case .end:
            return .end
        case .updateExtent:
            return .updateExtent(
                path: try path(.path, kind), offset: try integer(.fileOffset, kind),
                length: try integer(.size, kind))
        case .fallocate:
            return .fallocate(
                path: try path(.path, kind), mode: try integer(.fallocateMode, kind),
                offset: try integer(.fileOffset, kind), length: try integer(.size, kind))
        case .fileattr:
            return .fileattr(path: try path(.path, kind), attributes: try integer(.fileattr, kind))
        case .encodedWrite:
            return .encodedWrite(
                path: try path(.path, kind), offset: try integer(.fileOffset, kind),
                unencodedFileLength: try integer(.unencodedFileLength, kind),
                unencodedLength: try integer(.unencodedLength, kind),
                unencodedOffset: try integer(.unencodedOffset, kind),
                compression: SendCompression(number: try optionalInteger(.compression, kind)),
                encryption: try optionalInteger(.encryption, kind), data: try bytes(.data, kind))
        case .enableVerity:
            return .enableVerity(
                path: try path(.path, kind), algorithm: try integer(.verityAlgorithm, kind),
                blockSize: try integer(.verityBlockSize, kind), salt: try bytes(.veritySalt, kind),
                signature: try bytes(.veritySignature, kind))
        }
    }

    /// 0 where a sender leaves out what a receiver does not need.
    private func optionalInteger<T: FixedWidthInteger & BitwiseCopyable>(
        _ attribute: AttributeNumber, _ command: CommandNumber
    ) throws(SendStreamError) -> T {
        has(attribute) ? try integer(attribute, command) : 0
    }

    private func xattrName(_ command: CommandNumber) throws(SendStreamError) -> ArraySlice<UInt8> {
        let name = try bytes(.xattrName, command)
        guard !name.isEmpty, !name.contains(0) else {
            throw error(.invalidPath(attribute: "\(AttributeNumber.xattrName)", command: command.name))
        }
        return name
    }
}
