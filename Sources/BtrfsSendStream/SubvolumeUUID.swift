/// The sixteen bytes by which btrfs knows a subvolume, in the order in which they lie on disk and in a stream.
public struct SubvolumeUUID: Hashable, Sendable, CustomStringConvertible {
    /// Bytes 0…7, byte 0 in the highest bits.
    public let high: UInt64
    /// Bytes 8…15, byte 8 in the highest bits.
    public let low: UInt64

    /// The UUID of these two halves, each in the order of its bytes, the first in the highest bits.
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// The UUID of these bytes; nil unless there are exactly sixteen.
    public init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == 16 else { return nil }
        var high: UInt64 = 0
        var low: UInt64 = 0
        for (index, byte) in bytes.enumerated() {
            if index < 8 { high = high << 8 | UInt64(byte) } else { low = low << 8 | UInt64(byte) }
        }
        self.init(high: high, low: low)
    }

    /// Reads the text form of RFC 9562: 32 hexadecimal digits of either case with dashes after 8, 12, 16 and 20. Nil for
    /// any other text.
    @inlinable
    public init?(_ text: some StringProtocol) { self.init(utf8: Array(text.utf8)) }

    /// Reads the text form from its bytes in UTF-8; nil for any other text.
    public init?(utf8 text: [UInt8]) {
        guard text.count == 36 else { return nil }
        var high: UInt64 = 0
        var low: UInt64 = 0
        var digits = 0
        for (index, character) in text.enumerated() {
            if index == 8 || index == 13 || index == 18 || index == 23 {
                guard character == UInt8(ascii: "-") else { return nil }
                continue
            }
            let digit: UInt8
            switch character {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = character - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = character - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = character - UInt8(ascii: "A") + 10
            default: return nil
            }
            if digits < 16 { high = high << 4 | UInt64(digit) } else { low = low << 4 | UInt64(digit) }
            digits += 1
        }
        self.init(high: high, low: low)
    }

    /// A random one (RFC 9562, version 4).
    public static func random() -> SubvolumeUUID {
        var generator = SystemRandomNumberGenerator()
        var bytes = (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
        bytes[6] = bytes[6] & 0x0f | 0x40
        bytes[8] = bytes[8] & 0x3f | 0x80
        return SubvolumeUUID(bytes) ?? .zero
    }

    /// Sixteen zero bytes: btrfs's way to say "none".
    public static let zero = SubvolumeUUID(high: 0, low: 0)
    /// Whether it says "none".
    public var isZero: Bool { self == .zero }

    /// The sixteen bytes, as they lie on disk.
    public var bytes: [UInt8] {
        (0..<16).map { index -> UInt8 in
            let half = index < 8 ? high : low
            return UInt8(truncatingIfNeeded: half >> UInt64(56 - index % 8 * 8))
        }
    }

    /// Lower case with dashes, as `btrfs subvolume show` prints it.
    public var description: String {
        let digits = Array("0123456789abcdef".utf8)
        var text = [UInt8]()
        text.reserveCapacity(36)
        for (index, byte) in bytes.enumerated() {
            if index == 4 || index == 6 || index == 8 || index == 10 { text.append(UInt8(ascii: "-")) }
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}
