public import VarveOCI
package import VarveSystem

/// The name of a chain's subvolume: the OCI ChainID of the layer prefix that it holds, as `sha256-HEX`, and a suffix
/// for options that make another tree of the same layers, so that two variants never collide.
public struct ChainName: Hashable, Sendable, CustomStringConvertible {
    /// The ChainID of the layers.
    public let chainID: ChainID
    /// Empty for the plain tree, else a dash and a word for each option.
    public let variant: String

    package init(_ chainID: ChainID, variant: String = "") {
        self.chainID = chainID
        self.variant = variant
    }

    /// Nil if `name` is not one that a chain can have.
    public init?(_ name: String) {
        let parts = Array(name.utf8).split(
            separator: UInt8(ascii: "-"), maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count >= 2, let digest = Digest(utf8: parts[0] + [UInt8(ascii: ":")] + parts[1])
        else { return nil }
        let variant = parts.count == 3 ? "-" + String(decoding: parts[2], as: UTF8.self) : ""
        let allowed = variant.utf8.allSatisfy { byte in
            byte == UInt8(ascii: "-") || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        }
        guard allowed, variant != "-" else { return nil }
        self.init(ChainID(digest), variant: variant)
    }

    public var description: String { chainID.fileName + variant }
    package var path: BytePath { BytePath(description) }
}
