/// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78) without the inversions before and after, which is how send
/// streams use it: `crc32c(0, …)` in the kernel's fs/btrfs/send.c.
///
/// Sixteen bytes a step by sixteen tables ("slicing-by-16"), so that no processor instruction is needed.
enum CRC32C {
    /// 16 tables of 256 values: table k holds the CRC of a byte with k zero bytes after it. Made once, never freed.
    private static let tables: Tables = Tables()

    /// Safe: nothing writes to the memory after `init`, and nothing frees it.
    @safe private struct Tables: @unchecked Sendable {
        let values: UnsafePointer<UInt32>

        init() {
            let memory = UnsafeMutablePointer<UInt32>.allocate(capacity: 16 * 256)
            for byte in 0..<256 {
                var crc = UInt32(byte)
                for _ in 0..<8 { crc = crc & 1 == 0 ? crc >> 1 : crc >> 1 ^ 0x82f6_3b78 }
                unsafe memory[byte] = crc
            }
            for index in 256..<(16 * 256) {
                let previous = unsafe memory[index - 256]
                unsafe memory[index] = unsafe memory[Int(previous & 0xff)] ^ (previous >> 8)
            }
            unsafe values = UnsafePointer(memory)
        }
    }

    static func update(_ crc: UInt32, _ bytes: RawSpan) -> UInt32 {
        unsafe bytes.withUnsafeBytes { buffer in unsafe update(crc, buffer) }
    }

    /// As if four zero bytes followed.
    static func updateWithFourZeros(_ crc: UInt32) -> UInt32 { unsafe four(tables.values, crc) }

    @inline(__always)
    private static func four(_ table: UnsafePointer<UInt32>, _ word: UInt32) -> UInt32 {
        // The byte that comes first has the most bytes after it, so it takes the highest of the four tables.
        unsafe table[768 + Int(word & 0xff)] ^ table[512 + Int(word >> 8 & 0xff)]
            ^ table[256 + Int(word >> 16 & 0xff)] ^ table[Int(word >> 24)]
    }

    private static func update(_ initial: UInt32, _ buffer: UnsafeRawBufferPointer) -> UInt32 {
        guard let base = buffer.baseAddress else { return initial }
        let table = unsafe tables.values
        let count = buffer.count
        var crc = initial
        var offset = 0
        while count - offset >= 16 {
            let a =
                unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
                ^ UInt64(crc)
            let b = unsafe UInt64(
                littleEndian: base.loadUnaligned(fromByteOffset: offset + 8, as: UInt64.self))
            let first = unsafe four(table + 12 * 256, UInt32(truncatingIfNeeded: a))
            let second = unsafe four(table + 8 * 256, UInt32(truncatingIfNeeded: a >> 32))
            let third = unsafe four(table + 4 * 256, UInt32(truncatingIfNeeded: b))
            let fourth = unsafe four(table, UInt32(truncatingIfNeeded: b >> 32))
            crc = first ^ second ^ third ^ fourth
            offset += 16
        }
        while count - offset >= 4 {
            let word =
                unsafe UInt32(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) ^ crc
            crc = unsafe four(table, word)
            offset += 4
        }
        while offset < count {
            let byte = unsafe base.load(fromByteOffset: offset, as: UInt8.self)
            crc = unsafe crc >> 8 ^ table[Int((crc ^ UInt32(byte)) & 0xff)]
            offset += 1
        }
        return crc
    }
}
