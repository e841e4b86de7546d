import VarveLayers
import VarveOCI
import VarveSystem

// A driver of this package may be called by a driver of somebody else's that wraps it. What it throws is then a `VarveError`, as the
// façade's errors are, and none of the modules below.

/// Runs what a driver does. Whatever it throws is a `VarveError`.
func driverErrors<R>(_ body: () throws -> R) throws(VarveError) -> R {
    do { return try body() } catch { throw VarveError(converting: error) }
}

/// An unpack that throws nothing but `VarveError`.
final class DriverUnpack: CumulativeUnpack {
    private let unpack: any CumulativeUnpack

    init(_ unpack: any CumulativeUnpack) { self.unpack = unpack }

    var layersInPlace: Int { unpack.layersInPlace }

    func target(forLayer index: Int, whileWaiting: () throws -> Void) throws -> ExtractionTarget? {
        try driverErrors { try unpack.target(forLayer: index, whileWaiting: whileWaiting) }
    }

    func didExtract(layer index: Int) throws { try driverErrors { try unpack.didExtract(layer: index) } }

    func rootfs() throws -> SharedDescriptor { try driverErrors { try unpack.rootfs() } }

    func record(onEntry: () throws -> Void) throws -> RecordedTree {
        try driverErrors { try unpack.record(onEntry: onEntry) }
    }

    func runtimeConfiguration(_ proposed: [UInt8]) throws -> [UInt8] {
        try driverErrors { try unpack.runtimeConfiguration(proposed) }
    }

    func finish(files: [BundleFile]) throws { try driverErrors { try unpack.finish(files: files) } }
}

/// A frozen bundle that throws nothing but `VarveError`.
final class DriverBundle: FrozenBundle {
    private let bundle: any FrozenBundle

    init(_ bundle: any FrozenBundle) { self.bundle = bundle }

    var root: SharedDescriptor { bundle.root }

    func delta(onEntry: @escaping @Sendable () throws -> Void) throws -> DeltaResult {
        try driverErrors { try bundle.delta(onEntry: onEntry) }
    }

    func publish(
        chainIDs: [ChainID], options: ApplyOptions, layer: (ExtractionTarget) throws -> Void
    ) throws -> Bool {
        try driverErrors { try bundle.publish(chainIDs: chainIDs, options: options, layer: layer) }
    }

    func adopt(chainIDs: [ChainID], options: ApplyOptions) throws -> Bool {
        try driverErrors { try bundle.adopt(chainIDs: chainIDs, options: options) }
    }

    func refresh(manifest: Digest, chainID: ChainID?, options: ApplyOptions, files: [BundleFile]) throws {
        try driverErrors {
            try bundle.refresh(manifest: manifest, chainID: chainID, options: options, files: files)
        }
    }

    func didRepack(_ manifest: Descriptor, tag: String) throws {
        try driverErrors { try bundle.didRepack(manifest, tag: tag) }
    }
}
