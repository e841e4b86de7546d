import VarveSystem

/// Paths that are left out of a layer, with all that is below them.
///
/// The image says how many there are and how long, and a container how many changes are looked up and how deep they lie. So the paths
/// are kept as they are, in order, none below another: only the last one that does not come behind a path can cover it.
struct PathMask {
    /// Cleaned paths with a NUL for each slash: then a directory is followed by what lies in it, and nothing comes between.
    private var masked: [[UInt8]] = []

    /// Bytes of the paths that are kept.
    var size: Int { masked.reduce(0) { $0 + $1.count } }

    init(_ paths: [BytePath]) {
        for key in paths.map(Self.key).sorted(by: Self.precedes) where !covers(key) { masked.append(key) }
    }

    /// Whether `path`, or a directory that it lies in, is masked.
    func covers(_ path: BytePath) -> Bool { masked.isEmpty ? false : covers(Self.key(path)) }

    private func covers(_ key: [UInt8]) -> Bool {
        var (low, high) = (0, masked.count)
        while low < high {
            let middle = (low + high) / 2
            if Self.precedes(key, masked[middle]) { high = middle } else { low = middle + 1 }
        }
        guard low > 0 else { return false }
        let last = masked[low - 1]
        return key.starts(with: last) && (last.isEmpty || key.count == last.count || key[last.count] == 0)
    }

    private static func key(_ path: BytePath) -> [UInt8] {
        path.cleaned.bytes.map { $0 == UInt8(ascii: "/") ? 0 : $0 }
    }

    private static func precedes(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        left.lexicographicallyPrecedes(right)
    }
}
