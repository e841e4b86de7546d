import VarveFormats
package import VarveOCI
import VarveSystem

/// For which layer prefixes of an image an unpack leaves a chain behind, besides the whole image.
///
/// A chain costs a commit of the file system, which waits until all that was written is on the disk. It pays when
/// another image has the same prefix.
public enum ChainPolicy: String, Sendable, CaseIterable {
    /// Each prefix.
    case all
    /// The prefixes that another image may have, as far as can be told: see `prefixes(of:above:)`. In a store that a containerd has
    /// snapshots in, each prefix: containerd asks for each.
    case auto
    /// The whole image alone.
    case last

    /// Layers whose history entries are further apart were not made in one go, so the lower one was there before, and
    /// other images may stand on it. Seconds.
    static let goLimit: Int64 = 3600
    /// Compressed bytes of layers after which `auto` makes a chain in any case: the most that an image has to do again
    /// because of a chain that `auto` did not make.
    static let redoLimit: Int64 = 128 << 20

    /// The indices of the layers after which a chain is made, the lowest first; the last layer is always among them.
    ///
    /// `auto` makes a chain after a layer
    /// * if another image of the same layout has the layers up to it, and then another one, or none;
    /// * if the layer above was not made in one go with it: their times of creation in the image's history lie more
    ///   than an hour apart, as where a base image ends and what was built on it begins. Where the history does not
    ///   tell the times (or gives 1970, as some builders do for the same bytes each time), every prefix counts as one
    ///   that others may have;
    /// * if the layers since the last chain have 128 MiB or more, compressed.
    ///
    /// - Parameter first: the lowest layer that is still to be applied.
    package func prefixes(of image: ResolvedImage, above first: Int) -> [Int] {
        let layers = image.layers
        guard first < layers.count else { return [] }
        let last = layers.count - 1
        switch self {
        case .all: return Array(first...last)
        case .last: return [last]
        case .auto: break
        }
        let times = Self.creationTimes(of: image)
        // What cannot be read is not known to be shared.
        let shared = (try? image.layout.sharedPrefixes(with: image)) ?? []
        var result: [Int] = []
        var bytes: Int64 = 0
        for index in first..<last {
            bytes = bytes.addingSaturating(layers[index].size)
            let isOneGo = Self.isOneGo(times?[index], times?[index + 1])
            if isOneGo, !shared.contains(index + 1), bytes < Self.redoLimit { continue }
            result.append(index)
            bytes = 0
        }
        return result + [last]
    }

    private static func isOneGo(_ lower: Timestamp?, _ upper: Timestamp?) -> Bool {
        guard let lower, let upper else { return false }
        return abs(upper.seconds - lower.seconds) <= goLimit
    }

    /// When each layer was made; nil if the history does not go with the layers.
    private static func creationTimes(of image: ResolvedImage) -> [Timestamp?]? {
        let history = image.config.history.filter { !$0.isEmptyLayer }
        guard history.count == image.layers.count else { return nil }
        return history.map { entry in
            guard let time = entry.created.flatMap(RFC3339.parse), time.seconds > 86_400 * 365 else {
                return nil
            }
            return time
        }
    }
}
