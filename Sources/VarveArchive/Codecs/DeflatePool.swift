import CCodecs
import VarveSystem
import SystemPackage

/// A piece of the content, and what became of it. It belongs to one thread at a time: to the caller's while it is
/// collected and while it is written out, to one of the pool's while it is deflated.
@safe
final class DeflateBlock: @unchecked Sendable {
    static let size = 256 * 1024

    private let content = AlignedBuffer(count: size)
    private var output: AlignedBuffer?
    /// Bytes of content.
    private(set) var count = 0
    private(set) var checksum: UInt32 = 0
    private var deflatedCount = 0

    fileprivate var isLast = false
    fileprivate var isDone = false

    var isFull: Bool { count == Self.size }
    var deflated: UnsafeRawBufferPointer {
        guard let output else { return unsafe UnsafeRawBufferPointer(start: nil, count: 0) }
        return unsafe UnsafeRawBufferPointer(rebasing: output.bytes[..<deflatedCount])
    }

    fileprivate func clear() {
        count = 0
        deflatedCount = 0
        isDone = false
        isLast = false
    }

    /// Takes as many of `bytes` as there is room for; returns how many.
    func append(_ bytes: UnsafeRawBufferPointer) -> Int {
        let taken = min(bytes.count, Self.size - count)
        unsafe UnsafeMutableRawBufferPointer(rebasing: content.bytes[count..<(count + taken)])
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<taken]))
        count += taken
        return taken
    }

    /// False if what libdeflate writes is not what it was given.
    fileprivate func deflate(with deflater: OpaquePointer) -> Bool {
        let output = unsafe self.output ?? AlignedBuffer(count: varve_deflate_bound(deflater, Self.size))
        self.output = output
        let start = unsafe content.bytes.baseAddress
        checksum = unsafe varve_crc32(0, start, count)
        let written = unsafe varve_deflate_block(
            deflater, start, count, isLast ? 1 : 0, output.bytes.baseAddress, output.bytes.count)
        deflatedCount = Int(max(0, written))
        return written >= 0
    }
}

/// The threads that deflate, and the blocks on their way: two for each thread and two for the caller, so that
/// a thread finds its next block while the caller writes one out and collects another.
@safe
final class DeflatePool: Sendable {
    private let level: Int
    private let threadLimit: Int
    private let blockLimit: Int
    private let monitor = Monitor()
    private let hasWork = Condition()
    private let hasDone = Condition()
    private let state = Guarded()

    /// Guarded by the monitor.
    private final class Guarded: @unchecked Sendable {
        var threads: [WorkerThread] = []
        var idle = 0
        var blockCount = 0
        var free: [DeflateBlock] = []
        /// On their way in the order of the content.
        var ordered: [DeflateBlock] = []
        /// How many at the start of `ordered` a thread has taken.
        var taken = 0
        var isStopped = false
        var failure: CodecError.Reason?
    }

    init(level: Int, threads: Int) {
        self.level = level
        threadLimit = threads
        blockLimit = 2 * threads + 2
    }

    /// A cleared block, if there is one to spare.
    func takeFree() -> DeflateBlock? {
        monitor.locked {
            if let block = state.free.popLast() { return block }
            if state.blockCount == blockLimit { return nil }
            state.blockCount += 1
            return DeflateBlock()
        }
    }

    func recycle(_ block: DeflateBlock) {
        block.clear()
        monitor.locked { state.free.append(block) }
    }

    /// Gives a block to the threads. One more is started if all are busy and there may be more.
    /// - Throws: `PipelineError.noThread` if there is no thread at all.
    func dispatch(_ block: DeflateBlock, isLast: Bool) throws {
        block.isLast = isLast
        let needsThread = monitor.locked {
            state.ordered.append(block)
            hasWork.signal()
            return state.idle < state.ordered.count - state.taken && state.threads.count < threadLimit
        }
        guard needsThread else { return }
        do throws(Errno) {
            let thread = try WorkerThread(name: "varve-deflate") { [self] in work() }
            monitor.locked { state.threads.append(thread) }
        } catch {
            // Fewer threads write the same bytes.
            if monitor.locked({ state.threads.isEmpty }) { throw PipelineError.noThread(error) }
        }
    }

    /// The oldest block on its way, if it is deflated, or once it is. Nil if none is on its way, or none is
    /// done.
    func nextDone(wait: Bool) throws -> DeflateBlock? {
        let outcome: Result<DeflateBlock?, CodecError> = monitor.locked {
            while true {
                if let failure = state.failure { return .failure(CodecError(.gzip, failure, offset: 0)) }
                guard let oldest = state.ordered.first else { return .success(nil) }
                if oldest.isDone {
                    state.ordered.removeFirst()
                    state.taken -= 1
                    return .success(oldest)
                }
                if !wait { return .success(nil) }
                monitor.wait(for: hasDone)
            }
        }
        return try outcome.get()
    }

    /// Ends the threads, after the block that each has in hand, and waits for them.
    func stop() {
        let threads = monitor.locked {
            state.isStopped = true
            hasWork.broadcast()
            defer { state.threads = [] }
            return state.threads
        }
        for thread in threads { thread.join() }
        monitor.locked {
            state.free = []
            state.ordered = []
        }
    }

    private func work() {
        guard let deflater = unsafe varve_deflate_new(Int32(level)) else { return fail(.outOfMemory) }
        defer { unsafe varve_deflate_free(deflater) }
        while let block = takeWork() {
            guard unsafe block.deflate(with: deflater) else {
                return fail(.encoderFailed("libdeflate wrote what is not the content"))
            }
            monitor.locked {
                block.isDone = true
                hasDone.signal()
            }
        }
    }

    private func takeWork() -> DeflateBlock? {
        monitor.locked {
            while !state.isStopped {
                if state.taken < state.ordered.count {
                    state.taken += 1
                    return state.ordered[state.taken - 1]
                }
                state.idle += 1
                monitor.wait(for: hasWork)
                state.idle -= 1
            }
            return nil
        }
    }

    private func fail(_ reason: CodecError.Reason) {
        monitor.locked {
            state.failure = reason
            hasDone.signal()
        }
    }
}
