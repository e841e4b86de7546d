import Glibc
import VarveOCI
import VarveStore
import Synchronization
import VarveSystem
import SystemPackage
import TestSupport
import Testing
import Varve

/// What calls of one process take together, and how those that wait get to their turn.
@Suite struct WorkshopTests {
    /// Counts what `crowd` prints.
    private static func crowd(
        _ world: StoreWorld, _ count: Int, calls: Int, lock: String, _ images: [String]
    ) throws -> [String: Int] {
        let words =
            [try builtProgram("crowd"), "\(world.storePath)", "\(world.path)", "\(count)", "\(calls)", lock]
            + images.map { "\(world.layoutPath):\($0)" }
        let output = try runSuccessfully(words).outputText
        let lines = output.split(separator: "\n").map { $0.split(separator: " ") }
        return Dictionary(uniqueKeysWithValues: lines.map { (String($0[0]), Int($0[1]) ?? -1) })
    }

    /// Images with a first layer in common and others of their own.
    private static func addImages(_ world: StoreWorld, _ tags: [String]) throws -> [String: [StoreLayer]] {
        let common = try StoreLayer([.directory("etc/"), .file("etc/passwd", "root:x:0:0::/:/bin/sh\n")])
        var images: [String: [StoreLayer]] = [:]
        for tag in tags {
            let layers = try ["x", "y", tag].map { name in
                try StoreLayer((0..<20).map { .file(BytePath("\(name)/f\($0)"), "\(name) \($0)") })
            }
            images[tag] = [common] + layers
            try world.addImage(tag, [common] + layers)
        }
        return images
    }

    /// All wait while the test's program holds the lock of the chain that they begin with: some of them for the lock, the
    /// others for a place. So the figures are exact, whatever the machine is.
    @Test("300 calls at once take few threads; those that wait can be cancelled; the others come out right")
    func threeHundred() throws {
        let world = try StoreWorld(size: 4 << 30)
        let images = try Self.addImages(world, ["a", "b", "c"])
        let layers = try #require(images["a"])
        let first = try world.chainNames(layers)[0]
        let counts = try Self.crowd(world, 300, calls: 8, lock: first, ["a", "b", "c"])
        let limit = try #require(counts["limit"])
        // The program's own: the main thread, those of Swift's concurrency, the one that counts, and threads of the
        // last moment that have not ended yet.
        let others = try #require(counts["processors"]) + 4
        #expect(counts["running"] == 8)
        // Those that wait for the lock have no thread but their own.
        let (threads, peak) = (try #require(counts["threads"]), try #require(counts["peak"]))
        #expect(threads <= 8 + others)
        #expect(peak <= limit + others)
        #expect(counts["cancelled"] == 150)
        #expect(counts["done"] == 150)
        // The workshop's memory and what each of eight calls has beside it, in a debug build.
        let memory = try #require(counts["memory"])
        #expect(memory < (256 + 8 * 16 + 64) << 20)

        let made = try world.names(in: ".").filter { $0.hasPrefix("b") }
        #expect(made.count == 150)
        let tags = ["a", "b", "c"]
        for tag in tags {
            let layers = try #require(images[tag])
            let reference = try world.reference(layers)
            for index in 0..<300 where index % 2 == 1 && tags[index % 3] == tag {
                let rootfs = try world.open("b\(index)/rootfs")
                #expect(try TreeCompare.differences(reference.fd, rootfs.fd) == [], "b\(index)")
            }
        }
        try world.expectClean()
    }

    @Test("The counter of threads counts")
    func counter() throws {
        let world = try StoreWorld()
        let images = try Self.addImages(world, ["a"])
        let layers = try #require(images["a"])
        let first = try world.chainNames(layers)[0]
        let counts = try Self.crowd(world, 60, calls: 60, lock: first, ["a"])
        #expect(counts["running"] == 60)
        let threads = try #require(counts["threads"])
        #expect(threads > 60)
    }

    /// One place: if a call that waits for it held the lock of a chain, nobody would ever come to an end.
    @Test("Calls that build each other's chains all come to their end", arguments: [1, 2, 5])
    func noDeadlock(_ calls: Int) async throws {
        let world = try StoreWorld(size: 2 << 30)
        let images = try Self.addImages(world, ["a", "b", "c"])
        let workshop = VarveStore.Workshop(VarveStore.Workshop.Limits(calls: calls, helpers: 0, memory: 0))
        let stores = [
            try await LayerStore.open(world.storePath, workshop: workshop),
            try await LayerStore.open(world.storePath, workshop: workshop),
        ]
        let layout = world.layoutPath
        try await withThrowingTaskGroup { group in
            for index in 0..<36 {
                let tag = ["a", "b", "c"][index % 3]
                let bundle = world.bundle("b\(index)")
                group.addTask {
                    let store = stores[index % 2]
                    var options = Unpacking.Options()
                    options.chains = ChainPolicy.allCases[index % 4 % 3]
                    try await store.unpack(
                        layout.appendingBytes(BytePath(":\(tag)")), into: bundle, options: options)
                    let rootfs = try FileDescriptor.workingDirectory.openDirectory(
                        bundle.appending("rootfs"))
                    try rootfs.fd.writeFileDurably("edit", Array("\(index % 6)".utf8))
                    // Equal edits make equal layers, so several publish one chain.
                    try await store.repack(bundle, into: layout.appendingBytes(BytePath(":n\(index)")))
                    #expect(try await store.delta(of: bundle).changes.map(\.path) == [".", "edit"])
                }
            }
            try await group.waitForAll()
        }
        #expect(workshop.load == (0, 0))
        for index in 0..<36 {
            let tag = ["a", "b", "c"][index % 3]
            let edit = try StoreLayer([.file("edit", "\(index % 6)")])
            let layers = try #require(images[tag])
            let reference = try world.reference(layers + [edit])
            try reference.fd.setTimes(access: .epoch, modification: .epoch)
            let again = try world.open("b\(index)/rootfs")
            try again.fd.setTimes(access: .epoch, modification: .epoch)
            let differences = try TreeCompare.differences(reference.fd, again.fd)
            #expect(differences.allSatisfy { $0.contains("edit") }, "\(differences)")
        }
        try world.expectClean()
    }

    @Test("Requests are served in the order of arrival, and one that waits leaves at once")
    func order() async throws {
        let workshop = VarveStore.Workshop(VarveStore.Workshop.Limits(calls: 1))
        let begun = Mutex<[Int]>([])
        let gate = Monitor()
        let opened = Condition()
        let isOpen = Mutex(false)
        let tickets = (0..<5).map { _ in workshop.ticket() }
        let failures = Mutex<[Int]>([])
        for (index, ticket) in tickets.enumerated() {
            workshop.enter(ticket) { place in
                guard (try? place.get()) != nil else {
                    failures.withLock { $0.append(index) }
                    return {}
                }
                begun.withLock { $0.append(index) }
                gate.locked {
                    while !isOpen.withLock({ $0 }) { gate.wait(for: opened) }
                }
                return {}
            }
        }
        while begun.withLock({ $0.isEmpty }) { usleep(1_000) }
        workshop.cancel(tickets[2])
        #expect(failures.withLock { $0 } == [2])
        #expect(workshop.load == (1, 3))
        // A ticket that was cancelled before gets no place.
        let late = workshop.ticket()
        workshop.cancel(late)
        workshop.enter(late) { place in
            if (try? place.get()) == nil { failures.withLock { $0.append(9) } }
            return {}
        }
        #expect(failures.withLock { $0 } == [2, 9])
        gate.locked {
            isOpen.withLock { $0 = true }
            opened.broadcast()
        }
        while workshop.load != (0, 0) { usleep(1_000) }
        #expect(begun.withLock { $0 } == [0, 1, 3, 4])
    }

    /// What one call has is not there for the others, and comes back.
    @Test func memoryAndHelpers() async throws {
        let workshop = VarveStore.Workshop(
            VarveStore.Workshop.Limits(calls: 4, helpers: 10, memory: 256 << 20))
        struct Shares: Sendable, Equatable { var memory: [Int] = [], helpers: [Int] = [] }
        let shares = Mutex(Shares())
        let waiting = Atomic<Int>(0)
        for _ in 0..<4 {
            workshop.enter(workshop.ticket()) { place in
                guard let place = try? place.get() else { return {} }
                shares.withLock {
                    $0.memory.append(place.memory(upTo: 96 << 20))
                    // Asked again, it is the same memory.
                    #expect(place.memory(upTo: 96 << 20) == $0.memory.last)
                    $0.helpers.append(place.helpers(upTo: 6))
                }
                waiting.add(1, ordering: .sequentiallyConsistent)
                while waiting.load(ordering: .sequentiallyConsistent) < 4 { usleep(1_000) }
                return {}
            }
        }
        while workshop.load != (0, 0) || waiting.load(ordering: .relaxed) < 4 { usleep(1_000) }
        // 32 MiB are each call's own, and 128 MiB are for who comes first.
        #expect(shares.withLock { $0.memory } == [96 << 20, 96 << 20, 32 << 20, 32 << 20])
        #expect(shares.withLock { $0.helpers } == [6, 4, 0, 0])
        let alone = Mutex(0)
        workshop.enter(workshop.ticket()) { place in
            guard let place = try? place.get() else { return {} }
            alone.withLock { $0 = place.memory(upTo: 1 << 40) }
            return {}
        }
        while workshop.load != (0, 0) || alone.withLock({ $0 }) == 0 { usleep(1_000) }
        #expect(alone.withLock { $0 } == (32 + 128) << 20)
    }

    @Test("A call that waits for a place ends when its task is cancelled", arguments: [false, true])
    func cancelledTask(_ isBefore: Bool) async throws {
        let world = try StoreWorld()
        let workshop = VarveStore.Workshop(VarveStore.Workshop.Limits(calls: 1))
        let isDone = Mutex(false)
        workshop.enter(workshop.ticket()) { _ in
            while !isDone.withLock({ $0 }) { usleep(1_000) }
            return {}
        }
        let path = world.storePath
        let task = Task {
            if isBefore { while !Task.isCancelled { await Task.yield() } }
            return try await LayerStore.open(path, workshop: workshop)
        }
        if !isBefore { while workshop.load.waiting == 0 { await Task.yield() } }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        isDone.withLock { $0 = true }
    }
}
