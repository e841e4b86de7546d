extension [UInt8] {
    /// Appends `byte` as two lower-case hexadecimal digits in ASCII.
    @inlinable
    package mutating func appendHex(_ byte: UInt8) {
        func digit(_ value: UInt8) -> UInt8 {
            value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + (value - 10)
        }
        append(digit(byte >> 4))
        append(digit(byte & 15))
    }
}
