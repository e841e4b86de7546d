public import VarveDriverKit
public import VarveStore
public import VarveSystem

/// What every storage driver must do, as checks that the test of a driver runs:
///
///     let contract = DriverContract(in: "/var/tmp/contract") { MyDriver() }
///     for rule in DriverContract.Rule.allCases {
///         #expect(try contract.violations(of: rule) == [])
///     }
///
/// The checks need root, as images have files of any owner, and devices.
public struct DriverContract: Sendable {
    /// One thing that a driver must do.
    public enum Rule: String, Sendable, CaseIterable {
        /// An image gives the tree of its layers, at once and again; a bundle in which nothing changed has no delta.
        case tree
        /// An image without layers is an empty tree, and can be changed.
        case emptyImage
        /// The delta of a bundle is exact, and its layer on top of the image gives the tree of the bundle.
        case delta
        /// After a refresh only later changes count.
        case refresh
        /// An image that is damaged leaves nothing behind.
        case damagedImage
        /// An unpack that is cancelled leaves nothing behind.
        case cancelled
        /// The place of a bundle must be free, and stays as it is if it is not.
        case occupiedPlace
        /// A directory that is no bundle is not taken for one.
        case noBundle
    }

    private let place: BytePath
    private let canRefresh: Bool
    private let removeBundle: @Sendable (BytePath) throws -> Void
    private let makeDriver: @Sendable () throws -> any StorageDriver

    /// - Parameters:
    ///   - place: a directory that is there, on a file system on which the driver makes bundles. All that the checks make lies in a
    ///     directory below it, and is gone at the end.
    ///   - canRefresh: whether the driver can refresh a bundle; one that cannot is not asked to.
    ///   - removeBundle: deletes a bundle, where deleting its directory is not enough.
    ///   - makeDriver: makes the driver anew, as another process would.
    public init(
        in place: BytePath, canRefresh: Bool = true,
        removeBundle: @escaping @Sendable (BytePath) throws -> Void = { try Trees.remove($0) },
        makeDriver: @escaping @Sendable () throws -> any StorageDriver
    ) {
        self.place = place
        self.canRefresh = canRefresh
        self.removeBundle = removeBundle
        self.makeDriver = makeDriver
    }

    /// Checks one rule.
    ///
    /// - Parameter rule: what is checked.
    /// - Returns: a sentence for each thing that is wrong; nothing if the driver does what it must.
    /// - Throws: what keeps the check from being made, such as a driver that fails where it must not.
    public func violations(of rule: Rule) throws -> [String] {
        if rule == .refresh, !canRefresh { return [] }
        let world = try ContractWorld(place, removeBundle: removeBundle, makeDriver: makeDriver)
        defer { world.remove() }
        switch rule {
        case .tree: try world.checkTree()
        case .emptyImage: try world.checkEmptyImage()
        case .delta: try world.checkDelta()
        case .refresh: try world.checkRefresh()
        case .damagedImage: try world.checkDamagedImage()
        case .cancelled: try world.checkCancelled()
        case .occupiedPlace: try world.checkOccupiedPlace()
        case .noBundle: try world.checkNoBundle()
        }
        return world.violations
    }
}
