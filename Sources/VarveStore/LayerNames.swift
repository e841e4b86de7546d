package import VarveOCI
package import VarveSystem
import SystemPackage

/// The names under which stores have a layer prefix of an image.
public struct LayerName: Sendable, Hashable, CustomStringConvertible {
    /// How many layers the prefix has.
    public var layers: Int
    /// The chain of the prefix, which is its OCI ChainID.
    public var chain: ChainName
    /// Whether the store holds the chain.
    public var isPresent: Bool
    /// The name that stacker's btrfs store gives the prefix (`StackerName`).
    public var stackerName: String
    /// Whether stacker's directory holds it; nil if none was given.
    public var isInStacker: Bool?

    package init(
        layers: Int, chain: ChainName, isPresent: Bool, stackerName: String, isInStacker: Bool? = nil
    ) {
        self.layers = layers
        self.chain = chain
        self.isPresent = isPresent
        self.stackerName = stackerName
        self.isInStacker = isInStacker
    }

    public var description: String {
        "\(layers): \(chain), \(isPresent ? "in the store" : "not in the store"), \(stackerName) for stacker"
    }

    /// The names of all prefixes of an image, the shortest first.
    ///
    /// - Parameters:
    ///   - store: the store that is asked; nil if there is none.
    ///   - stacker: the directory where stacker keeps its trees.
    /// - Throws: `VarveError` if that directory cannot be opened.
    package static func all(
        of image: ResolvedImage, in store: SnapshotStore?, stacker: BytePath? = nil
    ) throws -> [LayerName] {
        let others = try stacker.map { path in
            try attempt("open the directory", path) { () throws(Errno) in
                SharedDescriptor(try FileDescriptor.workingDirectory.open(path, [.directory]))
            }
        }
        let olderNames = StackerName.prefixes(of: image.layers)
        return try image.chainIDs.enumerated().map { index, chainID in
            let chain = ChainName(chainID)
            let older = olderNames[index]
            return LayerName(
                layers: index + 1, chain: chain, isPresent: try store?.chains.find(chain) != nil,
                stackerName: older,
                isInStacker: others.map { (try? $0.fd.status(of: BytePath(older)))?.isDirectory == true })
        }
    }
}
