/// How the data of an `encoded_write` is compressed: `BTRFS_ENCODED_IO_COMPRESSION_*` in linux/btrfs.h.
///
/// The sector size of LZO is that of the file system on which the file was written (fs/btrfs/lzo.c).
public enum SendCompression: Hashable, Sendable, CustomStringConvertible {
    /// 0: not compressed. A kernel sends such data as a `write`.
    case none
    /// 1: one zlib stream (RFC 1950).
    case zlib
    /// 2: one zstd frame (RFC 8878) with a window of at most 128 KiB.
    case zstd
    /// 3: LZO in sectors of 4 KiB.
    case lzo4K
    /// 4: LZO in sectors of 8 KiB.
    case lzo8K
    /// 5: LZO in sectors of 16 KiB.
    case lzo16K
    /// 6: LZO in sectors of 32 KiB.
    case lzo32K
    /// 7: LZO in sectors of 64 KiB.
    case lzo64K
    /// A number that linux/btrfs.h did not define when this was written: 8 or higher.
    case unknown(UInt32)

    /// The numbers 0 to 7, in order.
    private static let known: [SendCompression] = [
        .none, .zlib, .zstd, .lzo4K, .lzo8K, .lzo16K, .lzo32K, .lzo64K,
    ]

    /// The compression that has this number in a stream.
    public init(number: UInt32) {
        self = Self.known.indices.contains(Int(number)) ? Self.known[Int(number)] : .unknown(number)
    }

    /// The number in a stream.
    public var number: UInt32 {
        switch self {
        case .none: 0
        case .zlib: 1
        case .zstd: 2
        case .lzo4K: 3
        case .lzo8K: 4
        case .lzo16K: 5
        case .lzo32K: 6
        case .lzo64K: 7
        case .unknown(let number): number
        }
    }

    /// `none`, `zlib`, `zstd`, `lzo_4k` … `lzo_64k`: the kernel's names in lower case. The digits of an unknown number.
    public var description: String {
        switch self {
        case .none: "none"
        case .zlib: "zlib"
        case .zstd: "zstd"
        case .lzo4K: "lzo_4k"
        case .lzo8K: "lzo_8k"
        case .lzo16K: "lzo_16k"
        case .lzo32K: "lzo_32k"
        case .lzo64K: "lzo_64k"
        case .unknown(let number): "\(number)"
        }
    }
}
