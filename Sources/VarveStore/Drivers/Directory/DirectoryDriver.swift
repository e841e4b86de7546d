package import Logging
import VarveSystem

/// Bundles as plain directories, on any file system: every layer is extracted for each of them, and what a delta counts
/// from is a record of the tree that lies beside it (`RecordedTree`).
///
/// It repacks bundles of umoci too, by their mtree file.
public struct DirectoryDriver: StorageDriver {
    private let logger: Logger

    public var name: String { "directory" }

    package init(logger: Logger = Logger(label: "varve")) { self.logger = logger }

    public func beginUnpack(_ context: UnpackContext) throws -> UnpackTransaction {
        try driverErrors { .cumulative(DriverUnpack(try DirectoryUnpack(context))) }
    }

    public func freeze(_ context: RepackContext) throws -> any FrozenBundle {
        try driverErrors { DriverBundle(try DirectoryFrozenBundle(context, logger: logger)) }
    }
}
