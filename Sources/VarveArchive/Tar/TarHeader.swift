import Glibc

/// A field of a header block: where it lies and what it is called in a message.
struct TarField {
    var offset: Int
    var length: Int
    var name: StaticString

    init(_ offset: Int, _ length: Int, _ name: StaticString) {
        self.offset = offset
        self.length = length
        self.name = name
    }

    // POSIX.1-2017, pax, "ustar Header Block"; computed, so that the numbers are constants where they are
    // used.
    static var name: TarField { TarField(0, 100, "name") }
    static var mode: TarField { TarField(100, 8, "mode") }
    static var uid: TarField { TarField(108, 8, "uid") }
    static var gid: TarField { TarField(116, 8, "gid") }
    static var size: TarField { TarField(124, 12, "size") }
    static var modificationTime: TarField { TarField(136, 12, "mtime") }
    static var checksum: TarField { TarField(148, 8, "chksum") }
    static var linkName: TarField { TarField(157, 100, "linkname") }
    static var deviceMajor: TarField { TarField(329, 8, "devmajor") }
    static var deviceMinor: TarField { TarField(337, 8, "devminor") }
    static var prefix: TarField { TarField(345, 155, "prefix") }

    // star(4), the xstar header: a shorter prefix and two times; "tar" and NUL end the block.
    static var starPrefix: TarField { TarField(345, 131, "prefix") }
    static var starAccessTime: TarField { TarField(476, 12, "atime") }
    static var starChangeTime: TarField { TarField(488, 12, "ctime") }

    // GNU tar manual, "Basic Tar Format", struct oldgnu_header.
    static var gnuAccessTime: TarField { TarField(345, 12, "atime") }
    static var gnuChangeTime: TarField { TarField(357, 12, "ctime") }
    static var gnuRealSize: TarField { TarField(483, 12, "realsize") }
}

/// Where the parts of an entry that are no numbers lie.
enum TarLayout {
    static let block = 512
    static let typeflag = 156
    static let magic = 257
    /// struct sparse of old GNU headers: offset and length, 12 bytes each.
    static let gnuSparse = 386
    static let gnuSparseCount = 4
    static let gnuIsExtended = 482
    static let gnuExtensionCount = 21
    static let gnuExtensionIsExtended = 504

    /// Bytes from the end of `size` bytes of data to the next block.
    static func padding(_ size: Int64) -> Int { Int((512 &- (size & 511)) & 511) }
}

/// Which fields the second half of a header has.
enum TarDialect {
    case v7, ustar, star, gnu
    /// "ustar" with something behind it that nobody wrote: some readers take it for ustar, some for v7.
    case unknown
}

/// A header block of 512 bytes, read where it lies. Valid as long as its memory.
@unsafe struct TarHeader {
    let base: UnsafeRawPointer

    @inline(__always)
    func byte(_ offset: Int) -> UInt8 { unsafe base.load(fromByteOffset: offset, as: UInt8.self) }

    var typeflag: UInt8 { unsafe byte(TarLayout.typeflag) }

    var dialect: TarDialect {
        // "ustar" as five bytes; the sixth tells POSIX (NUL) from GNU (space).
        let magic = unsafe base.loadUnaligned(fromByteOffset: TarLayout.magic, as: UInt32.self)
        guard UInt32(littleEndian: magic) == 0x6174_7375,
            unsafe byte(TarLayout.magic + 4) == UInt8(ascii: "r")
        else { return .v7 }
        switch unsafe byte(TarLayout.magic + 5) {
        case 0:
            let trailer = unsafe base.loadUnaligned(fromByteOffset: 508, as: UInt32.self)
            return UInt32(littleEndian: trailer) == 0x0072_6174 ? .star : .ustar
        case UInt8(ascii: " ")
        where unsafe byte(TarLayout.magic + 6) == 0x20 && byte(TarLayout.magic + 7) == 0: return .gnu
        default: return .unknown
        }
    }

    /// The sum of all bytes, the checksum field as it stands: 0 only for a block of zeros.
    var rawSum: Int64 {
        // Eight bytes at a time in 16-bit lanes; 64 × 255 × 2 stays below 65,536.
        var lanes: UInt64 = 0
        for word in 0..<64 {
            let eight = unsafe base.loadUnaligned(fromByteOffset: word &* 8, as: UInt64.self)
            lanes = lanes &+ (eight & 0x00ff_00ff_00ff_00ff) &+ ((eight &>> 8) & 0x00ff_00ff_00ff_00ff)
        }
        let pairs = (lanes & 0x0000_ffff_0000_ffff) &+ ((lanes &>> 16) & 0x0000_ffff_0000_ffff)
        return Int64(pairs & 0xffff_ffff) &+ Int64(pairs &>> 32)
    }

    /// Compares the checksum with the sum of the bytes, and with the sum that old tars made from signed
    /// chars.
    func checksumFailure(rawSum: Int64) -> TarError.Reason? {
        // GNU tar and libarchive read digits, and Go what stands before the first NUL: what is behind that means nothing to any.
        let stored = unsafe number(
            at: TarField.checksum.offset, TarField.checksum.length, endsAtNUL: true)
        var field: Int64 = 0
        for index in 0..<8 { field &+= Int64(unsafe byte(TarField.checksum.offset + index)) }
        // The field itself counts as eight spaces.
        let computed = rawSum &- field &+ 8 * 32
        if stored == computed { return nil }
        var signed: Int64 = 8 * 32
        for index in 0..<512 where !(148..<156).contains(index) {
            signed &+= Int64(Int8(bitPattern: unsafe byte(index)))
        }
        if stored == signed { return nil }
        return .checksum(stored: stored, computed: computed)
    }

    /// The bytes of a field up to its first NUL.
    func text(_ field: TarField) -> UnsafeRawBufferPointer {
        let start = unsafe base + field.offset
        let end = unsafe memchr(start, 0, field.length)
        let count = unsafe end.map { unsafe UnsafeRawPointer($0) - start } ?? field.length
        return unsafe UnsafeRawBufferPointer(start: start, count: count)
    }

    /// All bytes of a field, for a message.
    func bytes(_ field: TarField) -> [UInt8] {
        unsafe Array(UnsafeRawBufferPointer(start: base + field.offset, count: field.length))
    }

    /// A number as every reader has it: octal digits, which spaces may stand before and spaces and NULs behind, or, with
    /// the top bit set, big-endian two's complement (GNU tar manual, "Extensions to the archive format"). A field of NULs
    /// is 0. NULs before digits and anything behind them are read in several ways, and are no number.
    func number(_ field: TarField) -> Int64? { unsafe number(at: field.offset, field.length) }

    /// - Parameter endsAtNUL: what stands behind a NUL is not looked at.
    func number(at offset: Int, _ length: Int, endsAtNUL: Bool = false) -> Int64? {
        var index = offset
        let end = offset &+ length
        if unsafe byte(index) & 0x80 != 0 { return unsafe base256(at: offset, length) }
        while index < end, unsafe byte(index) == 0x20 { index &+= 1 }
        let start = index
        var value: Int64 = 0
        // Twelve digits of three bits: no overflow.
        while index < end {
            let digit = unsafe byte(index) &- UInt8(ascii: "0")
            if digit > 7 { break }
            value = value &<< 3 | Int64(digit)
            index &+= 1
        }
        if index == start {
            while index < end, unsafe byte(index) == 0 { index &+= 1 }
            return start == offset && index == end ? 0 : nil
        }
        while index < end {
            if endsAtNUL, unsafe byte(index) == 0 { break }
            guard unsafe byte(index) == 0 || byte(index) == 0x20 else { return nil }
            index &+= 1
        }
        return value
    }

    /// The first field that Go's archive/tar cannot read: it reads the numbers of every header, those that a record replaces and
    /// those that mean nothing for its type as well, and refuses the archive. Nil if it reads them all.
    var fieldThatGoRefuses: TarField? {
        for field in [TarField.size, .mode, .uid, .gid, .modificationTime] where unsafe !isReadByGo(field) {
            return field
        }
        switch unsafe dialect {
        case .v7, .unknown: return nil
        case .ustar, .star, .gnu: break
        }
        for field in [TarField.deviceMajor, .deviceMinor] where unsafe !isReadByGo(field) { return field }
        return nil
    }

    /// Octal digits up to the first NUL, with spaces and NULs around them; or base 256 in 63 bits.
    private func isReadByGo(_ field: TarField) -> Bool {
        if unsafe byte(field.offset) & 0x80 != 0 {
            return unsafe base256(at: field.offset, field.length, anyMark: true) != nil
        }
        var index = field.offset
        var end = field.offset &+ field.length
        while index < end, unsafe byte(index) == 0x20 || byte(index) == 0 { index &+= 1 }
        while index < end, unsafe byte(end &- 1) == 0x20 || byte(end &- 1) == 0 { end &-= 1 }
        while index < end {
            let character = unsafe byte(index)
            if character == 0 { return true }
            guard character &- UInt8(ascii: "0") <= 7 else { return false }
            index &+= 1
        }
        return true
    }

    private func base256(at offset: Int, _ length: Int, anyMark: Bool = false) -> Int64? {
        // GNU tar has no other marks; other readers take the rest of the byte for a part of the number.
        guard unsafe anyMark || byte(offset) == 0x80 || byte(offset) == 0xff else { return nil }
        let invert: UInt8 = unsafe byte(offset) & 0x40 != 0 ? 0xff : 0
        var magnitude: UInt64 = 0
        for index in 0..<length {
            var digit = unsafe byte(offset &+ index) ^ invert
            // The top bit marks the form and is no part of the number.
            if index == 0 { digit &= 0x7f }
            if magnitude &>> 55 != 0 { return nil }
            magnitude = magnitude &<< 8 | UInt64(digit)
        }
        let value = Int64(bitPattern: magnitude)
        return invert == 0 ? value : ~value
    }
}
