internal import VarveFormats
import VarveSystem

/// What an image runs on (image-spec image-index.md, "platform"; the values are Go's GOOS and GOARCH).
public struct Platform: Hashable, Sendable, CustomStringConvertible {
    /// The operating system, as Go names it (`GOOS`).
    public let os: String
    /// The architecture, as Go names it (`GOARCH`).
    public let architecture: String
    /// Nil where it is the usual one of its architecture.
    public let variant: String?

    /// Other names of an architecture and its usual variant are brought to one form: `arm64/v8` is `arm64`.
    public init(os: String, architecture: String, variant: String? = nil) {
        var architecture = architecture.lowercased()
        var variant = variant.flatMap { $0.isEmpty ? nil : $0.lowercased() }
        switch architecture {
        case "x86_64", "x86-64": architecture = "amd64"
        case "aarch64": architecture = "arm64"
        case "i386", "i486", "i586", "i686": architecture = "386"
        case "armhf": (architecture, variant) = ("arm", variant ?? "v7")
        case "armel": (architecture, variant) = ("arm", variant ?? "v6")
        default: break
        }
        if let written = variant, let first = written.first, first.isNumber { variant = "v" + written }
        switch (architecture, variant) {
        case ("arm64", "v8"), ("amd64", "v1"): variant = nil
        case ("arm", nil): variant = "v7"
        default: break
        }
        self.os = os.lowercased()
        self.architecture = architecture
        self.variant = variant
    }

    /// `OS/ARCH` or `OS/ARCH/VARIANT`.
    package init(parsing text: String) throws(OCIError) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard (2...3).contains(parts.count), parts.allSatisfy({ !$0.isEmpty }) else {
            throw .usage(
                "\"\(text)\" is no platform: write OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64/v8",
                subject: BytePath(text))
        }
        self.init(os: parts[0], architecture: parts[1], variant: parts.count == 3 ? parts[2] : nil)
    }

    /// Linux on the architecture that this program was built for.
    public static var host: Platform {
        #if arch(x86_64)
            Platform(os: "linux", architecture: "amd64")
        #elseif arch(arm64)
            Platform(os: "linux", architecture: "arm64")
        #elseif arch(arm)
            Platform(os: "linux", architecture: "arm")
        #elseif arch(i386)
            Platform(os: "linux", architecture: "386")
        #elseif arch(powerpc64le)
            Platform(os: "linux", architecture: "ppc64le")
        #elseif arch(s390x)
            Platform(os: "linux", architecture: "s390x")
        #else
            Platform(os: "linux", architecture: "riscv64")
        #endif
    }

    public var description: String { "\(os)/\(architecture)" + (variant.map { "/" + $0 } ?? "") }

    /// How well an image of platform `self` does for `wanted`: 0 exact, higher is less, nil not at all. A
    /// lower variant of the same architecture runs on a higher one, except that ARM v8 images never stand in
    /// for 32-bit ones.
    package func distance(from wanted: Platform) -> Int? {
        guard sameBytes(os, wanted.os), sameBytes(architecture, wanted.architecture) else { return nil }
        if sameBytes(variant ?? "", wanted.variant ?? "") { return 0 }
        guard let mine = level, let theirs = wanted.level, mine <= theirs else { return nil }
        return theirs - mine
    }

    /// The variant as a number, where variants of the architecture build on each other.
    private var level: Int? {
        let usual: Int
        switch architecture {
        case "amd64": usual = 1
        case "arm": usual = 7
        default: return nil
        }
        guard let variant else { return usual }
        guard variant.first == "v", let level = Int(variant.dropFirst()), (1...99).contains(level) else {
            return nil
        }
        return level
    }
}
