/// Writes send streams byte by byte after the format's description, with its own slow checksum, so that the parser is
/// not tested against itself.
package struct StreamBuilder: Sendable {
    package enum Attribute: Sendable {
        case bytes(UInt16, [UInt8])
        /// The attribute of data in version 2: without a length, last.
        case rest([UInt8])

        package static func text(_ number: UInt16, _ text: String) -> Attribute {
            .bytes(number, Array(text.utf8))
        }
        package static func u8(_ number: UInt16, _ value: UInt8) -> Attribute { .bytes(number, [value]) }
        package static func u32(_ number: UInt16, _ value: UInt32) -> Attribute {
            .bytes(number, little(value))
        }
        package static func u64(_ number: UInt16, _ value: UInt64) -> Attribute {
            .bytes(number, little(value))
        }
        package static func time(_ number: UInt16, _ seconds: Int64, _ nanoseconds: UInt32) -> Attribute {
            .bytes(number, little(UInt64(bitPattern: seconds)) + little(nanoseconds))
        }
        package static func uuid(_ number: UInt16, _ byte: UInt8) -> Attribute {
            .bytes(number, [UInt8](repeating: byte, count: 16))
        }
    }

    package var bytes = [UInt8]()

    package init() {}

    package mutating func header(version: UInt32 = 1) {
        bytes += Array("btrfs-stream\0".utf8) + little(version)
    }

    package mutating func command(_ number: UInt16, _ attributes: Attribute...) {
        command(number, attributes)
    }

    package mutating func command(_ number: UInt16, _ attributes: [Attribute]) {
        var payload = [UInt8]()
        for attribute in attributes {
            switch attribute {
            case .bytes(let type, let value):
                payload += little(type) + little(UInt16(value.count)) + value
            case .rest(let value):
                payload += little(UInt16(19)) + value
            }
        }
        raw(number, payload)
    }

    package mutating func raw(_ number: UInt16, _ payload: [UInt8], length: UInt32? = nil) {
        let length = length ?? UInt32(payload.count)
        let crc = slowCRC32C(little(length) + little(number) + [0, 0, 0, 0] + payload)
        bytes += little(length) + little(number) + little(crc) + payload
    }

    package mutating func subvolume(_ name: String = "s") {
        command(1, .text(15, name), .uuid(1, 0xab), .u64(2, 77))
    }

    package mutating func end() { command(21) }

    /// One stream with each command of its version.
    package static func everything(version: UInt32) -> [UInt8] {
        var stream = StreamBuilder()
        stream.header(version: version)
        stream.command(2, .text(15, "new"), .uuid(1, 1), .u64(2, 9), .uuid(20, 2), .u64(21, 8))
        stream.command(3, .text(15, "o257-9-0"), .u64(3, 257))
        stream.command(4, .text(15, "d"), .u64(3, 258))
        stream.command(5, .text(15, "d/null"), .u64(3, 259), .u64(8, 0x103), .u64(5, 0o20666))
        stream.command(6, .text(15, "fifo"), .u64(3, 260), .u64(8, 0), .u64(5, 0o10644))
        stream.command(7, .text(15, "sock"), .u64(3, 261), .u64(8, 0), .u64(5, 0o140755))
        stream.command(8, .text(15, "l"), .u64(3, 262), .text(17, "../x//y"))
        stream.command(9, .text(15, "o257-9-0"), .text(16, "d/f"))
        stream.command(10, .text(15, "d/g"), .text(17, "d/f"))
        stream.command(11, .text(15, "d/g"))
        stream.command(12, .text(15, "gone"))
        stream.command(13, .text(15, "d/f"), .text(13, "user.a"), .bytes(14, [0, 255]))
        stream.command(14, .text(15, "d/f"), .text(13, "user.b"))
        if version == 1 {
            stream.command(15, .text(15, "d/f"), .u64(18, 4096), .bytes(19, Array("hello".utf8)))
        } else {
            stream.command(15, .text(15, "d/f"), .u64(18, 4096), .rest(Array("hello".utf8)))
        }
        stream.command(
            16, .u64(18, 8192), .u64(24, 4096), .text(15, "d/f"), .uuid(20, 3), .u64(21, 7),
            .text(22, "from"),
            .u64(23, 12))
        stream.command(17, .text(15, "d/f"), .u64(4, 5))
        stream.command(18, .text(15, "d/f"), .u64(5, 0o4755))
        stream.command(19, .text(15, "d/f"), .u64(6, 1000), .u64(7, 100))
        stream.command(20, .text(15, ""), .time(11, 1, 2), .time(10, -3, 4), .time(9, 5, 999_999_999))
        stream.command(22, .text(15, "d/f"), .u64(18, 0), .u64(4, 4096))
        if version >= 2 {
            stream.command(
                20, .text(15, "d"), .time(11, 1, 2), .time(10, 3, 4), .time(9, 5, 6), .time(12, 7, 8))
            stream.command(23, .text(15, "d/f"), .u32(25, 3), .u64(18, 0), .u64(4, 10))
            stream.command(24, .text(15, "d/f"), .u64(26, 0x10))
            stream.command(
                25, .text(15, "d/f"), .u64(18, 0), .u64(27, 100), .u64(28, 200), .u64(29, 50), .u32(30, 3),
                .u32(31, 0), .rest([1, 2, 3]))
        }
        if version >= 3 {
            stream.command(
                26, .text(15, "d/f"), .u8(32, 1), .u32(33, 4096), .bytes(34, [9]), .bytes(35, []))
        }
        stream.end()
        return stream.bytes
    }
}

package func little<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<(T.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value >> T($0 * 8)) }
}

package func slowCRC32C(_ bytes: [UInt8], initial: UInt32 = 0) -> UInt32 {
    var crc = initial
    for byte in bytes {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc & 1 == 0 ? crc >> 1 : crc >> 1 ^ 0x82f6_3b78 }
    }
    return crc
}
