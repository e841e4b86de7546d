import VarveFormats
import ArgumentParser
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem

/// A path, as bytes.
struct PathArgument: ExpressibleByArgument {
    let path: BytePath

    init?(argument: String) {
        guard let path = BytePath(ArgumentText.decode(argument)), !path.isEmpty else { return nil }
        self.path = path
    }

    static let defaultCompletionKind = CompletionKind.file()
}

/// Text that goes into an image or names something, so it must be UTF-8.
struct TextArgument: ExpressibleByArgument {
    let text: String

    init?(argument: String) {
        let argument = ArgumentText.unmarked(argument)
        guard !ArgumentText.isEncoded(argument) else { return nil }
        text = argument
    }
}

/// `OS/ARCH[/VARIANT]`.
struct PlatformArgument: ExpressibleByArgument {
    let platform: Platform

    init?(argument: String) {
        guard let platform = try? Platform(parsing: argument) else { return nil }
        self.platform = platform
    }
}

/// An RFC 3339 time.
struct TimeArgument: ExpressibleByArgument {
    let time: Timestamp

    init?(argument: String) {
        guard let time = RFC3339.parse(argument) else { return nil }
        self.time = time
    }
}

/// A number of bytes: `4294967296`, `4096M`, `4G`, `4GiB`; powers of 1024, or of 1000 for `KB` to `TB`.
struct SizeArgument: ExpressibleByArgument, Equatable {
    let bytes: Int64

    init?(argument: String) {
        let digits = argument.prefix { $0.isASCII && $0.isNumber }
        guard let number = Int64(digits) else { return nil }
        let unit = argument.dropFirst(digits.count).lowercased()
        let factor: Int64? =
            switch unit {
            case "", "b": 1
            case "k", "kib": 1 << 10
            case "m", "mib": 1 << 20
            case "g", "gib": 1 << 30
            case "t", "tib": 1 << 40
            case "kb": 1_000
            case "mb": 1_000_000
            case "gb": 1_000_000_000
            case "tb": 1_000_000_000_000
            default: nil
            }
        guard let factor else { return nil }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: factor)
        guard !overflow else { return nil }
        self.bytes = bytes
    }
}

/// A size, `4G`, or what is to be more or less: `+4G`, `-4G`.
struct NewSizeArgument: ExpressibleByArgument {
    let size: LoopbackStore.NewSize

    /// U+2212.
    static let minus = "\u{2212}"

    init?(argument: String) {
        let sign: Int64 = argument.hasPrefix(Self.minus) ? -1 : 1
        let isChange = sign < 0 || argument.hasPrefix("+")
        guard let size = SizeArgument(argument: String(argument.dropFirst(isChange ? 1 : 0))) else {
            return nil
        }
        self.size = isChange ? .by(sign * size.bytes) : .bytes(size.bytes)
    }
}

/// `zstd`, `zstd:1` to `zstd:15`.
struct StoreCompressionArgument: ExpressibleByArgument {
    let compression: StoreCompression

    init?(argument: String) {
        guard let compression = StoreCompression(argument) else { return nil }
        self.compression = compression
    }

}

/// The permissions of a directory that its owner can use, in octal: `700` to `777`.
struct ModeArgument: ExpressibleByArgument {
    let mode: UInt32

    init?(argument: String) {
        guard let mode = UInt32(argument, radix: 8), mode <= 0o777, mode & 0o700 == 0o700 else { return nil }
        self.mode = mode
    }
}

/// A number of things, 0 or more.
struct CountArgument: ExpressibleByArgument {
    let count: Int

    init?(argument: String) {
        guard let count = Int(argument), count >= 0 else { return nil }
        self.count = count
    }
}

extension SizeArgument {
    /// As a size of memory.
    var byteCount: Int { Int(clamping: bytes) }
}

/// `--chains`.
enum ChainsArgument: String, ChoiceArgument {
    case all, auto, last

    var policy: ChainPolicy {
        switch self {
        case .all: .all
        case .auto: .auto
        case .last: .last
        }
    }
}

/// `--compress`.
enum CompressionArgument: String, ChoiceArgument {
    case auto, gzip, zstd, none

    /// Nil: as the image's topmost layer is.
    var compression: LayerCompression? {
        switch self {
        case .auto: nil
        case .gzip: .gzip
        case .zstd: .zstd
        case .none: LayerCompression.none
        }
    }
}

/// `--driver`.
enum DriverArgument: String, ChoiceArgument {
    case auto, btrfs, directory, hooks
}

/// `--source`.
enum SourceArgument: String, ChoiceArgument {
    case auto, stream, search, walk

    var source: DeltaSource {
        switch self {
        case .auto: .auto
        case .stream: .stream
        case .search: .search
        case .walk: .walk
        }
    }
}

/// `--error-format`: how the command says why it failed.
enum ErrorFormatArgument: String, ChoiceArgument {
    case text, json
}

/// `--log-format`.
enum LogFormatArgument: String, ChoiceArgument {
    case text, json

    var format: LogLine.Format {
        switch self {
        case .text: .text
        case .json: .json
        }
    }
}

/// `--log`.
enum LogLevelArgument: String, ChoiceArgument {
    case error, warn, info, debug
}
