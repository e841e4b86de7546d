package import VarveSystem
import SystemPackage

/// Runs a source on a thread of its own, ahead of its reader.
///
///     upstream (read, verify the blob, inflate) ──▶ slabs ──▶ reader (tar, file system)
///            thread 1                                 └─────▶ observer (the digest of the uncompressed bytes)
///                                                                 thread 2
///
/// The slabs come from a `MemoryBudget`, which several streams may share so that the ones behind the one
/// being read are inflated ahead. A slab goes back when the reader and the observer are both done with it.
///
/// The reader gets the end of the stream only after the observer has seen all of it and thrown nothing; then
/// both threads are gone. An error of upstream arrives after the slabs before it. After the end, and after an
/// error, each further call of `next` gives the same.
///
/// One thread reads at a time; `cancel` may be called by any. Dropping the source cancels it.
@safe
package final class ThreadedSource: ByteSource, @unchecked Sendable {
    private let stream: SlabStream
    private let threads: [WorkerThread]
    private let cancellation: Cancellation

    /// Starts at once; upstream is asked for bytes as soon as the budget has a slab.
    /// - Parameters:
    ///   - upstream: used, and let go at its end, on the new thread.
    ///   - observer: sees the bytes on a thread of its own, while the reader has them too.
    ///   - budget: by default eight slabs for this stream alone.
    ///   - cancellation: asked before each slab; the reader then gets `PipelineError.cancelled`. A few bytes can become very many.
    /// - Throws: `PipelineError.noThread`.
    package init(
        _ upstream: sending any ByteSource, observer: sending (any ByteObserver)? = nil,
        budget: MemoryBudget = MemoryBudget(bytes: 8 * MemoryBudget.defaultSlabSize),
        cancellation: Cancellation = Cancellation()
    ) throws {
        self.cancellation = cancellation
        let stream = SlabStream(budget: budget, isObserved: observer != nil)
        self.stream = stream
        var threads: [WorkerThread] = []
        do throws(Errno) {
            let source = Handover(upstream)
            threads.append(try WorkerThread(name: "varve-inflate") { stream.produce(from: source) })
            if let observer {
                let handover = Handover(observer)
                threads.append(try WorkerThread(name: "varve-digest") { stream.observe(with: handover) })
            }
        } catch {
            stream.close()
            for thread in threads { thread.join() }
            throw PipelineError.noThread(error)
        }
        self.threads = threads
    }

    deinit {
        cancel()
        stream.giveBackLent()
    }

    package func next() throws -> UnsafeRawBufferPointer {
        if cancellation.isCancelled { throw PipelineError.cancelled }
        switch stream.next() {
        case .slab(let bytes): return unsafe bytes
        case .end(let result):
            for thread in threads { thread.join() }
            try result.get()
            return unsafe UnsafeRawBufferPointer(start: nil, count: 0)
        }
    }

    /// Stops the threads and waits for them: at most as long as one call of upstream and one of the observer
    /// take. All slabs go back but the one that the reader may still be looking at; `next` then throws
    /// `PipelineError.cancelled`, unless the stream had ended before.
    package func cancel() {
        stream.close()
        for thread in threads { thread.join() }
        stream.giveBackUnread()
    }
}

/// The slabs of one stream between its three threads. All of it is guarded by the monitor of the budget.
///
/// Slabs are numbered in the order of the stream; each thread keeps the number up to which it is done. Those
/// that somebody still needs are `ring`, of which the first has the number `first`.
@safe
private final class SlabStream: @unchecked Sendable {
    @safe
    struct Slab {
        var memory: UnsafeMutableRawPointer
        var count: Int
        var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: memory, count: count) }
    }

    @safe
    enum Next {
        case slab(UnsafeRawBufferPointer)
        case end(Result<Void, any Error>)
    }

    private let budget: MemoryBudget
    private let account = SlabAccount()
    private let isObserved: Bool
    /// Something for the reader: a slab, the end, the end of the observer.
    private let readable = Condition()
    private let observable = Condition()

    private var ring: [Slab] = []
    private var first = 0
    private var produced = 0
    private var consumed = 0
    private var observed = 0
    private var isLent = false
    /// Set by the producer when nothing more comes.
    private var production: Result<Void, any Error>?
    /// Set by the observer after all was seen.
    private var observation: Result<Void, any Error>?

    init(budget: MemoryBudget, isObserved: Bool) {
        self.budget = budget
        self.isObserved = isObserved
        budget.monitor.locked { budget.register(account) }
    }

    // MARK: - The producer's thread

    func produce(from handover: Handover<any ByteSource>) {
        var upstream: (any FillableSource)? = handover.take().map(CopyingSource.adapting)
        var result: Result<Void, any Error> = .success(())
        while let memory = unsafe budget.monitor.locked({ unsafe budget.take(for: account) }) {
            var count = 0
            do {
                let slab = unsafe UnsafeMutableRawBufferPointer(start: memory, count: budget.slabSize)
                count = try unsafe upstream?.fill(slab) ?? 0
            } catch {
                result = .failure(error)
            }
            let filled = count
            if filled == 0 {
                budget.monitor.locked { unsafe budget.giveBack(memory, from: account) }
                break
            }
            budget.monitor.locked {
                unsafe ring.append(Slab(memory: memory, count: filled))
                produced += 1
                readable.signal()
                observable.signal()
            }
        }
        // Its buffers and files go before the reader hears of the end.
        upstream = nil
        budget.monitor.locked {
            production = result
            budget.unregister(account)
            readable.signal()
            observable.signal()
        }
    }

    // MARK: - The observer's thread

    func observe(with handover: Handover<any ByteObserver>) {
        guard let observer = handover.take() else { return }
        while let bytes = unsafe nextToObserve() {
            unsafe observer.observe(bytes)
            budget.monitor.locked {
                observed += 1
                giveBackUnneeded()
            }
        }
        guard budget.monitor.locked({ !account.isClosed && isProducedWhole }) else { return }
        let result = Result { try observer.finish() }
        budget.monitor.locked {
            observation = result
            readable.signal()
        }
    }

    private var isProducedWhole: Bool {
        if case .success = production { return true }
        return false
    }

    private func nextToObserve() -> UnsafeRawBufferPointer? {
        unsafe budget.monitor.locked {
            while !account.isClosed {
                if observed < produced { return unsafe ring[observed - first].bytes }
                if production != nil { return nil }
                budget.monitor.wait(for: observable)
            }
            return nil
        }
    }

    // MARK: - The reader's thread

    func next() -> Next {
        budget.monitor.locked {
            takeBackLent()
            budget.open(account)
            budget.setStarving(account, true)
            defer { budget.setStarving(account, false) }
            while true {
                if let end { return .end(end) }
                if consumed < produced, !account.isClosed {
                    isLent = true
                    return unsafe .slab(ring[consumed - first].bytes)
                }
                budget.monitor.wait(for: readable)
            }
        }
    }

    /// How the stream ends for the reader, if there is nothing more to read.
    private var end: Result<Void, any Error>? {
        if consumed == produced, let production {
            if case .failure = production { return production }
            // Closing keeps the producer from going on, so an end that it reports afterwards may not be one.
            if !endedByClosing {
                if !isObserved { return production }
                if let observation { return observation }
            }
        }
        return account.isClosed ? .failure(PipelineError.cancelled) : nil
    }

    // MARK: - The end

    private var endedByClosing = false

    func close() {
        budget.monitor.locked {
            guard !account.isClosed else { return }
            endedByClosing = production == nil
            account.isClosed = true
            account.slabGranted.signal()
            readable.broadcast()
            observable.signal()
        }
    }

    /// After both threads have ended: nobody needs what was not read.
    func giveBackUnread() {
        budget.monitor.locked {
            let needed = isLent ? consumed + 1 : consumed
            observed = max(observed, produced)
            while first + ring.count > needed, let slab = ring.popLast() {
                unsafe budget.giveBack(slab.memory, from: account)
            }
            giveBackUnneeded()
            budget.unregister(account)
        }
    }

    func giveBackLent() { budget.monitor.locked { takeBackLent() } }

    private func takeBackLent() {
        guard isLent else { return }
        isLent = false
        consumed += 1
        giveBackUnneeded()
    }

    private func giveBackUnneeded() {
        let needed = isObserved ? min(consumed, observed) : consumed
        while first < needed, !ring.isEmpty {
            unsafe budget.giveBack(ring.removeFirst().memory, from: account)
            first += 1
        }
    }
}
