@testable import VarveArchive
import Glibc
import VarveSystem
import Testing

extension PipelineTests {
    /// One stream between its threads.
    @Suite struct PipelineThreadedSourceTests {
        static let slab = 4096

        struct Shape: Sendable {
            var length: Int
            var slabs: Int
        }

        @Test(arguments: [
            // No bytes; less than, exactly and more than a slab; many slabs.
            Shape(length: 0, slabs: 3), Shape(length: 1, slabs: 3), Shape(length: 4096, slabs: 3),
            Shape(length: 4097, slabs: 3), Shape(length: 1_000_000, slabs: 4),
            // The smallest budgets, with which the threads take turns.
            Shape(length: 100_000, slabs: 1), Shape(length: 100_000, slabs: 2),
        ])
        func keepsOrder(_ shape: Shape) throws {
            let content = sampleBytes(shape.length)
            for isObserved in [false, true] {
                let budget = MemoryBudget(bytes: shape.slabs * Self.slab, slabSize: Self.slab)
                let sum = isObserved ? OrderedSum(expected: OrderedSum.of(content)) : nil
                let source = try threaded(ArraySource(content, runLength: 1_001), sum, budget)
                #expect(try collect(source) == content)
                // The end means: all was observed, all threads are gone, all memory is back.
                if let sum {
                    #expect(sum.byteCount == content.count)
                    #expect(sum.finishCount == 1)
                }
                #expect(eventually { pipelineThreadCount() == 0 })
                #expect(budget.usedSlabCount == 0)
                #expect(budget.peakSlabCount <= shape.slabs)
            }
        }

        // The slabs are full, so that tar finds whole records.
        @Test func fillsSlabs() throws {
            let source = try ThreadedSource(
                ArraySource(sampleBytes(50_000), runLength: 777),
                budget: MemoryBudget(bytes: 16384, slabSize: 4096))
            var lengths: [Int] = []
            while case let count = try unsafe source.next().count, count > 0 { lengths.append(count) }
            #expect(lengths == [Int](repeating: 4096, count: 12) + [50_000 - 12 * 4096])
        }

        // A run stays as it is until the next one is asked for, whatever the other threads do meanwhile.
        @Test func lentRunStaysValid() throws {
            let content = sampleBytes(200_000)
            let source = try ThreadedSource(
                ArraySource(content), observer: OrderedSum(),
                budget: MemoryBudget(bytes: 2 * 4096, slabSize: 4096))
            var position = 0
            while true {
                let run = try unsafe source.next()
                if unsafe run.isEmpty { break }
                usleep(300)
                #expect(unsafe Array(run) == Array(content[position..<(position + run.count)]))
                position += run.count
            }
            #expect(position == content.count)
        }

        // A slab is not given away before a slow observer has seen it; a slow reader does not hold up the
        // observer.
        @Test(arguments: [0, 500] as [UInt32]) func slowObserver(delay: UInt32) throws {
            let content = sampleBytes(200_000)
            let sum = OrderedSum(delay: delay, expected: OrderedSum.of(content))
            let source = try ThreadedSource(
                ArraySource(content), observer: sum, budget: MemoryBudget(bytes: 3 * 4096, slabSize: 4096))
            while try unsafe !source.next().isEmpty { if delay == 0 { usleep(200) } }
            #expect(sum.value == OrderedSum.of(content))
        }

        // Slabs before the error arrive, then the error, then the error again. The observer does not finish.
        @Test func handsOnUpstreamError() throws {
            let content = sampleBytes(10 * 4096)
            let sum = OrderedSum()
            let source = try ThreadedSource(
                ArraySource(content, failsAtEnd: true), observer: sum,
                budget: MemoryBudget(bytes: 4 * 4096, slabSize: 4096))
            var read = 0
            #expect(throws: ArraySource.Failure.self) {
                while true { read += try unsafe source.next().count }
            }
            #expect(read == content.count)
            unsafe #expect(throws: ArraySource.Failure.self) { try unsafe source.next() }
            #expect(sum.finishCount == 0)
            #expect(eventually { pipelineThreadCount() == 0 })
        }

        // A wrong DiffID must come in place of the end: whoever sees the end may publish.
        @Test func handsOnObserverError() throws {
            let source = try ThreadedSource(
                ArraySource(sampleBytes(9_000)), observer: OrderedSum(expected: 1))
            #expect(throws: OrderedSum.Wrong.self) { while try unsafe !source.next().isEmpty {} }
            unsafe #expect(throws: OrderedSum.Wrong.self) { try unsafe source.next() }
            #expect(eventually { pipelineThreadCount() == 0 })
        }

        // Errors of a codec come through with their type.
        @Test func handsOnCodecError() throws {
            let source = try ThreadedSource(GzipDecoder(ArraySource([0x1f, 0x8b, 8])))
            let error = unsafe #expect(throws: CodecError.self) { try unsafe source.next() }
            #expect(error?.reason == .truncated)
        }

        @Test(arguments: [0, 1, 5]) func droppingStopsThreads(runs: Int) throws {
            let budget = MemoryBudget(bytes: 4 * 4096, slabSize: 4096)
            do {
                let source = try ThreadedSource(
                    ArraySource(sampleBytes(1_000_000)), observer: OrderedSum(delay: 100), budget: budget)
                for _ in 0..<runs { _ = try unsafe source.next() }
                #expect(eventually { pipelineThreadCount() > 0 })
            }
            #expect(eventually { pipelineThreadCount() == 0 })
            #expect(budget.usedSlabCount == 0)
        }

        // An archive whose end never comes has no entry before which somebody asks.
        @Test func askedToStop() throws {
            final class Endless: ByteSource {
                private let bytes = AlignedBuffer(count: 4096)
                func next() -> UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(bytes.bytes) }
            }
            let cancellation = Cancellation()
            let source = try ThreadedSource(Endless(), cancellation: cancellation)
            for _ in 0..<100 { #expect(try unsafe !source.next().isEmpty) }
            cancellation.cancel()
            let error = unsafe #expect(throws: PipelineError.self) { try unsafe source.next() }
            guard case .cancelled? = error else {
                Issue.record("it is \(String(describing: error))")
                return
            }
            source.cancel()
            #expect(eventually { pipelineThreadCount() == 0 })
        }

        @Test func cancelling() throws {
            let budget = MemoryBudget(bytes: 4 * 4096, slabSize: 4096)
            let content = sampleBytes(1_000_000)
            let sum = OrderedSum()
            let source = try ThreadedSource(ArraySource(content), observer: sum, budget: budget)
            _ = try unsafe source.next()
            let lent = try unsafe source.next()
            source.cancel()
            #expect(eventually { pipelineThreadCount() == 0 })
            // What the reader has in hand is still there, and nothing else.
            #expect(unsafe Array(lent) == Array(content[4096..<8192]))
            #expect(budget.usedSlabCount == 1)
            unsafe #expect(throws: PipelineError.cancelled) { try unsafe source.next() }
            #expect(budget.usedSlabCount == 0)
            #expect(sum.finishCount == 0)
            source.cancel()
        }

        // From another thread, while the reader waits for an upstream that gives nothing.
        @Test func cancellingWakesReader() throws {
            let gate = Gate()
            let source = try ThreadedSource(BlockedSource(gate))
            let result = Results()
            let reader = try WorkerThread(name: "reader") {
                do {
                    while unsafe try !source.next().isEmpty {}
                    result.add(0)
                } catch PipelineError.cancelled { result.add(1) } catch { result.add(2) }
            }
            usleep(20_000)
            let canceller = try WorkerThread(name: "canceller") { source.cancel() }
            // The reader is let go; the threads can only end when upstream lets them. It never ends by itself, so
            // whichever comes first, the gate or the cancelling, only that can end the stream.
            gate.open()
            canceller.join()
            reader.join()
            #expect(result.values == [1])
            #expect(eventually { pipelineThreadCount() == 0 })
        }

        // After the end, cancelling changes nothing.
        @Test func cancellingAfterEnd() throws {
            let source = try ThreadedSource(ArraySource([1, 2, 3]), observer: OrderedSum())
            #expect(try collect(source) == [1, 2, 3])
            source.cancel()
            #expect(try unsafe source.next().isEmpty)
        }

        // Upstream and its files are gone when the end is seen, not only when the source is dropped.
        @Test func upstreamIsLetGo() throws {
            final class Flag: @unchecked Sendable {
                let results = Results()
            }
            final class Watched: ByteSource {
                let flag: Flag
                init(_ flag: Flag) { self.flag = flag }
                deinit { flag.results.add(1) }
                func next() throws -> UnsafeRawBufferPointer {
                    unsafe UnsafeRawBufferPointer(start: nil, count: 0)
                }
            }
            let flag = Flag()
            let source = try ThreadedSource(Watched(flag))
            #expect(try unsafe source.next().isEmpty)
            #expect(flag.results.values == [1])
            withExtendedLifetime(source) {}
        }

        // All of it together, as a layer is read.
        @Test(arguments: [Compression.none, .gzip, .zstd]) func wholePipeline(_ compression: Compression)
            throws
        {
            let content = sampleBytes(3_000_000)
            let compressed = try encode(content, compression, threads: 2)
            let blobSum = OrderedSum(expected: OrderedSum.of(compressed))
            let source = try ThreadedSource(
                compression.decoder(over: TappedSource(ArraySource(compressed), observer: blobSum)),
                observer: OrderedSum(expected: OrderedSum.of(content)))
            #expect(try collect(source) == content)
        }

        // A wrong blob digest is an error of the stream, even though the content is right.
        @Test func wrongBlobDigest() throws {
            let compressed = try encode(sampleBytes(1_000), .gzip)
            let source = try ThreadedSource(
                GzipDecoder(TappedSource(ArraySource(compressed), observer: OrderedSum(expected: 1))))
            #expect(throws: OrderedSum.Wrong.self) { while try unsafe !source.next().isEmpty {} }
        }
    }

    /// Gives nothing before the gate is open.
    /// Gives nothing before the gate is open, and zeros without end afterwards.
    @safe
    final class BlockedSource: ByteSource {
        let gate: Gate
        private let zeros: UnsafeMutableRawBufferPointer
        init(_ gate: Gate) {
            self.gate = gate
            unsafe zeros = .allocate(byteCount: 4096, alignment: 16)
            unsafe zeros.initializeMemory(as: UInt8.self, repeating: 0)
        }
        deinit { unsafe zeros.deallocate() }
        func next() throws -> UnsafeRawBufferPointer {
            gate.pass()
            return unsafe UnsafeRawBufferPointer(zeros)
        }
    }
}
