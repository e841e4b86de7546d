import Glibc
import VarveStore
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// Processes that die, and processes that work on one store together.
@Suite(.serialized) struct EngineKillTests {
    static func example() throws -> String { try builtProgram("embedding-example") }

    static func wait(_ pid: pid_t) -> CInt {
        var status: CInt = 0
        while unsafe waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return status
    }

    private static let clockStart = ContinuousClock.now

    static func microseconds() -> Int {
        let time = clockStart.duration(to: .now).components
        return Int(time.seconds) * 1_000_000 + Int(time.attoseconds / 1_000_000_000_000)
    }

    static func layers() throws -> [StoreLayer] {
        try (0..<6).map { layer in
            var entries: [StoreEntry] = [.directory("./"), .directory(BytePath("d\(layer)/"))]
            for file in 0..<60 {
                let byte = UInt8(truncatingIfNeeded: layer * 60 + file)
                entries.append(
                    .bytes(BytePath("d\(layer)/f\(file)"), Array(repeating: byte, count: 3000 + file * 100)))
            }
            entries.append(.file("shared", "layer \(layer)"))
            if layer > 1 { entries.append(.file(BytePath("d\(layer - 2)/.wh.f1"))) }
            if layer == 4 { entries.append(.file("d0/.wh..wh..opq")) }
            return try StoreLayer(entries)
        }
    }

    @Test(
        "kill -9 at 50 random moments of an unpack: no wrong chain is ever seen, nothing stays, the next unpack succeeds"
    )
    func killed() throws {
        let world = try StoreWorld()
        let layers = try Self.layers()
        try world.addImage("a", layers)
        let names = try world.chainNames(layers)
        var references: [String: SharedDescriptor] = [:]
        for (index, name) in names.enumerated() {
            references[name] = try world.reference(Array(layers[...index]))
        }
        let example = try Self.example()
        let arguments = [example, "\(world.storePath)", "\(world.layoutPath):a", "\(world.bundle())"]

        func cleanUp(_ store: SnapshotStore) throws {
            for bundle in ["bundle", "next"]
            where try world.volume.root.statusIfPresent(of: BytePath(bundle)) != nil {
                try store.removeBundle(world.bundle(bundle))
            }
            for chain in try store.chains.all() { try store.chains.remove(chain.name) }
        }

        // How long a whole run takes, so that the moments are spread over it.
        let start = Self.microseconds()
        #expect(Self.wait(try startProgram(arguments)) == 0)
        let whole = Self.microseconds() - start
        try cleanUp(try world.store())

        var random = SystemRandomNumberGenerator()
        var partly = 0
        for round in 0..<50 {
            let pid = try startProgram(arguments)
            let moment = Int.random(in: 0...whole, using: &random)
            usleep(UInt32(moment))
            kill(pid, SIGKILL)
            _ = Self.wait(pid)

            // Before anything cleans up: what is visible is whole.
            let visible = try world.chains
            if (1..<names.count).contains(visible.count) { partly += 1 }
            for name in visible {
                guard let reference = references[name] else {
                    // The example repacks too, when it gets that far: that chain is another test's matter.
                    continue
                }
                let chain = try world.open("store/chains/\(name)/rootfs")
                let differences = try TreeCompare.differences(reference.fd, chain.fd)
                #expect(differences == [], "round \(round), killed after \(moment) µs: \(name)")
            }
            let store = try world.store()
            #expect(try world.names(in: "store/work") == [], "round \(round)")
            let result = try world.unpack("a", "next")
            #expect(result.layersInPlace >= visible.count { references[$0] != nil })
            let next = try world.open("next/rootfs")
            let top = try #require(references[names[names.count - 1]])
            #expect(try TreeCompare.differences(top.fd, next.fd) == [], "round \(round)")
            try cleanUp(store)
            try world.expectClean()
        }
        #expect(partly > 0, "no process was killed between its first chain and its last")
    }

    @Test("Three processes unpack the same image at once: all succeed, and every chain is right")
    func processes() throws {
        let world = try StoreWorld()
        let layers = try Self.layers()
        try world.addImage("a", layers)
        let example = try Self.example()
        let pids = try (0..<3).map {
            try startProgram([
                example, "\(world.storePath)", "\(world.layoutPath):a", "\(world.bundle("bundle\($0)"))",
            ])
        }
        for pid in pids { #expect(Self.wait(pid) == 0) }
        let names = try world.chainNames(layers)
        let chains = try world.chains
        for (index, name) in names.enumerated() {
            #expect(chains.contains(name))
            let chain = try world.open("store/chains/\(name)/rootfs")
            let reference = try world.reference(Array(layers[...index]))
            #expect(try TreeCompare.differences(reference.fd, chain.fd) == [])
        }
        try world.expectClean()
    }
}
