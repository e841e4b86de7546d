import Glibc
import VarveStore
import Synchronization
import VarveSystem
import SystemPackage
import Varve

// Unpacks images many times at once, through one façade, in a process of its own: what a process takes can be counted there.
//
//   crowd STORE BUNDLES COUNT CALLS LOCK IMAGE…
//
// LOCK names a chain that every image begins with. While its lock is held here, all calls wait: for a place, or with a place
// for the lock. Then every second call is cancelled, and ended, and the lock given back. Prints what it counted, one line each.

/// What the kernel says of this process.
enum Process {
    static func threads() -> Int {
        guard let opened = try? FileDescriptor.workingDirectory.openDirectory("/proc/self/task") else {
            return 0
        }
        return (try? opened.fd.entries().count) ?? 0
    }

    /// VmHWM of proc(5), bytes.
    static func peakMemory() -> Int {
        let text = (try? FileDescriptor.workingDirectory.readFile("/proc/self/status", limit: 1 << 16)) ?? []
        let line = String(decoding: text, as: UTF8.self).split(separator: "\n").first {
            $0.hasPrefix("VmHWM:")
        }
        let kibibytes = line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }
        return (kibibytes ?? 0) << 10
    }
}

/// Counts threads until it is stopped.
final class Sampler: Sendable {
    private let peak = Atomic<Int>(0)
    private let isStopped = Atomic<Bool>(false)

    func start() throws {
        try WorkerThread.detached(name: "sampler") { [self] in
            while !isStopped.load(ordering: .relaxed) {
                _ = peak.max(Process.threads(), ordering: .relaxed)
                usleep(500)
            }
        }
    }

    func stop() -> Int {
        isStopped.store(true, ordering: .relaxed)
        return peak.load(ordering: .relaxed)
    }
}

let words = CommandLine.arguments
guard words.count > 6, let count = Int(words[3]), let calls = Int(words[4]) else {
    print("usage: crowd STORE BUNDLES COUNT CALLS LOCK IMAGE…")
    exit(2)
}
let bundles = BytePath(words[2])
let images = words[6...].map { BytePath($0) }
let workshop = Workshop(Workshop.Limits(calls: calls == 0 ? nil : calls))
let store = try await LayerStore.open(BytePath(words[1]), workshop: workshop)
let locks = SharedDescriptor(
    try FileDescriptor.workingDirectory.openDirectory(BytePath(words[1]).appending("locks")))
var lock: FileLock? = try FileLock.tryExclusive(BytePath(words[5]), in: locks, isShared: true)
guard lock != nil else { fatalError("the lock is taken") }

let sampler = Sampler()
try sampler.start()
let waiting = Mutex<Set<Int>>([])
var options = Unpacking.Options()
options.chains = .all
let tasks = (0..<count).map { index in
    Task.detached { [options] in
        try await store.unpack(
            images[index % images.count], into: bundles.appending(BytePath("b\(index)")), options: options
        ) { progress in
            if case .layer(_, isWaiting: true) = progress { _ = waiting.withLock { $0.insert(index) } }
        }
    }
}
let running = min(count, workshop.limits.calls)
while workshop.load != (running, count - running) || waiting.withLock({ $0.count }) < running {
    try await Task.sleep(for: .milliseconds(2))
}
print("limit \(workshop.limits.threads)")
print("running \(running)")
print("threads \(Process.threads())")

let cancelled = (0..<count).filter { $0 % 2 == 0 }
for index in cancelled { tasks[index].cancel() }
var ended = 0
for index in cancelled {
    do { _ = try await tasks[index].value } catch is CancellationError {
        ended += 1
    }
}
print("cancelled \(ended)")
lock = nil
var done = 0
for index in 0..<count where index % 2 == 1 {
    _ = try await tasks[index].value
    done += 1
}
print("done \(done)")
print("peak \(sampler.stop())")
print("memory \(Process.peakMemory())")
print("processors \(sysconf(Int32(_SC_NPROCESSORS_ONLN)))")
