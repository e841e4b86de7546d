import Synchronization
import SystemPackage
import TestSupport
import Testing
import VarveDriverKit
import VarveDriverTesting
import VarveOCI
import VarveStore
import VarveSystem

@testable import driver_example

/// The contract as authors of drivers get it, on every driver that there is, and on drivers that are wrong.
@Suite struct DriverTestingTests {
    enum Subject: String, CaseIterable, CustomTestStringConvertible {
        case btrfs, directory, directoryElsewhere, hooks, example, wrapper

        var testDescription: String { rawValue }
    }

    @Test("A driver does what the contract says", arguments: Subject.allCases, DriverContract.Rule.allCases)
    func holds(_ subject: Subject, _ rule: DriverContract.Rule) throws {
        let world = try StoreWorld()
        let elsewhere = try TemporaryDirectory()
        let remove: @Sendable (BytePath) throws -> Void = { bundle in
            try BundleRemoval.remove(bundle) { try world.store() }
        }
        let contract =
            switch subject {
            case .btrfs:
                DriverContract(in: world.path, removeBundle: remove) { BtrfsDriver(store: try world.store()) }
            case .directory: DriverContract(in: world.path) { DirectoryDriver() }
            case .directoryElsewhere: DriverContract(in: elsewhere.path) { DirectoryDriver() }
            case .hooks:
                DriverContract(in: world.path, canRefresh: false, removeBundle: remove) {
                    try HooksDriver.ofTheCommand(world)
                }
            case .example: DriverContract(in: elsewhere.path, canRefresh: false) { FolderDriver() }
            case .wrapper: DriverContract(in: elsewhere.path) { WrappingDriver(DirectoryDriver()) }
            }
        #expect(try contract.violations(of: rule) == [])
        // Nothing of the contract is left.
        for place in [world.path, elsewhere.path] {
            let opened = try FileDescriptor.workingDirectory.openDirectory(place)
            #expect(try opened.fd.entries().allSatisfy { !$0.name.description.hasPrefix("varve-contract") })
        }
    }

    @Test("A driver that is wrong is found out", arguments: WrongDriver.Fault.allCases)
    func fails(_ fault: WrongDriver.Fault) throws {
        let place = try TemporaryDirectory()
        let contract = DriverContract(in: place.path, canRefresh: false) { WrongDriver(fault: fault) }
        let found = DriverContract.Rule.allCases.filter { rule in
            // Where the driver fails altogether, that is a finding too.
            do { return try !contract.violations(of: rule).isEmpty } catch { return true }
        }
        #expect(found.contains(fault.rule), "\(found)")
    }
}

/// A driver that hands everything on to another one, as one does that adds something of its own.
struct WrappingDriver: StorageDriver {
    private let wrapped: any StorageDriver
    var name: String { "wrapping-\(wrapped.name)" }

    init(_ wrapped: any StorageDriver) { self.wrapped = wrapped }

    func beginUnpack(_ context: UnpackContext) throws -> UnpackTransaction {
        try wrapped.beginUnpack(context)
    }
    func freeze(_ context: RepackContext) throws -> any FrozenBundle { try wrapped.freeze(context) }
}

/// Plain directories, with one fault.
struct WrongDriver: StorageDriver {
    enum Fault: String, CaseIterable, CustomTestStringConvertible {
        case missesAChange, inventsAChange, leavesUnfinished, takesAnyPlace

        var testDescription: String { rawValue }

        var rule: DriverContract.Rule {
            switch self {
            case .missesAChange, .inventsAChange: .delta
            case .leavesUnfinished: .damagedImage
            case .takesAnyPlace: .occupiedPlace
            }
        }
    }

    let fault: Fault
    var name: String { "wrong" }

    func beginUnpack(_ context: UnpackContext) throws -> UnpackTransaction {
        switch fault {
        case .leavesUnfinished:
            try? FileDescriptor.workingDirectory.makeDirectory(
                context.bundle.appendingBytes("-unfinished"), mode: 0o755)
        case .takesAnyPlace: try? Trees.remove(context.bundle)
        case .missesAChange, .inventsAChange: break
        }
        return try DirectoryDriver().beginUnpack(context)
    }

    func freeze(_ context: RepackContext) throws -> any FrozenBundle {
        WrongBundle(try DirectoryDriver().freeze(context), fault)
    }
}

private final class WrongBundle: FrozenBundle {
    private let wrapped: any FrozenBundle
    private let fault: WrongDriver.Fault
    var root: SharedDescriptor { wrapped.root }

    init(_ wrapped: any FrozenBundle, _ fault: WrongDriver.Fault) {
        self.wrapped = wrapped
        self.fault = fault
    }

    func delta(onEntry: @escaping @Sendable () throws -> Void) throws -> DeltaResult {
        var result = try wrapped.delta(onEntry: onEntry)
        switch fault {
        case .missesAChange: _ = result.changes.popLast()
        case .inventsAChange:
            if let last = result.changes.last {
                result.changes.append(
                    Change(kind: .deleted, path: last.path.appendingBytes("-none"), type: .regular))
            }
        case .leavesUnfinished, .takesAnyPlace: break
        }
        return result
    }

    func publish(chainIDs: [ChainID], options: ApplyOptions, layer: (ExtractionTarget) throws -> Void) throws
        -> Bool
    { try wrapped.publish(chainIDs: chainIDs, options: options, layer: layer) }

    func refresh(manifest: Digest, chainID: ChainID?, options: ApplyOptions, files: [BundleFile]) throws {
        try wrapped.refresh(manifest: manifest, chainID: chainID, options: options, files: files)
    }
}
