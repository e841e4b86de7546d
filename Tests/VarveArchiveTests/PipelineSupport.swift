@testable import VarveArchive
import Glibc
import VarveSystem
import SystemPackage
import Testing

/// Everything that starts threads of ours, one after another, so that threads that stay can be counted.
@Suite(.serialized) enum PipelineTests {}

/// Threads of this process with this name.
func threadCount(_ name: String) -> Int {
    let tasks = BytePath("/proc/self/task")
    guard let directory = try? FileDescriptor.workingDirectory.open(tasks, [.readOnly]),
        let entries = try? directory.fd.entries()
    else { return -1 }
    return entries.count {
        // A thread that ends meanwhile has no file any more.
        guard let comm = try? readFile("\(tasks)/\($0.name)/comm") else { return false }
        return comm.dropLast() == Array(name.utf8)[...]
    }
}

/// Threads of pipelines that exist now. A thread has its name only once it runs, and its entry in /proc may
/// outlive pthread_join(3) for a moment: ask `eventually`.
func pipelineThreadCount() -> Int { threadCount("varve-inflate") + threadCount("varve-digest") }

/// Numbers noted by several threads.
final class Results: @unchecked Sendable {
    private let monitor = Monitor()
    private var list: [Int] = []
    func add(_ value: Int) { monitor.locked { list.append(value) } }
    var values: [Int] { monitor.locked { list } }
}

/// Lets threads through when it is opened.
final class Gate: @unchecked Sendable {
    private let monitor = Monitor()
    private let opened = Condition()
    private var isOpen = false
    func open() {
        monitor.locked {
            isOpen = true
            opened.broadcast()
        }
    }
    func pass() { monitor.locked { while !isOpen { monitor.wait(for: opened) } } }
}

/// A sum that depends on the order of all bytes, made on another thread.
final class OrderedSum: ByteObserver, @unchecked Sendable {
    struct Wrong: Error, Equatable {}

    private let monitor = Monitor()
    private var sum: UInt64 = 0
    private var count = 0
    private var finishes = 0
    private let delay: UInt32
    private let expected: UInt64?

    /// Waits so many microseconds at each run.
    init(delay: UInt32 = 0, expected: UInt64? = nil) {
        self.delay = delay
        self.expected = expected
    }

    static func of(_ bytes: [UInt8]) -> UInt64 {
        let sum = OrderedSum()
        unsafe bytes.withUnsafeBytes { unsafe sum.observe($0) }
        return sum.value
    }

    var value: UInt64 { monitor.locked { sum } }
    var byteCount: Int { monitor.locked { count } }
    var finishCount: Int { monitor.locked { finishes } }

    func observe(_ bytes: UnsafeRawBufferPointer) {
        if delay > 0 { usleep(delay) }
        monitor.locked {
            // FNV-1a, of every 61st byte to be quick in debug builds.
            var index = (61 - count % 61) % 61
            while index < bytes.count {
                sum = (sum ^ UInt64(unsafe bytes[index])) &* 0x100_0000_01b3
                index += 61
            }
            count += bytes.count
        }
    }

    func finish() throws {
        let isWrong = monitor.locked {
            finishes += 1
            return expected != nil && expected != sum
        }
        if isWrong { throw Wrong() }
    }
}

/// Waits until `condition` holds; false after five seconds.
func eventually(_ condition: () -> Bool) -> Bool {
    for _ in 0..<5000 {
        if condition() { return true }
        usleep(1000)
    }
    return false
}

func threaded(
    _ upstream: sending any ByteSource, _ sum: OrderedSum?, _ budget: MemoryBudget
) throws -> ThreadedSource {
    guard let sum else { return try ThreadedSource(upstream, budget: budget) }
    return try ThreadedSource(upstream, observer: sum, budget: budget)
}
