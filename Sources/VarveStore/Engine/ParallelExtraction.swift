import VarveArchive
import Glibc
import Logging
import VarveLayers
import VarveOCI
import VarveSystem
import SystemPackage

/// Extracts layers side by side, each into a directory of its own.
///
/// The directories of all layers are asked for first. A bounded number of threads takes the layers from the bottom up; each layer is
/// finished in order, on the caller's thread. A layer that depends on something below waits for all layers below it to
/// be finished: the lowest one at work never waits, so they all come to their end.
struct ParallelExtraction {
    let layers: [Descriptor]
    let diffIDs: [DiffID]
    let layout: ImageLayout
    let options: Unpacking.Options
    let cancellation: Cancellation
    let progress: ProgressHandler
    private let omissions: Omissions
    private let allowance: UnpackAllowance

    init(
        layers: [Descriptor], diffIDs: [DiffID], layout: ImageLayout, options: Unpacking.Options,
        cancellation: Cancellation, omissions: Omissions, progress: @escaping ProgressHandler
    ) {
        self.layers = layers
        self.diffIDs = diffIDs
        self.layout = layout
        self.options = options
        self.cancellation = cancellation
        self.progress = progress
        self.omissions = omissions
        allowance = UnpackAllowance(options.limits)
    }

    private static let threadLimit = 4
    /// The threads of a layer: the one that extracts it, one that inflates, one that hashes and one that writes.
    private static let threadsPerLayer = 4

    /// Layers from `first` up.
    func run(_ unpack: any StackingUnpack, from first: Int) throws {
        let inPlace = unpack.lowerLayers
        guard inPlace.count == first else {
            throw VarveError(
                .failed,
                "the store has \(first) layers in place and told the directories of \(inPlace.count); layers cannot be extracted beside them"
            )
        }
        var targets: [LayerDirectory] = []
        for index in first..<layers.count {
            try cancellation.check()
            let target = try unpack.directory(forLayer: index) {
                progress(.layer(index: index, isWaiting: true))
                try cancellation.check()
            }
            targets.append(target)
        }
        let roots =
            inPlace
            + targets.map { LowerLayer(root: $0.root, whiteouts: $0.layer.whiteouts) }
        let count = max(
            1,
            min(
                Self.threadLimit, sysconf(Int32(_SC_NPROCESSORS_ONLN)), targets.count,
                1 + max(0, options.helpers) / Self.threadsPerLayer))
        let state = ParallelState(first: first, targets: targets, roots: roots)
        let budgetBytes = max(options.memory / count, 1 << 20)
        let bytesRead = SharedCounter()
        var threads: [WorkerThread] = []
        defer { threads.forEach { $0.join() } }
        do throws(Errno) {
            for _ in 0..<count {
                // A layer that waits keeps its slabs: none may share them.
                let budget = MemoryBudget(bytes: budgetBytes)
                threads.append(
                    try WorkerThread(name: "varve-layer") { [self] in
                        work(state, budget, bytesRead)
                    })
            }
        } catch {
            state.fail(
                layers.count,
                VarveError(
                    .failed, "cannot start a thread: \(error)", remedy: .raiseLimit(.processes)))
        }
        do {
            for index in first..<layers.count {
                if let applier = try state.waitForExtraction(of: index) {
                    try applier.finishAboveLower()
                    omissions.note(applier.omissions, of: layers[index], index)
                }
                try cancellation.check()
                try unpack.didExtract(layer: index)
                state.finished(index)
            }
        } catch {
            state.fail(layers.count, error)
            threads.forEach { $0.join() }
            throw state.failure ?? error
        }
    }

    private func work(_ state: ParallelState, _ budget: MemoryBudget, _ bytesRead: SharedCounter) {
        while let index = state.take() {
            do {
                state.extracted(index, try extract(index, state, budget, bytesRead))
            } catch {
                state.fail(index, error)
            }
        }
    }

    /// Nil if the layer was there already.
    private func extract(
        _ index: Int, _ state: ParallelState, _ budget: MemoryBudget, _ bytesRead: SharedCounter
    ) throws -> LayerApplier? {
        let target = state.target(index)
        if target.isInPlace { return nil }
        progress(.layer(index: index, isWaiting: false))
        let stream = try LayerStream(
            layers[index], diffID: diffIDs[index], from: layout, budget: budget, bytesRead: bytesRead,
            cancellation: cancellation)
        let applier = LayerApplier(
            root: target.root.fd, isBottom: index == 0, options: options.apply,
            cancellation: cancellation, standalone: target.layer
        ) { try state.waitForAll(below: index) }
        try stream.apply(with: applier, allowance) {
            try cancellation.check()
            try state.check()
            progress(.read(bytes: bytesRead.count))
        }
        return applier
    }
}

/// What the threads of a parallel extraction know of each other.
private final class ParallelState: @unchecked Sendable {
    private let monitor = Monitor()
    private let changed = Condition()
    private let first: Int
    private let targets: [LayerDirectory]
    private let roots: [LowerLayer]
    /// All guarded by the monitor.
    private var next: Int
    private var appliers: [Int: LayerApplier?] = [:]
    private var finishedCount: Int
    private var failures: [Int: any Error] = [:]

    init(first: Int, targets: [LayerDirectory], roots: [LowerLayer]) {
        self.first = first
        self.targets = targets
        self.roots = roots
        next = first
        finishedCount = first
    }

    func target(_ index: Int) -> LayerDirectory { targets[index - first] }

    /// The next layer to extract; nil if there is none, or something failed.
    func take() -> Int? {
        monitor.locked {
            guard failures.isEmpty, next - first < targets.count else { return nil }
            next += 1
            return next - 1
        }
    }

    func extracted(_ index: Int, _ applier: LayerApplier?) {
        monitor.locked {
            appliers[index] = .some(applier)
            changed.broadcast()
        }
    }

    func finished(_ index: Int) {
        monitor.locked {
            finishedCount = index + 1
            changed.broadcast()
        }
    }

    func fail(_ index: Int, _ error: any Error) {
        monitor.locked {
            // What was stopped for another's failure is none.
            if !(error is Stopped) { failures[index] = error }
            changed.broadcast()
        }
    }

    /// That of the lowest layer.
    var failure: (any Error)? {
        monitor.locked { failures.min { $0.key < $1.key }?.value }
    }

    func check() throws {
        if monitor.locked({ !failures.isEmpty }) { throw Stopped() }
    }

    func waitForExtraction(of index: Int) throws -> LayerApplier? {
        try monitor.locked {
            while failures.isEmpty {
                if let applier = appliers.removeValue(forKey: index) { return applier }
                monitor.wait(for: changed)
            }
            throw Stopped()
        }
    }

    func waitForAll(below index: Int) throws -> LowerTree {
        try monitor.locked {
            while failures.isEmpty {
                if finishedCount >= index { return LowerTree(Array(roots[..<index])) }
                monitor.wait(for: changed)
            }
            throw Stopped()
        }
    }

    /// Another layer failed.
    private struct Stopped: Error {}
}
