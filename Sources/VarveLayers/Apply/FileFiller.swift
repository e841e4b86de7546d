import VarveSystem
import SystemPackage

/// Fills new files on a thread of its own, in the order in which they come, while the caller reads the archive and makes
/// the next ones: most of the time of a layer goes into the names of its files and into their content, and the two
/// do not need each other.
///
/// Nothing that is done to names later changes what becomes of an open file, so only the end must be waited for. The
/// content is copied into a ring of `capacity` bytes, because the archive's buffer is the next one's by then.
///
/// One thread gives files, and ends with `finish` or `cancel`.
@safe
final class FileFiller: @unchecked Sendable {
    /// Bytes of the ring.
    private static let capacity = 4 << 20
    /// A longer run is cut. So little of the ring is lost at its end that a run always fits once all others are done.
    private static let longestRun = capacity / 4
    /// Each file keeps a descriptor open.
    private static let stepLimit = 128

    /// A run of a file's content; the last one ends it.
    @safe
    private struct Step {
        var file: NewFile
        var bytes: UnsafeRawBufferPointer
        var offset: Int64 = 0
        var isLast = false
        /// How far the ring is free once this is done.
        var ringEnd: Int
    }

    private let metadata: EntryMetadata
    private let digests: ContentDigests?
    private let ring: UnsafeMutableRawBufferPointer
    private let monitor = Monitor()
    private let changed = Condition()
    private var thread: WorkerThread?
    /// The caller's own: not yet given to the thread, because it may be the last run of its file.
    private var held: Step?

    // Guarded by the monitor. Positions in the ring count on and never come back.
    private var steps: [Step] = []
    private var first = 0
    private var taken = 0
    private var freed = 0
    private var isFillerWaiting = false
    private var isCallerWaiting = false
    private var isEnded = false
    private var failure: (any Error)?

    /// - Throws: the error of pthread_create(3).
    init(_ metadata: EntryMetadata, digests: ContentDigests?) throws(Errno) {
        self.metadata = metadata
        self.digests = digests
        unsafe ring = .allocate(byteCount: Self.capacity, alignment: 4096)
        thread = try WorkerThread(name: "varve-files") { [unowned self] in fill() }
    }

    deinit {
        cancel()
        unsafe ring.deallocate()
    }

    // MARK: - The caller's thread

    /// The next bytes of `file`. Throws what went wrong with a file before.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64, to file: NewFile) throws {
        var offset = offset
        var rest = unsafe bytes
        while unsafe !rest.isEmpty {
            let count = min(rest.count, Self.longestRun)
            let (place, end) = unsafe try reserve(count)
            unsafe place.copyMemory(from: UnsafeRawBufferPointer(rebasing: rest[..<count]))
            unsafe held = Step(file: file, bytes: UnsafeRawBufferPointer(place), offset: offset, ringEnd: end)
            unsafe rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            offset += Int64(count)
        }
    }

    /// No more bytes come for `file`.
    func end(_ file: NewFile) throws {
        var step = unsafe held ?? Step(file: file, bytes: .init(start: nil, count: 0), ringEnd: taken)
        held = nil
        step.isLast = true
        try monitor.locked {
            while steps.count - first >= Self.stepLimit, failure == nil { waitForFiller() }
            if let failure { throw failure }
            give(step)
        }
    }

    /// Waits until all files are done. Throws what went wrong with one of them.
    func finish() throws {
        monitor.locked {
            isEnded = true
            changed.broadcast()
        }
        thread?.join()
        if let failure { throw failure }
    }

    /// Stops after the run in hand: the other files stay as they are.
    func cancel() {
        monitor.locked {
            steps.removeAll()
            first = 0
            isEnded = true
            changed.broadcast()
        }
        thread?.join()
        held = nil
    }

    /// Room for `count` bytes in one piece, and where the next room begins. What was held goes on its way.
    private func reserve(_ count: Int) throws -> (UnsafeMutableRawBufferPointer, end: Int) {
        unsafe try monitor.locked {
            if let held { give(held) }
            held = nil
            let toEnd = Self.capacity - taken % Self.capacity
            if toEnd < count { taken += toEnd }
            while taken + count - freed > Self.capacity, failure == nil { waitForFiller() }
            if let failure { throw failure }
            let start = taken % Self.capacity
            taken += count
            return unsafe (UnsafeMutableRawBufferPointer(rebasing: ring[start..<start + count]), taken)
        }
    }

    private func give(_ step: Step) {
        steps.append(step)
        if isFillerWaiting { changed.broadcast() }
    }

    private func waitForFiller() {
        isCallerWaiting = true
        monitor.wait(for: changed)
        isCallerWaiting = false
    }

    // MARK: - The filler's thread

    private func fill() {
        var done: Step?
        while let step = next(after: done) {
            do {
                if unsafe !step.bytes.isEmpty { unsafe try step.file.write(step.bytes, at: step.offset) }
                if step.isLast { try step.file.finish(metadata, digests: digests) }
            } catch {
                return monitor.locked {
                    failure = error
                    steps.removeAll()
                    first = 0
                    changed.broadcast()
                }
            }
            done = step
        }
    }

    private func next(after done: Step?) -> Step? {
        monitor.locked {
            if let done {
                freed = done.ringEnd
                if isCallerWaiting { changed.broadcast() }
            }
            while first == steps.count {
                steps.removeAll(keepingCapacity: true)
                first = 0
                if isEnded { return nil }
                isFillerWaiting = true
                monitor.wait(for: changed)
                isFillerWaiting = false
            }
            first += 1
            return steps[first - 1]
        }
    }
}
